"""VCR (Zellers et al. 2019): a question about an image, four answers, and four rationales for the right one.

Files of questions, and the images; what the models read is laid out in :mod:`mmpt.processors.vcr_aligners`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from mmpt.processors.annotations import AnnotationOptions, SkipReport
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.processors.frame_base import FrameVideoOptions, FrameVideoProcessor
from mmpt.processors.question_lines import Text, as_id, as_label, as_text, as_texts, needed
from mmpt.processors.subword_texts import SubwordOptions, TokenizerCheck
from mmpt.store.frame_store import StoredFrames, open_frames
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.json_lines import read_lines
from mmpt.utils.options import read_options

__all__ = [
    "CHOICES",
    "KINDS",
    "Asked",
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
class VCRMetaOptions(SplitOptions, AnnotationOptions, SubwordOptions):
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
        check = TokenizerCheck(config)
        for place, record in read_lines(self.path):
            listed += 1
            check(record, place)
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
