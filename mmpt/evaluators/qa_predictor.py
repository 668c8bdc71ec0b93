"""Multiple choice: score every option of a question against its video.

Serves video question answering and, with all labels as the options, classification.

Shapes: B videos, O options of each, H hidden.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmpt.evaluators.base import decode_texts, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor, on_device
from mmpt.evaluators.classification_metrics import right_alone
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import read_json, write_json

__all__ = ["QAPredictor", "read_answers"]

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 1024
_SCORES = "scores.npz"
#: Options whose scores are written to predictions.json where all questions have the same options.
_BEST = 5


class _Answer(NamedTuple):
    """One question, and the score of each of its options, float32 (O,)."""

    video_id: str
    question: str
    options: tuple[str, ...]
    answer: int
    scores: npt.NDArray[np.float32]


class QAPredictor(BatchPredictor):
    """Predict the option whose text scores highest against the video; of several, the first.

    Writes to ``eval.save_path``: ``merged.npy``, int64 (questions,), the index of the predicted option, and
    ``predictions.json``, for every question its ``video_id``, ``question`` and ``options``, the ``answer``,
    ``prediction``, whether that is ``correct`` (the right option scores higher than every other, so that ties count
    against the model, as in the metric) and the ``scores`` of the options.

    Where all questions have the same options, as in classification, that file is ``{"options", "questions"}``: the
    options once, and per question only the scores of the best five and of the right one, by index. All scores are
    then in ``scores.npz`` (``scores``, float32 (questions, options)).
    """

    kind = "choice"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], list[_Answer]]:
        """Return what scores the options of the questions of a batch.

        A model with the capability "multiple_choice" scores a whole batch itself (``option_scores``). With any other a
        video is encoded once, and so is a text that several questions of a batch share. The function raises
        ConfigError if the model cannot score texts against videos, and DataError if a batch holds no questions or a
        score is not finite; names the video.
        """
        known: dict[tuple[str, ...], tuple[str, ...]] = {}
        return lambda batch: self._answers(batch, self._scores(model, batch, device), known)

    def finish(
        self, parts: Sequence[Sequence[_Answer]], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the answers and return what the metric needs.

        Returns:
            ``outputs`` int64 (N,), ``targets`` int64 (N,), ``scores`` float32 (N, O), -inf where a question has fewer
            options than others, ``ids`` (N,) strings.
        """
        known: dict[tuple[str, ...], tuple[str, ...]] = {}  # each process has copies of its own
        answers = [
            answer._replace(options=known.setdefault(answer.options, answer.options))
            for part in parts
            for answer in part
        ]
        outputs = _outputs(answers)
        save_arrays(self.save_path / f"{output_file}.npy", prediction=outputs["outputs"])
        records = _records(answers, outputs, shared=len(known) == 1 and len(answers) > 1)
        if isinstance(records, dict):
            save_arrays(self.save_path / _SCORES, scores=outputs["scores"])
        write_json(self.save_path / "predictions.json", records)
        logger.info("%d questions", len(answers))
        return outputs

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved predictions."""
        path = self.save_path / "predictions.json"
        records, shared = _read(path)
        scores = list(load_arrays(self.save_path / _SCORES, ["scores"])["scores"]) if shared else None
        try:
            rows = scores or [np.array(list(record["scores"].values()), np.float32) for record in records]
            return _outputs(
                [
                    _Answer(record["video_id"], record["question"], tuple(record["options"]), record["answer"], row)
                    for record, row in zip(records, rows, strict=True)
                ]
            )
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise DataError(f"{path}: holds no predictions ({error!r}); run the test again") from error

    def _answers(
        self,
        batch: Mapping[str, Any],
        scores: npt.NDArray[np.float32],
        known: dict[tuple[str, ...], tuple[str, ...]],
    ) -> list[_Answer]:
        """Return the answers to the questions of a batch; of ``known`` options, no second copy is kept."""
        answers = batch["answers"].reshape(-1).tolist()
        names = batch.get("video_id") or [str(row) for row in range(len(scores))]
        width = scores.shape[1]
        questions = batch.get("question") or [""] * len(scores)
        options = batch.get("options")
        if options is None:
            texts = decode_texts(self.config, batch)
            if len(texts) != scores.size:  # one text holds all options
                texts = [f"option {number}" for number in range(width)] * len(scores)
            options = [texts[start : start + width] for start in range(0, len(texts), width)]
        found = []
        for row, (name, answer, question) in enumerate(zip(names, answers, questions, strict=True)):
            real = scores[row][~np.isneginf(scores[row])]
            if not np.isfinite(real).all():
                raise DataError(f"video {name}: a score is not finite: {real.tolist()}")
            if not 0 <= answer < len(real):
                raise DataError(f"video {name}: the right answer {answer} is none of its {len(real)} options")
            given = tuple(str(option) for option in options[row])[: len(real)]
            found.append(_Answer(str(name), str(question), known.setdefault(given, given), answer, real))
        return found

    @staticmethod
    def _scores(model: Any, batch: Mapping[str, Any], device: torch.device) -> npt.NDArray[np.float32]:
        """Return the scores of a batch, float32 (B, O)."""
        chooses = "multiple_choice" in getattr(model, "capabilities", ())
        if "answers" not in batch or (batch["caps"].dim() != 3 and not chooses):
            raise DataError("a batch holds no questions with options; dataset.aligner must be that of QA")
        caps, cmasks, vfeats, vmasks = (batch[name].to(device) for name in ("caps", "cmasks", "vfeats", "vmasks"))
        if chooses:
            scores = model.option_scores(**on_device(batch, device))
        elif "retrieval" in getattr(model, "capabilities", ("retrieval",)) and hasattr(model, "encode_text"):
            video = model.encode_video(vfeats, vmasks).float()
            text = _encode_texts(model, caps, cmasks).float()
            if hasattr(model, "score_pairs"):
                rows = [model.score_pairs(options, one[None]) for options, one in zip(text, video, strict=True)]
                scores = torch.stack(rows)[:, :, 0]
            else:
                scores = torch.einsum("boh,bh->bo", text, video)
        else:
            scores = _score_jointly(model, caps, cmasks, vfeats, vmasks)
        if "option_mask" in batch:
            scores = scores.masked_fill(~batch["option_mask"].to(device).bool(), -torch.inf)
        return scores.float().cpu().numpy()


def _encode_texts(model: Any, caps: Tensor, cmasks: Tensor) -> Tensor:
    """Encode texts (B, O, L) to (B, O, H); equal ones are encoded once, so they have equal scores."""
    rows = torch.cat([caps, cmasks.to(caps.dtype)], dim=-1).flatten(0, 1)
    distinct, inverse = torch.unique(rows, dim=0, return_inverse=True)
    ids, masks = distinct.split(caps.shape[-1], dim=-1)
    parts = zip(ids.split(_TEXTS_AT_ONCE), masks.bool().split(_TEXTS_AT_ONCE), strict=True)
    encoded = torch.cat([model.encode_text(part, mask) for part, mask in parts])
    return encoded[inverse].unflatten(0, caps.shape[:2])


def _score_jointly(model: Any, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor) -> Tensor:
    """Score (B, O) with a model whose vectors of video and text depend on each other: one pass for each option."""
    columns = []
    for option in range(caps.shape[1]):
        outputs = model(caps=caps[:, option], cmasks=cmasks[:, option], vfeats=vfeats, vmasks=vmasks)
        if "pooled_video" not in outputs or "pooled_text" not in outputs:
            raise ConfigError(f"predictor: {type(model).__name__} gives no pooled_video and pooled_text to score with")
        columns.append((outputs["pooled_video"].float() * outputs["pooled_text"].float()).sum(-1))
    return torch.stack(columns, dim=1)


def _outputs(answers: Sequence[_Answer]) -> dict[str, Any]:
    """Return the arrays that the metric needs."""
    scores = np.full((len(answers), max(len(answer.scores) for answer in answers)), -np.inf, dtype=np.float32)
    for row, answer in zip(scores, answers, strict=True):
        row[: len(answer.scores)] = answer.scores
    return {
        "outputs": scores.argmax(axis=1).astype(np.int64),
        "targets": np.array([answer.answer for answer in answers], dtype=np.int64),
        "scores": scores,
        "ids": np.array([answer.video_id for answer in answers], dtype=str),
    }


def _records(
    answers: Sequence[_Answer], outputs: Mapping[str, Any], shared: bool
) -> list[dict[str, Any]] | dict[str, Any]:
    """Return the content of ``predictions.json``."""
    records = []
    correct = right_alone(outputs["scores"], outputs["targets"])
    for answer, prediction, right in zip(answers, outputs["outputs"].tolist(), correct.tolist(), strict=True):
        record: dict[str, Any] = {"video_id": answer.video_id, "question": answer.question}
        scores: Any = answer.scores.tolist()
        if shared:
            best = np.argsort(-answer.scores, kind="stable")[:_BEST].tolist()
            scores = {str(number): scores[number] for number in dict.fromkeys([*best, answer.answer])}
        else:
            record["options"] = list(answer.options)
        record |= {"answer": answer.answer, "prediction": prediction, "correct": right, "scores": scores}
        records.append(record)
    return {"options": list(answers[0].options), "questions": records} if shared else records


def read_answers(path: str | Path) -> list[dict[str, Any]]:
    """Read the ``predictions.json`` of :class:`QAPredictor`: a record per question, all of one form.

    Each has its ``options`` (one list for all where they are shared) and ``scores``, option index -> score, of all
    options or, where they are shared, of the best and the right one.

    Raises:
        DataError: if the file is missing or damaged; names it.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the records of a file, and whether they share their options."""
    content = read_json(path)
    shared = isinstance(content, dict)
    try:
        records = [{**record, "options": content["options"]} for record in content["questions"]] if shared else content
        for record in records:
            given = record["scores"]
            scores = given.items() if shared else enumerate(given)
            record["scores"] = {int(number): float(score) for number, score in scores}
            absent = {"video_id", "question", "options", "answer", "prediction", "correct"} - record.keys()
            if absent or record["answer"] not in record["scores"]:
                raise KeyError(*sorted(absent), "answer")
        if not records:
            raise ValueError("no questions")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no predictions ({error!r}); run the test again") from error
    return records, shared
