"""An update of the weights by each optimizer, without the step before it, on two cores.

    python scripts/benchmarks/bench_optimizers.py

The weights are those of the VideoCLIP of ``bench_training.py``. ``mmadamw`` has one kernel for all of them, fairseq's
``adam`` goes from tensor to tensor, operation by operation; so does ``compact_adam``, with moments in half the memory,
which are widened and narrowed again at each update.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from mmpt.optim.compact_adam import CompactAdam
from scripts.benchmarks.fairseq_trainer import Adam
from scripts.benchmarks.run import run_module
from scripts.benchmarks.systems import SYSTEMS
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "mmadamw": lambda weights, **known: torch.optim.AdamW(weights, **known, fused=True),
    "adam": Adam,
    "compact_adam": CompactAdam,
}


def _updates(name: str) -> Callable[..., Run]:
    def make(folder: Path, size: str) -> Run:
        weights = list(SYSTEMS["videoclip"].model(size).parameters())
        generator = torch.Generator().manual_seed(0)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator) / 100
        optimizer = _OPTIMIZERS[name](weights, lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)

        def check() -> list[float]:
            return [float(weight.detach().double().sum()) for weight in weights]

        return Run(optimizer.step, sum(map(torch.Tensor.numel, weights)), check=check)

    return make


_SHARED: dict[str, Any] = {
    "unit": "weights",
    "reference": _updates("adam"),
    "naive": "fairseq's adam",
    "sizes": {"size": "workload"},
    "tiny": {"size": "tiny"},
    "threads": 2,
    "group": "more",
    "reference_keeps": True,
}
WORKS = (
    Work("optimizer-mmadamw", ours=_updates("mmadamw"), tolerance=1e-3, **_SHARED),
    Work("optimizer-compact-adam", ours=_updates("compact_adam"), tolerance=1e-3, **_SHARED),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
