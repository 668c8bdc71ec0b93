"""Metrics of answers that are classes: of a video, or of each of its seconds."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.base import Metric
from mmpt.evaluators.metrics import wilson_interval
from mmpt.utils.errors import DataError

__all__ = ["COINActionSegmentationMetric", "QAMetric", "bootstrap_interval", "right_alone", "runs_of"]

_OVERLAP = 0.5
_RESAMPLES = 1000
_CELLS_AT_ONCE = 2**20
_SEED = 43211


class COINActionSegmentationMetric(Metric):
    """Share of seconds that are given the right class, background included (the published frame accuracy).

    Beside it: ``background_share``, what one gets by calling everything background; ``frame_acc_no_bg``, the accuracy
    over the seconds that show a step; ``segment_f1``, the F1 of segments that overlap a true one of their class by
    half or more (Lea et al., CVPR 2017), background left out. ``<name>_ci`` is the 95% interval over videos, by a
    seeded bootstrap: the seconds of a video are not independent, so Wilson's interval over seconds would be far too
    narrow. ``count`` is the number of videos, ``seconds`` that of seconds.
    """

    kind = "segmentation"

    def compute_metrics(
        self,
        Y_pred: npt.ArrayLike = (),
        Y_true: npt.ArrayLike = (),
        lengths: npt.ArrayLike | None = None,
        background: int = 0,
        skipped: int = 0,
        skipped_segments: int = 0,
        cut_segments: int = 0,
        **_: Any,
    ) -> dict[str, Any]:
        """Compute the metrics of predicted and true classes.

        Args:
            Y_pred: classes of all seconds of all videos, one after another (seconds,).
            Y_true: the true ones.
            lengths: seconds of each video; without it all seconds are one video, and there are no intervals.
            background: the class of a second without a step.
            skipped: videos of the test set that are left out; this number and the next two are only passed on.
            skipped_segments: annotated segments that are left out.
            cut_segments: annotated segments that are cut where the features end.

        Raises:
            DataError: if there is no second, or the numbers of seconds differ.
        """
        predicted, true = np.asarray(Y_pred, dtype=np.int64).ravel(), np.asarray(Y_true, dtype=np.int64).ravel()
        sizes = np.asarray([len(true)] if lengths is None else lengths, dtype=np.int64)
        if not len(true) or len(predicted) != len(true) or sizes.sum() != len(true) or (sizes < 1).any():
            raise DataError(
                f"{len(predicted)} predicted and {len(true)} true classes for videos of {int(sizes.sum())} seconds"
            )
        first = np.cumsum(sizes) - sizes
        right, step = predicted == true, true != int(background)
        everywhere = _counts(right, np.ones_like(right), first)
        of_steps = _counts(right, step, first)
        metrics: dict[str, Any] = {"frame_acc": float(right.mean()), "background_share": float(1 - step.mean())}
        if step.any():
            metrics["frame_acc_no_bg"] = float(right[step].mean())
            metrics["segment_f1"] = _segment_f1(predicted, true, sizes, int(background))
        metrics |= {"count": len(sizes), "seconds": len(true)}
        if len(sizes) > 1:
            metrics["frame_acc_ci"] = list(bootstrap_interval(*everywhere))
            if step.any():
                metrics["frame_acc_no_bg_ci"] = list(bootstrap_interval(*of_steps))
        return metrics | {"skipped": skipped, "skipped_segments": skipped_segments, "cut_segments": cut_segments}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``frame accuracy: ...``."""
        return f"frame accuracy: {metrics['frame_acc']:.4f}"


class QAMetric(Metric):
    """Share of multiple-choice questions that are answered rightly.

    Ties count against the model: an answer is right only if it scores higher than every other option of its
    question. ``chance`` is what guessing reaches, the mean of one over the number of options.
    """

    kind = "choice"

    def compute_metrics(
        self,
        outputs: npt.ArrayLike | None = None,
        targets: npt.ArrayLike = (),
        scores: npt.ArrayLike | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Compute acc, its 95% Wilson interval, count and, from scores, chance.

        Args:
            outputs: index of the predicted option of each question (questions,); not needed with scores.
            targets: index of the right one (questions,) or (questions, 1).
            scores: scores of the options (questions, options), -inf where a question has fewer options.

        Raises:
            DataError: if there is no question, numbers disagree, a score is NaN or a target is no option.
        """
        true = np.asarray(targets).reshape(-1)
        if scores is None:
            predicted = np.asarray(() if outputs is None else outputs).reshape(-1)
            if len(predicted) != len(true) or not len(true):
                raise DataError(f"{len(predicted)} predicted and {len(true)} right answers")
            right, chance = predicted == true, None
        else:
            right, chance = _chosen(np.asarray(scores, dtype=np.float64), true)
        count, hits = len(right), int(right.sum())
        metrics: dict[str, Any] = {"acc": hits / count}
        if chance is not None:
            metrics["chance"] = chance
        return metrics | {"acc_ci": list(wilson_interval(hits, count)), "count": count}

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``acc: ...``."""
        return f"acc: {metrics['acc']:.4f}"


def _chosen(scores: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, float]:
    """Return which questions (N,) have the highest score at their right option alone, and the share of guessing."""
    if scores.ndim != 2 or len(scores) != len(true) or not len(true):
        raise DataError(f"scores have shape {scores.shape}, and there are {len(true)} right answers")
    if np.isnan(scores).any():
        raise DataError(f"{int(np.isnan(scores).sum())} of {scores.size} option scores are NaN")
    rows, options = np.arange(len(true)), (~np.isneginf(scores)).sum(axis=1)
    if not ((true >= 0) & (true < scores.shape[1])).all() or np.isneginf(scores[rows, true]).any():
        raise DataError("a right answer is none of the options of its question")
    return right_alone(scores, true), float((1 / options).mean())


def right_alone(scores: npt.ArrayLike, true: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return of which questions (N,) the right option scores higher than every other one, of scores (N, O)."""
    table, right = np.asarray(scores), np.asarray(true, dtype=np.int64)
    return (table >= table[np.arange(len(right)), right][:, None]).sum(axis=1) == 1


def runs_of(classes: npt.ArrayLike) -> list[tuple[int, int, int]]:
    """Return the runs of equal classes (T,) as (first second, second after the last, class)."""
    values = np.asarray(classes, dtype=np.int64)
    if not len(values):
        return []
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, end, int(values[start])) for start, end in itertools.pairwise(edges)]


def bootstrap_interval(hits: npt.ArrayLike, trials: npt.ArrayLike, seed: int = _SEED) -> tuple[float, float]:
    """Return the 95% interval of a share of dependent trials, by drawing their groups again (percentile bootstrap).

    Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 1979.

    Args:
        hits: successes of each group.
        trials: trials of each group; not all may be 0.
        seed: of the 1000 draws; the same data give the same interval.

    The draws are made in blocks: memory does not grow with their number times that of the groups.
    """
    hit, trial = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    rng = np.random.default_rng(seed)
    even = np.full(len(trial), 1 / len(trial))
    block = max(1, _CELLS_AT_ONCE // len(trial))
    sums = []
    for start in range(0, _RESAMPLES, block):
        drawn = rng.multinomial(len(trial), even, size=min(block, _RESAMPLES - start))
        sums.append(drawn @ np.stack([hit, trial], axis=1))
    right, total = np.concatenate(sums).T
    low, high = np.quantile(right[total > 0] / total[total > 0], [0.025, 0.975])
    return float(low), float(high)


def _counts(right: np.ndarray, among: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of the seconds ``among`` are right in each video, and how many there are."""
    return np.add.reduceat((right & among).astype(np.int64), first), np.add.reduceat(among.astype(np.int64), first)


def _segment_f1(predicted: np.ndarray, true: np.ndarray, sizes: np.ndarray, background: int) -> float:
    matched = segments = 0
    for one, other in zip(*(np.split(values, np.cumsum(sizes)[:-1]) for values in (predicted, true)), strict=True):
        found, wanted = ([run for run in runs_of(values) if run[2] != background] for values in (one, other))
        matched += _matches(found, wanted)
        segments += len(found) + len(wanted)
    return 2 * matched / segments if segments else 0.0


def _matches(found: list[tuple[int, int, int]], wanted: list[tuple[int, int, int]]) -> int:
    """Count the true segments that a predicted one of their class overlaps by half or more.

    No predicted segment counts twice: true ones of a class do not touch, and it covers half of one at most.
    """
    return sum(
        any(label == other[2] and _iou((start, end), other[:2]) >= _OVERLAP for other in found)
        for start, end, label in wanted
    )


def _iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (max(one[1], other[1]) - min(one[0], other[0])) if shared else 0.0
