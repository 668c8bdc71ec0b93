"""The metric of step localisation on CrossTask."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmpt.evaluators.base import Metric
from mmpt.evaluators.step_localization import ordered_chance
from mmpt.utils.errors import DataError

__all__ = ["CrossTaskMetric"]

Tables = Mapping[str, Mapping[str, np.ndarray]]


class CrossTaskMetric(Metric):
    """Average recall of steps (Zhukov et al., CVPR 2019, section 5).

    One frame is predicted for every step of a video's task; it is a hit if the step is annotated there. The recall
    of a task is hits over steps that occur, summed over its videos; the main number is the mean over tasks.

    Chance is computed, not drawn: ``recall_chance`` is the expected recall of a frame chosen uniformly for each
    step, ``recall_chance_ordered`` that of a uniform choice among those that keep the order of the steps, which
    predictions do, too.
    """

    kind = "steps"

    def compute_metrics(
        self, outputs: Tables | None = None, targets: Tables | None = None, skipped: Any = (), **_: Any
    ) -> dict[str, Any]:
        """Compute the recalls.

        Args:
            outputs: task -> video -> 0 or 1 ``(frames, steps)``, one 1 per step: the predicted frames.
            targets: the same, 1 where a step is annotated.
            skipped: the videos that could not be predicted; they are counted, and have no part in the recall.

        Returns:
            ``recall`` and the chance levels, all in [0, 1]; ``count`` of videos, ``steps`` that occur in them,
            ``skipped``; ``tasks``: the recall of each task.

        Raises:
            DataError: if predictions and annotations do not belong together, or no step is annotated.
        """
        outputs, targets = outputs or {}, targets or {}
        if {task: set(videos) for task, videos in outputs.items()} != {t: set(v) for t, v in targets.items()}:
            raise DataError("predictions and annotations are not of the same tasks and videos")
        sums = {task: _task_sums(outputs[task], targets[task], task) for task in outputs}
        # a task none of whose steps is annotated has no recall
        recalls = {task: hits / hits[0] for task, hits in sums.items() if hits[0]}
        if not recalls:
            raise DataError("no step of any video is annotated: there is no recall to compute")
        _, recall, uniform, ordered = np.mean(list(recalls.values()), axis=0)
        return {
            "recall": float(recall),
            "recall_chance": float(uniform),
            "recall_chance_ordered": float(ordered),
            "count": sum(map(len, outputs.values())),
            "steps": int(sum(hits[0] for hits in sums.values())),
            "skipped": len(skipped),
            "tasks": {task: float(values[1]) for task, values in recalls.items()},
        }

    def print_computed_metrics(self, metrics: Mapping[str, Any]) -> str:
        """Return ``Recall: ...`` and a line ``Task <id>. Recall = ...`` for every task."""
        tasks = [f"Task {task}. Recall = {recall:.3f}" for task, recall in metrics["tasks"].items()]
        return "\n".join([f"Recall: {metrics['recall']:.3f}", *tasks])


def _task_sums(outputs: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], task: str) -> np.ndarray:
    """Return (steps that occur, hits, hits expected of a uniform choice, of a uniform ordered choice)."""
    sums = np.zeros(4)
    for video, predicted in outputs.items():
        annotated = np.asarray(targets[video]) > 0
        if np.shape(predicted) != annotated.shape or annotated.ndim != 2:
            raise DataError(
                f"task {task}, video {video}: predictions have shape {np.shape(predicted)}, "
                f"annotations {annotated.shape}; expected (frames, steps) twice"
            )
        chance = ordered_chance(*annotated.shape)
        hits = annotated & (np.asarray(predicted) > 0)
        sums += [annotated.any(axis=0).sum(), hits.sum(), annotated.mean(axis=0).sum(), chance[annotated].sum()]
    return sums
