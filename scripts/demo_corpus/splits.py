"""Which (colour, shape, action) triples belong to which split of the demo corpus.

A triple is *held out* when it belongs to the test split: each of its words occurs in training, the
three together never do, so that a test clip can only be found by understanding its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mmpt.utils.errors import ConfigError

__all__ = ["ACTIONS", "COLOURS", "SHAPES", "Splits", "Triple", "all_triples", "split_triples"]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
ACTIONS = ("bounce", "spin", "slide_left", "slide_right", "loop", "zigzag", "grow", "shrink", "blink")
# A turning disc looks still: a caption about it would describe nothing that can be seen.
_INVISIBLE = {("circle", "spin"), ("ring", "spin")}


@dataclass(frozen=True, order=True)
class Triple:
    """Name what one segment shows: a colour, a shape and an action."""

    colour: str
    shape: str
    action: str


@dataclass(frozen=True)
class Splits:
    """Hold three disjoint, sorted groups of triples."""

    train: tuple[Triple, ...]
    val: tuple[Triple, ...]
    test: tuple[Triple, ...]


def all_triples() -> list[Triple]:
    """Return every triple that can be seen, in a fixed order."""
    return [Triple(c, s, a) for c, s, a in product(COLOURS, SHAPES, ACTIONS) if (s, a) not in _INVISIBLE]


def split_triples(rng: np.random.Generator, val: int, test: int) -> Splits:
    """Split all triples at random into disjoint groups; ``val`` and ``test`` are counts.

    Every colour, shape and action keeps training triples: at most half of all triples may be taken.

    Raises:
        ConfigError: if more than half of the triples would be withheld from training.
    """
    triples = all_triples()
    if val < 0 or test < 0 or val + test > len(triples) // 2:
        raise ConfigError(
            f"{val} validation and {test} test triples: at most {len(triples) // 2} of the {len(triples)} "
            "triples can be withheld from training"
        )
    order = rng.permutation(len(triples))
    return Splits(
        train=_pick(triples, order[val + test :]),
        val=_pick(triples, order[test : val + test]),
        test=_pick(triples, order[:test]),
    )


def _pick(triples: Sequence[Triple], positions: np.ndarray) -> tuple[Triple, ...]:
    return tuple(sorted(triples[i] for i in positions))
