"""The training steps of VIOLET, MERLOT and MERLOT Reserve give the losses and gradients of the published computation.

They spend no operations on padding, nor in the last layer on states that nobody reads.
"""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmpt.losses import MERLOTLoss, ReserveLoss, VIOLETLoss
from mmpt.modules.swin_attention import window_attention
from mmpt.modules.transformer import TransformerEncoder, TransformerOptions
from mmpt.modules.valid_states import places_at, places_of, valid_states
from mmpt.utils.registry import resolve_class
from scripts.benchmarks.published_step import as_published, violet_as_published
from tests.models.test_battery import SYSTEMS
from tests.models.test_violet import pretraining_batch


def _built(name: str) -> nn.Module:
    cls = resolve_class("model", name)
    torch.manual_seed(0)
    model = cls(cls.tiny_config())
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train().double()


def _learned(model: nn.Module, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "loss", "outputs"),
    [
        ("VIOLETPretraining", VIOLETLoss(), violet_as_published),
        ("LAVENDER", None, None),
        ("MERLOTPretraining", MERLOTLoss(), None),
        ("ReservePretraining", ReserveLoss(), None),
    ],
)
def test_losses_and_gradients_are_those_of_the_published_computation(name, loss, outputs) -> None:
    model = _built(name)
    loss = loss or SYSTEMS[name].loss
    batch = pretraining_batch(4) if outputs else SYSTEMS[name].training_batch(4)
    batch = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    torch.manual_seed(1)
    got, grads = _learned(model, loss(**{**batch, **model(**batch)}))
    torch.manual_seed(1)
    with as_published():
        made = model(**batch) if outputs is None else outputs(model, **batch)
        wanted, wanted_grads = _learned(model, loss(**{**batch, **made}))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    assert grads.keys() == wanted_grads.keys()
    for key, value in wanted_grads.items():
        torch.testing.assert_close(grads[key], value, rtol=1e-5, atol=1e-6, msg=lambda said, key=key: f"{key}: {said}")


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_wanted_states_are_those_of_the_whole_and_cost_what_they_should(norm) -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(TransformerOptions(32, 3, 2, 128, norm=norm)).eval()
    values, lengths = torch.randn(4, 10, 32), torch.tensor([10, 3, 6, 3])
    mask = torch.arange(10) < lengths[:, None]
    places = torch.cat([places_of(mask[:, 7:], 10), places_at(-10, 4, values, 10)])
    assert places.tolist() == [7, 8, 9, 0, 10, 20, 30]
    whole = valid_states(encoder, values, mask).flatten(0, 1)[places]
    with FlopCounterMode(display=False) as counter:
        told = valid_states(encoder, values, mask, places)
    torch.testing.assert_close(told, whole)
    addmm = {str(key): value for key, value in counter.get_flop_counts()["Global"].items()}["aten.addmm"]
    valid, wanted, weights = 22, 7, 2 * 32 * 32
    assert addmm == weights * (valid * (2 * 12 + 3) + wanted * 9)
    # a row per query: nothing is packed, and the same states come out
    torch.testing.assert_close(valid_states(encoder, values, mask[:, None].expand(-1, 10, -1), places), whole)


def test_a_wanted_state_of_padding_is_finite() -> None:
    encoder = TransformerEncoder(TransformerOptions(8, 1, 2, 16)).eval()
    mask = torch.tensor([[True, True, False]])
    assert not valid_states(encoder, torch.randn(1, 3, 8), mask, torch.tensor([2])).any()


@pytest.mark.parametrize(("windows", "single"), [(1, True), (4, True), (4, False)])
def test_attention_in_windows_equals_the_formula_with_its_gradients(windows, single, monkeypatch) -> None:
    monkeypatch.setattr("mmpt.modules.swin_attention._SCORES", 2 * 3 * 25 * 2)  # parts of the windows
    torch.manual_seed(0)
    inputs = [torch.randn(3, windows, 2, 5, 4, dtype=torch.float64).requires_grad_() for _ in range(3)]
    bias = torch.randn(1 if single else windows, 2, 5, 5, dtype=torch.float64)
    bias[..., 1:3, 3:] -= 100  # kept apart
    inputs.append(bias.requires_grad_())
    query, key, value, _ = inputs
    formula = (query @ key.mT / 2 + bias).softmax(-1) @ value
    outer = torch.randn_like(formula)
    got = window_attention(*inputs)
    torch.testing.assert_close(got, formula)
    wanted = torch.autograd.grad(formula, inputs, outer)
    for mine, theirs in zip(torch.autograd.grad(got, inputs, outer), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(window_attention(*inputs), formula)
