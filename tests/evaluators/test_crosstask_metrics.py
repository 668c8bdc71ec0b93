"""Average recall of steps: worked examples, and chance against simulated guessing."""

import itertools

import numpy as np
import pytest

from mmpt.evaluators.crosstask_metrics import CrossTaskMetric
from mmpt.evaluators.step_localization import one_hot
from mmpt.utils.errors import DataError


def table(frames: int, steps: int, *cells: tuple[int, int]) -> np.ndarray:
    """Annotation with the (frame, step) cells set."""
    values = np.zeros((frames, steps), dtype=bool)
    for cell in cells:
        values[cell] = True
    return values


def test_worked_example() -> None:
    targets = {
        "23": {"a": table(4, 3, (0, 0), (1, 0), (3, 2)), "b": table(5, 3, (2, 1))},  # 2 steps occur in a, 1 in b
        "7": {"a": table(2, 2, (0, 0), (1, 1))},
    }
    outputs = {
        "23": {"a": one_hot(np.array([1, 2, 3]), 4), "b": one_hot(np.array([0, 1, 2]), 5)},  # 2 hits, none
        "7": {"a": one_hot(np.array([0, 1]), 2)},
    }
    metrics = CrossTaskMetric().compute_metrics(outputs=outputs, targets=targets, skipped=["c"])
    assert next(iter(metrics)) == "recall"
    assert metrics["recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["tasks"] == {"23": pytest.approx(2 / 3), "7": 1.0}
    # shares of annotated frames: a 2/4 and 1/4, b 1/5; in the other task 1/2 twice
    assert metrics["recall_chance"] == pytest.approx(((2 / 4 + 1 / 4 + 1 / 5) / 3 + 1 / 2) / 2)
    assert (metrics["count"], metrics["steps"], metrics["skipped"]) == (3, 5, 1)
    line = CrossTaskMetric().print_computed_metrics(metrics)
    assert line == "Recall: 0.833\nTask 23. Recall = 0.667\nTask 7. Recall = 1.000"


def test_chance_is_the_mean_over_all_guesses() -> None:
    rng = np.random.default_rng(3)
    targets = {"t": {"v": rng.random((6, 3)) < 0.4, "w": rng.random((5, 3)) < 0.4}, "u": {"x": table(4, 2, (3, 0))}}
    metric = CrossTaskMetric()

    def recalls(choose) -> float:
        means = []
        for videos in targets.values():
            hits = steps = 0.0
            for annotated in videos.values():
                guesses = [one_hot(np.array(chosen), len(annotated)) for chosen in choose(*annotated.shape)]
                hits += np.mean([(guess * annotated).sum() for guess in guesses])
                steps += annotated.any(axis=0).sum()
            means.append(hits / steps)
        return float(np.mean(means))

    outputs = {t: {v: one_hot(np.arange(a.shape[1]), len(a)) for v, a in vs.items()} for t, vs in targets.items()}
    metrics = metric.compute_metrics(outputs=outputs, targets=targets)
    assert metrics["recall_chance"] == pytest.approx(recalls(lambda t, k: itertools.product(range(t), repeat=k)))
    assert metrics["recall_chance_ordered"] == pytest.approx(recalls(lambda t, k: itertools.combinations(range(t), k)))
    # what the predictor always does, take the first frames, is just one of these choices
    assert metrics["recall"] == pytest.approx(recalls(lambda t, k: [tuple(range(k))]))


def test_a_task_without_any_annotated_step_has_no_recall() -> None:
    targets = {"a": {"v": table(3, 2)}, "b": {"w": table(3, 1, (0, 0))}}
    outputs = {"a": {"v": one_hot(np.array([0, 1]), 3)}, "b": {"w": one_hot(np.array([0]), 3)}}
    metrics = CrossTaskMetric().compute_metrics(outputs=outputs, targets=targets)
    assert metrics["recall"] == 1.0 and metrics["tasks"] == {"b": 1.0} and metrics["count"] == 2
    with pytest.raises(DataError, match="no step of any video is annotated"):
        CrossTaskMetric().compute_metrics(outputs={"a": outputs["a"]}, targets={"a": targets["a"]})
    with pytest.raises(DataError, match="no step of any video is annotated"):
        CrossTaskMetric().compute_metrics()


def test_predictions_and_annotations_must_belong_together() -> None:
    good = one_hot(np.array([0]), 3)
    with pytest.raises(DataError, match="not of the same tasks and videos"):
        CrossTaskMetric().compute_metrics(outputs={"a": {"v": good}}, targets={"a": {"w": good}})
    with pytest.raises(DataError, match=r"task a, video v: predictions have shape \(3, 1\), annotations \(2, 1\)"):
        CrossTaskMetric().compute_metrics(outputs={"a": {"v": good}}, targets={"a": {"v": good[:2]}})
