"""The one loop that embeds a data set: for evaluation, retrieval during training, and search."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmpt.utils.errors import DataError

__all__ = ["EmbeddedPairs", "embed_pairs", "evaluating"]


@dataclass(frozen=True)
class EmbeddedPairs:
    """Embedded pairs in the order of the data: ``video`` and ``text`` float32 (N, H), ``ids`` of the N videos."""

    video: np.ndarray
    text: np.ndarray
    ids: list[Any]


def embed_pairs(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> EmbeddedPairs:
    """Embed every pair of ``batches`` with a model that returns ``pooled_video`` and ``pooled_text``.

    The model is run in eval mode without gradients, and its modes and the CPU random state of torch are put back
    afterwards. Items that hold K clips of one video each (``caps`` (B, K, L)) give K pairs each.

    Args:
        batches: a loader; ``video_id``, else ``idx``, names the pairs, else they are numbered.
        device: where to run, and where the model is moved; None is where the model is.
        progress: title of a progress bar; None shows none.

    Raises:
        DataError: if there is no batch.
    """
    if device is None:
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    else:
        model.to(device)
    videos, texts, ids = [], [], []
    # A loader draws from torch's generator when its iterator is made.
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for batch in tqdm(batches, desc=progress, disable=progress is None):
            tensors, names = _flatten(batch, len(ids))
            outputs = model(**{key: value.to(device, non_blocking=True) for key, value in tensors.items()})
            videos.append(outputs["pooled_video"].float().cpu().numpy())
            texts.append(outputs["pooled_text"].float().cpu().numpy())
            ids.extend(names)
    if not ids:
        raise DataError("there is nothing to embed: the data set has no items")
    return EmbeddedPairs(np.concatenate(videos), np.concatenate(texts), ids)


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


def _flatten(batch: Mapping[str, Any], start: int) -> tuple[dict[str, Tensor], list[Any]]:
    """Return a batch's tensors with one row per pair, and the pairs' ids."""
    tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    clips = 1
    if tensors["caps"].dim() == 3:
        items, clips = tensors["caps"].shape[:2]
        tensors = {
            key: value.flatten(0, 1)
            for key, value in tensors.items()
            if value.dim() > 1 and tuple(value.shape[:2]) == (items, clips)
        }
    count = len(tensors["caps"])
    names = batch.get("video_id", batch.get("idx"))
    if names is None:
        return tensors, list(range(start, start + count))
    names = names.tolist() if isinstance(names, Tensor | np.ndarray) else list(names)
    names = [name for name in names for _ in range(clips)]
    if len(names) != count:
        raise DataError(f"a batch of {count} pairs comes with {len(names)} ids")
    return tensors, names
