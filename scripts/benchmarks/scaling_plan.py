"""Compute, on paper, what VideoCLIP's training moves and takes on many GPUs: the tables of docs/scaling.md.

python scripts/benchmarks/scaling_plan.py                                # 8, 64 and 512 GPUs
python scripts/benchmarks/scaling_plan.py --gpus 16 --network-gb 25      # another cluster
python scripts/benchmarks/scaling_plan.py --peak-tflops 312 --nvlink-gb 300

Nothing is measured here: sizes are counted from the model, times are bytes or operations divided by what the flags
assume. One process per GPU; collectives go first over NVLink inside a node, then over the network, each GPU through an
adapter of its own; nothing overlaps (fairseq's legacy_ddp), so that communication is an upper bound.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from scripts.benchmarks.videoclip_step import SECONDS, WORDS, videoclip

__all__ = ["Plan", "main", "parameters"]

#: BERT-base, with the published 6 video layers.
BASE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
VIDEO_LAYERS = 6
#: Mean tokens of a pair (random_pairs): seconds with [CLS] and [SEP], words with [CLS] and [SEP].
VIDEO_TOKENS, TEXT_TOKENS = (3 + SECONDS) / 2 + 2, (8 + WORDS) / 2 + 2
GB, MB = 1e9, 1e6


def parameters() -> int:
    """Count the parameters of VideoCLIP at its published size; no memory is taken."""
    with torch.device("meta"):
        return sum(value.numel() for value in videoclip(VIDEO_LAYERS, **BASE).parameters())


@dataclass(frozen=True)
class Plan:
    """One cluster and recipe. Speeds are per GPU and direction, in GB/s; times in seconds; sizes in bytes."""

    gpus: int
    parameters: int
    gpus_per_node: int = 8
    pairs: int = 512
    width: int = 768
    gradient_bytes: int = 4
    nvlink_gb: float = 450
    network_gb: float = 50
    peak_tflops: float = 989
    utilisation: float = 0.35
    videos: int = 1_200_000
    videos_per_group: int = 32
    cpu_tflops: float = 1.0

    @property
    def nodes(self) -> int:
        """Machines, the last maybe not full."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def per_node(self) -> int:
        """GPUs of one machine that take part."""
        return min(self.gpus, self.gpus_per_node)

    def time(self, over_nvlink: float, over_network: float) -> float:
        """Return the seconds of bytes per GPU over either link, one after the other."""
        return over_nvlink / (self.nvlink_gb * GB) + over_network / (self.network_gb * GB)

    def step_flop(self) -> float:
        """Operations of one step on one GPU: 6 per weight and token, 12 L H per token and layer for attention."""
        total = 0.0
        for tokens, layers in ((VIDEO_TOKENS, VIDEO_LAYERS), (TEXT_TOKENS, BASE["num_hidden_layers"])):
            weights = 12 * self.width**2 * layers
            total += self.pairs * tokens * (6 * weights + 12 * tokens * self.width * layers)
        return total

    def compute_seconds(self) -> float:
        """Time of the forward and backward pass of both towers."""
        return self.step_flop() / (self.peak_tflops * 1e12 * self.utilisation)

    def gradient_traffic(self) -> tuple[float, float]:
        """Bytes a GPU sends in the all-reduce: within the node 2 (k-1)/k of all, between nodes 2 (n-1)/n of a k-th."""
        size, k, n = self.parameters * self.gradient_bytes, self.per_node, self.nodes
        return 2 * (k - 1) / k * size, 2 * (n - 1) / n * size / k

    def gather_traffic(self) -> tuple[float, float]:
        """Bytes a GPU receives of the vectors, and again sends of their gradients: two float32 vectors a pair."""
        rows = self.pairs * 2 * self.width * 4
        foreign = (self.gpus - self.per_node) * rows
        # each adapter brings its share of what other nodes have; NVLink hands it round
        return 2 * (self.gpus - 1) * rows, 2 * foreign / self.per_node

    def loss_bytes(self) -> int:
        """Scores of one direction on one GPU: local x global, float32."""
        return self.pairs * self.pairs * self.gpus * 4

    def loss_flop(self) -> float:
        """Operations of the scores, both directions, forward and backward."""
        return 2 * 3 * 2.0 * self.pairs * (self.pairs * self.gpus) * self.width

    def loss_seconds(self) -> float:
        """Time of the scores, in float32 at an eighth of the peak of half precision."""
        return self.loss_flop() / (self.peak_tflops / 8 * 1e12 * self.utilisation)

    def step_seconds(self, everyone: bool) -> float:
        """Seconds of an update, with per-worker or global negatives."""
        gathered = self.time(*self.gather_traffic()) + self.loss_seconds() if everyone else 0.0
        return self.compute_seconds() + self.time(*self.gradient_traffic()) + gathered

    def read_per_node(self, everyone: bool) -> tuple[float, float]:
        """Return clips/s and bytes/s (fp16 features of 512, int32 tokens) that the GPUs of a node take."""
        clips = self.per_node * self.pairs / self.step_seconds(everyone)
        return clips, clips * ((3 + SECONDS) / 2 * 512 * 2 + TEXT_TOKENS * 4)

    def updates_per_epoch(self) -> float:
        """Every video once, each GPU a group of them at a time."""
        return self.videos / self.videos_per_group / self.gpus

    def retrieval(self) -> dict[str, float]:
        """One retrieval of an epoch's groups: embedding is shared, the first worker gathers and searches for all."""
        forward = self.step_flop() / 3 * self.videos / self.videos_per_group / self.gpus
        vectors = self.videos * self.width * 4
        return {
            "embed_seconds": forward / (self.peak_tflops * 1e12 * self.utilisation),
            "vectors_bytes": vectors,
            "first_bytes": 4 * vectors,  # parts, all of them, in order, in the pool
            "search_seconds": 2.0 * self.width * self.videos**2 / self.videos_per_group / (self.cpu_tflops * 1e12),
        }  # fmt: skip


def _table(head: list[str], rows: list[list[str]]) -> None:
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def report(plans: list[Plan]) -> None:
    """Print the tables, in Markdown."""
    one = plans[0]
    print(f"parameters {one.parameters:,}; {one.step_flop() / 1e12:.1f} TFLOP a step and GPU of {one.pairs} pairs")
    print(f"compute {1e3 * one.compute_seconds():.1f} ms at {one.peak_tflops:g} TFLOP/s x {one.utilisation:g}")
    moved, times, data, epochs = [], [], [], []
    for plan in plans:
        name, (gn, gx), (vn, vx) = f"{plan.gpus:,}", plan.gradient_traffic(), plan.gather_traffic()
        moved.append([name, *(f"{value / MB:,.0f}" for value in (gn, gx, vn, vx, plan.loss_bytes()))])
        parts = (plan.compute_seconds(), plan.time(gn, gx), plan.time(vn, vx), plan.loss_seconds())
        shares = (plan.compute_seconds() / plan.step_seconds(everyone) for everyone in (False, True))
        times.append([name, *(f"{1e3 * value:.1f}" for value in parts), *(f"{100 * value:.0f} %" for value in shares)])
        clips, read = plan.read_per_node(True)
        data.append([name, f"{plan.gpus * plan.pairs:,}", f"{clips:,.0f}", f"{read / MB:,.0f}"])
        found = plan.retrieval()
        epoch = plan.updates_per_epoch() * plan.step_seconds(True)
        epochs.append([
            name, f"{plan.updates_per_epoch():,.0f}", f"{epoch:,.0f}", f"{found['embed_seconds']:,.0f}",
            f"{found['search_seconds']:,.0f}", f"{found['first_bytes'] / GB:.0f}",
        ])  # fmt: skip
    _table(["GPUs", "gradients, NVLink MB", "gradients, network MB", "vectors, NVLink MB", "vectors, network MB",
            "scores, MB"], moved)  # fmt: skip
    _table(["GPUs", "compute ms", "all-reduce ms", "gather ms", "scores ms", "efficiency, per-worker",
            "efficiency, global"], times)  # fmt: skip
    _table(["GPUs", "pairs an update", "clips/s a node", "MB/s a node"], data)
    _table(["GPUs", "updates an epoch", "training s", "embedding s", "search s",
            "vectors in the first worker's memory, GB"], epochs)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the plan; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    names = [name for name in Plan.__dataclass_fields__ if name not in ("gpus", "parameters")]
    for name in names:
        default = Plan.__dataclass_fields__[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"({default:,})")
    options = vars(parser.parse_args(arguments))
    counts, weights = options.pop("gpus"), parameters()
    report([Plan(gpus, weights, **options) for gpus in counts])
    return 0


if __name__ == "__main__":
    sys.exit(main())
