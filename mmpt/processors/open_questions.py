"""Open-ended questions about a video: the answer is one of a vocabulary, or any word."""

from typing import Any, NamedTuple

__all__ = ["OpenQuestion"]


class OpenQuestion(NamedTuple):
    """One open-ended question: texts, or, behind the text processor, ids of word pieces.

    Attributes:
        question: what is asked; of fill-in-the-blank, the sentence with ``[MASK]`` in the gap.
        answer_text: the right answer in words; may be empty where only its class is known.
        label: class of the right answer in the vocabulary of answers; -1: it is none of them.
        texts: behind the text processor, the texts of question and answer.
    """

    question: Any
    answer_text: Any = ""
    label: int = -1
    texts: tuple[str, ...] = ()
