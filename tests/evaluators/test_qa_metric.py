"""Accuracy of multiple choice: worked examples, ties, and an independent count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmpt.evaluators.classification_metrics import QAMetric
from mmpt.evaluators.metrics import wilson_interval
from mmpt.utils.errors import DataError

INF = np.inf


def test_a_worked_example():
    scores = [[3.0, 1, 2], [0, -1, -2], [0, 5, 4], [-3, -2, -1]]
    metrics = QAMetric().compute_metrics(scores=scores, targets=[0, 0, 2, 2], outputs=[9, 9, 9, 9])
    assert next(iter(metrics)) == "acc" and metrics["acc"] == 0.75 and metrics["count"] == 4
    assert metrics["chance"] == pytest.approx(1 / 3)
    assert metrics["acc_ci"] == list(wilson_interval(3, 4))
    assert QAMetric().print_computed_metrics(metrics) == "acc: 0.7500"


def test_ties_count_against_the_model():
    scores = [[1.0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert QAMetric().compute_metrics(scores=scores, targets=[0, 0, 0])["acc"] == pytest.approx(1 / 3)


def test_a_constant_model_reaches_nothing():
    assert QAMetric().compute_metrics(scores=np.zeros((7, 5)), targets=np.zeros(7, int))["acc"] == 0


def test_chance_with_different_numbers_of_options():
    scores = [[1.0, 0, -INF, -INF], [1, 0, 0, 0]]
    metrics = QAMetric().compute_metrics(scores=scores, targets=[[0], [0]])
    assert metrics["chance"] == pytest.approx((1 / 2 + 1 / 4) / 2) and metrics["acc"] == 1


def test_predictions_alone():
    metrics = QAMetric().compute_metrics(outputs=[0, 1, 2], targets=[[0], [1], [1]])
    assert metrics["acc"] == pytest.approx(2 / 3) and "chance" not in metrics


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"scores": [[1.0, 2]], "targets": [2]}, "a right answer is none of the options"),
        ({"scores": [[1.0, -INF]], "targets": [1]}, "a right answer is none of the options"),
        ({"scores": [[1.0, 2]], "targets": [-1]}, "a right answer is none of the options"),
        ({"scores": [[1.0, np.nan]], "targets": [0]}, "1 of 2 option scores are NaN"),
        ({"scores": [[1.0, 2]], "targets": [0, 1]}, r"scores have shape \(1, 2\), and there are 2"),
        ({"scores": [1.0, 2], "targets": [0, 1]}, "scores have shape"),
        ({"scores": np.zeros((0, 5)), "targets": []}, "there are 0 right answers"),
        ({"outputs": [1], "targets": []}, "1 predicted and 0 right answers"),
        ({"outputs": [], "targets": []}, "0 predicted and 0 right answers"),
    ],
)
def test_faults(outputs, message):
    with pytest.raises(DataError, match=message):
        QAMetric().compute_metrics(**outputs)


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 30), st.integers(2, 6)), elements=st.integers(-3, 3)), st.data())
def test_an_independent_count(scores, data):
    targets = data.draw(st.lists(st.integers(0, scores.shape[1] - 1), min_size=len(scores), max_size=len(scores)))
    right = 0
    for row, target in zip(scores.tolist(), targets, strict=True):
        others = row[:target] + row[target + 1 :]
        right += all(row[target] > other for other in others)
    metrics = QAMetric().compute_metrics(scores=scores, targets=targets)
    assert metrics["acc"] == pytest.approx(right / len(scores))
    assert metrics["acc_ci"][0] <= metrics["acc"] <= metrics["acc_ci"][1]
