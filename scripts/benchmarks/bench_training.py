"""The pre-training step of each system on two cores: ours, and plainly as the published code does it.

    python scripts/benchmarks/bench_training.py
    python scripts/benchmarks/bench_training.py training-videoclip -o samples=32
    python scripts/benchmarks/bench_training.py switch-                 # what each switch of training costs and saves

A step is masking, all objectives, backward and Adam in float32. VideoCLIP's is that of 128 pairs of 8 to 61 words and
3 to 32 seconds, hidden size 384, 12 heads, 3 video and 6 text layers, VLM's that of 32 of them and 6 layers; the
others are small ("tiny") or, with ``-o size=base``, of the published sizes. The reference is the published step
(``published_step.py``). Compared are the losses of two steps without dropout. Of the works ``switch-...`` the reference
is our plain step, with AdamW and clipped gradients.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.benchmarks.published_step import naive_step, our_step
from scripts.benchmarks.run import run_module
from scripts.benchmarks.systems import SYSTEMS
from scripts.benchmarks.training import WAYS, Training, training_run
from scripts.benchmarks.work import Run, Work

__all__ = ["SIZES", "WORKS", "training"]

#: Samples of a batch, and the size of the model.
SIZES: dict[str, dict[str, Any]] = {
    "videoclip": {"samples": 128, "size": "workload"},
    "vlm": {"samples": 32, "size": "workload"},
    **{system: {"samples": 4, "size": "tiny"} for system in ("violet", "lavender")},
    **{system: {"samples": 2, "size": "tiny"} for system in ("merlot", "reserve")},
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


def _works() -> list[Work]:
    works = []
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
        ways = WAYS if name == "videoclip" else ["gradient_checkpointing"]
        for way in ways if name not in ("vlm", "lavender") else ():
            works.append(
                Work(
                    f"switch-{name}-{way.replace('_', '-')}",
                    ours=training(name, way),
                    reference=training(name, "plain"),
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
