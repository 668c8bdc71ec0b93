"""An encoder over sequences of which padding is not computed, nor in the last layer what nobody reads.

Shapes: B rows, L positions, n wanted positions, H hidden.
"""

import torch
from torch import Tensor

from mmpt.modules.packing import Packing
from mmpt.modules.transformer import TransformerEncoder

__all__ = ["places_at", "places_of", "valid_states"]


def valid_states(encoder: TransformerEncoder, values: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
    """Encode values (B, L, H) under a mask, true where a position, or for a query a key, may be seen.

    Where some states alone are wanted, the padding of a mask (B, L) is left out on the CPU. On a GPU it is computed: to
    leave it out, the mask would have to be waited for.

    Args:
        encoder: of the values.
        values: embedded sequences.
        mask: bool (B, L), or (B, L, L) with a row per query.
        places: int64 (n,), which of the B * L positions are wanted (:func:`places_of`, :func:`places_at`); None: all,
            those of padding too.

    Returns:
        The last states (B, L, H), or (n, H). The wanted ones of padding are arbitrary but finite.
    """
    if places is None or mask.dim() != 2 or values.is_cuda:
        return encoder(values, mask, rows=places).last_hidden_state
    packing = Packing(mask)
    rows = packing.numbers(places)
    states = encoder(packing.pack(values), packing, rows=rows.clamp(min=0)).last_hidden_state
    return states.masked_fill((rows < 0)[:, None], 0)


def places_of(wanted: Tensor, length: int, step: int = 1) -> Tensor:
    """Return where the true ones of a mask are among sequences of ``length`` positions, int64 (n,), row by row.

    Args:
        wanted: bool (B, K), of the last K positions.
        length: L of a sequence, at least K.
        step: row i is of sequence i * step.
    """
    row, column = wanted.nonzero(as_tuple=True)
    return row * (step * length) + column + (length - wanted.shape[1])


def places_at(position: int, sequences: int, like: Tensor, length: int) -> Tensor:
    """Return where ``position`` of each of so many sequences of ``length`` is: int64, on the device of ``like``.

    A position below 0 counts from the end.
    """
    return torch.arange(sequences, device=like.device) * length + position % length
