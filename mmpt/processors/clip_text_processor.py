"""Texts about clips, of every kind of task, as ids of word pieces."""

from typing import Any, ClassVar

import numpy as np

from mmpt.processors.base import TextProcessor
from mmpt.processors.msrvtt_qa import Choice, MSRVTTQATextProcessor, QATextOptions
from mmpt.processors.open_questions import OpenQuestion
from mmpt.utils.options import read_options

__all__ = ["ClipTextProcessor", "WordPieces", "draw_sentences"]


class WordPieces(list[int]):
    """Ids of word pieces, and the ``text`` that they are of."""

    def __init__(self, ids: Any, text: str) -> None:
        super().__init__(ids)
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return WordPieces, (list(self), self.text)


class ClipTextProcessor(MSRVTTQATextProcessor):
    """Tokenise a caption, a paragraph, the options of a question, or an open-ended question with its answer."""

    config_options: ClassVar[dict[str, type]] = {"dataset": QATextOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.split = read_options(config, QATextOptions).split

    def __call__(self, text_id: Any, rng: np.random.Generator | None = None) -> Any:
        """Return ids without special ones; ``[MASK]`` in a text is that token.

        =========================  ==============================================================================
        a text                     :class:`WordPieces`
        sentences of a paragraph   the same, of all of them joined by a space; in training of some, drawn with
                                   ``rng`` (:func:`draw_sentences`)
        ``Choice``                 as :class:`~mmpt.processors.msrvtt_qa.MSRVTTQATextProcessor`
        ``OpenQuestion``           the same with ids for texts, ``texts`` holding those
        =========================  ==============================================================================
        """
        if isinstance(text_id, OpenQuestion):
            return OpenQuestion(
                self._ids(text_id.question),
                self._ids(text_id.answer_text) if text_id.answer_text else [],
                text_id.label,
                (text_id.question, text_id.answer_text),
            )
        if isinstance(text_id, str):
            return WordPieces(self._ids(text_id), text_id)
        if isinstance(text_id, Choice) or (isinstance(text_id, tuple) and not isinstance(text_id[0], str)):
            return super().__call__(text_id, rng)
        text = " ".join(draw_sentences(text_id, rng if self.split == "train" else None))
        return WordPieces(self._ids(text), text)

    def _ids(self, text: str) -> list[int]:
        return TextProcessor.__call__(self, text)


def draw_sentences(sentences: list[str], rng: np.random.Generator | None) -> list[str]:
    """Return a random part of the sentences in random order: 1 to all, every number equally likely; None: all."""
    if rng is None or len(sentences) < 2:
        return list(sentences)
    number = int(rng.integers(1, len(sentences) + 1))
    return [sentences[index] for index in rng.choice(len(sentences), number, replace=False).tolist()]
