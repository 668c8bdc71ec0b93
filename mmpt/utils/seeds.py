"""Randomness that depends on (seed, epoch, index) alone, never on workers or call order."""

import numpy as np

__all__ = ["DEFAULT_SEED", "item_generator"]

DEFAULT_SEED = 43211


def item_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one dataset item.

    Equal arguments give equal streams in every process; different ones give independent streams.
    """
    return np.random.Generator(np.random.PCG64([seed, epoch, index]))
