"""What the published MERLOT Reserve computed on a tiny size, and its weights."""

from functools import cache

import numpy as np

from mmpt.utils.files import REPOSITORY
from mmpt.utils.flax_checkpoint import read_flax_checkpoint

__all__ = ["FLAX_FILE", "reserve_golden"]

#: As published training saves: weights in half precision.
FLAX_FILE = REPOSITORY / "tests/data/reserve/flax_checkpoint_ckpt_7"


@cache
def reserve_golden() -> dict[str, np.ndarray]:
    """Return inputs, outputs, and weights under ``params/``; they are kept as what their half precision lacks."""
    with np.load(REPOSITORY / "tests/data/reserve_tiny.npz") as file:
        golden = dict(file)
    half = read_flax_checkpoint(FLAX_FILE)
    return golden | {f"params/{name}": half[name].float().numpy() + golden.pop(f"rest/{name}") for name in half}
