"""Questions about a video: among given options, or open-ended; each model answers as it was trained to.

Shapes: O options, C answers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.api.capability import require_call
from mmpt.api.checks import check_count, check_names, check_texts
from mmpt.api.classifying import temperature_of
from mmpt.api.outputs import Answer
from mmpt.api.questions import choice_batch, open_batch, reserve_batches
from mmpt.api.scoring import Comparer
from mmpt.api.text_input import TextReader, Tokens
from mmpt.api.video_sources import Source, source_of
from mmpt.models.reserve_answering import ReserveAnswering, ReserveTVQA
from mmpt.models.reserve_cloze import ReserveCloze
from mmpt.modules.reserve_tokens import PAD, SPAN_LENGTH
from mmpt.processors.clip_text_files import ClipTextFile, Labels
from mmpt.utils.errors import DataError, nearest
from mmpt.utils.files import resolve_path

__all__ = ["answer", "answer_vocabulary"]

#: Answers to an open question where it is not said how many.
_OPEN_ANSWERS = 5


def answer(
    pipeline: Any,
    video: Any,
    question: str,
    options: Sequence[str] | None = None,
    *,
    answers: Sequence[str] | None = None,
    top: int | None = None,
    fps: float | None = None,
) -> list[Answer]:
    """Answer a question about a video, best answer first; see :meth:`~mmpt.api.VideoTextPipeline.answer`.

    Args:
        pipeline: of a loaded model.
        video: as any call of a pipeline takes it.
        question: what is asked; may be empty where there are options. LAVENDER fills in a ``[MASK]``, and MERLOT
            Reserve a ``<|MASK|>``, which otherwise stands behind the question.
        options: to choose from.
        answers: open-ended: of all answers that the model knows, those that are allowed; MERLOT Reserve knows none but
            these.
        top: how many answers come back; by default all options, or the best 5 of an open question.
        fps: of frames.

    Returns:
        Answers with the score that the model gives, and the probability among all that were compared.

    Raises:
        MissingCapabilityError: if the model does not answer such questions.
        DataError: if a text is empty, there is no choice, or nothing says what the answers are.
    """
    if options is not None and answers is not None:
        raise DataError("options are to choose from, answers of an open question are restricted: give one of the two")
    if not isinstance(question, str) or (options is None and not question.strip()):
        raise DataError(f"the question is {'empty' if isinstance(question, str) else f'a {type(question).__name__}'}")
    asked = check_texts(question, "question")[0][0].strip() if question.strip() else ""
    number = None if top is None else check_count(top, "top")
    require_call(pipeline, "answer" if options is None else "choose")
    if options is not None:
        given = check_names(options, "option", 2)
        return _best(given, *_choose(pipeline, source_of(video, fps), asked, given), number or len(given))
    allowed = None if answers is None else check_names(answers, "answer")
    names, scores = _open(pipeline, source_of(video, fps), asked, allowed)
    return _best(names, scores, F.softmax(scores, dim=0), number or _OPEN_ANSWERS)


@torch.inference_mode()
def _choose(pipeline: Any, source: Source, question: str, options: list[str]) -> tuple[Tensor, Tensor]:
    """Return scores and probabilities of options, float64 (O,)."""
    model = pipeline.model
    if "multiple_choice" not in getattr(model, "capabilities", ()) or not hasattr(model, "option_scores"):
        return _compare(pipeline, source, question, options)
    if isinstance(model, ReserveAnswering):
        return _choose_reserve(pipeline, source, question, options)
    scores = model.option_scores(**choice_batch(pipeline, source, question, options))[0].double().cpu()
    return scores, F.softmax(scores, dim=0)


def _choose_reserve(pipeline: Any, source: Source, question: str, options: list[str]) -> tuple[Tensor, Tensor]:
    """Score each option by itself: VCR's logits, or TVQA's two kinds of them, whose probabilities are added."""
    model = pipeline.model
    parts = []
    for batch, number in reserve_batches(pipeline, source, question, options):
        scored = model.kind_logits(**batch) if isinstance(model, ReserveTVQA) else model.option_scores(**batch)
        parts.append(scored.double().cpu().reshape(-1, scored.shape[-1])[:, :number])
    kinds = torch.cat(parts, dim=1)
    chances = F.softmax(kinds, dim=1)
    return (chances.sum(0), chances.mean(0)) if isinstance(model, ReserveTVQA) else (kinds[0], chances[0])


def _compare(pipeline: Any, source: Source, question: str, options: list[str]) -> tuple[Tensor, Tensor]:
    """Score the texts of question and option against the video, as in retrieval."""
    reader = _JoinedTexts(pipeline.comparer.texts, question)
    comparer = Comparer(pipeline.model, reader)
    rows = [pipeline.reader.whole(source)]
    if pipeline.dim is None:
        scores = comparer.fused_scores(options, rows, 1)[:, 0]
    else:
        vector = comparer.video_vectors(rows, 1)[0]
        scores = comparer.text_vectors(options, len(options)) @ vector
    found = torch.from_numpy(np.asarray(scores)).double()
    return found, F.softmax(found / temperature_of(pipeline.config), dim=0)


class _JoinedTexts(TextReader):
    """Lays out options behind their question, as tests of multiple choice do.

    A question that does not fit beside the longest option is cut at its end, the same for every option.
    """

    def __init__(self, reader: TextReader, question: str) -> None:
        self.tokenizer, self.aligner, self.cut = reader.tokenizer, reader.aligner, reader.cut
        self.question, self.cut_questions = question, reader.cut_questions

    def __call__(self, options: Sequence[str]) -> Tokens:
        """Lay out options; DataError if one has no words."""
        plain = super().__call__(options)
        if not self.question:
            return plain
        ids = [self.ids(option) for option in options]
        asked = self.ids(self.question)
        room = max(self._room(ids[0][0]) - max(map(len, ids)), 0)
        self.cut_questions.add(len(asked) > room, f"{self.question[:60]!r}")
        rows = [self.aligner._build_text_seq([*asked[:room], *option]) for option in ids]
        caps, cmasks = (torch.stack(part) for part in zip(*rows, strict=True))
        return plain._replace(caps=caps, cmasks=cmasks.bool())

    def _room(self, word: int) -> int:
        """Return how many ids fit."""
        return int((self.aligner._build_text_seq([word] * 4096)[0] == word).sum())


@torch.inference_mode()
def _open(pipeline: Any, source: Source, question: str, answers: list[str] | None) -> tuple[list[str], Tensor]:
    """Return what was compared, and the scores, float64 (C,)."""
    model, batch = pipeline.model, open_batch(pipeline, source, question)
    given = _reserve_answers(pipeline, answers) if isinstance(model, ReserveCloze) else None
    if given is not None:  # as an argument, not set in the model: calls may come from several threads
        batch["answer_spans"] = _spans(pipeline.tokenizer, given)[None].to(pipeline.device)
    scores = model.answer_scores(**batch)[0].double().cpu()
    if not bool(torch.isfinite(scores).all()):
        raise DataError("the model gives scores that are not finite: its weights or settings are damaged")
    if given is not None:
        return given, scores
    if "masked_modeling" in model.capabilities:  # LAVENDER answers by a word piece
        names, places = _pieces(pipeline, answers)
    else:
        names, places = _labels(pipeline, answers, len(scores))
    return names, scores[places]


def _reserve_answers(pipeline: Any, answers: list[str] | None) -> list[str]:
    """Return the answers that a gap is compared with."""
    names = answers if answers is not None else answer_vocabulary(pipeline.config)
    if not names:
        raise DataError(
            f"{pipeline.source}: fills a gap by the nearest of the answers that it is given, and has none: "
            "answers=[..], of the command --answers-file"
        )
    return names


def _spans(subwords: Any, texts: Sequence[str]) -> Tensor:
    """Return the ids of short texts, int64 (C, 15), cut or padded."""
    spans = torch.full((len(texts), SPAN_LENGTH), PAD)
    for row, text in zip(spans, texts, strict=True):
        ids = subwords.encode(text)[:SPAN_LENGTH]
        row[: len(ids)] = torch.tensor(ids)
    return spans


def _pieces(pipeline: Any, answers: list[str] | None) -> tuple[list[str], Tensor]:
    """Return word pieces that are allowed, and their ids: without ``answers``, all that are no special ones."""
    tokenizer = pipeline.tokenizer
    if answers is None:
        special = set(tokenizer.all_special_ids)
        ids = [number for number in range(len(tokenizer)) if number not in special]
        return [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)], torch.tensor(ids)
    found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
    for text, ids in zip(answers, found, strict=True):
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise DataError(
                f"answers: {text!r} is {len(ids)} word pieces, not one that is known: the model answers by a single "
                "one. Give it as one of options"
            )
    return answers, torch.tensor([ids[0] for ids in found])


def _labels(pipeline: Any, answers: list[str] | None, number: int) -> tuple[list[str], Tensor]:
    """Return the answers that a head scores, those that are allowed, and their numbers."""
    known = answer_vocabulary(pipeline.config)
    if known is None:
        raise DataError(
            f"{pipeline.source}: chooses among {number} answers, and nothing says which they are. Name the text file "
            "of its training that has them (vocab or ans2label): overrides=['dataset.train_path=FILE']"
        )
    if len(known) != number:
        raise DataError(
            f"{pipeline.source}: chooses among {number} answers, but its data list {len(known)}: they are others"
        )
    places = {name: place for place, name in reversed(list(enumerate(known))) if name}
    for name in answers or ():
        if name not in places:
            raise DataError(f"answers: {name!r} is none of the {number} that the model knows.{nearest(name, places)}")
    chosen = answers if answers is not None else list(places)
    return list(chosen), torch.tensor([places[name] for name in chosen])


def answer_vocabulary(config: Any) -> list[str] | None:
    """Return the answers that a job's model tells apart, by class; None where neither settings nor data say.

    A saved folder has them in ``dataset.class_names``; a run's are those of its text file.

    Raises:
        DataError: if the text file is damaged.
    """
    stored = OmegaConf.select(config, "dataset.class_names")
    if stored is not None:
        return [str(name) for name in stored]
    for key in ("train_path", "val_path", "test_path"):
        path = OmegaConf.select(config, f"dataset.{key}")
        if isinstance(path, str) and path.endswith(".json") and resolve_path(path).is_file():
            names = Labels(ClipTextFile(path)).names
            if names is not None:
                return names
    return None


def _best(names: Sequence[str], scores: Tensor, chances: Tensor, top: int) -> list[Answer]:
    """Return the best answers; of equals the first."""
    order = scores.argsort(descending=True, stable=True)[:top].tolist()
    return [Answer(names[place], float(scores[place]), float(chances[place])) for place in order]
