"""Multiple choice: score every option of a question against its video.

Serves video question answering and, with all labels as the options, classification.

Shapes: B videos, O options of each, H hidden.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmpt.evaluators.base import Predictor, batches_of, decode_texts, save_arrays
from mmpt.models.embedding import evaluating
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import read_json, write_json

__all__ = ["QAPredictor"]

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 1024


class QAPredictor(Predictor):
    """Predict the option whose text scores highest against the video; of several, the first.

    Writes to ``eval.save_path``: ``merged.npy``, int64 (questions,), the index of the predicted option, and
    ``predictions.json``, for every question its ``video_id``, ``question`` and ``options``, the ``answer``,
    ``prediction`` and the ``scores`` of the options.
    """

    kind = "choice"

    def predict(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device, output_file: str
    ) -> dict[str, Any]:
        """Score the options of every question and return what the metric needs.

        A video is encoded once, and so is a text that several questions of a batch share.

        Returns:
            ``outputs`` int64 (N,), ``targets`` int64 (N,), ``scores`` float32 (N, O), -inf where a question has fewer
            options than others, ``ids`` (N,) strings.

        Raises:
            ConfigError: if the model cannot score texts against videos.
            DataError: if a batch holds no questions, or a score is not finite; names the video.
        """
        records: list[dict[str, Any]] = []
        with evaluating(model), torch.no_grad():
            for batch in batches_of(dataloader):
                records.extend(self._records(batch, self._scores(model, batch, device)))
        outputs = _outputs(records)
        save_arrays(self.save_path / f"{output_file}.npy", prediction=outputs["outputs"])
        write_json(self.save_path / "predictions.json", records)
        logger.info("%d questions", len(records))
        return outputs

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved predictions."""
        path = self.save_path / "predictions.json"
        records = read_json(path)
        try:
            return _outputs(records)
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(f"{path}: holds no predictions ({error!r}); run the test again") from error

    def _records(self, batch: Mapping[str, Any], scores: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """Return what ``predictions.json`` says of every question of a batch."""
        answers = batch["answers"].reshape(-1).tolist()
        names = batch.get("video_id") or [str(row) for row in range(len(scores))]
        width = scores.shape[1]
        questions = batch.get("question") or [""] * len(scores)
        options = batch.get("options")
        if options is None:
            texts = decode_texts(self.config, batch)
            options = [texts[start : start + width] for start in range(0, len(texts), width)]
        records = []
        for row, (name, answer, question) in enumerate(zip(names, answers, questions, strict=True)):
            real = scores[row][~np.isneginf(scores[row])]
            if not np.isfinite(real).all():
                raise DataError(f"video {name}: a score is not finite: {real.tolist()}")
            records.append(
                {
                    "video_id": str(name),
                    "question": str(question),
                    "options": [str(option) for option in options[row]][: len(real)],
                    "answer": int(answer),
                    "prediction": int(real.argmax()),
                    "scores": [float(score) for score in real],
                }
            )
        return records

    @staticmethod
    def _scores(model: Any, batch: Mapping[str, Any], device: torch.device) -> npt.NDArray[np.float32]:
        """Return the scores of a batch, float32 (B, O)."""
        if "answers" not in batch or batch["caps"].dim() != 3:
            raise DataError("a batch holds no questions with options; dataset.aligner must be that of QA")
        caps, cmasks, vfeats, vmasks = (batch[name].to(device) for name in ("caps", "cmasks", "vfeats", "vmasks"))
        if "retrieval" in getattr(model, "capabilities", ("retrieval",)) and hasattr(model, "encode_text"):
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


def _outputs(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the arrays of saved predictions."""
    width = max(len(record["scores"]) for record in records)
    scores = np.full((len(records), width), -np.inf, dtype=np.float32)
    for row, record in zip(scores, records, strict=True):
        row[: len(record["scores"])] = record["scores"]
    return {
        "outputs": np.array([record["prediction"] for record in records], dtype=np.int64),
        "targets": np.array([record["answer"] for record in records], dtype=np.int64),
        "scores": scores,
        "ids": np.array([record["video_id"] for record in records], dtype=str),
    }
