"""VCR (Zellers et al. 2019): a question about an image, four answers, and four rationales for the right one.

Shapes: Q questions of an item, X text positions, (H, W) pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.modules import reserve_tokens
from mmpt.processors.annotations import AnnotationOptions, SkipReport
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.frame_base import FrameVideoOptions, FrameVideoProcessor
from mmpt.processors.merlot_questions import lay_out_merlot
from mmpt.processors.oblong_frames import MERLOTItemOptions, ReserveItemOptions, merlot_frames, reserve_frames
from mmpt.processors.question_lines import Text, as_id, as_label, as_text, as_texts, needed
from mmpt.processors.subword_texts import Tokenised
from mmpt.store.frame_store import StoredFrames, open_frames
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.json_lines import read_lines
from mmpt.utils.options import read_options

__all__ = [
    "CHOICES",
    "KINDS",
    "Asked",
    "MERLOTVCRAligner",
    "ReserveVCRAligner",
    "VCRImages",
    "VCRMetaOptions",
    "VCRMetaProcessor",
    "VCRVideoProcessor",
]

#: The two questions about an image, by their number.
KINDS = ("answer", "rationale")
CHOICES = 4


class Asked(NamedTuple):
    """One question with its choices.

    Attributes:
        question_id: of the annotation.
        kind: 0 which answer, 1 which rationale.
        given: of a rationale, the answer that its context names; -1: the right one. Of an answer, -1.
        context: what stands before each choice.
        choices: four texts.
        label: index of the right one; -1 where it is not known.
    """

    question_id: str
    kind: int
    given: int
    context: Text
    choices: tuple[Text, ...]
    label: int


class VCRImages(NamedTuple):
    """Ids in the frame store of an image and, where there is one, of its mirror image."""

    image: str
    flipped: str | None = None


@dataclass
class VCRMetaOptions(SplitOptions, AnnotationOptions):
    """Files of questions as the importers write them (:mod:`mmpt.store.tfrecord_questions`).

    Attributes:
        kinds: which questions: ``answer``, ``rationale`` or both.
    """

    kinds: str = "both"


class VCRMetaProcessor(MetaProcessor):
    """List ``(VCRImages, (Asked, ..))``; questions without an image in the store are counted and left out.

    Training and validation see the rationales of the right answer; a test also those of each answer, where the file
    has them, which the submission needs.

    Args:
        config: the section.
        joint: an item holds both questions, and in a test all of them (Reserve), or one (MERLOT).

    Raises:
        ConfigError: if ``frame_path`` is not set, or ``kinds`` is none.
        DataError: if the file is wrong (names the line), or too much of it cannot be used.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": VCRMetaOptions}

    def __init__(self, config: Any, joint: bool = False) -> None:
        super().__init__(config)
        options = read_options(config, VCRMetaOptions)
        if options.kinds not in (*KINDS, "both"):
            raise ConfigError(f"dataset.kinds: {options.kinds!r} is none of answer, rationale, both")
        if not options.frame_path:
            raise ConfigError("dataset.frame_path: not set; it names the frame store")
        store = open_frames(str(resolve_path(options.frame_path)))
        kinds = [kind for kind in range(len(KINDS)) if options.kinds in (KINDS[kind], "both")]
        skips, listed = SkipReport(self.path, options.max_missing, "questions"), 0
        for place, record in read_lines(self.path):
            listed += 1
            images = needed(record, "image", place)
            if not isinstance(images, dict):
                raise DataError(f"{place}: image: expected the id of the image of each kind")
            by_kind = [_images(images, kind, place) for kind in kinds]
            asked = [list(_asked(record, kind, self.split == "test", place)) for kind in kinds]
            missing = [name for one in by_kind for name in (one.image, one.flipped) if name and name not in store]
            if missing:
                skips.add("without an image", missing[0])
                continue
            if self.split != "test" and any(one.label < 0 for of_kind in asked for one in of_kind):
                skips.add("without a label", asked[0][0].question_id)
                continue
            if joint:
                self.data.append((by_kind[0], tuple(one for of_kind in asked for one in of_kind)))
            else:
                pairs = zip(by_kind, asked, strict=True)
                self.data.extend((image, (one,)) for image, of_kind in pairs for one in of_kind)
        skips.close(listed)
        numbers = {len(questions) for _, questions in self.data}
        if len(numbers) > 1:
            raise DataError(f"{self.path}: some rationales have a context for each answer and some only for one")


def _images(images: Mapping[str, Any], kind: int, place: str) -> VCRImages:
    flipped = images.get("flipped")
    image = as_id(needed(images, KINDS[kind], f"{place}: image"), f"{place}: image of the {KINDS[kind]}")
    return VCRImages(image, None if flipped is None else as_id(flipped, f"{place}: flipped image"))


def _asked(record: Mapping[str, Any], kind: int, every: bool, place: str) -> Iterator[Asked]:
    """Yield the questions of a kind: one, and in a test the rationales of every answer where the file has them."""
    name, key = as_id(needed(record, "id", place), f"{place}: id"), KINDS[kind]
    question = needed(record, key, place)
    where = f"{place}: {key}"
    if not isinstance(question, dict):
        raise DataError(f"{where}: expected an object with context, choices and label")
    choices = as_texts(needed(question, "choices", where), CHOICES, f"{where}: choices")
    label = as_label(question.get("label"), CHOICES, f"{where}: label")
    if kind == 0:
        yield Asked(name, 0, -1, as_text(needed(question, "context", where), f"{where}: context"), choices, label)
        return
    given = needed(question, "contexts", where)
    if not isinstance(given, list) or len(given) not in (1, CHOICES):
        raise DataError(f"{where}: contexts: expected one, or one for each of the {CHOICES} answers")
    contexts = [as_text(one, f"{where}: context {number}") for number, one in enumerate(given)]
    if len(contexts) == 1:
        yield Asked(name, 1, -1, contexts[0], choices, label)
    elif every:
        yield from (Asked(name, 1, number, context, choices, label) for number, context in enumerate(contexts))
    else:
        right = as_label(record[KINDS[0]].get("label"), CHOICES, f"{place}: answer: label")
        yield Asked(name, 1, -1, contexts[right], choices, label if right >= 0 else -1)


class VCRVideoProcessor:
    """Find the image of a question, and its mirror image where there is one."""

    config_options: ClassVar[dict[str, type]] = {"dataset": FrameVideoOptions}

    def __init__(self, config: Any) -> None:
        """Open the store; ConfigError if ``frame_path`` is not set, DataError if there is none."""
        self.single = FrameVideoProcessor(config)

    def __call__(self, video_id: Any) -> list[StoredFrames]:
        """Return one or two sequences of one image each; DataError if the store lacks one."""
        return [self.single(name) for name in video_id if name is not None]


class _VCRAligner(Tokenised):
    """What the aligners of both systems share: the image, and the numbers of the questions."""

    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any, options: Any, length: int, key: str, frames: Any) -> None:
        super().__init__(config)
        if length < 8:
            raise ConfigError(f"dataset.{key}: {length} has no room for a question (8 or more)")
        self.split, self.length, self.frames = options.split, length, frames
        self.cut = CutTexts(f"are cut: dataset.{key} leaves too little room")

    def lay_out(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and mask bool (4, X) of the choices of a question."""
        raise NotImplementedError

    def item(self, stored: Sequence[StoredFrames], questions: Sequence[Asked], rng: Any) -> dict[str, Any]:
        """Return the image and what tells the questions; ``caps`` (Q, 4, X) and ``answers`` (Q,)."""
        name, drawn = questions[0].question_id, rng if self.split == "train" else None
        chosen = stored[int(drawn.integers(len(stored)))] if drawn is not None else stored[0]
        vfeats, vmasks = self.frames(list(chosen[:1]), f"question {name}", 1, drawn)
        laid_out = [self.lay_out(asked) for asked in questions]
        return {
            "vfeats": vfeats,
            "vmasks": vmasks,
            "caps": torch.stack([caps for caps, _ in laid_out]),
            "cmasks": torch.stack([mask for _, mask in laid_out]),
            "answers": torch.tensor([asked.label for asked in questions]),
            "question_kind": torch.tensor([asked.kind for asked in questions]),
            "given": torch.tensor([asked.given for asked in questions]),
            "video_id": name,
        }

    def count_cut(self, asked: Asked, over: int) -> None:
        """Count a question of which ``over`` ids, if positive, do not fit."""
        self.cut.add(over > 0, f"question {asked.question_id}, {over} ids too many")


class MERLOTVCRAligner(_VCRAligner):
    """Lay a question out for MERLOT: ``START " answer question:" | " provide rationale:" context choice END``.

    A context that does not fit beside the longest choice is cut at its end, the same for every choice.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTItemOptions}
    _PREFIXES = (" answer question:", " provide rationale:")

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, MERLOTItemOptions)
        super().__init__(config, options, options.max_text_len, "max_text_len", merlot_frames(config))

    def lay_out(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and mask bool (4, X) of the choices of a question."""
        prefix = self.ids(self._PREFIXES[asked.kind])
        choices = [self.ids(choice) for choice in asked.choices]
        context = self.ids(asked.context)
        room = max(self.length - 2 - len(prefix) - max(map(len, choices)), 0)
        self.count_cut(asked, len(context) - room)
        rows = [lay_out_merlot([*prefix, *context[:room], *choice], self.length) for choice in choices]
        return torch.stack([caps for caps, _ in rows]), torch.stack([mask for _, mask in rows])

    def __call__(
        self,
        video_id: Any,
        stored: Sequence[StoredFrames],
        text_feature: Sequence[Asked],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of one question.

        Returns:
            ``vfeats`` uint8 (1, 3, H, W), ``vmasks`` bool (1,), ``caps`` int64 and ``cmasks`` bool (4, X), ``answers``
            int64 (1,), -1 where it is not known, ``question_kind`` int64 (), 0 answer or 1 rationale, ``given`` int64
            (), and ``video_id``, the annotation's id.

        Raises:
            UnusableItemError: if the image is damaged; names the question.
        """
        item = self.item(stored, text_feature[:1], rng)
        return item | {key: item[key][0] for key in ("caps", "cmasks", "question_kind", "given")}


class ReserveVCRAligner(_VCRAligner):
    """Lay questions out for Reserve: ``context "answer: " | "rationale: " choice``, cut to X - 1 ids, then MASK."""

    config_options: ClassVar[dict[str, type]] = {"dataset": ReserveItemOptions}
    _PREFIXES = ("answer: ", "rationale: ")

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        options = read_options(config, ReserveItemOptions)
        super().__init__(config, options, options.lang_seq_len, "lang_seq_len", reserve_frames(config))

    def lay_out(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids int64 and mask bool (4, X) of the choices of a question."""
        before = [*self.ids(asked.context), *self.ids(self._PREFIXES[asked.kind])]
        caps = torch.full((CHOICES, self.length), reserve_tokens.PAD)
        over = 0
        for row, choice in zip(caps, asked.choices, strict=True):
            ids = [*before, *self.ids(choice)]
            over = max(over, len(ids) - (self.length - 1))
            ids = [*ids[: self.length - 1], reserve_tokens.MASK]
            row[: len(ids)] = torch.tensor(ids)
        self.count_cut(asked, over)
        return caps, caps != reserve_tokens.PAD

    def __call__(
        self,
        video_id: Any,
        stored: Sequence[StoredFrames],
        text_feature: Sequence[Asked],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of the questions about one image: in training Q->A and QA->R.

        Returns:
            ``vfeats`` uint8 (1, 3, H, W), ``vmasks`` bool (1,), ``caps`` int64 and ``cmasks`` bool (Q, 4, X),
            ``answers``, -1 where it is not known, ``question_kind`` and ``given`` int64 (Q,), and ``video_id``, the
            annotation's id. In training the image is its mirror image half of the time, where there is one.

        Raises:
            UnusableItemError: if the image is damaged; names the question.
        """
        return self.item(stored, text_feature, rng)
