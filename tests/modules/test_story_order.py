"""The order of a story's images against a search by hand over all orders."""

import itertools
import math

import pytest
import torch

from mmpt.modules.story_order import best_order, order_probabilities, order_scores


def by_hand(probabilities: list[list[list[float]]]) -> tuple[list[int], float]:
    """Return the first of the best orders of one story and its score, by the definition."""
    count, best = len(probabilities), ([], -math.inf)
    for order in itertools.permutations(range(count)):
        score = 0.0
        for caption in range(count):
            for image in range(count):
                same, before, after = probabilities[caption][image]
                time = order[image]
                score += math.log(same if caption == time else before if caption < time else after)
        if score > best[1]:
            best = (list(order), score)
    return best


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_best_order_is_that_of_a_search_over_all(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    draws = [2 * torch.randn(12, count, count, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    probabilities = order_probabilities(draws)
    found, scores = best_order(probabilities), order_scores(probabilities)
    for row in range(12):
        order, score = by_hand(probabilities[row].tolist())
        assert found[row].tolist() == order
        assert sum(scores[row, image, time].item() for image, time in enumerate(order)) == pytest.approx(score)


def test_probabilities_are_those_of_one_video_averaged_over_draws() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])
    weights = [math.exp(value) for value in (0, 1, 2, 3)]
    other = torch.zeros(4)
    found = order_probabilities([logits.expand(2, 3, 3, 4), other.expand(2, 3, 3, 4)])
    wanted = torch.tensor([weight / sum(weights) / 2 + 0.125 for weight in weights[1:]])
    torch.testing.assert_close(found, wanted.expand(2, 3, 3, 3))
    assert order_probabilities([logits.bfloat16().expand(1, 2, 2, 4)]).dtype == torch.float32


def test_a_model_that_knows_the_order_finds_it() -> None:
    true = torch.tensor([[3, 0, 4, 1, 2], [0, 1, 2, 3, 4]])
    captions = torch.arange(5)[None, :, None]
    times = true[:, None]
    relation = torch.where(captions == times, 1, torch.where(captions < times, 2, 3))
    logits = 5.0 * torch.nn.functional.one_hot(relation, 4)
    assert torch.equal(best_order(order_probabilities([logits])), true)


def test_impossible_pairs_and_ties_have_an_order_too() -> None:
    assert best_order(torch.zeros(1, 3, 3, 3)).tolist() == [[0, 1, 2]]
    sure = torch.zeros(1, 2, 2, 3)
    sure[0, 0, 0, 1] = sure[0, 0, 1, 0] = sure[0, 1, 0, 0] = sure[0, 1, 1, 2] = 1.0
    assert best_order(sure).tolist() == [[1, 0]]


@pytest.mark.parametrize("shape", [(1, 9, 9, 3), (1, 3, 4, 3), (1, 3, 3, 4), (1, 0, 0, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, N, N, 3\)"):
        best_order(torch.ones(shape))
