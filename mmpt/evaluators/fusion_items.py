"""What a test by fusion knows of its test set: which videos there are, who encodes each, and all texts.

Shapes: B rows of a batch, X text positions, N texts, V distinct videos.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmpt.models.lavender_batches import PRETEXT_KEYS
from mmpt.utils.distributed import all_gather_objects
from mmpt.utils.errors import DataError, shown

__all__ = [
    "TEXT_KEYS",
    "BatchItems",
    "FusionItems",
    "Key",
    "exchange_items",
    "keys_of",
    "rows_to_encode",
    "text_tensors",
]

#: Tensors of a batch that a text is encoded from: word pieces and, for LAVENDER, what stands before them.
TEXT_KEYS = ("caps", "cmasks", *PRETEXT_KEYS)

#: A video: its id, and what tells clips of one id apart.
Key = tuple[str, str]


@dataclass
class BatchItems:
    """What a batch holds besides its frames; travels between processes.

    ``keys`` name the video of each row, ``texts`` are what the model reads, ``tensors`` are :data:`TEXT_KEYS`;
    ``encoded`` are the keys of the videos whose states the process has kept, in their order.
    """

    keys: list[Key]
    texts: list[str]
    tensors: dict[str, Tensor]
    encoded: list[Key]


@dataclass
class FusionItems:
    """The items of a whole test set; the same in all processes.

    Attributes:
        batches: in the order of the test set.
        videos: distinct videos in the order in which they first occur (V,).
        batch_of: number of the batch whose process has the states of each (V,).
        target: video of each text, int64 (N,).
        missing: videos that nobody has encoded: further clips under an id.
    """

    batches: list[BatchItems]
    videos: list[Key]
    batch_of: list[int]
    target: npt.NDArray[np.int64]
    missing: set[Key]

    @property
    def texts(self) -> list[str]:
        """The texts, (N,)."""
        return [text for batch in self.batches for text in batch.texts]

    def told(self, text: int, video: int) -> str:
        """Return which text and which video two numbers mean, for an error."""
        return f"text {text} ({shown(self.texts[text])}) with video {shown(self.videos[video][0])}"

    def digest(self) -> str:
        """Return a hash of ids, frames, word pieces and their order."""
        content = hashlib.sha256()
        for batch in self.batches:
            content.update(repr((batch.keys, batch.texts)).encode())
            for name, tensor in sorted(batch.tensors.items()):
                add_tensor(content, name, tensor)
        return content.hexdigest()


def exchange_items(own: Mapping[int, BatchItems]) -> FusionItems:
    """Exchange what each process has read, by the number of the batch; all processes call this together.

    Videos that occur in several batches belong to the first of them.
    """
    numbered = {number: items for part in all_gather_objects(dict(own)) for number, items in part.items()}
    batches = [numbered[number] for number in sorted(numbered)]
    index: dict[Key, int] = {}
    batch_of: list[int] = []
    for number, batch in enumerate(batches):
        for key in batch.keys:
            if key not in index:
                index[key] = len(index)
                batch_of.append(number)
    target = np.array([index[key] for batch in batches for key in batch.keys], dtype=np.int64)
    encoded = {key for number, batch in enumerate(batches) for key in batch.encoded if batch_of[index[key]] == number}
    return FusionItems(batches, list(index), batch_of, target, set(index) - encoded)


def text_tensors(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a batch that texts are encoded from.

    Raises:
        DataError: if the batch does not have one text (X,) and one video per row, or no frames; says what it has.
    """
    caps, names = batch.get("caps"), batch.get("video_id")
    if not isinstance(caps, Tensor) or caps.dim() != 2 or names is None or len(names) != len(caps):
        shape = tuple(caps.shape) if isinstance(caps, Tensor) else None
        raise DataError(
            f"a batch has texts of shape {shape} and {len(names or ())} ids (video_id): retrieval by fusion needs one "
            "text (caps) and one video for each item; dataset.aligner must be one for retrieval"
        )
    if not all(isinstance(batch.get(name), Tensor) for name in ("vfeats", "vmasks")):
        raise DataError(
            f"a batch has no frames (vfeats, vmasks) of videos {', '.join(map(str, names[:3]))}, ..: set "
            "dataset.video_processor and dataset.aligner to those of raw frames"
        )
    return {name: batch[name] for name in TEXT_KEYS if isinstance(batch.get(name), Tensor)}


def add_tensor(content: Any, name: str, tensor: Tensor) -> None:
    """Add a named tensor, with type and shape, to a hash."""
    content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _frames_digest(vfeats: Tensor, vmasks: Tensor) -> str:
    """Return a hash of the frames of a video: the same clip has the same wherever it occurs."""
    content = hashlib.blake2b(digest_size=16)
    add_tensor(content, "vfeats", vfeats)
    add_tensor(content, "vmasks", vmasks)
    return content.hexdigest()


def keys_of(batch: Mapping[str, Any], number: int, unique: bool) -> list[Key]:
    """Return the key of the video of each row; where videos are not to be unique, each row is one of its own.

    A key says the frames in either case: what was scored with other frames must not be taken up.
    """
    names = [str(name) for name in batch["video_id"]]
    pairs = zip(batch["vfeats"], batch["vmasks"], strict=True)
    keys = [(name, _frames_digest(*pair)) for name, pair in zip(names, pairs, strict=True)]
    if unique:
        return keys
    return [(name, f"{frames} item {number} {row}") for row, (name, frames) in enumerate(keys)]


def rows_to_encode(keys: Sequence[Key], new: Iterable[int]) -> list[int]:
    """Return the ``new`` rows of a batch, those with the same video once.

    It depends on the test set alone, not on what a process has seen before: so do the batches of the encoder, and the
    last bits of what it computes.
    """
    rows: dict[Key, int] = {}
    for row in new:
        rows.setdefault(keys[row], row)
    return list(rows.values())
