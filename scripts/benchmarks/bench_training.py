"""The pre-training step of each system on two cores: ours, and plainly as the published code does it.

    python scripts/benchmarks/bench_training.py
    python scripts/benchmarks/bench_training.py training-videoclip -o samples=32
    python scripts/benchmarks/bench_training.py switch-                 # what each switch of training costs and saves

A step is masking, all objectives, backward and AdamW in float32. VideoCLIP's is that of 128 pairs of 8 to 61 words and
3 to 32 seconds, hidden size 384, 12 heads, 3 video and 6 text layers; the others are small ("tiny") or, with
``-o size=base``, of the published sizes. The reference attends eagerly, computes what is padded and updates parameter
after parameter. Losses are compared without dropout. Of the works ``switch-...`` the reference is our plain step.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import Tensor, nn

from mmpt.losses.contrastive import MMContraLoss
from mmpt.losses.merlot import MERLOTLoss
from mmpt.losses.reserve import ReserveLoss
from mmpt.losses.violet import VIOLETLoss
from scripts.benchmarks.frame_step import random_clips, violet
from scripts.benchmarks.run import run_module
from scripts.benchmarks.segment_step import merlot, random_chunks, random_segments, reserve
from scripts.benchmarks.training import WAYS, Training, training_run
from scripts.benchmarks.videoclip_step import random_pairs, videoclip
from scripts.benchmarks.work import Run, Work

__all__ = ["SYSTEMS", "WORKS", "System"]


class System(NamedTuple):
    """What is trained: the model of a size, its loss, and a batch of a size and count."""

    model: Callable[..., nn.Module]
    loss: Callable[[], Callable[..., Tensor]]
    batch: Callable[[str, int], Mapping[str, Tensor]]
    unit: str
    samples: int
    naive: Mapping[str, Any] = {}


def _videoclip(size: str, **model: Any) -> nn.Module:
    layers = {"num_hidden_layers": 2, "hidden_size": 24, "intermediate_size": 48} if size == "least" else {}
    return videoclip(1 if size == "least" else 3, **layers, **model)


SYSTEMS = {
    "videoclip": System(
        _videoclip, MMContraLoss, lambda _, count: random_pairs(count), "pairs", 128, {"length_groups": 1}
    ),
    "violet": System(violet, VIOLETLoss, random_clips, "clips", 4),
    "merlot": System(merlot, MERLOTLoss, random_chunks, "records", 2),
    "reserve": System(reserve, ReserveLoss, random_segments, "records", 2),
}


def _step(system: str, way: str) -> Callable[..., Run]:
    def make(folder: Path, samples: int, size: str) -> Run:
        known = SYSTEMS[system]
        options = dict(known.naive) if way == "naive" else WAYS.get(way, {})
        model = known.model(size, **options)
        return training_run(Training(model, known.loss(), known.batch(size, samples), way), samples)

    return make


def _works() -> list[Work]:
    works = []
    for name, system in SYSTEMS.items():
        known = {
            "unit": system.unit,
            "sizes": {"samples": system.samples, "size": "tiny"},
            "quick": {"samples": max(2, system.samples // 8)},
            "tiny": {"samples": 2, "size": "least" if name == "videoclip" else "tiny"},
            "threads": 2,
        }
        first = name == "videoclip"
        works.append(
            Work(
                f"training-{name}",
                ours=_step(name, "plain"),
                reference=_step(name, "naive"),
                naive="eager attention, all padded, parameter after parameter",
                tolerance=1e-4,
                least_ratio=2.0 if first else None,
                most_memory=0.5 if first else None,
                group="training",
                **known,
            )
        )
        for way in WAYS if first else ["gradient_checkpointing"]:
            works.append(
                Work(
                    f"switch-{name}-{way.replace('_', '-')}",
                    ours=_step(name, way),
                    reference=_step(name, "plain"),
                    naive="our plain step",
                    tolerance=0.05,
                    group="more",
                    **known,
                )
            )
    return works


WORKS = tuple(_works())

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
