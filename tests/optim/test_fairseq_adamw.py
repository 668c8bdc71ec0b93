"""``mmadamw``: groups with their parts of the learning rate, against AdamW written out; states that do not fit."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("fairseq")

from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.optim.fp16_optimizer import FP16Optimizer as PublishedOptimizer

from mmpt.optim.fairseq_adamw import FairseqMMAdamW
from mmpt.optim.fairseq_half import FP16Optimizer
from mmpt.optim.options import OptimOptions
from mmpt.optim.parameters import prepare_parameters
from mmpt.utils.errors import CheckpointError

SETTINGS = {"lr": [0.1], "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-6, "weight_decay": 0.2}


def layers(seed: int = 0, **given: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    prepare_parameters(model, OptimOptions(**given), "mmadamw")
    return model


def optimizer(model: nn.Module, **settings: Any) -> FairseqMMAdamW:
    config: Any = SimpleNamespace(**{**SETTINGS, **settings})
    return FairseqMMAdamW(config, list(model.parameters()))


def train(model: nn.Module, chosen: FairseqMMAdamW, rates: list[float], first: int = 0) -> None:
    for number, rate in enumerate(rates, first):
        torch.manual_seed(number)
        chosen.set_lr(rate)
        chosen.zero_grad()
        chosen.backward(model(torch.randn(5, 3)).square().sum())
        chosen.step()


def test_it_is_registered_with_fairseq() -> None:
    assert OPTIMIZER_REGISTRY["mmadamw"] is FairseqMMAdamW


def test_steps_are_those_of_adamw_written_out() -> None:
    model = layers(lr_multipliers={"0.*": 0.5}, weight_decay_multipliers={"1.bias": 3.0})
    wanted = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in wanted.items()}
    parts = {"0.weight": (0.5, 0.2), "0.bias": (0.5, 0), "1.weight": (1, 0.2), "1.bias": (1, 0.6)}
    chosen = optimizer(model)
    for step, rate in enumerate((0.1, 0.05, 0.025), 1):
        torch.manual_seed(step)
        chosen.set_lr(rate)
        assert chosen.get_lr() == rate
        chosen.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        gradients = {name: parameter.grad.double() for name, parameter in model.named_parameters()}
        chosen.step()
        for name, gradient in gradients.items():
            first, second = moments[name]
            part, decay = parts[name]
            first.mul_(0.9).add_(gradient, alpha=0.1)
            second.mul_(0.98).add_(gradient.square(), alpha=0.02)
            wanted[name] = wanted[name] * (1 - rate * part * decay) - rate * part * (first / (1 - 0.9**step)) / (
                (second / (1 - 0.98**step)).sqrt() + 1e-6
            )
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.double(), wanted[name], atol=1e-6, rtol=1e-5)


def test_a_schedule_reads_its_own_learning_rate() -> None:
    """Also where no group has all of it: what get_lr gives is set again by schedules, and must not shrink."""
    chosen = optimizer(layers(lr_multipliers={"*": 0.1}))
    for _ in range(3):
        chosen.set_lr(chosen.get_lr())
    assert chosen.get_lr() == 0.1
    assert {group["lr"] for group in chosen.param_groups} == {0.1 * 0.1}


def test_resumed_equals_uninterrupted() -> None:
    given = {"lr_multipliers": {"0.*": 0.5}}
    whole, cut = layers(**given), layers(**given)
    train(whole, optimizer(whole), [0.1, 0.05, 0.02, 0.01])
    first = optimizer(cut)
    train(cut, first, [0.1, 0.05])
    resumed = layers(1, **given)
    resumed.load_state_dict(cut.state_dict())
    second = optimizer(resumed, lr=[7.0])
    second.load_state_dict(first.state_dict())
    assert second.get_lr() == 0.05
    train(resumed, second, [0.02, 0.01], first=2)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_settings_of_the_config_win_over_the_checkpoint() -> None:
    model = layers()
    saved = optimizer(model)
    train(model, saved, [0.1])
    state = saved.state_dict()
    for group in state["param_groups"]:
        group["fused"], group["foreach"] = False, True  # as from a machine without the kernel
    other = optimizer(model, weight_decay=0.7, adam_betas="(0.8, 0.9)")
    other.load_state_dict(state)
    assert sorted({group["weight_decay"] for group in other.param_groups}) == [0, 0.7]
    assert all(group["betas"] == (0.8, 0.9) and group["fused"] for group in other.param_groups)
    train(model, other, [0.1])


@pytest.mark.parametrize("given", [{}, {"lr_multipliers": {"0.*": 0.25}}, {"lr_multipliers": {"1.*": 0.5}}])
def test_a_state_of_other_groups_is_refused(given) -> None:
    state = optimizer(layers(lr_multipliers={"0.*": 0.5})).state_dict()
    with pytest.raises(CheckpointError, match=r"optim, has changed.*reset_optimizer"):
        optimizer(layers(**given)).load_state_dict(state)


def test_the_state_of_another_optimizer_is_refused() -> None:
    model = layers()
    other = torch.optim.AdamW(model.parameters())
    with pytest.raises(CheckpointError, match="reset_optimizer"):
        optimizer(model).load_state_dict(other.state_dict())


def half(model: nn.Module, cls: type = FP16Optimizer) -> Any:
    common = SimpleNamespace(bf16=True, fp16_scale_window=None, model_parallel_size=1)
    config = SimpleNamespace(
        common=common,
        optimizer=SimpleNamespace(_name="mmadamw", **SETTINGS),
        optimization=SimpleNamespace(update_freq=[1]),
        distributed_training=SimpleNamespace(distributed_world_size=1),
    )
    weights = list(model.parameters())
    copies = cls.build_fp32_params(None, weights, flatten=False)  # type: ignore[attr-defined]
    chosen = FairseqMMAdamW(SimpleNamespace(**SETTINGS), copies)  # type: ignore[arg-type]
    return cls(config, weights, chosen, copies)


def half_steps(model: nn.Module, chosen: Any, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        chosen.zero_grad()
        chosen.backward(model(torch.randn(5, 3).bfloat16()).float().square().sum())
        chosen.clip_grad_norm(1.0)
        chosen.step()


def test_copies_of_half_precision_weights_keep_their_groups() -> None:
    chosen = half(layers(lr_multipliers={"0.*": 0.5}).bfloat16())
    groups = [(group["lr_scale"], group["weight_decay_scale"], len(group["params"])) for group in chosen.param_groups]
    assert groups == [(0.5, 1, 1), (0.5, 0, 1), (1, 1, 1), (1, 0, 1)]
    assert all(parameter.dtype == torch.float32 for parameter in chosen.params)


def cut_and_resumed(cls: type) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the float32 weights of a bf16 training after six steps, and of one that resumed after three of them."""
    model, other = layers(0).bfloat16(), layers(1).bfloat16()
    first = half(model, cls)
    first.set_lr(0.003)
    half_steps(model, first, range(3))
    other.load_state_dict(model.state_dict())
    second = half(other, cls)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    half_steps(model, first, range(3, 6))
    half_steps(other, second, range(3, 6))
    return first.fp32_params, second.fp32_params


def test_float32_copies_survive_a_checkpoint() -> None:
    """Without them, as fairseq saves it, a resumed training is another one: the flaw that this is about."""
    assert not all(map(torch.equal, *cut_and_resumed(PublishedOptimizer)))
    assert all(map(torch.equal, *cut_and_resumed(FP16Optimizer)))


def test_copies_of_other_shapes_are_refused() -> None:
    chosen = half(layers().bfloat16())
    state = chosen.state_dict()
    state["fp32_params"] = state["fp32_params"][:-1]
    with pytest.raises(CheckpointError, match="float32 weights are not of the shapes"):
        chosen.load_state_dict(state)
    del state["fp32_params"]
    chosen.load_state_dict(state)  # as fairseq writes it


def test_fairseqs_trainer_takes_the_one_that_saves_copies() -> None:
    from fairseq import optim

    assert optim.FP16Optimizer is FP16Optimizer and FP16Optimizer.__name__ == PublishedOptimizer.__name__
