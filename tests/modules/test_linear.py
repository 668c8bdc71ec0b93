"""Linear layers on oneDNN and feed-forward blocks that keep little: the same numbers as torch's own."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.modules import linear as linear_module
from mmpt.modules.activations import ACTIVATIONS
from mmpt.modules.linear import Linear, feed_forward, linear, onednn_is_faster
from scripts.benchmarks import flops


class Seen(TorchDispatchMode):
    """Notes the name of every operation and the most numbers that one of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        if isinstance(made, Tensor):
            self.largest = max(self.largest, made.numel())
        return made

    def on_onednn(self) -> int:
        return sum("mkldnn" in name for name in self.names)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give products of any size to oneDNN, whatever the processor."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("torch without oneDNN")
    monkeypatch.setattr(linear_module, "_LEAST", 1)
    monkeypatch.setattr(linear_module, "onednn_is_faster", lambda: True)


def gradients(call: Callable[[], Tensor], leaves: list[Tensor]) -> list[Tensor]:
    made = call()
    return [made.detach(), *torch.autograd.grad(made.sin().sum(), leaves)]


@pytest.mark.usefixtures("everywhere")
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=3), st.integers(1, 70), st.integers(1, 40), st.booleans())
def test_onednn_gives_what_torch_gives(rows: list[int], inputs: int, outputs: int, biased: bool) -> None:
    torch.manual_seed(0)
    shapes = [(*rows, inputs), (outputs, inputs), (outputs,)][: 3 if biased else 2]
    leaves = [torch.randn(*shape).requires_grad_() for shape in shapes]
    with Seen() as seen:
        mine = gradients(lambda: linear(*leaves), leaves)
    assert seen.on_onednn() == 3
    for one, other in zip(mine, gradients(lambda: F.linear(*leaves), leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(linear(*leaves), mine[0])


@pytest.mark.usefixtures("everywhere")
def test_no_rows_give_gradients_of_zero() -> None:
    layer = Linear(3, 4)
    values = torch.randn(0, 3, requires_grad=True)
    for made in (layer(values), feed_forward(values, layer, Linear(4, 3))):
        made.sum().backward()
        assert layer.weight.grad is not None
        assert not layer.weight.grad.any()
        layer.zero_grad()


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("values", [torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 8).bfloat16()])
def test_other_dtypes_are_torchs_own(values: Tensor) -> None:
    weight = torch.randn(2, 8, dtype=values.dtype)
    with Seen() as seen:
        made = linear(values, weight)
    assert seen.on_onednn() == 0
    assert torch.equal(made, F.linear(values, weight))


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every feed-forward block recomputed that may be."""
    monkeypatch.setattr(linear_module, "_FEW", 0)


@pytest.mark.usefixtures("everywhere", "all_large")
def test_autocast_casts_as_it_does_for_nn_linear() -> None:
    layer, plain, values = Linear(8, 4), nn.Linear(8, 4), torch.randn(3, 8)
    plain.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(values), plain(values), feed_forward(values, layer, Linear(4, 2))
    assert torch.equal(made[0], made[1])
    assert {one.dtype for one in made} == {torch.bfloat16}


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("way", ["half precision", "no gradients", "compiled", "small", "large"])
def test_what_is_recomputed_is_exact_eager_training_of_large_blocks(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    wide, narrow, values = Linear(4, 8), Linear(8, 4), torch.randn(3, 4)
    if way == "half precision":
        wide, narrow, values = wide.bfloat16(), narrow.bfloat16(), values.bfloat16()
    if way == "compiled":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    if way == "small":
        monkeypatch.setattr(linear_module, "_FEW", 3 * 8)
    with torch.set_grad_enabled(way != "no gradients"):
        made = feed_forward(values, wide, narrow)
    assert (type(made.grad_fn).__name__ == "_FeedForwardBackward") == (way == "large")


@pytest.mark.usefixtures("everywhere")
def test_compiled_code_has_torchs_own() -> None:
    layer, values = Linear(8, 4), torch.randn(3, 8)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(values), layer(values))


@pytest.mark.usefixtures("everywhere", "all_large")
@pytest.mark.parametrize("frozen", list(itertools.product([False, True], repeat=4)))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_a_feed_forward_block_has_its_gradients(
    monkeypatch: pytest.MonkeyPatch, frozen: tuple[bool, ...], bias: bool, act: str
) -> None:
    block = functools.partial(feed_forward, activation=ACTIVATIONS[act])
    monkeypatch.setattr(linear_module, "_WIDENED", 20)  # four rows of five at a time
    torch.manual_seed(0)
    wide, narrow = (Linear(*sizes, bias=bias, dtype=torch.float64) for sizes in ((3, 5), (5, 2)))
    values = torch.randn(2, 3, 3, dtype=torch.float64).transpose(0, 1)  # not contiguous
    for part, still in zip((values, wide.weight, narrow.weight, *([wide.bias] if bias else [])), frozen, strict=False):
        part.requires_grad_(not still)
    leaves = [one for one in (values, *wide.parameters(), *narrow.parameters()) if one.requires_grad]
    if not leaves:
        assert torch.equal(block(values, wide, narrow), narrow(ACTIVATIONS[act](wide(values))))
        return
    mine = gradients(lambda: block(values, wide, narrow), leaves)
    plain = gradients(lambda: block(values, wide, narrow, recompute=False), leaves)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_a_feed_forward_block_keeps_its_values_alone() -> None:
    wide, narrow = Linear(4, 16), Linear(16, 4)
    values = torch.randn(4096 * 64, 4, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one), Seen() as seen:
        feed_forward(values, wide, narrow).sum().backward()
    assert max(one.numel() for one in kept) == values.numel()
    assert seen.largest <= linear_module._WIDENED < 16 * len(values)


def test_a_small_block_keeps_all() -> None:
    """As recomputing would cost time and save little: what lies between is kept, not made again."""
    wide, narrow = Linear(4, 16), Linear(16, 4)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        feed_forward(torch.randn(linear_module._FEW // 16, 4, requires_grad=True), wide, narrow)
    assert max(one.numel() for one in kept) == linear_module._FEW


def test_a_layer_that_is_no_linear_one_is_called() -> None:
    wide, narrow = nn.Sequential(nn.Linear(4, 8)), Linear(8, 4)
    values = torch.randn(3, 4, requires_grad=True)
    assert torch.equal(feed_forward(values, wide, narrow), narrow(F.gelu(wide(values))))


@pytest.mark.skipif(not onednn_is_faster(), reason="no AMD processor with AVX-512")
def test_large_products_reach_onednn_on_amd() -> None:
    layer = Linear(256, 256)
    with Seen() as large:
        layer(torch.randn(256, 256)).sum().backward()
    with Seen() as small:
        layer(torch.randn(1, 256))
    assert (large.on_onednn(), small.on_onednn()) == (2, 0)


@pytest.mark.parametrize(("vendor", "capability", "expected"), [
    ("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False),
])  # fmt: skip
def test_which_processors_have_onednn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, capability: str, expected: bool
) -> None:
    monkeypatch.setattr(linear_module, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert onednn_is_faster.__wrapped__() == expected


@pytest.mark.usefixtures("everywhere")
def test_operations_on_onednn_are_counted() -> None:
    layer, values = Linear(8, 4), torch.randn(2, 3, 8, requires_grad=True)
    assert flops.count(lambda: layer(values).sum().backward()) == 3 * 2 * (6 * 8 * 4)
