"""MERLOT's and Reserve's Adam: published numbers, a computation by hand, storage in half the memory, resuming."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmpt.optim.compact_adam import CompactAdam, compact, expanded
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import REPOSITORY

GOLDEN = REPOSITORY / "tests/data/merlot_opt.npz"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("name", "decay"), [("w", 0.1), ("b", 0.0)])
def test_merlots_published_steps(half: bool, name: str, decay: float) -> None:
    with np.load(GOLDEN) as golden:
        parameter = nn.Parameter(torch.tensor(golden[f"{name}0"]))
        chosen = CompactAdam(
            [parameter], lr=3e-4, weight_decay=decay, moments="bfloat16" if half else "float32", correction="rate"
        )
        for step in range(1, 6):
            parameter.grad = torch.tensor(golden[f"g{name}{step - 1}"])
            chosen.step()
            wanted = torch.tensor(golden[f"bf{int(half)}/{name}{step}"])
            torch.testing.assert_close(parameter.detach(), wanted, atol=1e-7, rtol=0)
        layer = {"w": "kernel", "b": "bias"}[name]
        for key, published in (("exp_avg", "adam_m"), ("exp_avg_sq", "adam_v")):
            kept = chosen.state[parameter][key]
            assert kept.dtype == (torch.bfloat16 if half else torch.float32)
            wanted = torch.tensor(golden[f"bf{int(half)}/layer/{layer}/{published}"])
            torch.testing.assert_close(kept.float(), wanted, atol=0, rtol=0 if half else 1e-6)


def steps_by_hand(start: np.ndarray, gradients: np.ndarray, correction: str, decay: float, to_start: bool) -> Any:
    """Yield the weights after each step at a rate of 0.01, element by element in double precision."""
    weights, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step, gradient in enumerate(gradients, 1):
        for index in np.ndindex(*start.shape):
            first[index] = 0.9 * first[index] + 0.1 * gradient[index]
            second[index] = 0.98 * second[index] + 0.02 * gradient[index] ** 2
            m, v = first[index], second[index]
            if correction == "moments":
                m, v = m / (1 - 0.9**step), v / (1 - 0.98**step)
            towards = start[index] if to_start else 0.0
            weights[index] -= 0.01 * (m / (math.sqrt(v) + 1e-6) + decay * (weights[index] - towards))
        yield weights.copy()


@pytest.mark.parametrize(("correction", "to_start"), [("none", False), ("moments", True)])
@pytest.mark.parametrize("moments", ["float32", "bfloat16_cubed"])
def test_reserves_steps_are_those_by_hand(correction: str, to_start: bool, moments: str) -> None:
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=(4, 3)), rng.normal(size=(6, 4, 3)) * 0.05
    parameter = nn.Parameter(torch.tensor(start, dtype=torch.float32).bfloat16().float())
    chosen = CompactAdam(
        [parameter], lr=0.01, weight_decay=0.1, moments=moments, correction=correction, decay_to_start=to_start
    )
    tolerance = 1e-6 if moments == "float32" else 1e-3  # of steps of about 0.01
    for wanted, gradient in zip(
        steps_by_hand(parameter.detach().double().numpy(), gradients, correction, 0.1, to_start),
        gradients,
        strict=True,
    ):
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        chosen.step()
        assert np.abs(parameter.detach().numpy() - wanted).max() < tolerance


def nearest_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to the upper half of its bits, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return kept.astype(np.uint32).view(np.float32)


def encoded_cube(second: np.ndarray) -> np.ndarray:
    """Return the bfloat16 nearest to the cube, negative where 1 + 2^-8 times it is nearer (specification B3)."""
    cubes = second.astype(np.float32) ** np.float32(3)
    plain = nearest_bfloat16(cubes)
    exact, near = cubes.astype(np.float64), plain.astype(np.float64)
    return np.where(abs(near * (1 + 2.0**-8) - exact) < abs(near - exact), -plain, plain)


def decoded_cube(stored: np.ndarray) -> np.ndarray:
    amounts = np.where(np.signbit(stored), stored * -(1 + 2.0**-8), stored).astype(np.float64)
    return np.cbrt(amounts)


@pytest.mark.parametrize("correction", ["none", "moments"])
def test_what_reserve_keeps_of_the_moments_is_exact(correction: str) -> None:
    rng = np.random.default_rng(4)
    start, gradients = rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=(6, 8, 5)).astype(np.float32) * 0.3
    parameter = nn.Parameter(torch.tensor(start))
    chosen = CompactAdam([parameter], lr=0.01, weight_decay=0.1, moments="bfloat16_cubed", correction=correction)
    weights, first, kept = start.astype(np.float64), np.zeros((8, 5)), np.zeros((8, 5), np.float32)
    for step, gradient in enumerate(gradients, 1):
        parameter.grad = torch.tensor(gradient)
        chosen.step()
        first = 0.9 * first + 0.1 * gradient.astype(np.float64)
        second = 0.98 * decoded_cube(kept) + 0.02 * (gradient.astype(np.float64) ** 2 + 1e-30)
        m, v = (first / (1 - 0.9**step), second / (1 - 0.98**step)) if correction == "moments" else (first, second)
        weights -= 0.01 * (m / (np.sqrt(v) + 1e-6) + 0.1 * weights)
        first, kept = nearest_bfloat16(first).astype(np.float64), encoded_cube(second)
        state = chosen.state[parameter]
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.bfloat16
        np.testing.assert_array_equal(state["exp_avg"].float().numpy(), first)
        np.testing.assert_array_equal(state["exp_avg_sq"].float().numpy(), kept)
        np.testing.assert_allclose(parameter.detach().numpy(), weights, atol=2e-6, rtol=0)
    assert (kept < 0).any() and (kept > 0).any()


@given(st.lists(st.floats(2.0**-99, 2.0**99, width=32), min_size=1, max_size=20))
def test_the_sign_never_makes_the_rounding_worse(values: list[float]) -> None:
    exact = torch.tensor(values, dtype=torch.float32)
    error = (expanded(compact(exact)) - exact).abs()
    assert (error <= (exact.bfloat16().float() - exact).abs()).all()


def test_the_sign_makes_the_rounding_smaller_by_a_tenth() -> None:
    """It helps numbers above their nearest, the more the smaller their mantissa: to half the error at 1, not at 2."""
    exact = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) + 1
    plain, signed = (exact.bfloat16().float() - exact).abs(), (expanded(compact(exact)) - exact).abs()
    assert 0.87 < signed.mean() / plain.mean() < 0.93


def test_cubes_are_kept_more_exactly() -> None:
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 1e-3 + 1e-5
    chosen = {
        kind: CompactAdam([nn.Parameter(values.clone())], moments=kind) for kind in ("bfloat16", "bfloat16_cubed")
    }
    errors = {}
    for kind, one in chosen.items():
        kept = torch.zeros_like(values, dtype=torch.bfloat16)
        one._keep_second(kept, values)
        errors[kind] = ((one._second(kept) - values).abs() / values).mean()
    assert errors["bfloat16_cubed"] < errors["bfloat16"] * 0.6


@pytest.mark.parametrize("moments", ["float32", "bfloat16", "bfloat16_cubed"])
def test_resumed_equals_uninterrupted_and_keeps_its_types(moments: str) -> None:
    def step(parameter: nn.Parameter, chosen: CompactAdam, number: int) -> None:
        parameter.grad = torch.randn(5, 4, generator=torch.Generator().manual_seed(number))
        chosen.step()

    def new(values: torch.Tensor) -> tuple[nn.Parameter, CompactAdam]:
        parameter = nn.Parameter(values.clone())
        return parameter, CompactAdam([parameter], weight_decay=0.1, moments=moments, decay_to_start=True)

    first, optimizer = new(torch.ones(5, 4))
    for number in range(3):
        step(first, optimizer, number)
    second, resumed = new(first.detach())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(3, 6):
        step(first, optimizer, number)
        step(second, resumed, number)
    assert torch.equal(first, second)
    kinds = {key: value.dtype for key, value in resumed.state[second].items() if isinstance(value, torch.Tensor)}
    kept = torch.float32 if moments == "float32" else torch.bfloat16
    assert kinds == {"exp_avg": kept, "exp_avg_sq": kept, "start": torch.bfloat16}


@pytest.mark.parametrize(("key", "value"), [("moments", "fp8"), ("correction", "all")])
def test_unknown_settings_are_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"fairseq.optimization.{key}: '{value}' is none of"):
        CompactAdam([nn.Parameter(torch.ones(1))], **{key: value})


def test_fairseqs_wrapper_follows_groups() -> None:
    pytest.importorskip("fairseq")
    from fairseq.optim import OPTIMIZER_REGISTRY

    from mmpt.launch.fairseq_flags import training_flags
    from mmpt.optim.fairseq_compact_adam import FairseqCompactAdam, FairseqCompactAdamConfig
    from mmpt.optim.options import OptimOptions
    from mmpt.optim.parameters import prepare_parameters

    assert OPTIMIZER_REGISTRY["compact_adam"] is FairseqCompactAdam
    assert {"moments", "correction", "decay_to_start"} <= training_flags().keys()
    model = nn.Linear(3, 2)
    prepare_parameters(model, OptimOptions(lr_multipliers={"weight": 0.5}), "compact_adam")
    config = SimpleNamespace(**vars(FairseqCompactAdamConfig()) | {"lr": [0.1]})
    chosen = FairseqCompactAdam(config, list(model.parameters()))  # type: ignore[arg-type]
    assert [(group["lr"], group["weight_decay"]) for group in chosen.param_groups] == [(0.05, 0.1), (0.1, 0.0)]
    chosen.set_lr(0.2)
    assert [group["lr"] for group in chosen.param_groups] == [0.1, 0.2]


@pytest.mark.parametrize("correction", ["none", "rate", "moments"])
def test_half_precision_weights_take_the_steps_of_float32_and_are_rounded_once(correction: str) -> None:
    generator = torch.Generator().manual_seed(4)
    wide = nn.Parameter(torch.randn(7, 3, generator=generator).bfloat16().float())
    half = nn.Parameter(wide.detach().bfloat16())
    gradient = torch.randn(7, 3, generator=generator).bfloat16()
    for parameter in (wide, half):
        parameter.grad = gradient.to(parameter.dtype)
        chosen = CompactAdam([parameter], lr=0.1, weight_decay=0.1, correction=correction, decay_to_start=True)
        chosen.step()
        assert torch.equal(parameter.grad.float(), gradient.float())  # clipping and logs still need it
    assert torch.equal(half.detach(), wide.detach().bfloat16())
