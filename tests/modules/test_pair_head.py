"""The head of VIOLET and of LAVENDER's baselines."""

import torch

from mmpt.modules.pair_head import MatchingHead


def test_entries_are_those_of_published_checkpoints():
    shapes = {key: tuple(value.shape) for key, value in MatchingHead(8, 3).state_dict().items()}
    assert shapes == {"1.weight": (16, 8), "1.bias": (16,), "3.weight": (3, 16), "3.bias": (3,)}


def test_computes_two_linear_maps_and_drops_of_its_input_alone():
    torch.manual_seed(0)
    head = MatchingHead(8, 3, dropout=0.5)
    states = torch.randn(2, 5, 8)
    weights = head.state_dict()
    hidden = (states @ weights["1.weight"].T + weights["1.bias"]).clamp(min=0)
    expected = hidden @ weights["3.weight"].T + weights["3.bias"]
    torch.testing.assert_close(head.eval()(states), expected)
    torch.manual_seed(1)
    dropped = torch.nn.functional.dropout(states, 0.5)
    torch.manual_seed(1)
    torch.testing.assert_close(head.train()(states), head.eval()(dropped))
