"""Reserve's objective by its equation, and what is logged beside it."""

import pytest
import torch
from torch import Tensor

from mmpt.losses import ReserveLoss
from mmpt.losses.candidates import symmetric_cross_entropy
from mmpt.utils.registry import build

OBJECTIVES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_further_candidates_are_those_of_x_alone() -> None:
    x, y, extra = rows(4), rows(4, 1), rows(7, 2)
    there = torch.stack([-(x @ torch.cat([y, extra]).T).log_softmax(1)[k, k] for k in range(4)]).mean()
    back = torch.stack([-(y @ x.T).log_softmax(1)[k, k] for k in range(4)]).mean()
    torch.testing.assert_close(symmetric_cross_entropy(x, y, y_extra=extra), (there + back) / 2)
    torch.testing.assert_close(symmetric_cross_entropy(x, y, y_extra=extra[:0]), symmetric_cross_entropy(x, y))
    doubled = symmetric_cross_entropy(x * 2, y, y_extra=extra)
    torch.testing.assert_close(symmetric_cross_entropy(x, y, 2.0, y_extra=extra), doubled)


def outputs(count: int = 3) -> dict[str, Tensor]:
    found = {f"{name}_{side}": rows(count, k) for k, name in enumerate(OBJECTIVES) for side in ("x", "y")}
    return {**found, "text_to_audio_y_extra": rows(5, 9), "span_sources": torch.tensor([0, 2, 2])}


def test_accuracies_and_sources_are_measured() -> None:
    given = outputs()
    given["imgs_to_audio_y"] = given["imgs_to_audio_x"] = torch.eye(3, 6).double()
    given["text_to_audio_y"] = given["text_to_audio_x"] = torch.eye(3, 6).double()
    given["text_to_audio_y_extra"] = 2 * torch.eye(6).double()[:1]
    measures = ReserveLoss().measures(**given)
    assert measures["imgs_to_audio_accuracy"] == 1
    assert float(measures["text_to_audio_accuracy"]) == pytest.approx(2 / 3)
    assert measures["stuff_to_span_from_audio2text"].isnan()
    x, y = given["stuff_to_span_x"], given["stuff_to_span_y"]
    first = (torch.logsumexp(x[0] @ y.T, 0) + torch.logsumexp(y[0] @ x.T, 0)) / 2 - x[0] @ y[0]
    torch.testing.assert_close(measures["stuff_to_span_from_text2audio"], first)


def test_a_padding_step_and_no_spans_at_all() -> None:
    loss = ReserveLoss(global_negatives=False)
    assert type(build("loss", "ReserveLoss")) is ReserveLoss
    assert float(loss(**outputs(), padding_step=True)) == 0
    empty = {**outputs(), **{f"stuff_to_span_{side}": rows(3)[:0] for side in ("x", "y")}}
    assert loss(**empty).isfinite()
    measures = loss.measures(**{**empty, "span_sources": torch.tensor([], dtype=torch.long)})
    assert measures["stuff_to_span_accuracy"].isnan()
