"""The pre-training step of each system on two cores: ours, and plainly as the published code does it.

    python scripts/benchmarks/bench_training.py
    python scripts/benchmarks/bench_training.py training-videoclip -o samples=32
    python scripts/benchmarks/bench_training.py switch-                 # what each switch of training costs and saves

A step is masking, all objectives, backward and Adam in float32. VideoCLIP's is that of 128 pairs of 8 to 61 words and
3 to 32 seconds, hidden size 384, 12 heads, 3 video and 6 text layers, VLM's that of 32 of them and 6 layers; the
others are small ("tiny") or, with ``-o size=base``, of the published sizes. The reference is the published step
(``published_step.py``). Compared are the losses of two steps without dropout. Of the works ``switch-...`` the reference
is our plain step, with clipped gradients and fused AdamW; of those of optimizers, AdamW tensor by tensor.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.published_step import naive_step, our_step
from scripts.benchmarks.run import run_module
from scripts.benchmarks.systems import SYSTEMS
from scripts.benchmarks.training import OPTIMIZERS, WAYS, Training, training_run
from scripts.benchmarks.videoclip_step import random_pairs, videoclip
from scripts.benchmarks.work import Run, Work

__all__ = ["SIZES", "WORKS", "training"]

#: Samples of a batch, and the size of the model.
SIZES: dict[str, dict[str, Any]] = {
    "videoclip": {"samples": 128, "size": "workload"},
    "vlm": {"samples": 32, "size": "workload"},
    **{system: {"samples": 4, "size": "tiny"} for system in ("violet", "lavender")},
    **{system: {"samples": 2, "size": "tiny"} for system in ("merlot", "reserve")},
}
#: Switches that are measured, where it is not gradient checkpointing alone.
_SWITCHES = {
    "videoclip": tuple(way for way in WAYS if way != "accumulation"),
    "vlm": ("accumulation",),
    "lavender": (),
}


def training(system: str, way: str) -> Callable[..., Run]:
    """Return what makes the run of a system's steps: "ours", "naive", "plain", or one of :data:`WAYS`."""

    def make(folder: Path, samples: int, size: str, **_: Any) -> Run:
        known = SYSTEMS[system]
        model, batch = known.model(size, **WAYS.get(way, {})).train(), known.batch(size, samples)
        if way == "ours":
            step = our_step(model, known.loss)
        elif way == "naive":
            step = naive_step(model, known.loss, known.published)
        else:
            step = Training(model, known.loss, batch, way).step
        return training_run(model, step, batch, samples)

    return make


def _long_texts(way: str) -> Callable[..., Run]:
    """Return what makes the run of VideoCLIP's steps, ours or "naive", on texts of 8 to ``words`` tokens."""

    def make(folder: Path, samples: int, words: int) -> Run:
        model, batch, loss = videoclip(words=words), random_pairs(samples, longest=words), SYSTEMS["videoclip"].loss
        return training_run(model, (our_step if way == "ours" else naive_step)(model, loss), batch, samples)

    return make


def _works() -> list[Work]:
    works = [
        Work(
            "training-by-length",
            ours=_long_texts("ours"),
            reference=_long_texts("naive"),
            unit="pairs",
            naive="the published step",
            sizes={"samples": 32, "words": 61},
            tiny={"samples": 2, "words": 16},
            threads=2,
            tolerance=1e-4,
            group="more",
        )
    ]
    for name, system in SYSTEMS.items():
        known: dict[str, Any] = {
            "unit": system.unit,
            "sizes": SIZES[name],
            "quick": {"samples": max(2, SIZES[name]["samples"] // 8)},
            "tiny": {"samples": 2, "size": "tiny"},
            "threads": 2,
        }
        works.append(
            Work(
                f"training-{name}",
                ours=training(name, "ours"),
                reference=training(name, "naive"),
                naive="the published step: eager, all padding and states, Adam tensor by tensor",
                tolerance=1e-4,
                least_ratio=2.0 if name == "videoclip" else None,
                most_memory=0.5 if name == "videoclip" else None,
                group="training",
                **known,
            )
        )
        for way in _SWITCHES.get(name, ("gradient_checkpointing",)):
            works.append(
                Work(
                    f"switch-{name}-{way.replace('_', '-')}",
                    ours=training(name, way),
                    reference=training(name, "one_by_one" if way in OPTIMIZERS else "plain"),
                    naive="our plain step" + ", AdamW tensor by tensor" * (way in OPTIMIZERS),
                    tolerance=None if way == "accumulation" else 0.05,  # it has other negatives
                    group="more",
                    reference_keeps=True,
                    **known,
                )
            )
    return works


WORKS = tuple(_works())

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
