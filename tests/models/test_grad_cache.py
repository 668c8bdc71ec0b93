"""GradCache: a batch encoded part by part has the loss and the gradients of the batch encoded at once."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import mmpt.models.base
from mmpt.losses import MTM, MMContraLoss
from mmpt.models.grad_cache import encode_in_parts
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import resolve_class

COUNT = 11
LOSSES: dict[str, Callable[..., Tensor]] = {
    "MMFusionSeparate": MMContraLoss(temperature=0.2, normalize=True),
    "MMFusionShare": MMContraLoss(temperature=0.2, normalize=True),
    "MMFusionJoint": MMContraLoss(temperature=0.2, normalize=True),  # isolated: the two halves apart
    "MMFusionMTM": MTM(),
}


def batch() -> dict[str, Tensor]:
    """Return pairs of 1 to 8 seconds and 0 to 13 words."""
    generator = torch.Generator().manual_seed(2)
    words, positions = torch.arange(COUNT)[:, None] * 5 % 14, torch.arange(16)
    caps = torch.randint(5, 64, (COUNT, 16), generator=generator)
    caps[:, 0], caps[:, 1] = 2, 3
    caps = caps.where(positions != words + 2, 3).where(positions <= words + 2, 0)
    vmasks = torch.arange(8) < 1 + torch.arange(COUNT)[:, None] * 3 % 8
    vfeats = torch.randn(COUNT, 8, 512, generator=generator, dtype=torch.float64)
    return {"caps": caps, "cmasks": positions <= words + 2, "vfeats": vfeats, "vmasks": vmasks}


def masked(pairs: dict[str, Tensor]) -> dict[str, Tensor]:
    words = (pairs["caps"] > 4) & (torch.arange(16) % 4 == 3)
    labels = {"text_label": pairs["caps"].masked_fill(~words, -100)}
    return {**pairs, **labels, "video_label": pairs["vmasks"] & (torch.arange(8) % 3 == 1)}


def build(name: str, rows: int | None, dropout: float = 0.0, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    cls = resolve_class("model", name)
    config = cls.tiny_config()
    config.model.update({"grad_cache_rows": rows, **options})
    model = cls(config).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
    return model


def step(name: str, model: nn.Module) -> dict[str, Tensor]:
    """Return the loss and the gradients."""
    inputs = masked(batch()) if name == "MMFusionMTM" else batch()
    torch.manual_seed(3)
    loss = LOSSES[name](**{**inputs, **model(**inputs)})
    loss.backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("rows", "options"), [(1, {}), (3, {}), (4, {"gradient_checkpointing": True}), (COUNT, {})])
def test_loss_and_gradients_are_those_of_the_batch_at_once(name: str, rows: int, options: dict[str, Any]) -> None:
    wanted = step(name, build(name, None, length_groups=1))
    assert wanted["loss"] > 0.1
    tolerance = {"atol": 1e-12, "rtol": 0} if name != "MMFusionMTM" else {"atol": 1e-6, "rtol": 1e-5}  # float32 loss
    torch.testing.assert_close(step(name, build(name, rows, **options)), wanted, **tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_dropout_draws_the_same_when_a_part_is_encoded_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = step(name, build(name, 4, dropout=0.3))
    monkeypatch.setattr(mmpt.models.base, "recomputed", lambda encode, *arguments: encode(*arguments))
    kept = step(name, build(name, 4, dropout=0.3))
    torch.testing.assert_close(cached, kept, atol=1e-12, rtol=0)
    assert not torch.allclose(kept["loss"], step(name, build(name, 4))["loss"], atol=1e-3)


@pytest.mark.parametrize("name", ["MMFusionSeparate", "MMFusionShare", "MMFusionJoint"])
def test_only_vectors_are_kept_until_the_backward_pass(name: str) -> None:
    kept = {}
    for rows in (None, 2):
        model, sizes = build(name, rows), []
        own = {parameter.data_ptr() for parameter in model.parameters()}

        def keep(value: Tensor, own: set[int] = own, sizes: list[int] = sizes) -> Tensor:
            sizes.append(0 if value.data_ptr() in own else value.nbytes)
            return value

        with saved_tensors_hooks(keep, lambda value: value):
            model(**batch())
        kept[rows] = sum(sizes)
    assert kept[2] < kept[None] / 20


def test_no_more_rows_at_a_time_than_asked_for_and_nothing_twice_without_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, seen = build("MMFusionSeparate", 4).eval(), []
    text_states = model.text_states
    monkeypatch.setattr(model, "text_states", lambda ids, mask: (seen.append(len(ids)), text_states(ids, mask))[1])
    with torch.no_grad():
        model(**batch())
    assert sorted(seen) == [3, 4, 4]
    seen.clear()
    model(**batch())["pooled_text"].sum().backward()
    assert sorted(seen) == [3, 3, 4, 4, 4, 4], "once forward, once again in the backward pass"


def test_any_encoder_can_be_given_in_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    frames, ids = torch.randn(7, 3, generator=generator), torch.randn(7, 3, generator=generator)
    layer, calls = nn.Linear(6, 2), []

    def encode(frames: Tensor, ids: Tensor) -> Tensor:
        calls.append(len(frames))
        return layer(torch.cat([frames, ids], dim=1)).tanh()

    gradients = []
    for rows in (None, 7, 3):
        layer.zero_grad()
        encode_in_parts(encode, rows, frames, ids).square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])
    assert calls == [7, 7, 3, 3, 1, 1, 3, 3]


def test_a_number_of_rows_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.grad_cache_rows: must be at least 1"):
        build("MMFusionSeparate", 0)
    assert math.isfinite(step("MMFusionSeparate", build("MMFusionSeparate", 1))["loss"])
