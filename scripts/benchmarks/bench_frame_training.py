"""Measure VIOLET's pre-training step on raw frames: speed and peak memory, plain and with gradient checkpointing.

python scripts/benchmarks/bench_frame_training.py                # both sizes on two cores: ten minutes, 10 GB
python scripts/benchmarks/bench_frame_training.py --sizes tiny

"tiny" is Swin-T with a 4-layer, 256-d BERT on 4 frames of 96 pixels, "base" the published size (Swin-S, BERT-base, 4
frames of 224 pixels). A step is masking, the three objectives with 4 texts for each video, backward and AdamW. Speeds
(clips per second of processor time) of one size are those of one process in which both ways take turns; the memory is
that of a fresh process for each.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import nn

from mmpt.losses.violet import VIOLETLoss
from scripts.benchmarks.frame_step import SIZES, random_clips, violet
from scripts.benchmarks.training_step import Work, measure

__all__ = ["main"]

#: Clips of a batch by size, and steps that are timed.
_CLIPS, _ROUNDS = {"tiny": 4, "base": 2}, {"tiny": 3, "base": 2}


def _model(size: str, checkpointing: bool) -> nn.Module:
    return violet(size, gradient_checkpointing=checkpointing)


def works() -> dict[str, Work]:
    """Return the trainings that are measured, by size."""
    return {
        size: Work(
            functools.partial(_model, size),
            VIOLETLoss(),
            functools.partial(random_clips, size),
            _CLIPS[size],
            _ROUNDS[size],
            "clips",
        )
        for size in SIZES
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    return measure(__doc__, works, arguments)


if __name__ == "__main__":
    sys.exit(main())
