"""States of videos and texts that wait to be fused: in memory, and beyond a limit in a scratch file.

Shapes: B items of a batch, L positions, H hidden.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from mmpt.models.cross_modal import States
from mmpt.utils.files import writing

__all__ = ["STATE_TYPES", "StateStore"]

#: What ``eval.states_dtype`` may say.
STATE_TYPES = {"float32": torch.float32, "float16": torch.float16}


class StateStore:
    """Encoded items on the CPU, one after another.

    An item takes L * H numbers: a video of 5 frames of 224 pixels at H = 768, for one, 768 KB in float32 and half of
    that in float16. What is beyond ``max_bytes`` goes to a nameless file in ``folder``, which the system removes with
    the process, and is mapped: its pages are memory that the system takes back where others need it.

    Args:
        dtype: type that values are kept in, if it is narrower than the model's; they are given back in the model's.
        max_bytes: what may be held in memory.
        folder: an existing folder for the file.
    """

    def __init__(self, dtype: torch.dtype, max_bytes: int, folder: Path) -> None:
        self.dtype, self.max_bytes, self.folder = dtype, max_bytes, folder
        #: Number of positions of each item.
        self.lengths: list[int] = []
        self.held = 0
        self._parts: list[tuple[Tensor, Tensor, torch.dtype]] = []
        self._places: list[tuple[int, int]] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def append(self, states: States) -> None:
        """Keep a batch of states: ``values`` (B, L, H) and ``mask`` bool (B, L).

        Raises:
            StorageError: if the disk of the scratch file is full.
        """
        values, mask = states.values.detach(), states.mask.detach()
        original = values.dtype
        values = values.to("cpu", self.dtype if self.dtype.itemsize < original.itemsize else original).contiguous()
        if self.held + values.nbytes > self.max_bytes:
            values = self._on_disk(values)
        else:
            self.held += values.nbytes
        self._places += [(len(self._parts), row) for row in range(len(values))]
        self.lengths += [values.shape[1]] * len(values)
        self._parts.append((values, mask.cpu().bool(), original))

    def get(self, items: Sequence[int], device: torch.device | str = "cpu") -> States:
        """Return the states of some items of equal length, on a device.

        The same item many times over is one row of memory, expanded; neighbours are a view where they were one batch.
        """
        places = [self._places[item] for item in items]
        part, first = places[0]
        values, mask, original = self._parts[part]
        if all(place == places[0] for place in places):
            chosen = [side[first : first + 1] for side in (values, mask)]
        elif all(place == (part, first + step) for step, place in enumerate(places)):
            chosen = [side[first : first + len(places)] for side in (values, mask)]
        else:
            chosen = [
                torch.stack([self._parts[number][0][row] for number, row in places]),
                torch.stack([self._parts[number][1][row] for number, row in places]),
            ]
        moved = States(chosen[0].to(device, original), chosen[1].to(device))
        if len(moved.mask) == len(items):
            return moved
        return States(*(side.expand(len(items), *side.shape[1:]) for side in moved))

    def _on_disk(self, values: Tensor) -> Tensor:
        """Write values to the scratch file and return them mapped."""
        with writing(self.folder / "states of a test"):
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # as long as this store
            offset = self._file.seek(0, 2)
            raw = values.view(torch.int16) if values.dtype == torch.bfloat16 else values  # numpy has no such type
            self._file.write(raw.numpy().tobytes())
            self._file.flush()
        mapped = np.memmap(self._file, raw.numpy().dtype, mode="c", offset=offset, shape=tuple(raw.shape))
        return torch.from_numpy(mapped).view(values.dtype)
