"""95% intervals of a mean: over seeds (Student's t), and over the items of a test (bootstrap).

They answer different questions. Over seeds: had training been repeated. Over items: had other items been tested, with
the trainings that there are.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["bootstrap_interval", "student_quantile", "t_interval"]

#: Of Student's t with 1 to 30 degrees of freedom, the value that 2.5 % of the distribution lie above.
_STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_NORMAL = 1.959964


def student_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    Raises:
        ValueError: if there is no degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom")
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = _NORMAL  # two terms of the expansion in 1 / degrees (Abramowitz and Stegun 26.7.5)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def t_interval(
    values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """Return the interval of the mean of independent values, cut at its ``bounds``; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = student_quantile(len(values) - 1) * spread / math.sqrt(len(values))
    return max(mean - half, bounds[0]), min(mean + half, bounds[1])


def bootstrap_interval(
    values: npt.NDArray[np.floating], draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the percentile interval of the mean of items ``(items,)``, drawn anew with replacement.

    The same values and seed give the same interval. None where there are no items.
    """
    count = len(values)
    if not count:
        return None
    rng = np.random.default_rng(seed)
    means = rng.multinomial(count, np.full(count, 1 / count), size=draws) @ np.asarray(values, np.float64) / count
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
