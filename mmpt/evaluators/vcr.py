"""VCR: which answer, which rationale, both; and the file for its leaderboard (Zellers et al. 2019).

Shapes: N questions, G answers that rationales are asked for (1 or 4).
"""

import csv
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.base import Metric, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.choice_scores import Scored, score_batches, softmax
from mmpt.evaluators.classification_metrics import right_alone
from mmpt.evaluators.metrics import wilson_interval
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open

__all__ = ["VCRMetric", "VCRPredictor"]

logger = logging.getLogger(__name__)

_FILE, _SUBMISSION = "vcr.npz", "submission.csv"
_ARRAYS = ("ids", "answer_scores", "answer_labels", "rationale_scores", "rationale_labels")
_CHOICES = 4


class VCRPredictor(BatchPredictor):
    """Score the answers of each question and the rationales of each answer.

    Writes to ``eval.save_path``: ``vcr.npz`` with ``ids`` (N,), ``answer_scores`` float32 (N, 4), ``answer_labels``
    int64 (N,), ``rationale_scores`` float32 (N, G, 4) and ``rationale_labels`` int64 (N,), where -1 is a label that is
    not known and N is 0 for a kind that was not asked; ``merged.npy``, the answers chosen; and, where rationales were
    asked for each answer, ``submission.csv`` for the leaderboard: probabilities, ``annot_id``, ``answer_i`` and
    ``rationale_conditioned_on_a{j}_i``.
    """

    kind = "vcr"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], Scored]:
        """Return what scores the choices of a batch; raises as :func:`score_batches`."""
        return score_batches(model, device, type(self).__name__)

    def finish(
        self, parts: Sequence[Scored], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the scores and return what the metric needs: the arrays of ``vcr.npz``."""
        arrays = _collected(parts)
        save_arrays(self.save_path / _FILE, **arrays)
        save_arrays(self.save_path / f"{output_file}.npy", prediction=arrays["answer_scores"].argmax(axis=1))
        asked = arrays["rationale_scores"].shape
        if len(arrays["answer_scores"]) and asked[0] and asked[1] == _CHOICES:
            self._write_submission(arrays)
        logger.info("%d questions", len(arrays["ids"]))
        return arrays

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved scores."""
        return load_arrays(self.save_path / _FILE, _ARRAYS)

    def _write_submission(self, arrays: Mapping[str, np.ndarray]) -> None:
        answers = softmax(arrays["answer_scores"])
        rationales = softmax(arrays["rationale_scores"]).reshape(len(answers), -1)
        names = [f"answer_{i}" for i in range(_CHOICES)]
        names += [f"rationale_conditioned_on_a{j}_{i}" for j in range(_CHOICES) for i in range(_CHOICES)]
        with atomic_open(self.save_path / _SUBMISSION) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["annot_id", *names])
            for name, row in zip(arrays["ids"], np.concatenate([answers, rationales], axis=1), strict=True):
                writer.writerow([name, *(f"{value:.6g}" for value in row)])


def _collected(parts: Sequence[Scored]) -> dict[str, np.ndarray]:
    """Return the arrays of all questions, in the order in which they are first met; DataError names one that lacks."""
    rows: dict[str, dict[tuple[int, int], tuple[npt.NDArray[np.float32], int]]] = {}
    for part in parts:
        for name, kind, given, label, scores in zip(*part, strict=True):
            found = rows.setdefault(name, {})
            if (int(kind), int(given)) in found:
                raise DataError(f"question {name}: the same is asked twice")
            found[int(kind), int(given)] = scores, int(label)
    keys = {key for found in rows.values() for key in found}
    for name, found in rows.items():
        if keys - found.keys():
            raise DataError(f"question {name}: {len(found)} of {len(keys)} choices to make were predicted")
    contexts = sorted(key for key in keys if key[0] == 1)
    arrays: dict[str, np.ndarray] = {"ids": np.array(list(rows), dtype=str)}
    for kind, of_kind in (("answer", [(0, -1)] if (0, -1) in keys else []), ("rationale", contexts)):
        scores = np.array([[found[key][0] for key in of_kind] for found in rows.values() if of_kind], np.float32)
        scores = scores.reshape(-1, len(of_kind), _CHOICES) if of_kind else np.zeros((0, 1, _CHOICES), np.float32)
        arrays[f"{kind}_scores"] = scores[:, 0] if kind == "answer" else scores
        labels = [found[of_kind[0]][1] for found in rows.values()] if of_kind else []
        arrays[f"{kind}_labels"] = np.array(labels, np.int64)
    return arrays


class VCRMetric(Metric):
    """Shares of questions with the right answer, the right rationale for the right answer, and both.

    ``Q_AR`` is both, ``Q_A`` the answer, ``QA_R`` the rationale. Ties count against the model. Only questions whose
    labels are known count; where none is, as in the hidden test set, there is only ``count``, 0, and ``unlabelled``.
    """

    kind = "vcr"

    def compute_metrics(
        self,
        answer_scores: npt.ArrayLike = (),
        answer_labels: npt.ArrayLike = (),
        rationale_scores: npt.ArrayLike = (),
        rationale_labels: npt.ArrayLike = (),
        **_: Any,
    ) -> dict[str, Any]:
        """Compute the shares of what was asked, and their 95% Wilson intervals.

        Args:
            answer_scores: (N, 4), or none.
            answer_labels: (N,), the right answers; -1: not known.
            rationale_scores: (N, G, 4), or none: of the right answer (G 1), or of each answer (G 4).
            rationale_labels: (N,).

        Raises:
            DataError: if nothing was asked, or numbers disagree.
        """
        answers, answer = np.asarray(answer_scores, np.float64), np.asarray(answer_labels, np.int64).reshape(-1)
        rationales, reason = (
            np.asarray(rationale_scores, np.float64),
            np.asarray(rationale_labels, np.int64).reshape(-1),
        )
        both = len(answers) and len(rationales)
        if not len(answers) and not len(rationales):
            raise DataError("neither answers nor rationales were predicted")
        if len(answers) != len(answer) or len(rationales) != len(reason) or (both and len(answers) != len(rationales)):
            raise DataError(f"scores of {len(answers)} answers and {len(rationales)} rationales, and as many labels")
        known = (answer if len(answers) else reason) >= 0
        if both:
            known &= reason >= 0
        right: dict[str, np.ndarray] = {}
        if len(answers):
            right["Q_A"] = right_alone(answers[known], answer[known])
        if len(rationales):
            of_right = rationales[known, 0]
            if rationales.shape[1] > 1:
                if not len(answers):
                    raise DataError("rationales of every answer, and no answers: which is the right one is not known")
                of_right = rationales[known, answer[known]]
            right["QA_R"] = right_alone(of_right, reason[known])
        count = int(known.sum())
        if not count:
            return {"count": 0, "unlabelled": len(known)}
        if both:
            right = {"Q_AR": right["Q_A"] & right["QA_R"], **right}
        metrics: dict[str, Any] = {name: float(hits.mean()) for name, hits in right.items()}
        metrics |= {f"{name}_ci": list(wilson_interval(int(hits.sum()), count)) for name, hits in right.items()}
        return metrics | {"count": count, "unlabelled": len(known) - count}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``Q->AR: ... - Q->A: ... - QA->R: ...``, as far as there are labels."""
        shown = [
            f"{name.replace('_', '->')}: {metrics[name]:.4f}" for name in ("Q_AR", "Q_A", "QA_R") if name in metrics
        ]
        return " - ".join(shown) or f"{metrics['unlabelled']} questions without labels"
