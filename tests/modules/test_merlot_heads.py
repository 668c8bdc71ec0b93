"""MERLOT's heads, and what they are to tell of pairs of moments."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmpt.modules.merlot_heads import AnswerHead, MLPHead, TextPositions, order_targets, order_weights, unit


def test_pairs_are_told_by_video_and_true_place() -> None:
    sources = torch.tensor([[0, 0, 0], [4, 5, 5]])
    assert order_targets(sources).tolist() == [
        [[1, 2, 2], [3, 1, 2], [3, 3, 1]],
        [[1, 0, 0], [0, 1, 2], [0, 3, 1]],
    ]


def test_pairs_whose_places_are_both_shown_hardly_count() -> None:
    weights = order_weights(torch.tensor([[0, 65, 2], [0, 1, 2]]), 64)
    torch.testing.assert_close(weights[0], torch.tensor([[0.01, 1, 0.01], [1, 1, 1], [0.01, 1, 0.01]]))
    assert (weights[1] == torch.tensor(0.01)).all()
    assert (order_weights(torch.tensor([[0, 16]]), 16)[0] == torch.tensor([[0.01, 1], [1, 1]])).all()


def test_every_pair_is_classified_from_both_states() -> None:
    torch.manual_seed(0)
    head = MLPHead(8, 4, 3, 1e-5)
    first, second = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    found = head.pairs(first, second)
    assert found.shape == (2, 3, 3, 3)
    for row in range(2):
        for i in range(3):
            for j in range(3):
                torch.testing.assert_close(found[row, i, j], head(torch.cat([first[row, i], second[row, j]])))


def test_a_head_is_linear_gelu_norm_linear() -> None:
    torch.manual_seed(0)
    head, states = MLPHead(6, 4, 2, 1e-5), torch.randn(5, 6)
    hidden = head.dense(states)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    hidden = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(head(states), hidden @ head.output.weight.T + head.output.bias)


def test_an_answer_is_scored_by_half_the_width_with_dropout_before_both_layers() -> None:
    torch.manual_seed(0)
    head, states = AnswerHead(6, 0.5), torch.randn(4, 3, 6)
    head.reset_bias()
    assert head.output.bias.item() == pytest.approx(-math.log(3))
    assert not torch.allclose(head.train()(states), head(states))
    found = head.eval()(states)
    assert found.shape == (4, 3) and head.dense.weight.shape == (3, 6)
    torch.testing.assert_close(found, head.output(F.gelu(head.dense(states))).squeeze(-1))


def test_vectors_have_length_one_in_float32_or_float64() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit(vectors), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert unit(vectors.bfloat16()).dtype == torch.float32 and unit(vectors.double()).dtype == torch.float64
    zero = torch.zeros(2, requires_grad=True)
    unit(zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_texts_have_positions_before_their_norm() -> None:
    torch.manual_seed(0)
    table, words = TextPositions(5, 4, 1e-5, 0.0), torch.randn(2, 3, 4)
    wanted = F.layer_norm(words + table.position_embeddings.weight[:3], (4,))
    torch.testing.assert_close(table(words), wanted, atol=1e-5, rtol=1e-4)
