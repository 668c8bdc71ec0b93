"""Metrics: worked examples, ties, intervals, moments."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.evaluators.didemo_predictor import rank_moments
from mmpt.evaluators.metrics import MOMENTS, DiDeMoMetric, RetrievalMetric, wilson_interval
from mmpt.utils.errors import DataError


def moment_scores(best: tuple[int, int], others: float = 0.0) -> np.ndarray:
    scores = others - np.arange(21) / 100
    scores[MOMENTS.index(best)] = 9.0
    return scores.astype(np.float32)


class TestWilson:
    # published worked values: Newcombe, Statistics in Medicine 17 (1998), Table I, method 3
    @pytest.mark.parametrize(
        ("hits", "trials", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published_values(self, hits, trials, low, high):
        assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=6e-5)

    @given(st.integers(1, 500), st.data())
    def test_contains_the_share_and_mirrors(self, trials, data):
        hits = data.draw(st.integers(0, trials))
        low, high = wilson_interval(hits, trials)
        assert 0 <= low <= hits / trials <= high <= 1
        assert wilson_interval(trials - hits, trials) == pytest.approx((1 - high, 1 - low))

    @pytest.mark.parametrize(("hits", "trials"), [(0, 0), (3, 2), (-1, 2)])
    def test_impossible(self, hits, trials):
        with pytest.raises(ValueError, match="not a proportion"):
            wilson_interval(hits, trials)


class TestRetrieval:
    def test_perfect_diagonal(self):
        metrics = RetrievalMetric().compute_metrics(outputs=np.eye(20))
        assert (metrics["R1"], metrics["MR"], metrics["MeanR"], metrics["count"]) == (1.0, 1.0, 1.0, 20)
        assert next(iter(metrics)) == "R1"
        line = RetrievalMetric().print_computed_metrics(metrics)
        assert line == "R@1: 1.0000 - R@5: 1.0000 - R@10: 1.0000 - Median R: 1.0"

    def test_a_constant_score_finds_nothing(self):
        metrics = RetrievalMetric().compute_metrics(outputs=np.zeros((4, 4)))
        assert (metrics["R1"], metrics["MR"], metrics["v2t_R1"]) == (0.0, 4.0, 0.0)

    def test_worked_example(self):
        scores = np.zeros((12, 12))
        wanted = [1, 1, 1, 2, 5, 6, 10, 11, 12, 12, 3, 4]  # ranks of the right video
        for row, rank in enumerate(wanted):
            others = [item for item in range(12) if item != row]
            scores[row, row] = 0.5
            scores[row, others[: rank - 1]] = 1.0
        metrics = RetrievalMetric().compute_metrics(outputs=scores)
        assert (metrics["R1"], metrics["R5"], metrics["R10"]) == (3 / 12, 7 / 12, 9 / 12)
        assert (metrics["MR"], metrics["MeanR"]) == (4.5, np.mean(wanted))
        assert metrics["R5_ci"] == pytest.approx(wilson_interval(7, 12))

    @given(st.integers(0, 2**31), st.integers(1, 15), st.integers(1, 10))
    def test_embeddings_and_score_matrix_agree(self, seed, texts, videos):
        rng = np.random.default_rng(seed)
        text, video = rng.integers(-2, 3, (texts, 3)), rng.integers(-2, 3, (videos, 3))
        target = rng.integers(0, videos, texts)
        metric = RetrievalMetric()
        by_scores = metric.compute_metrics(outputs=(text @ video.T).astype(np.float32), target=target)
        assert metric.compute_metrics(text=text, video=video, target=target) == by_scores

    def test_video_to_text_is_text_to_video_of_the_transposed(self):
        scores = np.random.default_rng(0).standard_normal((30, 30))
        one, other = (RetrievalMetric().compute_metrics(outputs=matrix) for matrix in (scores, scores.T))
        for name in ("R1", "R5", "R10", "MR", "MeanR", "R1_ci"):
            assert one[f"v2t_{name}"] == other[name]
        assert one["R1"] != one["v2t_R1"] or one["MeanR"] != one["v2t_MeanR"]

    def test_is_plain_json(self):
        metrics = RetrievalMetric().compute_metrics(outputs=np.eye(3, dtype=np.float32))
        assert json.loads(json.dumps(metrics)) == metrics

    def test_faults(self):
        with pytest.raises(DataError, match="1 of 4 scores are NaN"):
            RetrievalMetric().compute_metrics(outputs=np.array([[np.nan, 0.0], [0.0, 1.0]]))
        with pytest.raises(DataError, match="say which video"):
            RetrievalMetric().compute_metrics(outputs=np.zeros((3, 2)))
        with pytest.raises(DataError, match="or a score matrix"):
            RetrievalMetric().compute_metrics()


class TestDiDeMo:
    def test_moments(self):
        assert len(set(MOMENTS)) == 21
        assert MOMENTS[:7] == ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (0, 1))

    def test_worked_example(self):
        # annotators: three say (1, 2), the fourth, an outlier, is left out of rank and IoU
        targets = [{"video": "v", "times": [[1, 2], [1, 2], [1, 2], [5, 5]]}]
        metrics = DiDeMoMetric().compute_metrics(scores=moment_scores((1, 2))[None], targets=targets)
        assert (metrics["rank1"], metrics["rank5"], metrics["mIoU"], metrics["count"]) == (1.0, 1.0, 1.0, 1)
        line = DiDeMoMetric().print_computed_metrics(metrics)
        assert line == "Average rank@1: 1.0000 Average rank@5: 1.0000 Average iou: 1.0000"

    def test_mean_rank_and_iou_over_the_best_three(self):
        # first (0, 1), then the singles in order: (0, 0) is 2nd, (1, 1) 3rd, (2, 2) 4th
        targets = [{"video": "v", "times": [[0, 1], [0, 0], [1, 1], [2, 2]]}]
        metrics = DiDeMoMetric().compute_metrics(scores=moment_scores((0, 1))[None], targets=targets)
        assert (metrics["rank1"], metrics["rank5"]) == (0.0, 1.0)  # mean of 1, 2, 3
        assert metrics["mIoU"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)

    def test_moment_after_the_end_of_the_video_ranks_last(self):
        scores = np.where([last <= 2 for _, last in MOMENTS], np.arange(21.0), -np.inf)
        targets = [{"video": "v", "times": [[4, 5]]}]
        metrics = DiDeMoMetric().compute_metrics(scores=scores[None], targets=targets)
        assert (metrics["rank1"], metrics["rank5"], metrics["mIoU"]) == (0.0, 0.0, 0.0)

    def test_a_constant_score_does_not_profit_from_the_most_frequent_moment(self):
        targets = [{"video": "v", "times": [[0, 0]] * 4}]
        metrics = DiDeMoMetric().compute_metrics(scores=np.zeros((1, 21)), targets=targets)
        assert (metrics["rank1"], metrics["rank5"], metrics["mIoU"]) == (0.0, 0.0, 0.0)

    @given(st.integers(0, 2**31))
    def test_rankings_and_scores_agree(self, seed):
        rng = np.random.default_rng(seed)
        scores = rng.standard_normal((5, 21))
        ends = rng.integers(0, 6, 5)
        scores[np.array([[last > end for _, last in MOMENTS] for end in ends])] = -np.inf
        targets = [{"video": str(i), "times": [MOMENTS[k] for k in rng.integers(0, 21, 4)]} for i in range(5)]
        metric = DiDeMoMetric()
        by_ranking = metric.compute_metrics(outputs=rank_moments(scores), targets=targets)
        assert by_ranking == metric.compute_metrics(scores=scores, targets=targets)

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            ([], "0 annotated"),
            ([{"video": "v7", "times": []}], "'v7'.*no annotated times"),
            ([{"video": "v", "times": [[3, 2]]}], r"\[3, 2\] is not a moment"),
            ([{"video": "v", "times": [[0, 6]]}], "is not a moment"),
        ],
    )
    def test_wrong_annotations(self, targets, message):
        with pytest.raises(DataError, match=message):
            DiDeMoMetric().compute_metrics(scores=np.zeros((1, 21)), targets=targets)
