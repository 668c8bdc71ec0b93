"""Measure the pre-training steps of MERLOT and MERLOT Reserve: speed and peak memory, plain and with checkpointing.

python scripts/benchmarks/bench_segment_training.py                        # all on two cores: half an hour, 16 GB
python scripts/benchmarks/bench_segment_training.py --sizes merlot-tiny reserve-tiny

"tiny" has 4 layers, 256-d, and frames of 64 x 96 pixels, "base" the published sizes; a sample is a record of 16 frames
with their words, of Reserve with 48 sounds and five joint sequences. A step is all objectives, backward and AdamW.
Speeds (records per second of processor time) of one size are those of one process in which both ways take turns; the
memory is that of a fresh process for each.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import nn

from mmpt.losses.merlot import MERLOTLoss
from mmpt.losses.reserve import ReserveLoss
from scripts.benchmarks.segment_step import SIZES, merlot, random_chunks, random_segments, reserve
from scripts.benchmarks.training_step import Work, measure

__all__ = ["main"]

_RECORDS, _ROUNDS = {"tiny": 2, "base": 1}, {"tiny": 3, "base": 2}
_SYSTEMS = {
    "merlot": (merlot, MERLOTLoss(), random_chunks),
    "reserve": (reserve, ReserveLoss(), random_segments),
}


def _model(system: str, size: str, checkpointing: bool) -> nn.Module:
    return _SYSTEMS[system][0](size, gradient_checkpointing=checkpointing)


def works() -> dict[str, Work]:
    """Return the trainings that are measured, by system and size."""
    return {
        f"{system}-{size}": Work(
            functools.partial(_model, system, size),
            loss,
            functools.partial(batch, size),
            _RECORDS[size],
            _ROUNDS[size],
            "records",
        )
        for system, (_, loss, batch) in _SYSTEMS.items()
        for size in SIZES
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    return measure(__doc__, works, arguments)


if __name__ == "__main__":
    sys.exit(main())
