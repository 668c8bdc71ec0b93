"""Scores of options: which are hidden, and how many one head may have."""

import math

import pytest
import torch

from mmpt.models.option_texts import hide_missing_options, scores_of_listed_options
from mmpt.utils.errors import ConfigError

SCORES = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize("shape", [(2, 3), (6,)])
def test_options_that_are_missing_are_hidden(shape: tuple[int, ...]) -> None:
    mask = torch.tensor([1, 1, 0, 1, 0, 1]).view(shape)
    assert hide_missing_options(SCORES, mask).tolist() == [[0, 1, -math.inf], [3, -math.inf, 5]]
    assert hide_missing_options(SCORES, None) is SCORES


def test_a_head_has_at_least_as_many_outputs_as_a_question_has_options() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert scores_of_listed_options(SCORES, mask, "model.num_options").tolist() == [[0, 1], [3, -math.inf]]
    with pytest.raises(ConfigError, match=r"model\.num_options: 3, but questions have 4 options"):
        scores_of_listed_options(SCORES, torch.ones(2, 4), "model.num_options")
