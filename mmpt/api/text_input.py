"""Strings as a model reads them, in the layout of its job.

Shapes: B texts, X positions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.cross_modal import CrossModalModel
from mmpt.models.lavender_matching import LAVENDERMatching
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.frame_base import FrameAligner
from mmpt.processors.lavender_aligners import LAVENDERMatchingAligner
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build
from mmpt.utils.subwords import Subwords

__all__ = ["TextReader", "Tokens"]


class Tokens(NamedTuple):
    """``caps`` int64 (B, X), ``cmasks`` bool (B, X), and what stands before each text (LAVENDER), (B, ..)."""

    caps: Tensor
    cmasks: Tensor
    pretext: dict[str, Tensor]


class TextReader:
    """Lays out texts to be compared with videos; those that do not fit are cut, which is counted and warned of.

    Args:
        config: of the job.
        model: of the job.
        tokenizer: of the job.
        aligner: of the job; one that lays out questions is replaced by that of retrieval.
    """

    def __init__(self, config: DictConfig, model: nn.Module, tokenizer: Any, aligner: Any) -> None:
        self.tokenizer = tokenizer
        self.aligner = _comparing(config, model, aligner)
        self.cut = CutTexts("are cut at their end: the model takes no more")
        self.cut_questions = CutTexts("are questions cut at their end, so that their options fit beside them")

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Lay out texts.

        Raises:
            DataError: if one is empty or no text; names its place.
            ConfigError: if the model's job does not say how a text is laid out.
        """
        if not hasattr(self.aligner, "_build_text_seq"):
            raise ConfigError(f"dataset.aligner: {type(self.aligner).__name__} does not lay out a text alone")
        rows = [self._row(text, number) for number, text in enumerate(texts)]
        caps, cmasks = (torch.stack(part) for part in zip(*rows, strict=True))
        pretext = self.aligner.pretext() if hasattr(self.aligner, "pretext") else {}
        return Tokens(caps, cmasks.bool(), {name: one.expand(len(caps), *one.shape) for name, one in pretext.items()})

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without special ones."""
        if isinstance(self.tokenizer, Subwords):
            running = self.tokenizer.kind == "merlot"
            return self.tokenizer.encode(f" {text.strip()}" if running else text)
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _row(self, text: str, number: int) -> tuple[Tensor, Tensor]:
        ids = self.ids(text)
        if not ids:
            raise DataError(f"text {number} has no words: {text!r}")
        caps, cmasks = self.aligner._build_text_seq(ids)
        last = ids[-1]
        self.cut.add(len(ids) > int(cmasks.sum()) or last not in caps.tolist(), f"{text[:60]!r}")
        return caps, cmasks


def _comparing(config: DictConfig, model: nn.Module, aligner: Any) -> Any:
    """Return the aligner that lays out a text as retrieval does."""
    if not isinstance(model, CrossModalModel):
        return aligner
    if isinstance(model, LAVENDERMatching):
        right = isinstance(aligner, LAVENDERMatchingAligner) and aligner.matched
        return aligner if right else build("aligner", "LAVENDERRetrievalAligner", config.dataset)
    plain = type(aligner) is FrameAligner or isinstance(aligner, LAVENDERMatchingAligner)
    return aligner if plain else build("aligner", "FrameAligner", config.dataset)
