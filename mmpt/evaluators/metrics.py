"""Metrics of retrieval and of moment localisation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.base import Metric
from mmpt.evaluators.ranking import ranks_both, ranks_from_scores
from mmpt.utils.errors import DataError

__all__ = ["MOMENTS", "DiDeMoMetric", "RetrievalMetric", "wilson_interval"]

#: The 21 moments of a DiDeMo video as (first, last) five-second chunk: six single chunks, then all longer spans.
MOMENTS: tuple[tuple[int, int], ...] = (
    *((chunk, chunk) for chunk in range(6)),
    *((first, last) for first in range(6) for last in range(first + 1, 6)),
)
_BEST_ANNOTATORS = 3


def wilson_interval(successes: float, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (95% by default).

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927.

    Raises:
        ValueError: if there are no trials, or more successes than trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is not a proportion")
    share, z2 = successes / trials, z * z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
    # at the ends the bounds are 0 and 1 exactly; rounding must not put them beside the share
    return (0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == trials else min(1.0, centre + half))


class RetrievalMetric(Metric):
    """Recall at 1, 5, 10, median and mean rank, text to video and (prefix ``v2t_``) video to text.

    Recalls are fractions, ranks start at 1, ties count against the query
    (:mod:`mmpt.evaluators.ranking`). ``<name>_ci`` is the 95% Wilson interval, which takes the
    queries as independent: several captions of one video make it a little too narrow.
    """

    kind = "retrieval"

    def compute_metrics(
        self,
        outputs: npt.NDArray[np.floating] | None = None,
        text: npt.NDArray[np.floating] | None = None,
        video: npt.NDArray[np.floating] | None = None,
        target: npt.ArrayLike | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Compute the metrics from embeddings ``text (texts, dim)``, ``video (videos, dim)``, or else a score matrix.

        ``outputs`` is text by video ``(texts, videos)``; ``target`` the video index of every text
        (without it, text i matches video i, and both must be as many).

        Raises:
            DataError: if embeddings or scores are NaN, or shapes disagree.
        """
        if text is not None and video is not None:
            indices = self._targets(target, len(text), len(video))
            forward, backward = ranks_both(text, video, indices)
            candidates = len(video)
        elif outputs is not None:
            scores = np.asarray(outputs)
            if scores.ndim != 2:
                raise DataError(f"scores have shape {scores.shape}, not (texts, videos)")
            indices = self._targets(target, *scores.shape)
            forward = ranks_from_scores(scores, indices)
            backward = self._backward(scores, indices)
            candidates = scores.shape[1]
        else:
            raise DataError("retrieval needs text and video embeddings, or a score matrix")
        metrics = self._summary(forward, "")
        metrics["candidates"] = candidates
        metrics.update(self._summary(backward, "v2t_"))
        return metrics

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``R@1: ... - R@5: ... - R@10: ... - Median R: ...``."""
        recalls = " - ".join(f"R@{k}: {metrics[f'R{k}']:.4f}" for k in (1, 5, 10))
        return f"{recalls} - Median R: {metrics['MR']}"

    @staticmethod
    def _targets(target: npt.ArrayLike | None, texts: int, videos: int) -> npt.NDArray[np.int64]:
        if target is not None:
            return np.asarray(target, dtype=np.int64)
        if texts != videos:
            raise DataError(f"{texts} texts and {videos} videos: say which video each text belongs to (target)")
        return np.arange(texts)

    @staticmethod
    def _backward(scores: npt.NDArray[np.floating], target: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        described, inverse = np.unique(target, return_inverse=True)
        columns = scores.T[described]
        own = np.zeros(columns.shape, dtype=bool)
        own[inverse, np.arange(len(target))] = True
        best = np.where(own, columns, -np.inf).max(axis=1)
        return 1 + np.count_nonzero((columns >= best[:, None]) & ~own, axis=1)

    @staticmethod
    def _summary(ranks: npt.NDArray[np.int64], prefix: str) -> dict[str, Any]:
        count = len(ranks)
        hits = {f"{prefix}R{k}": int((ranks <= k).sum()) for k in (1, 5, 10)}
        summary: dict[str, Any] = {name: hit / count for name, hit in hits.items()}
        summary[f"{prefix}MR"] = float(np.median(ranks))
        summary[f"{prefix}MeanR"] = float(np.mean(ranks))
        summary[f"{prefix}count"] = count
        summary.update({f"{name}_ci": list(wilson_interval(hit, count)) for name, hit in hits.items()})
        return summary


class DiDeMoMetric(Metric):
    """Moment ranking inside a video: rank@1, rank@5 and mean IoU against several annotators.

    A moment's rank and IoU are means over the three annotators it agrees with best. Times are
    (first, last) five-second chunks, both inclusive. An annotated moment after the end of the video
    ranks last. Ties count against the query. This is not the video retrieval that result pages list.
    """

    kind = "moments"

    def compute_metrics(
        self,
        outputs: npt.NDArray[np.integer] | None = None,
        targets: Sequence[Mapping[str, Any]] = (),
        scores: npt.NDArray[np.floating] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Compute rank1, rank5 and mIoU.

        Args:
            outputs: rankings ``(queries, 21, 2)``, best moment first, -1 after the last one ranked;
                not needed with scores.
            targets: annotations, one mapping with ``times`` (a list of chunk pairs) per query.
            scores: scores of the moments ``(queries, 21)`` in the order of MOMENTS, -inf where the
                video has no frame.

        Raises:
            DataError: if there are no queries, numbers disagree, a score is NaN or times are no moment.
        """
        if scores is None:
            if outputs is None:
                raise DataError("moment ranking needs rankings or scores")
            scores = np.stack([self._scores_of(ranking) for ranking in outputs]) if len(outputs) else np.empty((0, 21))
        scores = np.asarray(scores)
        if len(scores) != len(targets) or len(targets) == 0 or scores.shape[1:] != (len(MOMENTS),):
            raise DataError(f"moment scores have shape {scores.shape}, and there are {len(targets)} annotated queries")
        if np.isnan(scores).any():
            raise DataError(f"{int(np.isnan(scores).sum())} of {scores.size} moment scores are NaN")
        pairs = [self._query(row, _times(target)) for row, target in zip(scores, targets, strict=True)]
        mean_ranks, ious = (np.array(column) for column in zip(*pairs, strict=True))
        count = len(pairs)
        metrics: dict[str, Any] = {f"rank{k}": float((mean_ranks <= k).mean()) for k in (1, 5)}
        metrics.update(mIoU=float(ious.mean()), count=count)
        metrics.update({f"rank{k}_ci": list(wilson_interval(int((mean_ranks <= k).sum()), count)) for k in (1, 5)})
        return metrics

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``Average rank@1: ... Average rank@5: ... Average iou: ...``."""
        return (
            f"Average rank@1: {metrics['rank1']:.4f} Average rank@5: {metrics['rank5']:.4f} "
            f"Average iou: {metrics['mIoU']:.4f}"
        )

    @staticmethod
    def _query(scores: npt.NDArray[np.floating], times: Sequence[tuple[int, int]]) -> tuple[float, float]:
        """Return (mean rank, IoU of the first moment), both over the best three annotators."""
        ranks = sorted(int((scores >= scores[MOMENTS.index(moment)]).sum()) for moment in times)
        first = [MOMENTS[index] for index in np.flatnonzero(scores == scores.max())]
        ious = (sorted((_iou(moment, annotated) for annotated in times), reverse=True) for moment in first)
        return float(np.mean(ranks[:_BEST_ANNOTATORS])), min(float(np.mean(best[:_BEST_ANNOTATORS])) for best in ious)

    @staticmethod
    def _scores_of(ranking: npt.ArrayLike) -> npt.NDArray[np.float64]:
        scores = np.full(len(MOMENTS), -np.inf)
        for position, (first, last) in enumerate(np.asarray(ranking).tolist()):
            if first >= 0:
                scores[_moment((first, last))] = -position
        return scores


def _moment(pair: Sequence[int]) -> int:
    try:
        return MOMENTS.index((int(pair[0]), int(pair[1])))
    except (ValueError, IndexError, TypeError) as error:
        raise DataError(f"{pair!r} is not a moment: two chunks 0 <= first <= last <= 5 were expected") from error


def _times(target: Mapping[str, Any]) -> list[tuple[int, int]]:
    times = target.get("times") or []
    if not times:
        raise DataError(f"video {target.get('video')!r}: the query has no annotated times")
    return [MOMENTS[_moment(pair)] for pair in times]


def _iou(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = max(0, min(one[1], other[1]) + 1 - max(one[0], other[0]))
    return shared / ((one[1] - one[0] + 1) + (other[1] - other[0] + 1) - shared)
