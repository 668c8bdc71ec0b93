"""Multiple-choice video question answering: which of several texts belongs to a video (MSRVTT-QA).

Shapes: O options of a question, L text positions, M seconds, D feature width.
"""

import abc
import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of, missing_field, safe_video_id
from mmpt.processors.base import AlignerOptions, MetaProcessor, SplitOptions, TextOptions, TextProcessor
from mmpt.processors.corpus_files import read_delimited
from mmpt.processors.ds_aligner import DSAligner
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = [
    "Choice",
    "MSRVTTQAAligner",
    "MSRVTTQAMetaOptions",
    "MSRVTTQAMetaProcessor",
    "MSRVTTQATextProcessor",
    "OptionsAligner",
    "QATextOptions",
]

logger = logging.getLogger(__name__)

_OPTION = re.compile(r"a([1-9]\d{0,5})")
#: Sets of options that a process keeps tokenised and laid out: those of classification are the same for all items.
_KEPT = 8


class Choice(NamedTuple):
    """One multiple-choice question: texts, or, behind the text processor, token ids.

    Attributes:
        answer: index of the right option.
        options: a text, or a list of token ids, per option.
        question: what stands before each option; may be empty.
        slots: rows that an item has, where the options of a corpus differ in number; 0: as many as options.
        texts: behind the text processor, the texts of the question and of its options.
    """

    answer: int
    options: Sequence[Any]
    question: Any = ""
    slots: int = 0
    texts: tuple[str, ...] = ()


@dataclass
class MSRVTTQAMetaOptions(SplitOptions, AnnotationOptions):
    """Lists of MSRVTT-QA."""


@dataclass
class QATextOptions(TextOptions):
    """Tokenizer, and how many options training sees.

    ``sampled_options``: in training, the right option and that many less one of the others, drawn anew at each
    access (classification with many labels); empty or larger than there are: all of them.
    """

    split: str = "train"
    sampled_options: int | None = None


class MSRVTTQAMetaProcessor(MetaProcessor):
    """List ``(video_id, (answer, (option, ..)))`` of MSR_MC_test.csv.

    The file is tab-separated with the columns ``vid_key``, ``a1``, ``a2`` .. (published: five) and ``answer``, the
    index of the right option, from 0. ``msr123`` is the video ``video123``.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MSRVTTQAMetaOptions}

    def __init__(self, config: Any) -> None:
        """Read the list.

        Raises:
            DataError: if the file is wrong (names line and column), the split is empty or too much of it has no
                features.
        """
        super().__init__(config)
        options = read_options(config, MSRVTTQAMetaOptions)
        items = [_question(row, place) for place, row in read_delimited(self.path, "\t")]
        if not items:
            raise DataError(f"{self.path}: lists no questions")
        items = [item for item, used in zip(items, self.in_split([item[0] for item in items]), strict=True) if used]
        store = features_of(config)
        skips = SkipReport(self.path, options.max_missing, "questions")
        for video_id, choice in items:
            if store is not None and video_id not in store:
                skips.add("without features", video_id)
            else:
                self.data.append((video_id, choice))
        skips.close(len(items))


def _question(row: dict[str, str], place: str) -> tuple[str, tuple[int, tuple[str, ...]]]:
    """Return one item of a row."""
    names = sorted((name for name in row if _OPTION.fullmatch(name)), key=lambda name: int(name[1:]))
    for name in ("vid_key", "answer", *(f"a{number}" for number in range(1, max(len(names), 2) + 1))):
        if name not in row:
            raise missing_field(place, "column", name, row)
    options = tuple(row[name].strip() for name in names)
    for name, option in zip(names, options, strict=True):
        if not option:
            raise DataError(f"{place}: column {name!r} is empty")
    answer = row["answer"].strip()
    if not answer.isdecimal() or len(answer) > 4 or int(answer) >= len(options):
        raise DataError(
            f"{place}: column 'answer': {row['answer']!r} is not the index of an option, from 0 to {len(options) - 1}"
        )
    video_id = re.sub(r"^msr(?=\d+$)", "video", row["vid_key"].strip())
    return safe_video_id(video_id, place), (int(answer), options)


class MSRVTTQATextProcessor(TextProcessor):
    """Turn the texts of a question into word-piece ids; what it is given stays as it is."""

    config_options: ClassVar[dict[str, type]] = {"dataset": QATextOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, QATextOptions)
        self.sampled = options.sampled_options if options.split == "train" else None
        if self.sampled is not None and self.sampled < 2:
            raise ConfigError(f"dataset.sampled_options: {self.sampled} leaves no choice (2 or more)")

    def __call__(self, text_id: Sequence[Any], rng: np.random.Generator | None = None) -> Choice:
        """Return the ids of a question ``(answer, options)`` or :class:`Choice`; equal options share theirs."""
        choice = Choice(*text_id)
        kept = self._draw(len(choice.options), choice.answer, rng)
        ids = _option_ids(self.tokenizer, tuple(choice.options))
        return Choice(
            kept.index(choice.answer) if choice.answer in kept else choice.answer,
            [ids[index] for index in kept],
            super().__call__(choice.question) if choice.question else [],
            min(choice.slots, self.sampled) if self.sampled is not None and rng is not None else choice.slots,
            (choice.question, *(choice.options[index] for index in kept)),
        )

    def _draw(self, number: int, answer: int, rng: np.random.Generator | None) -> Sequence[int]:
        """Return the options that are kept: ``sampled_options`` of them, the right one among them, in their order."""
        if self.sampled is None or rng is None or number <= self.sampled:
            return range(number)
        others = [index for index in range(number) if index != answer]
        return sorted([answer, *rng.choice(others, self.sampled - 1, replace=False).tolist()])


@functools.lru_cache(maxsize=_KEPT)
def _option_ids(tokenizer: Any, options: tuple[str, ...]) -> list[list[int]]:
    """Return the ids of each option; shared, so they must not be changed."""
    encoded = tokenizer(
        list(options),
        add_special_tokens=False,
        verbose=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return encoded["input_ids"]


class OptionsAligner(abc.ABC):
    """What an aligner of multiple-choice questions makes of the texts, beside an aligner that lays out one of them."""

    split: str

    @property
    @abc.abstractmethod
    def max_words(self) -> int:
        """Word pieces that fit beside the special ones."""

    @abc.abstractmethod
    def lay_out(self, words: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (L,) of one text."""

    def too_many(self, choice: Choice) -> int:
        """Return how many word pieces of a question and its longest option do not fit; 0 or less: none."""
        return len(choice.question or []) + max(map(len, choice.options)) - self.max_words

    def question_item(self, video_id: Any, text_feature: Any) -> dict[str, Any]:
        """Return what an item holds of a question; see :class:`MSRVTTQAAligner`.

        Raises:
            DataError: if the right option is none of them; names the video.
        """
        choice = Choice(*text_feature)
        if not 0 <= choice.answer < len(choice.options):
            raise DataError(f"video {video_id}: {choice.answer} is no index of its {len(choice.options)} options")
        try:
            caps, cmasks = self._texts(choice)
        except DataError as error:
            raise DataError(f"video {video_id}: {error}") from error
        item = {"caps": caps, "cmasks": cmasks, "answers": torch.tensor([choice.answer])}
        if choice.slots:
            item["option_mask"] = torch.arange(len(caps)) < len(choice.options)
        if self.split == "test" and choice.texts:
            return {**item, "question": choice.texts[0], "options": list(choice.texts[1:])}
        return item

    def _texts(self, choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``caps`` and ``cmasks`` of a question; those of the last few different ones are kept."""
        rows = max(choice.slots, len(choice.options))
        if not choice.texts:  # nothing to know it by again
            return self._stacked(choice, rows)
        laid_out: dict[Any, tuple[torch.Tensor, torch.Tensor]] = self.__dict__.setdefault("_laid_out", {})
        key = choice.texts, rows
        if key not in laid_out:
            if len(laid_out) >= _KEPT:
                del laid_out[next(iter(laid_out))]
            laid_out[key] = self._stacked(choice, rows)
        caps, cmasks = laid_out[key]
        return caps.clone(), cmasks.clone()  # an item is its receiver's to change

    def _stacked(self, choice: Choice, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        room = self.max_words - max(map(len, choice.options))
        question = list(choice.question or [])[: max(room, 0)]
        options = [question + list(option) for option in choice.options]
        caps, cmasks = zip(*map(self.lay_out, [*options, *[[]] * (rows - len(options))]), strict=True)
        return torch.stack(caps), torch.stack(cmasks)


class MSRVTTQAAligner(OptionsAligner, DSAligner):
    """Align the first ``max_video_len`` seconds of a video with every option of a question."""

    config_options: ClassVar[dict[str, type]] = {"dataset": AlignerOptions}

    @property
    def max_words(self) -> int:
        """Word pieces that fit beside the three specials."""
        return self.max_text_len

    def lay_out(self, words: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (L,) of one text."""
        return self._build_text_seq(words)

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the video, laid out once, with all options.

        A question that does not fit beside the longest option is cut at its end, the same for every option.

        Args:
            video_feature: (seconds, D).
            text_feature: ``(answer, ids of the options)`` or :class:`Choice`.

        Returns:
            ``caps`` int64 and ``cmasks`` bool (O, L), ``answers`` int64 (1,), ``vfeats`` (M, D), ``vmasks`` (M,),
            ``video_id``. Where the options of the corpus differ in number, ``option_mask`` bool (O,) is false on the
            rows that only fill up, which hold an empty text. In the test split also ``question`` and ``options``,
            the texts.

        Raises:
            DataError: if the features are empty or not (seconds, D), or the ids not flat lists; names the video.
        """
        texts = self.question_item(video_id, text_feature)
        return {**super().__call__(video_id, video_feature, []), **texts}
