"""VIOLET's objective and the matching of pairs against plain sums."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmpt.losses.matching import PairMatchingLoss
from mmpt.losses.violet import VIOLETLoss
from mmpt.utils.errors import ConfigError


def outputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "text_logits": torch.randn(3, 9, generator=generator),
        "text_targets": torch.tensor([4, 0, 8]),
        "code_logits": torch.randn(5, 7, generator=generator),
        "code_targets": torch.tensor([1, 1, 6, 0, 3]),
        "matching_scores": 0.1 * torch.randn(4, 3, generator=generator),
    }


def test_the_loss_is_the_sum_of_three_means() -> None:
    given = outputs()
    mlm = -sum(row.log_softmax(0)[target] for row, target in zip(given["text_logits"], [4, 0, 8], strict=True)) / 3
    codes = zip(given["code_logits"], [1, 1, 6, 0, 3], strict=True)
    mvm = -sum(row.log_softmax(0)[target] for row, target in codes) / 5
    vtm = -sum((row / 0.05).log_softmax(0)[0] for row in given["matching_scores"]) / 4
    torch.testing.assert_close(VIOLETLoss()(**given, caps=None), mlm + mvm + vtm)
    parts = VIOLETLoss(temperature=1.0).parts(**given)
    torch.testing.assert_close(parts["vtm"], -given["matching_scores"].log_softmax(1)[:, 0].mean())


def test_a_batch_without_masks_has_a_loss_and_a_gradient_of_zeros() -> None:
    given = outputs() | {"text_logits": torch.zeros(0, 9, requires_grad=True), "text_targets": torch.zeros(0).long()}
    parts = VIOLETLoss().parts(**given)
    assert parts["mlm"] == 0
    VIOLETLoss()(**given).backward()
    assert given["text_logits"].grad.shape == (0, 9)


def test_what_is_measured_is_how_many_are_right() -> None:
    outputs = {
        "text_logits": torch.eye(3)[:2],
        "text_targets": torch.tensor([0, 2]),
        "code_logits": torch.zeros(0, 5),
        "code_targets": torch.zeros(0, dtype=torch.long),
        "matching_scores": torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.5]]),
    }
    measures = VIOLETLoss().measures(**outputs)
    assert measures["mlm_accuracy"] == 0.5 and measures["mvm_accuracy"].isnan() and measures["vtm_accuracy"] == 0.75
    scores = torch.tensor([[3.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 5.0, 4.0]])
    assert PairMatchingLoss().measures(scores)["accuracy"] == pytest.approx(2 / 3)


def test_matching_looks_for_the_text_of_each_video() -> None:
    scores = torch.tensor([[0.10, 0.02, 0.00], [0.05, 0.07, -0.03], [0.01, 0.04, 0.06]])  # texts by videos
    published = (
        -sum(
            math.log(math.exp(20 * scores[i, i]) / sum(math.exp(20 * scores[t, i]) for t in range(3))) for i in range(3)
        )
        / 3
    )
    other = (
        -sum(
            math.log(math.exp(20 * scores[i, i]) / sum(math.exp(20 * scores[i, v]) for v in range(3))) for i in range(3)
        )
        / 3
    )
    assert math.isclose(PairMatchingLoss()(scores), published, rel_tol=1e-5)
    assert math.isclose(PairMatchingLoss(symmetric=True)(scores), (published + other) / 2, rel_tol=1e-5)


def test_other_texts_of_the_same_video_do_not_count_as_wrong() -> None:
    scores, key = torch.randn(4, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([7, 5, 7, 9])
    loss = PairMatchingLoss(temperature=1.0)(scores, video_key=key)
    rows = {0: [0, 1, 3], 1: [0, 1, 2, 3], 2: [1, 2, 3], 3: [0, 1, 2, 3]}
    wanted = sum(-F.log_softmax(scores[texts, video], 0)[texts.index(video)] for video, texts in rows.items()) / 4
    torch.testing.assert_close(loss, wanted)
    unmasked = PairMatchingLoss(temperature=1.0, mask_same_video=False)(scores, video_key=key)
    torch.testing.assert_close(unmasked, F.cross_entropy(scores.T, torch.arange(4)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, B\)"):
        PairMatchingLoss()(torch.zeros(2, 3))
    for loss in (PairMatchingLoss, VIOLETLoss):
        with pytest.raises(ConfigError, match=r"loss\.temperature"):
            loss(temperature=0)
