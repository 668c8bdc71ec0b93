"""The contrastive objectives: worked examples, an independent computation, and their symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.losses import MMContraLoss, T2VContraLoss, V2TContraLoss
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build


def pairs(count: int = 5, size: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pooled_video": torch.randn(count, size, generator=generator),
        "pooled_text": torch.randn(count, size, generator=generator),
    }


def by_hand(queries: np.ndarray, keys: np.ndarray) -> float:
    total = 0.0
    for row, query in enumerate(queries):
        scores = [float(query @ key) for key in keys]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[row]
    return total / len(queries)


def test_losses_equal_a_computation_by_hand() -> None:
    batch = pairs()
    video, text = batch["pooled_video"].double().numpy(), batch["pooled_text"].double().numpy()
    assert T2VContraLoss()(**batch).item() == pytest.approx(by_hand(text, video), abs=1e-5)
    assert V2TContraLoss()(**batch).item() == pytest.approx(by_hand(video, text), abs=1e-5)
    assert MMContraLoss()(**batch).item() == pytest.approx(by_hand(text, video) + by_hand(video, text), abs=1e-5)


def test_directions_are_told_apart_by_a_worked_example() -> None:
    # Both texts prefer video 0; each video is indifferent between the texts.
    video, text = torch.tensor([[10.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert T2VContraLoss()(video, text).item() == pytest.approx(5.0, abs=1e-3)
    assert V2TContraLoss()(video, text).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 32])
def test_a_uniform_batch_of_n_pairs_gives_two_ln_n(count: int) -> None:
    same = torch.ones(count, 4)
    assert MMContraLoss()(same, same).item() == pytest.approx(2 * math.log(count), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(0, 1000))
def test_order_of_pairs_does_not_matter_and_the_loss_is_not_negative(count: int, seed: int) -> None:
    batch = pairs(count, seed=seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    loss = MMContraLoss()(**batch)
    assert loss >= 0
    torch.testing.assert_close(loss, MMContraLoss()(**{key: value[order] for key, value in batch.items()}))


def test_temperature_and_normalize_are_off_by_default_and_do_what_they_say() -> None:
    batch = pairs()
    scaled = {"pooled_video": batch["pooled_video"] * 3, "pooled_text": batch["pooled_text"]}
    torch.testing.assert_close(MMContraLoss(temperature=1 / 3)(**batch), MMContraLoss()(**scaled))
    torch.testing.assert_close(MMContraLoss(normalize=True)(**batch), MMContraLoss(normalize=True)(**scaled))
    assert not torch.allclose(MMContraLoss()(**batch), MMContraLoss()(**scaled))
    for wrong in (0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"loss\.temperature: must be positive"):
            MMContraLoss(temperature=wrong)


def test_half_precision_inputs_are_compared_in_float32_with_gradient() -> None:
    batch = pairs(size=64)
    half = {key: (4 * value).bfloat16().requires_grad_() for key, value in batch.items()}
    exact = {key: value.detach().float() for key, value in half.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = MMContraLoss()(**half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, MMContraLoss()(**exact))
    loss.backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in half.values())


def test_other_outputs_of_the_batch_are_ignored_and_unpaired_shapes_are_not() -> None:
    batch = pairs()
    assert build("loss", "MMContraLoss")(**batch, caps=None, video_id=["a"]) == MMContraLoss()(**batch)
    with pytest.raises(ValueError, match=r"\(5, 7\) and \(4, 7\)"):
        MMContraLoss()(batch["pooled_video"], batch["pooled_text"][:4])
