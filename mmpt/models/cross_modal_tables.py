"""Tables of frames and patches that have another number of rows than those of a file."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["fit_tables"]

logger = logging.getLogger(__name__)

#: Tables with a row per frame, and per patch: name and the dimension of the rows.
_TABLES = {"enc_img.emb_len": 1, "enc_img.emb_pos": 2}


def fit_tables(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the tables of frames and patches to the numbers of rows that the model has, ``own``.

    The rows that there are stay what they are, further ones are the model's. Patches count row by row of a frame, so
    that frames with other numbers of columns than in pre-training find their patches at other rows, as published.

    Returns:
        ``state`` with these tables; as given where none differs.
    """
    fitted = dict(state)
    for key, dimension in _TABLES.items():
        given, wanted = state.get(key), own.get(key)
        if given is None or wanted is None or given.dim() != wanted.dim() or given.shape == wanted.shape:
            continue
        if (
            given.shape[:dimension] + given.shape[dimension + 1 :]
            != wanted.shape[:dimension] + wanted.shape[dimension + 1 :]
        ):
            continue  # another width: refused with everything else that does not fit
        rows, both = wanted.shape[dimension], min(given.shape[dimension], wanted.shape[dimension])
        parts = (given.narrow(dimension, 0, both), wanted.narrow(dimension, both, rows - both).to(given))
        fitted[key] = torch.cat(parts, dimension)
        logger.warning(
            "%s: %d rows in the file, %d in the model: %d are the file's, %d the model's own",
            key, given.shape[dimension], rows, both, rows - both,
        )  # fmt: skip
    return fitted
