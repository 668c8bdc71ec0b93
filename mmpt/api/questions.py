"""Questions about one video as a model reads them: laid out by the aligners of its tests.

Shapes: O options, C answers, X text positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmpt.api.question_videos import pictures_of, segments_around, segments_of
from mmpt.api.video_sources import Source
from mmpt.models.lavender import LAVENDER
from mmpt.models.lavender_heads import LAVENDERMultiHead
from mmpt.models.lavender_task_specific import LAVENDERTaskSpecificChoice
from mmpt.models.merlot_answering import MERLOTVCR, MERLOTAnswering
from mmpt.models.merlot_base import MERLOTBase
from mmpt.models.merlot_open_ended import MERLOTOpenEnded
from mmpt.models.reserve_answering import ReserveTVQA
from mmpt.models.reserve_cloze import ReserveCloze
from mmpt.models.violet import VIOLETMultipleChoice, VIOLETOpenEnded
from mmpt.processors.lavender_questions import LAVENDERChoiceAligner
from mmpt.processors.msrvtt_qa import Choice, OptionsAligner
from mmpt.processors.open_questions import OpenQuestion
from mmpt.processors.reserve_cloze import MASK_TEXT
from mmpt.processors.tvqa import OPTIONS as TVQA_OPTIONS
from mmpt.processors.tvqa import WINDOWS as TVQA_WINDOWS
from mmpt.processors.tvqa import TVQAQuestion
from mmpt.processors.vcr import CHOICES as VCR_CHOICES
from mmpt.processors.vcr import Asked
from mmpt.store.tfrecord_questions import WINDOW_SECONDS
from mmpt.utils.errors import DataError
from mmpt.utils.registry import build

__all__ = ["MASK_WORD", "Batch", "choice_batch", "open_batch", "reserve_batches"]

Batch = dict[str, Any]
#: The gap of a sentence that LAVENDER fills in.
MASK_WORD = "[MASK]"
#: Seconds of a stretch of video that a gap is filled in by, as in the zero-shot test.
_STRETCH = 3.0


def choice_batch(pipeline: Any, source: Source, question: str, options: Sequence[str]) -> Batch:
    """Return a batch of one question with options, for ``option_scores``.

    Raises:
        DataError: if the options do not fit into the text that holds them all.
    """
    aligner = _choice_aligner(pipeline)
    if isinstance(pipeline.model, MERLOTVCR):
        # Answers, not rationales; texts behind others begin with a space.
        asked = Asked(source.name, 0, -1, f" {question}", tuple(f" {option}" for option in options), -1)
        return _batch(aligner(source.name, [pictures_of(source, 1)], [asked]), pipeline.device)
    choice = _texts(pipeline)(Choice(0, list(options), question))
    before = aligner.cut.cut
    item = aligner(source.name, pictures_of(source, aligner.num_frames), choice)
    if isinstance(aligner, LAVENDERChoiceAligner) and aligner.cut.cut > before:
        raise DataError(
            f"{len(options)} options are too long to stand in one text of dataset.max_text_len: "
            f"{aligner.max_text_len}. Give fewer or shorter ones, or a larger dataset.max_text_len by overrides="
        )
    return _batch(item, pipeline.device)


def reserve_batches(pipeline: Any, source: Source, question: str, options: Sequence[str]) -> list[tuple[Batch, int]]:
    """Return batches of MERLOT Reserve's questions, each with how many of its options are asked for.

    A test has a fixed number of them; each is scored on its own, so that more come in several batches and a batch is
    filled up by its first.
    """
    tvqa = isinstance(pipeline.model, ReserveTVQA)
    each = TVQA_OPTIONS if tvqa else VCR_CHOICES
    aligner = _own_aligner(pipeline, "TVQAAligner" if tvqa else "ReserveVCRAligner")
    seen: Any = segments_around(source, TVQA_WINDOWS, WINDOW_SECONDS) if tvqa else [pictures_of(source, 1)]
    found = []
    for first in range(0, len(options), each):
        part = list(options[first : first + each])
        rows = (*part, *[part[0]] * (each - len(part)))
        if tvqa:
            asked: Any = TVQAQuestion(source.name, "", question, rows, -1, ("",) * TVQA_WINDOWS, len(seen))
        else:
            asked = [Asked(source.name, 0, -1, question, rows, -1)]
        found.append((_batch(aligner(source.name, seen, asked), pipeline.device), len(part)))
    return found


def open_batch(pipeline: Any, source: Source, question: str) -> Batch:
    """Return a batch of one open-ended question, for ``answer_scores``.

    Raises:
        DataError: if a sentence has more than one gap, or its gap does not fit.
    """
    aligner = _open_aligner(pipeline, question)
    if isinstance(pipeline.model, ReserveCloze):
        text = question if MASK_TEXT in question else f"{question}{MASK_TEXT}"
        if text.count(MASK_TEXT) > 1:
            raise DataError(f"the sentence has {text.count(MASK_TEXT)} gaps {MASK_TEXT}; one is filled in")
        seen: Any = segments_of(source, _STRETCH)
        asked = OpenQuestion(aligner.ids(text))
    else:
        seen, asked = pictures_of(source, aligner.num_frames), _texts(pipeline)(OpenQuestion(question))
        if isinstance(pipeline.model, LAVENDER):  # it counts answers that are no single word piece
            asked = asked._replace(answer_text=[aligner.special_ids.mask])
    batch = _batch(aligner(source.name, seen, asked), pipeline.device)
    if "answer_position" in batch and int(batch["answer_position"]) < 0:
        raise DataError(f"the gap lies behind the {aligner.max_text_len} positions of dataset.max_text_len")
    return batch


def _choice_aligner(pipeline: Any) -> Any:
    """Return the aligner of the job if it lays out choices, else the one of its model's tests."""
    model = pipeline.model
    if isinstance(model, MERLOTVCR):
        return _own_aligner(pipeline, "MERLOTVCRAligner")
    if isinstance(pipeline.aligner, OptionsAligner | LAVENDERChoiceAligner):
        return pipeline.aligner
    joined = isinstance(model, LAVENDERTaskSpecificChoice) or (
        isinstance(model, LAVENDERMultiHead) and model.joined_options is not None
    )
    if joined:
        return _own_aligner(pipeline, "LAVENDERTaskSpecificChoiceAligner")
    names: dict[type, str] = {
        LAVENDER: "LAVENDERChoiceAligner",
        VIOLETMultipleChoice: "VIOLETMultipleChoiceAligner",
        MERLOTAnswering: "MERLOTChoiceAligner",
    }
    return _by_class(pipeline, names)


def _open_aligner(pipeline: Any, question: str) -> Any:
    model = pipeline.model
    if isinstance(model, LAVENDER):
        return _own_aligner(pipeline, "LAVENDERBlankAligner" if MASK_WORD in question else "LAVENDERQuestionAligner")
    names: dict[type, str] = {
        ReserveCloze: "ClozeAligner",
        MERLOTOpenEnded: "MERLOTOpenEndedAligner",
        VIOLETOpenEnded: "VIOLETOpenEndedAligner",
        LAVENDERMultiHead: "VIOLETOpenEndedAligner",
    }
    return _by_class(pipeline, names)


def _by_class(pipeline: Any, names: Mapping[type, str]) -> Any:
    """Return the aligner of a model's class; of a class of the user's own, that of the job."""
    found = next((name for kind, name in names.items() if isinstance(pipeline.model, kind)), None)
    return pipeline.aligner if found is None else _own_aligner(pipeline, found)


def _own_aligner(pipeline: Any, name: str) -> Any:
    """Return the job's aligner if it is of this name, else one with its settings."""
    if str(pipeline.config.dataset.get("aligner")) == name:
        return pipeline.aligner
    return build("aligner", name, pipeline.config.dataset)


def _texts(pipeline: Any) -> Any:
    """Return what makes ids of the texts of a question."""
    name = "SubwordTextProcessor" if isinstance(pipeline.model, MERLOTBase) else "ClipTextProcessor"
    return build("text_processor", name, pipeline.config.dataset)


def _batch(item: Mapping[str, Any], device: torch.device) -> Batch:
    """Return a batch of one item as a test's loader makes it, on a device."""
    rows = {key: value[None] if isinstance(value, Tensor) else [value] for key, value in item.items()}
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in rows.items()}
