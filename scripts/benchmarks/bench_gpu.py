"""Measure the six systems and the extraction of features on a GPU: times, memory, utilisation, kernels that ran.

    python scripts/benchmarks/bench_gpu.py                                # the six base sizes and S3D, on one GPU
    python scripts/benchmarks/bench_gpu.py --systems violet --samples 64
    python scripts/benchmarks/bench_gpu.py --device cpu --tiny            # whether it runs; its figures mean nothing

A step is forward, loss, backward and fused AdamW: weights of bfloat16 with copies of float32, as fairseq trains with
``--bf16``. Times are medians between CUDA events, after steps that are not counted. Utilisation is the operations of
a step's matrix products, convolutions and attention, as torch counts them, over its time and the peak rate of the
device: dense bf16, as its data sheet says (``--peak-tflops`` for others). Kernels are those that torch.profiler saw.

Exit code: 0; 2 if the device is not there.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor
from torch.autograd import DeviceType

from mmpt.modules.feature_encoders import S3DEncoder, frames_to_video
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.utils.files import write_json
from scripts.benchmarks.bench_extract import make_videos
from scripts.benchmarks.flops import count
from scripts.benchmarks.s3d_step import clips
from scripts.benchmarks.systems import SYSTEMS, System

__all__ = ["ATTENTION_KERNELS", "PEAK_TFLOPS", "attention_kernels", "kernel_shares", "main", "peak_of"]

#: Dense bf16 TFLOP/s by a part of the device's name, the first that fits. They are NVIDIA's data sheets' (half of what
#: is given with sparsity), as public tables repeat them; a device whose rate could not be checked is not here.
PEAK_TFLOPS: dict[str, float] = {
    "H200": 989.5,  # H200 data sheet, SXM: 1,979 with sparsity
    "H100 PCIe": 756.5,  # H100 data sheet, PCIe: 1,513 with sparsity
    "H100": 989.5,  # H100 data sheet, SXM: 1,979 with sparsity
    "A100": 312.0,  # A100 data sheet: 624 with sparsity
    "A40": 149.7,  # A40 data sheet: 299.3 with sparsity
    "A10": 125.0,  # A10 data sheet: 250 with sparsity
    "L40S": 362.0,  # L40S data sheet: 362.05, and 733 with sparsity
    "L4": 121.0,  # L4 data sheet: 242 with sparsity
    "RTX 4090": 165.2,  # Ada architecture white paper, float32 accumulation: 330.3 with sparsity
}
#: Words of names of devices that have a part of the chip, or another clock: NVLink bridges, notebooks, China's, slices.
_OTHER_CHIPS = {"NVL", "Laptop", "D", "MIG"}

#: Kind of attention -> what the names of its kernels and operators contain.
ATTENTION_KERNELS: dict[str, tuple[str, ...]] = {
    "flash": ("flash_fwd", "flash_bwd", "flash_attention", "flash::"),
    "memory-efficient": ("fmha_cutlass", "efficient_attention"),
    "cudnn": ("cudnn_generated_fort_native_sdpa", "cudnn_attention"),
    "math": ("attention_math",),
}


def peak_of(name: str) -> float | None:
    """Return the dense bf16 TFLOP/s of a device by its name, None if its rate is not known."""
    words = name.replace("-", " ").split()
    if _OTHER_CHIPS.intersection(words):
        return None
    return next((peak for part, peak in PEAK_TFLOPS.items() if all(word in words for word in part.split())), None)


def attention_kernels(names: Sequence[str]) -> list[str]:
    """Return which kinds of attention are among the names of kernels and operators."""
    lower = [name.lower() for name in names]
    return [kind for kind, parts in ATTENTION_KERNELS.items() if any(part in name for part in parts for name in lower)]


class _Training:
    """A model whose weights are bfloat16, copies of them in float32, and a batch."""

    def __init__(self, system: System, size: str, samples: int, device: torch.device) -> None:
        self.model = system.model(size).train().to(device, torch.bfloat16)
        self.loss = system.loss
        self.batch = {key: _on(value, device) for key, value in system.batch(size, samples).items()}
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.copies = [weight.detach().float() for weight in self.weights]
        for copy in self.copies:
            copy.grad = torch.zeros_like(copy)
        self.optimizer = torch.optim.AdamW(self.copies, lr=1e-5, fused=True)

    def forward_backward(self) -> None:
        self.loss(**{**self.batch, **self.model(**self.batch)}).backward()

    def step(self) -> None:
        self.forward_backward()
        used = [(copy.grad, weight.grad) for copy, weight in zip(self.copies, self.weights, strict=True)]
        torch._foreach_copy_([mine for mine, given in used if given is not None], [g for _, g in used if g is not None])
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.copies)
        self.model.zero_grad(set_to_none=True)


def _on(value: Any, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, torch.bfloat16 if value.is_floating_point() else value.dtype)


def _seconds(call: Callable[[], Any], device: torch.device, warm_up: int, rounds: int) -> float:
    """Return the median seconds of a call."""
    for _ in range(warm_up):
        call()
    if device.type != "cuda":
        return statistics.median(_wall(call) for _ in range(rounds))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    torch.cuda.synchronize(device)
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    torch.cuda.synchronize(device)
    return statistics.median(a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(events))


def _wall(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _kernels(call: Callable[[], Any], device: torch.device) -> tuple[dict[str, float], list[str]]:
    """Return the share of the time of each kernel (operator on a CPU) of a call, most first, and all that was seen."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as profiler:
        call()
        if cuda:
            torch.cuda.synchronize(device)
    events = profiler.key_averages()
    return kernel_shares(events, cuda), [event.key for event in events]


def kernel_shares(events: Iterable[Any], cuda: bool) -> dict[str, float]:
    """Return the share of the time of each kernel, or of each operator of a CPU, most first.

    On a GPU the profiler gives a kernel's time twice, to it and to the operator that launched it: kernels alone count.
    """
    if cuda:
        # ranges that code names, as optimizers their step, lie over kernels that are there themselves
        of_device = [event for event in events if event.device_type == DeviceType.CUDA]
        own = [event for event in of_device if not getattr(event, "is_user_annotation", False)]
        times = {event.key: float(event.self_device_time_total) for event in own}
    else:
        times = {event.key: float(event.self_cpu_time_total) for event in events}
    total = sum(times.values()) or 1.0
    return {name: taken / total for name, taken in sorted(times.items(), key=lambda item: -item[1]) if taken > 0}


def _training(system: System, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    size, samples = ("tiny", 2) if options.tiny else ("base", options.samples or system.samples)
    training = _Training(system, size, samples, device)
    operations = count(training.forward_backward)
    training.model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(training.step, device, options.warm_up, options.rounds)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    kernels, seen = _kernels(training.step, device)
    return {
        "samples": samples, "unit": system.unit, "seconds": seconds, "per_second": samples / seconds, "peak_gib": peak,
        "tflop": operations / 1e12, "tflops": operations / seconds / 1e12,
        "attention": attention_kernels(seen), "kernels": dict(list(kernels.items())[: options.top]),
    }  # fmt: skip


def _extraction(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Return the seconds of video per second of S3D in both dtypes, the network alone and with decoding."""
    seconds, batch, workers = (2, 1, 1) if options.tiny else (30, 16, options.workers)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        items = make_videos(Path(folder), 1 if options.tiny else 4 * workers, seconds, 640, 360, 30)
        for dtype in ("fp32", "bf16"):
            encoder = S3DEncoder(random_init=0, device=str(device), dtype=dtype)
            video = frames_to_video(torch.from_numpy(clips(batch, 32 if options.tiny else 224)).to(device))
            with torch.inference_mode():
                alone = _seconds(lambda: encoder.encode(video), device, options.warm_up, options.rounds)  # noqa: B023
                operations = count(lambda: encoder.encode(video))  # noqa: B023
            settings = ExtractionOptions(batch_size=batch, workers=workers)
            summary = extract_features(items, encoder, Path(folder) / f"features_{dtype}", settings)
            rows.append(
                {
                    "dtype": dtype,
                    "network": batch / alone,
                    "tflops": operations / alone / 1e12,
                    "whole": summary.frames / encoder.fps / summary.wall_seconds,
                    "workers": workers,
                }
            )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM", help="default: all six")
    add("--samples", type=int, help="of a batch (default: by system)")
    add("--warm-up", type=int, help="steps that are not counted (default 10; tiny: 1)")
    add("--rounds", type=int, help="steps that are timed (default 30; tiny: 1)")
    add("--workers", type=int, default=8, help="decoding threads of extraction (default 8)")
    add("--no-extraction", action="store_true", help="training steps alone")
    add("--peak-tflops", type=float, help="dense bf16 TFLOP/s of the device (default: by its name)")
    add("--top", type=int, default=10, help="kernels that are listed (default 10)")
    add("--device", default="cuda", help="cuda (default), cuda:N or cpu")
    add("--tiny", action="store_true", help="small models and clips: whether all of it runs")
    add("--json", metavar="FILE", help="also write the figures to this file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    options = _parser().parse_args(arguments)
    options.warm_up = options.warm_up if options.warm_up is not None else 1 if options.tiny else 10
    options.rounds = options.rounds or (1 if options.tiny else 30)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        print(
            f"no GPU is available: torch {torch.__version__} is built {built}. --device cpu --tiny tries the script",
            file=sys.stderr,
        )
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = options.peak_tflops or peak_of(name)
    told = f"{peak:g} TFLOP/s of dense bf16" if peak else "peak rate not known: give --peak-tflops"
    print(f"{name}, torch {torch.__version__}, {told}")
    found: dict[str, Any] = {"device": name, "peak_tflops": peak, "torch": torch.__version__, "systems": {}}
    for system in options.systems:
        row = _training(SYSTEMS[system], options, device)
        row["utilisation"] = row["tflops"] / peak if peak else None
        found["systems"][system] = row
        memory = f"{row['peak_gib']:.1f} GiB" if row["peak_gib"] is not None else "memory not measured"
        share = f"{row['utilisation']:.1%} of the peak" if peak else ""
        print(
            f"{system:<10} {row['samples']} {row['unit']}: {row['seconds'] * 1e3:.1f} ms, {row['per_second']:.1f}/s, "
            f"{memory}, {row['tflops']:.2f} TFLOP/s {share}\n  attention: {', '.join(row['attention']) or 'not seen'}"
        )
        for kernel, part in row["kernels"].items():
            print(f"  {part:6.1%} {kernel[:110]}", flush=True)
    if not options.no_extraction:
        found["extraction"] = _extraction(options, device)
        for row in found["extraction"]:
            print(
                f"S3D, {row['dtype']}: {row['network']:.1f} s of video/s by the network ({row['tflops']:.2f} TFLOP/s), "
                f"{row['whole']:.1f} with decoding by {row['workers']} ({row['whole'] / 60:.2f} videos of a minute/s)"
            )
    if options.json:
        write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
