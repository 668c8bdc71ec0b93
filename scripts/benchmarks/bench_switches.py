"""Measure what the memory and speed switches do to a training step of VideoCLIP.

python scripts/benchmarks/bench_switches.py                            # all of them, several minutes
python scripts/benchmarks/bench_switches.py --variants bf16 --pairs 32

The step is that of 128 pairs of 8 to 61 words and 3 to 32 seconds, hidden size 384, 12 heads, 3 video and 6 text
layers, with AdamW. Each switch runs in a process of its own that alternates its steps with plain ones (float32, eager).
Seconds are those that the processor worked, summed over threads, which other programs disturb less than the clock; the
ratio of the medians is what means the same elsewhere. The peak memory is that of another process, which does nothing
else.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from mmpt.losses.contrastive import MMContraLoss
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.modules.compiling import compile_layers
from mmpt.utils.files import write_json

__all__ = ["main"]

SECONDS, WORDS = 32, 64
VARIANTS = ("plain", "gradient_checkpointing", "bf16", "bf16_autocast", "compile", "fused", "foreach", "padded")
_GIB = 2**20  # of the KiB that getrusage counts


def batches(pairs: int) -> Iterator[dict[str, Tensor]]:
    """Yield batches of pairs of 8 to 61 words and 3 to 32 seconds."""
    generator = torch.Generator().manual_seed(0)
    while True:
        words = torch.randint(8, 62, (pairs, 1), generator=generator)
        seconds = torch.randint(3, SECONDS + 1, (pairs, 1), generator=generator)
        caps = torch.randint(999, 30_000, (pairs, WORDS), generator=generator)
        cmasks, vmasks = torch.arange(WORDS)[None] < words + 3, torch.arange(SECONDS)[None] < seconds
        vfeats = torch.randn(pairs, SECONDS, 512, generator=generator) * vmasks[..., None]
        yield {"caps": caps.where(cmasks, 0), "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks}


def build(variant: str, layers: int) -> MMFusionSeparate:
    """Build the two towers, with what a variant changes of them."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": layers, "intermediate_size": 1536}
        (Path(folder) / "config.json").write_text(json.dumps(sizes | {"model_type": "bert", "vocab_size": 30522}))
        torch.manual_seed(0)
        model = MMFusionSeparate(
            {
                "dataset": {"bert_name": folder, "max_video_len": SECONDS, "max_len": SECONDS + WORDS},
                "model": {
                    "num_hidden_video_layers": max(layers // 2, 1),
                    "input_dim": 512,
                    "init": "random",
                    "gradient_checkpointing": variant == "gradient_checkpointing",
                    "packed": variant != "padded",
                },
            }
        )
    if variant == "compile":
        compile_layers(model, "default")
    return model.bfloat16() if variant == "bf16" else model


class Training:
    """A model, its optimizer, and the step of a variant."""

    def __init__(self, variant: str, layers: int) -> None:
        self.variant = variant
        self.model = build(variant, layers).train()
        self.weights = list(self.model.parameters())
        # fairseq's --bf16 keeps float32 copies of the weights, which the optimizer works on
        self.masters = [nn.Parameter(weight.float()) for weight in self.weights] if variant == "bf16" else self.weights
        how: dict[str, Any] = {"fused": {"fused": True}, "foreach": {"foreach": True}}.get(variant, {"foreach": False})
        self.optimizer = torch.optim.AdamW(self.masters, lr=5e-5, betas=(0.9, 0.98), **how)
        self.loss = MMContraLoss()

    def step(self, batch: dict[str, Tensor]) -> None:
        """Do one update."""
        if self.variant == "bf16":
            batch = {**batch, "vfeats": batch["vfeats"].bfloat16()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.variant == "bf16_autocast"):
            outputs = self.model(**batch)
        self.loss(**batch, **outputs).backward()
        self.update()

    def update(self) -> None:
        """Do what follows the backward pass."""
        if self.masters is not self.weights:
            for master, weight in zip(self.masters, self.weights, strict=True):
                master.grad = None if weight.grad is None else weight.grad.float()
                weight.grad = None
        nn.utils.clip_grad_norm_(self.masters, 2.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters is not self.weights:
            with torch.no_grad():
                for master, weight in zip(self.masters, self.weights, strict=True):
                    weight.copy_(master)


def times(variant: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of a step and of an update, and of plain ones in turn; ``first`` is the first step."""
    torch.set_num_threads(options.threads)
    data = batches(options.pairs)
    ways = {"plain": Training("plain", options.layers), "own": Training(variant, options.layers)}
    seconds: dict[str, list[float]] = {"plain": [], "own": []}
    for _ in range(options.rounds + 1):
        batch = next(data)
        for name, training in ways.items():
            begin = time.process_time()
            training.step(batch)
            seconds[name].append(time.process_time() - begin)
    measured = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    updates = {name: _update_seconds(training, options.rounds) for name, training in ways.items()}
    return measured | {"first": seconds["own"][0], "update": updates["own"], "plain_update": updates["plain"]}


def _update_seconds(training: Training, rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        for weight in training.weights:
            weight.grad = torch.full_like(weight, 1e-3)
        begin = time.process_time()
        training.update()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def peak(variant: str, options: argparse.Namespace) -> dict[str, float]:
    """Return the GiB of memory at the most: ``peak`` of the process, ``step`` of that while the step was done."""
    torch.set_num_threads(options.threads)
    training, data = Training(variant, options.layers), batches(options.pairs)
    for weight in training.weights:
        weight.grad = torch.zeros_like(weight)
    training.update()  # makes the optimizer's state
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        training.step(next(data))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": after / _GIB, "step": (after - before) / _GIB}


def _in_a_process(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of a batch (default 128)")
    parser.add_argument("--layers", type=int, default=6, help="text layers; half as many for the video (default 6)")
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    figures: dict[str, dict[str, float]] = {}
    print(
        f"{'':<24}{'step s':>8}{'plain s':>9}{'speed':>8}{'update s':>10}{'first s':>9}{'peak GiB':>10}{'step GiB':>10}"
    )
    for variant in options.variants:
        one = _in_a_process(times, variant, options) | _in_a_process(peak, variant, options)
        one["speed"] = one["plain"] / one["own"]
        figures[variant] = one
        columns = ("own", "plain", "speed", "update", "first", "peak", "step")
        row = "".join(f"{one[name]:>10.3f}" for name in columns)
        print(f"{variant:<24}{row}", flush=True)
    if options.json:
        write_json(options.json, {"pairs": options.pairs, "threads": options.threads, "variants": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
