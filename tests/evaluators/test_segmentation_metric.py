"""Frame accuracy and its companions, against worked examples and plain recounting."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.evaluators import classification_metrics
from mmpt.evaluators.classification_metrics import COINActionSegmentationMetric, bootstrap_interval, runs_of
from mmpt.utils.errors import DataError


def measure(predicted, true, lengths=None, background=0):
    metric = COINActionSegmentationMetric()
    return metric.compute_metrics(Y_pred=predicted, Y_true=true, lengths=lengths, background=background, ids=["?"])


def test_worked_example():
    true = [0, 0, 1, 1, 1, 0, 2, 2, 0, 0]
    pred = [0, 1, 1, 1, 0, 0, 3, 2, 0, 2]
    metrics = measure(pred, true, [6, 4])
    assert next(iter(metrics)) == "frame_acc"
    assert metrics["frame_acc"] == pytest.approx(6 / 10)
    assert metrics["background_share"] == pytest.approx(5 / 10)
    assert metrics["frame_acc_no_bg"] == pytest.approx(3 / 5)
    # true: 1 at 2-5 | 2 at 0-2. predicted: 1 at 1-4 (IoU 2/4) | 3 at 0-1, 2 at 1-2 (IoU 1/2), 2 at 3-4
    assert metrics["segment_f1"] == pytest.approx(2 * 2 / (2 + 4))
    assert (metrics["count"], metrics["seconds"]) == (2, 10)
    assert COINActionSegmentationMetric().print_computed_metrics(metrics) == "frame accuracy: 0.6000"


def test_segments_end_where_videos_do():
    # one run over both videos would be found by a prediction of the first one alone, half of it
    assert measure([1, 1, 0, 0], [1, 1, 1, 1], [2, 2])["segment_f1"] == pytest.approx(2 * 1 / 3)
    assert measure([1, 1, 0, 0], [1, 1, 1, 1])["segment_f1"] == pytest.approx(1.0)
    # two halves of a true segment: the second is a false one
    assert measure([1, 1, 0, 1, 1], [1, 1, 1, 1, 0])["segment_f1"] == pytest.approx(2 * 1 / 3)


def test_all_background_is_worth_its_share():
    true = np.array([3] * 7 + [0, 1, 2])
    metrics = measure(np.full(10, 3), true, [5, 5], background=3)
    assert metrics["frame_acc"] == metrics["background_share"] == pytest.approx(0.7)
    assert metrics["frame_acc_no_bg"] == metrics["segment_f1"] == 0.0


def test_without_any_step_there_is_no_accuracy_of_steps():
    metrics = measure([0, 0], [0, 0], [1, 1])
    assert metrics["frame_acc"] == metrics["background_share"] == 1.0
    assert "frame_acc_no_bg" not in metrics and "segment_f1" not in metrics


def recount(predicted, true, background):
    """Segment F1 by marking seconds one by one: sets of (video, second) instead of runs."""

    def segments(videos):
        found = []
        for number, classes in enumerate(videos):
            previous = None
            for second, label in enumerate(classes):
                if label != previous:
                    found.append((label, set()))
                found[-1][1].add((number, second))
                previous = label
        return [segment for segment in found if segment[0] != background]

    ours, theirs = segments(predicted), segments(true)
    used, hits = set(), 0
    for label, seconds in ours:
        overlaps = [len(seconds & other) / len(seconds | other) * (label == name) for name, other in theirs]
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best >= 0 and overlaps[best] >= 0.5 and best not in used:
            used.add(best)
            hits += 1
    misses, false = len(theirs) - hits, len(ours) - hits
    return 2 * hits / (2 * hits + misses + false) if hits else 0.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(2, 4), st.integers(0, 2**31))
def test_equals_plain_recounting(lengths, classes, seed):
    rng = np.random.default_rng(seed)
    true = [np.sort(rng.integers(0, classes, length)) for length in lengths]
    predicted = [np.where(rng.random(len(one)) < 0.5, one, rng.integers(0, classes, len(one))) for one in true]
    metrics = measure(np.concatenate(predicted), np.concatenate(true), lengths, background=1)
    pairs = [(p, t) for one, other in zip(predicted, true, strict=True) for p, t in zip(one, other, strict=True)]
    assert metrics["frame_acc"] == pytest.approx(sum(p == t for p, t in pairs) / len(pairs))
    assert metrics["background_share"] == pytest.approx(sum(t == 1 for _, t in pairs) / len(pairs))
    steps = [(p, t) for p, t in pairs if t != 1]
    if steps:
        assert metrics["frame_acc_no_bg"] == pytest.approx(sum(p == t for p, t in steps) / len(steps))
        assert metrics["segment_f1"] == pytest.approx(recount(predicted, true, 1))
    if len(lengths) > 1:
        low, high = metrics["frame_acc_ci"]
        assert 0 <= low <= high <= 1


@given(st.lists(st.integers(0, 3), max_size=20))
def test_runs_rebuild_the_classes(classes):
    runs = runs_of(classes)
    assert [label for start, end, label in runs for _ in range(end - start)] == classes
    assert all(one[1] == two[0] and one[2] != two[2] for one, two in itertools.pairwise(runs))


def test_interval_is_over_videos_and_repeats():
    rng = np.random.default_rng(0)
    trials = np.full(200, 50)
    hits = np.where(rng.random(200) < 0.6, 50, 0)  # a video is right as a whole or wrong as a whole
    low, high = bootstrap_interval(hits, trials)
    assert (low, high) == bootstrap_interval(hits, trials)
    share = hits.sum() / trials.sum()
    # as wide as that of 200 independent trials, not of 10,000
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / 200) ** 0.5, rel=0.15)
    assert bootstrap_interval([3, 3], [3, 3]) == (1.0, 1.0)
    assert bootstrap_interval([1, 0], [1, 0]) == (1.0, 1.0)  # draws without any trial say nothing


@pytest.mark.parametrize("cells", [1, 777, 10_000])
def test_blocks_do_not_change_the_interval(monkeypatch, cells):
    rng = np.random.default_rng(1)
    trials = rng.integers(0, 40, 60)
    hits = rng.binomial(trials, 0.3)
    drawn = np.random.default_rng(7).multinomial(60, np.full(60, 1 / 60), size=1000)
    expected = np.quantile((drawn @ hits) / (drawn @ trials), [0.025, 0.975])
    monkeypatch.setattr(classification_metrics, "_CELLS_AT_ONCE", cells)
    assert bootstrap_interval(hits, trials, seed=7) == pytest.approx(tuple(expected), rel=1e-12)


def test_many_videos_take_little_memory():
    trials = np.full(20_000, 3)
    tracemalloc.start()
    bootstrap_interval(trials // 2, trials)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize(
    ("predicted", "true", "lengths"), [([], [], None), ([1], [1, 2], None), ([1, 2], [1, 2], [1]), ([1], [1], [1, 0])]
)
def test_wrong_numbers_are_refused(predicted, true, lengths):
    with pytest.raises(DataError, match="predicted and"):
        measure(predicted, true, lengths)
