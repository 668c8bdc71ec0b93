"""Open-ended questions: score every answer of a vocabulary, of an answer list or of word pieces.

Shapes: B questions of a batch, C answers, N questions of the test set.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.evaluators.base import EvalOptions, decode_texts, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor, on_device
from mmpt.processors.base import TextOptions
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import read_json, write_json
from mmpt.utils.options import read_section, section_of
from mmpt.utils.registry import build
from mmpt.utils.tokenizers import load_tokenizer

__all__ = ["OpenQAOptions", "OpenQAPredictor", "question_type", "read_open_answers"]

logger = logging.getLogger(__name__)

_BEST = 5
_ARRAYS = ("outputs", "targets", "ranks", "ids", "types")
_TYPES = ("what", "who", "how", "where", "when", "why", "which")


@dataclass
class OpenQAOptions(EvalOptions):
    """Keys of ``eval`` of open-ended questions.

    ``answers`` says among which answers a model of word pieces (LAVENDER) chooses: ``vocabulary``, all of them, as
    published; or ``corpus``, those that the data set has as answers: its vocabulary of answers, or else the answers of
    its training split (``dataset.train_path``). A model with a list of answers (VIOLET) always chooses among these.
    """

    answers: str = "vocabulary"


class _Answered(NamedTuple):
    """The questions of a batch: scores of the best answers (B, 5) and their numbers, and the rank of the right one."""

    ids: list[str]
    questions: list[str]
    texts: list[str]
    targets: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    size: int


class OpenQAPredictor(BatchPredictor):
    """Answer each question by what scores highest; of equals the first.

    Answers are told by number: that of a class, or of a word piece. Writes to ``eval.save_path``: ``merged.npy``, int64
    (N,), the answers; ``answers.npz``, what the metric needs; and ``predictions.json``, for every question its
    ``video_id``, ``question`` and ``type``, the right ``answer`` and the ``prediction`` as texts, whether that is
    ``correct`` (the right one scores higher than every other), the ``rank`` of the right one, null where the model
    cannot give it, and the ``best`` five answers with their scores.
    """

    kind = "answers"
    options: OpenQAOptions
    config_options: ClassVar[dict[str, type]] = {"eval": OpenQAOptions, "dataset": TextOptions}

    def __init__(self, config: Any) -> None:
        """Read the options.

        Raises:
            ConfigError: if ``eval.answers`` is neither ``vocabulary`` nor ``corpus``.
        """
        super().__init__(config)
        self.options = read_section(config, "eval", OpenQAOptions)
        if self.options.answers not in ("vocabulary", "corpus"):
            raise ConfigError(f"eval.answers: {self.options.answers!r} is neither 'vocabulary' nor 'corpus'")

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], _Answered]:
        """Return what answers the questions of a batch; DataError from one without, or where a score is not finite.

        Raises:
            ConfigError: if the model answers no questions, or nothing says which answers the corpus has.
        """
        if "answering" not in getattr(model, "capabilities", ()):
            raise ConfigError(
                f"predictor: OpenQAPredictor needs a model that answers questions; {type(model).__name__} does not"
            )
        labels = _labels(dataloader)
        corpus = self._corpus_pieces(labels) if self.options.answers == "corpus" else None

        def predicted(batch: Mapping[str, Any]) -> _Answered:
            if "answers" not in batch:
                raise DataError(
                    "a batch holds no questions with answers; dataset.aligner must be one of open questions"
                )
            scores = model.answer_scores(**on_device(batch, device)).float()  # type: ignore[operator]
            allowed = corpus if labels is None or scores.shape[1] != len(labels) else None
            return self._answered(batch, scores, allowed)

        return predicted

    def finish(
        self, parts: Sequence[_Answered], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the answers and return what the metric needs.

        Returns:
            ``outputs``, ``targets`` (-100: cannot be given) and ``ranks`` (0: the same) int64 (N,), ``ids`` and
            ``types`` (N,) strings.
        """
        questions = [question for part in parts for question in part.questions]
        best = np.concatenate([part.best for part in parts])
        arrays: dict[str, np.ndarray] = {
            "outputs": best[:, 0],
            "targets": np.concatenate([part.targets for part in parts]),
            "ranks": np.concatenate([part.ranks for part in parts]),
            "ids": np.array([name for part in parts for name in part.ids], dtype=str),
            "types": np.array([question_type(question) for question in questions], dtype=str),
        }
        save_arrays(self.save_path / f"{output_file}.npy", prediction=arrays["outputs"])
        save_arrays(self.save_path / "answers.npz", **arrays)
        name_of = self._names(dataloader, parts[0].size)
        texts = [text for part in parts for text in part.texts]
        scores = np.concatenate([part.scores for part in parts])
        write_json(self.save_path / "predictions.json", _records(arrays, questions, texts, best, scores, name_of))
        missing = int((arrays["ranks"] == 0).sum())
        logger.info("%d questions; %d have an answer that the model cannot give", len(questions), missing)
        return arrays

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved answers."""
        return load_arrays(self.save_path / "answers.npz", _ARRAYS)

    def _answered(self, batch: Mapping[str, Any], scores: Tensor, allowed: Tensor | None) -> _Answered:
        """Return the answers to the questions of a batch from their scores (B, C), among the allowed ones."""
        names = [str(name) for name in batch.get("video_id") or range(len(scores))]
        bad = ~torch.isfinite(scores).all(dim=1)
        if bad.any():
            raise DataError(f"video {names[int(bad.nonzero()[0])]}: a score is not finite")
        size = scores.shape[1]
        targets = batch["answers"].reshape(-1).to(scores.device)
        if len(targets) != len(scores) or int(targets.max()) >= size:
            raise DataError(
                f"{len(targets)} right answers, up to number {int(targets.max())}, for scores of shape "
                f"{tuple(scores.shape)}: the model was made for another vocabulary of answers"
            )
        if allowed is not None:
            kept = torch.full_like(scores, -torch.inf)
            allowed = allowed.to(scores.device)
            scores = kept.index_copy(1, allowed, scores[:, allowed])
        own = scores.gather(1, targets.clamp(min=0)[:, None])
        reachable = (targets >= 0) & torch.isfinite(own[:, 0])
        ranks = torch.where(reachable, (scores >= own).sum(1), 0)
        # topk does not say which of equals comes first
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :_BEST]
        return _Answered(
            names,
            [str(text) for text in batch["question"]] if "question" in batch else decode_texts(self.config, batch),
            [str(text) for text in batch.get("answer_text") or [""] * len(scores)],
            torch.where(reachable, targets, -100).cpu().numpy(),
            ranks.cpu().numpy(),
            best.cpu().numpy(),
            scores.gather(1, best).cpu().numpy(),
            size,
        )

    def _names(self, dataloader: Any, size: int) -> Callable[[int], str]:
        """Return what gives the text of an answer of ``size``: a label of the data, a word piece, or its number."""
        labels = _labels(dataloader)
        if self._of_pieces(size, labels):
            return lambda number: str(self._tokenizer().convert_ids_to_tokens(int(number)))
        return labels.__getitem__ if labels is not None and len(labels) == size else str

    def _tokenizer(self) -> Any:
        options = read_section(self.config, "dataset", TextOptions)
        return load_tokenizer(options.bert_name, options.use_fast)

    def _of_pieces(self, size: int, labels: Sequence[str] | None) -> bool:
        """Tell whether scores of so many answers are those of word pieces, not of an answer list."""
        return (labels is None or len(labels) != size) and size >= len(self._tokenizer())

    def _corpus_pieces(self, labels: Sequence[str] | None) -> Tensor:
        """Return the word pieces that are answers of the corpus, int64, ascending."""
        answers = set(labels if labels is not None else self._training_answers())
        tokenizer = self._tokenizer()
        pieces = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in sorted(answers)]
        single = sorted({ids[0] for ids in pieces if len(ids) == 1 and ids[0] != tokenizer.unk_token_id})
        logger.info("eval.answers: %d answers of the corpus, %d of them word pieces", len(answers), len(single))
        if not single:
            raise ConfigError(f"eval.answers: none of the corpus's {len(answers)} answers is a word piece")
        return torch.tensor(single)

    def _training_answers(self) -> list[str]:
        """Return the answers of the training split, of all its questions, whether their videos are there or not."""
        section = section_of(self.config, "dataset") or {}
        if not section.get("train_path"):
            raise ConfigError(
                "eval.answers: corpus needs a vocabulary of answers in the data, or dataset.train_path, whose answers "
                "are taken"
            )
        whole = {**dict(section), "split": "train", "frame_path": None, "vfeat_dir": None, "data_ratio": 1}
        meta = build("meta_processor", str(section["meta_processor"]), OmegaConf.create(whole))
        return [str(meta[row][1].answer_text) for row in range(len(meta))]


def question_type(question: str) -> str:
    """Return the kind of a question by its first word: what, who, how, where, when, why, which, or other."""
    first = re.match(r"[^a-z]*([a-z]+)", question.lower())
    return first[1] if first and first[1] in _TYPES else "other"


def read_open_answers(path: str | Path) -> list[dict[str, Any]]:
    """Read the ``predictions.json`` of :class:`OpenQAPredictor`.

    Raises:
        DataError: if the file is missing or damaged; names it.
    """
    records = read_json(path)
    keys = {"video_id", "question", "answer", "prediction", "correct", "rank", "best"}
    held = records if isinstance(records, list) else []
    if not held or not all(isinstance(record, dict) and keys <= set(record) for record in held):
        raise DataError(f"{path}: holds no answers to open questions; run the test again")
    return held


def _labels(dataloader: Any) -> list[str] | None:
    """Return the answers by class, where the data set says so."""
    labels = getattr(getattr(getattr(dataloader, "dataset", None), "meta_processor", None), "labels", None)
    return None if labels is None else [str(label) for label in labels]


def _records(
    arrays: Mapping[str, np.ndarray],
    questions: Sequence[str],
    texts: Sequence[str],
    best: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    name_of: Callable[[int], str],
) -> list[dict[str, Any]]:
    """Return the content of ``predictions.json``."""
    records = []
    for row, (question, text) in enumerate(zip(questions, texts, strict=True)):
        target, rank = int(arrays["targets"][row]), int(arrays["ranks"][row])
        shown = [
            {"answer": name_of(int(number)), "score": float(score)}
            for number, score in zip(best[row], scores[row], strict=True)
            if np.isfinite(score)
        ]
        record: dict[str, Any] = {"video_id": str(arrays["ids"][row]), "question": question}
        record |= {"type": str(arrays["types"][row]), "answer": text or (name_of(target) if target >= 0 else "")}
        record |= {"prediction": shown[0]["answer"], "correct": rank == 1, "rank": rank or None, "best": shown}
        records.append(record)
    return records
