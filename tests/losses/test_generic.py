"""The supervised objectives against computations by hand, and batches in which nothing is labelled."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpt.losses.generic import ArgmaxCrossEntropy, CrossEntropy, NLGLoss, accuracy
from mmpt.utils.registry import build

CLASSES = 4


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(rows: np.ndarray, labels: list[int]) -> float:
    terms = [
        math.log(sum(map(math.exp, row))) - row[label]
        for row, label in zip(rows.tolist(), labels, strict=True)
        if label != -100
    ]
    return sum(terms) / len(terms)


def test_cross_entropy_leaves_out_unlabelled_frames() -> None:
    scores = logits(2, 3, CLASSES)  # windows, frames, classes
    labels = [0, 3, -100, 2, -100, 1]
    expected = by_hand(scores.reshape(-1, CLASSES).double().numpy(), labels)
    # The loader adds a leading dimension to the targets.
    loss = build("loss", "CrossEntropy")(logits=scores, targets=torch.tensor(labels).view(1, 2, 3), video_id="v")
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    changed = scores.clone()
    changed[0, 2], changed[1, 1] = 99.0, -99.0
    changed[0, 2, 0] = 5.0
    torch.testing.assert_close(CrossEntropy()(changed, torch.tensor(labels)), loss)


def test_argmax_takes_the_class_of_the_largest_target() -> None:
    scores = logits(3, CLASSES)
    targets = torch.tensor([[0.1, 0.2, 0.6, 0.1], [1, 0, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(ArgmaxCrossEntropy()(scores, targets), CrossEntropy()(scores, torch.tensor([2, 0, 3])))


def test_captions_are_scored_at_their_labelled_positions_in_order() -> None:
    text_label = torch.tensor([[-100, -100, 2, 1, -100], [-100, -100, 3, -100, -100]])
    scores = logits(3, CLASSES)
    loss = build("loss", "NLGLoss")(logits=scores, text_label=text_label, caps=None)
    assert loss.item() == pytest.approx(by_hand(scores.double().numpy(), [2, 1, 3]), abs=1e-6)
    with pytest.raises(ValueError, match="do not fit 3 targets"):
        NLGLoss()(scores[:2], text_label)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("CrossEntropy", {"logits": (2, 3, CLASSES), "targets": torch.full((2, 3), -100)}),
        ("CrossEntropy", {"logits": (0, CLASSES), "targets": torch.zeros(0, dtype=torch.long)}),
        ("NLGLoss", {"logits": (0, CLASSES), "text_label": torch.full((2, 5), -100)}),
        ("BCE", {"logits": (0, 3), "targets": torch.zeros(1, 0, 3)}),
        ("MSE", {"logits": (0,), "targets": torch.zeros(0)}),
    ],
)
def test_nothing_labelled_is_zero_with_a_gradient(name: str, inputs: dict) -> None:
    scores = logits(*inputs["logits"]).requires_grad_()
    loss = build("loss", name)(**{**inputs, "logits": scores})
    assert loss.item() == 0.0
    loss.backward()
    assert scores.grad is not None and not scores.grad.any()


def distance_by_hand(name: str, x: float, y: float) -> float:
    d = abs(x - y)
    if name == "BCE":
        p = 1 / (1 + math.exp(-x))
        return -y * math.log(p) - (1 - y) * math.log(1 - p)
    return {"MSE": d * d, "L1": d, "SmoothL1": d * d / 2 if d < 1 else d - 0.5}[name]


@pytest.mark.parametrize("name", ["BCE", "MSE", "L1", "SmoothL1"])
def test_elementwise_losses_by_hand(name: str) -> None:
    scores = 3 * logits(5, CLASSES)
    targets = (logits(5, CLASSES, seed=1) > 0).float()
    pairs = zip(scores.double().flatten().tolist(), targets.flatten().tolist(), strict=True)
    expected = sum(distance_by_hand(name, x, y) for x, y in pairs) / scores.numel()
    loss = build("loss", name)
    # Targets come with the loader's leading dimension, as integers too.
    assert loss(logits=scores, targets=targets[None]).item() == pytest.approx(expected, abs=1e-5)
    assert loss(logits=scores, targets=targets.long()).item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="do not fit targets"):
        loss(logits=scores, targets=targets[:4])


@pytest.mark.parametrize("name", ["CrossEntropy", "BCE", "MSE", "L1", "SmoothL1"])
def test_half_precision_is_computed_in_float32(name: str) -> None:
    scores = (5 * logits(8, CLASSES)).bfloat16()
    targets = torch.arange(8) % CLASSES if name == "CrossEntropy" else torch.rand(8, CLASSES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = build("loss", name)(logits=scores, targets=targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, build("loss", name)(logits=scores.float(), targets=targets))


def test_more_or_fewer_labels_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 5 targets"):
        CrossEntropy()(logits(2, 3, CLASSES), torch.zeros(5, dtype=torch.long))


def test_any_number_of_classes() -> None:
    for classes in (2, 779):
        assert CrossEntropy()(torch.zeros(3, classes), torch.tensor([0, 1, classes - 1])).item() == pytest.approx(
            math.log(classes), abs=1e-5
        )


def test_accuracy_counts_what_is_labelled_alone() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 0.0]])
    assert accuracy(scores, torch.tensor([0, 0, -100, 0])) == pytest.approx(2 / 3)
    assert accuracy(scores[:0], torch.tensor([], dtype=torch.long)).isnan()
    assert CrossEntropy().measures(scores, torch.tensor([0, 1, 0, 0])) == {"accuracy": 1.0}
    label = torch.tensor([[-100, 1, -100], [0, -100, 0]])
    assert NLGLoss().measures(scores[:3], label)["accuracy"] == pytest.approx(1 / 3)
    assert ArgmaxCrossEntropy().measures(scores[:2], torch.tensor([[0.9, 0.1], [0.7, 0.3]]))["accuracy"] == 0.5
