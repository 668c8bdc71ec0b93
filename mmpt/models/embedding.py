"""The one loop that embeds a data set: for evaluation, retrieval during training, and search."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmpt.utils.errors import ConfigError, DataError

__all__ = [
    "EmbeddedBatch",
    "EmbeddedPairs",
    "check_encodes_apart",
    "embed_batch",
    "embed_pairs",
    "evaluating",
    "flatten_samples",
    "join_batches",
]


@dataclass(frozen=True)
class EmbeddedPairs:
    """Embedded pairs in the order of the data: ``video`` and ``text`` float32 (N, H), ``ids`` of the N videos."""

    video: np.ndarray
    text: np.ndarray
    ids: list[Any]


@dataclass(frozen=True)
class EmbeddedBatch:
    """One embedded batch, as :class:`EmbeddedPairs`; ``ids`` is None where the batch names no pairs."""

    video: np.ndarray
    text: np.ndarray
    ids: list[Any] | None


def embed_pairs(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> EmbeddedPairs:
    """Embed every pair of ``batches`` with a model that returns ``pooled_video`` and ``pooled_text``.

    The model is run in eval mode without gradients, and its modes and the CPU random state of torch are put back
    afterwards. Leading dimensions (videos, clips) are merged; where a batch has fewer ids than pairs, each id
    stands for equally many pairs in a row.

    Args:
        batches: a loader; ``video_id``, else ``idx``, names the pairs, else they are numbered.
        device: where to run, and where the model is moved; None is where the model is.
        progress: title of a progress bar; None shows none.

    Raises:
        ConfigError: if the model encodes video and text of a pair together: its vectors compare with nothing else.
        DataError: if there is no batch.
    """
    check_encodes_apart(model)
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    else:
        model.to(device)
    # A loader draws from torch's generator when its iterator is made.
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        shown = tqdm(batches, desc=progress, disable=progress is None)
        return join_batches([embed_batch(model, batch, device) for batch in shown])


def check_encodes_apart(model: nn.Module) -> None:
    """Raise ConfigError for a model that encodes video and text of a pair together."""
    capabilities = getattr(model, "capabilities", {"retrieval"})
    if "retrieval" not in capabilities and "fusion" in capabilities:
        raise ConfigError(
            f"{type(model).__name__} scores a video and a text by fusing the two and has no vector for either: use "
            "predictor: FusionRetrievalPredictor, which fuses every pair"
        )
    if "retrieval" not in capabilities:
        raise ConfigError(
            f"{type(model).__name__} does not encode videos and texts apart, so that it can score no pair but those "
            "it has seen: dataset.num_iso_layer isolates the two in a joint encoder"
        )


def embed_batch(model: nn.Module, batch: Mapping[str, Any], device: torch.device | str) -> EmbeddedBatch:
    """Embed the pairs of one batch with a model that is on ``device``, as it is; see :func:`embed_pairs`."""
    tensors, names = _pairs(batch)
    outputs = model(**{key: value.to(device, non_blocking=True) for key, value in tensors.items()})
    video, text = (outputs[name].float().cpu().numpy() for name in ("pooled_video", "pooled_text"))
    return EmbeddedBatch(video, text, names)


def join_batches(batches: Sequence[EmbeddedBatch]) -> EmbeddedPairs:
    """Join embedded batches in their order; pairs that nothing names are numbered.

    Raises:
        DataError: if there is no pair.
    """
    ids: list[Any] = []
    for batch in batches:
        ids.extend(range(len(ids), len(ids) + len(batch.text)) if batch.ids is None else batch.ids)
    if not ids:
        raise DataError("there is nothing to embed: the data set has no items")
    video, text = (np.concatenate([getattr(batch, side) for batch in batches]) for side in ("video", "text"))
    return EmbeddedPairs(video, text, ids)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for a block; afterwards every module has the mode it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def flatten_samples(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the leading dimensions (batch, videos, clips) of every tensor that has them into one of samples.

    ``caps`` (..., length) tells how many leading dimensions there are. Where a video has several texts, ``vfeats``
    and ``vmasks`` have fewer than that, and keep to their own: (batch, seconds, ..) stays as it is, even if there
    are as many seconds as texts. Everything else stays as it is.
    """
    shape = batch["caps"].shape[:-1]
    flat = {
        key: value.flatten(0, len(shape) - 1)
        if isinstance(value, Tensor) and value.shape[: len(shape)] == shape
        else value
        for key, value in batch.items()
    }
    if "vmasks" in batch and 1 <= batch["vmasks"].dim() - 1 < len(shape):
        flat |= {key: batch[key].flatten(0, batch["vmasks"].dim() - 2) for key in ("vfeats", "vmasks") if key in batch}
    return flat


def _pairs(batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[Any] | None]:
    """Return a batch's tensors with one row per pair, and the pairs' ids if it has any."""
    flat = flatten_samples(batch)
    count = len(flat["caps"])
    tensors = {key: value for key, value in flat.items() if isinstance(value, Tensor) and value.shape[:1] == (count,)}
    named = batch.get("video_id", batch.get("idx"))
    if named is None:
        return tensors, None
    if isinstance(named, list) and named and isinstance(named[0], tuple):
        named = list(zip(*named, strict=True))  # default_collate has transposed the items' lists of ids
    names = list(_leaves(named))
    if not names or count % len(names):
        raise DataError(f"a batch of {count} pairs comes with {len(names)} ids")
    return tensors, [name for name in names for _ in range(count // len(names))]


def _leaves(names: Any) -> Iterator[Any]:
    if isinstance(names, Tensor | np.ndarray):
        yield from names.reshape(-1).tolist()
    elif isinstance(names, list | tuple):
        for name in names:
            yield from _leaves(name)
    else:
        yield names
