"""Keys and values of the positions that an encoder has seen, for decoding one token at a time.

Shapes: B batch, A heads, K positions so far, H hidden size, N texts begun, P positions before a text.
"""

import torch
from torch import Tensor

__all__ = ["KeyValueCache", "LayerCache", "TextState"]


class LayerCache:
    """Keys and values, each (B, A, K, H / A), that one layer has computed so far."""

    def __init__(self) -> None:
        self.key: Tensor | None = None
        self.value: Tensor | None = None

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new positions; return all, old before new."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], dim=2), torch.cat([self.value, value], dim=2)
        self.key, self.value = key, value
        return key, value

    def drop_last(self, count: int) -> None:
        """Forget the last ``count`` positions."""
        if self.key is not None and self.value is not None:
            length = self.key.shape[2] - count
            self.key, self.value = self.key[:, :, :length], self.value[:, :, :length]

    def select(self, rows: Tensor) -> None:
        """Keep the examples ``rows`` (int64), in that order; one may be named several times."""
        if self.key is not None and self.value is not None:
            self.key, self.value = self.key.index_select(0, rows), self.value.index_select(0, rows)


class KeyValueCache:
    """What an encoder has computed of a sequence, so that later calls bring the new positions only.

    Pass the same object to every call on one batch; each call appends. Valid where no position sees a later one that
    comes in another call. For inference: nothing is recomputed in a backward pass.
    """

    def __init__(self) -> None:
        self.layers: list[LayerCache] = []

    @property
    def length(self) -> int:
        """Number of positions that are stored."""
        key = self.layers[0].key if self.layers else None
        return 0 if key is None else key.shape[2]

    def layer(self, number: int) -> LayerCache:
        """Return the part of layer ``number``, counted from 0."""
        while len(self.layers) <= number:
            self.layers.append(LayerCache())
        return self.layers[number]

    def drop_last(self, count: int) -> None:
        """Forget the last ``count`` positions of every layer: those that only stood in for what comes there."""
        for layer in self.layers:
            layer.drop_last(count)

    def select(self, rows: Tensor) -> None:
        """Keep the examples ``rows`` (int64) of every layer, in that order: beams that go on, examples that repeat."""
        for layer in self.layers:
            layer.select(rows)


class TextState:
    """What is known of N videos, or of N texts begun about them, between two steps of generation.

    ``seen``, bool (N, P), says which of the P positions before the text count: of the video, and of a prompt. ``cache``
    holds the keys and values of these and, after them, of the words so far.
    """

    def __init__(self, seen: Tensor, cache: KeyValueCache) -> None:
        self.seen = seen
        self.cache = cache

    @property
    def words(self) -> int:
        """Number of words so far, a ``[CLS]`` that begins the text among them."""
        return self.cache.length - self.seen.shape[1]

    def select(self, rows: Tensor) -> None:
        """Keep the rows of these indices (int64), in that order; one may be named several times."""
        self.seen = self.seen.index_select(0, rows)
        self.cache.select(rows)
