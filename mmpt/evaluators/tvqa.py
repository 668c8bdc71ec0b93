"""TVQA: which of five answers, and the files for its leaderboard (Lei et al. 2018)."""

import json
import logging
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.base import EvalOptions, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.choice_scores import Scored, score_batches
from mmpt.evaluators.classification_metrics import QAMetric
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import atomic_open, read_json, resolve_path, write_json
from mmpt.utils.options import read_section

__all__ = ["TVQAMetric", "TVQAOptions", "TVQAPredictor", "write_submission"]

logger = logging.getLogger(__name__)

_FILE = "tvqa.npz"
_ARRAYS = ("ids", "outputs", "targets", "scores")
_SPLITS = ("val", "test_public")

#: What a leaderboard calls the systems, by their models.
_SYSTEMS = {"ReserveTVQA": "MERLOT Reserve", "MERLOTAnswering": "MERLOT"}


@dataclass
class TVQAOptions(EvalOptions):
    """Keys of ``eval``.

    Attributes:
        submission_split: what the questions are, ``val`` or ``test_public``: names the file of predictions.
        other_prediction: the file of predictions of the other split; where it is given, both are zipped.
        submission_meta: what the leaderboard is to show (``model_name``, by default the system's, ``description`` ..).
    """

    submission_split: str = "val"
    other_prediction: str | None = None
    submission_meta: dict[str, Any] = field(default_factory=dict)


class TVQAPredictor(BatchPredictor):
    """Choose the answer that scores highest; of several, the first.

    Writes to ``eval.save_path``: ``tvqa.npz`` with ``ids`` (N,), ``scores`` float32 (N, 5), ``outputs`` int64 (N,), the
    answers, and ``targets`` int64 (N,), -1 where the right one is not known; ``merged.npy``, the answers;
    ``prediction_<split>.json``, ``{qid: answer}``; and, with ``eval.other_prediction``, ``submission.zip``.
    """

    kind = "choice"
    options: TVQAOptions
    model_name = ""
    config_options: ClassVar[dict[str, type]] = {"eval": TVQAOptions}

    def __init__(self, config: Any) -> None:
        """Read the options; ConfigError if ``submission_split`` is none."""
        super().__init__(config)
        self.options = read_section(config, "eval", TVQAOptions)
        if self.options.submission_split not in _SPLITS:
            raise ConfigError(
                f"eval.submission_split: {self.options.submission_split!r} is neither val nor test_public"
            )

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], Scored]:
        """Return what scores the answers of a batch; raises as :func:`score_batches`."""
        self.model_name = _SYSTEMS.get(type(model).__name__, type(model).__name__)
        return score_batches(model, device, type(self).__name__)

    def finish(
        self, parts: Sequence[Scored], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the answers and return what the metric needs: the arrays of ``tvqa.npz``."""
        scores = np.concatenate([part.scores for part in parts])
        arrays: dict[str, Any] = {
            "ids": np.array([name for part in parts for name in part.ids], dtype=str),
            "outputs": scores.argmax(axis=1).astype(np.int64),
            "targets": np.concatenate([part.labels for part in parts]),
            "scores": scores,
        }
        save_arrays(self.save_path / _FILE, **arrays)
        save_arrays(self.save_path / f"{output_file}.npy", prediction=arrays["outputs"])
        own = self.save_path / f"prediction_{self.options.submission_split}.json"
        answers = zip(arrays["ids"].tolist(), arrays["outputs"].tolist(), strict=True)
        write_json(own, {_question_number(name): answer for name, answer in answers}, indent=None)
        if self.options.other_prediction:
            other = resolve_path(self.options.other_prediction)
            meta = {"model_name": self.model_name, **self.options.submission_meta}
            write_submission(self.save_path / "submission.zip", [own, other], meta)
        logger.info("%d questions", len(scores))
        return arrays

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved answers."""
        return load_arrays(self.save_path / _FILE, _ARRAYS)


def write_submission(path: Path, predictions: Sequence[Path], meta: Mapping[str, Any]) -> None:
    """Zip the files of predictions of both splits with ``meta.json``, as the leaderboard of TVQA takes them.

    ``meta`` is what the leaderboard is to show, ``model_name`` above all.

    Raises:
        DataError: if the files are not ``prediction_val.json`` and ``prediction_test_public.json`` with an answer, 0 to
            4, to each question; names the file.
    """
    expected = {f"prediction_{split}.json" for split in _SPLITS}
    if {file.name for file in predictions} != expected:
        raise DataError(f"{path}: needs {' and '.join(sorted(expected))}, not {', '.join(map(str, predictions))}")
    content = {
        "is_ensemble": False,
        "with_ts": True,
        "show_on_leaderboard": True,
        **meta,
    }
    with atomic_open(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in predictions:
            answers = read_json(source)
            if not isinstance(answers, dict) or not all(answer in range(5) for answer in answers.values()):
                raise DataError(f"{source}: holds no answers, 0 to 4, by the number of the question")
            archive.writestr(source.name, json.dumps(answers))
        archive.writestr("meta.json", json.dumps(content))


def _question_number(name: str) -> str:
    """Return the ``qid`` of an id "qid~video", without leading zeros; of any other id, the id."""
    number = name.partition("~")[0]
    return str(int(number)) if number.isdecimal() else name


class TVQAMetric(QAMetric):
    """Share of questions with the right answer; of those whose right answer is known (``unlabelled``: the others)."""

    def compute_metrics(
        self,
        outputs: npt.ArrayLike | None = None,
        targets: npt.ArrayLike = (),
        scores: npt.ArrayLike | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Compute what :class:`QAMetric` does; where no answer is known only ``count``, 0, and ``unlabelled``."""
        true = np.asarray(targets).reshape(-1)
        known, hidden = true >= 0, {"unlabelled": int((true < 0).sum())}
        if len(true) and not known.any():
            return {"count": 0, **hidden}
        chosen = [None if values is None else np.asarray(values)[known] for values in (outputs, scores)]
        return {**super().compute_metrics(chosen[0], true[known], chosen[1]), **hidden}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``acc: ...``, where there are labels."""
        return (
            super().print_computed_metrics(metrics) if "acc" in metrics else f"{metrics['unlabelled']} without labels"
        )
