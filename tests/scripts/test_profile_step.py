"""The profile of a training step: every operation in its part, and nothing lost."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.benchmarks.profile_step import main, part_of, profiled
from scripts.benchmarks.published_step import naive_step, our_step
from scripts.benchmarks.systems import SYSTEMS

#: Of the optimizer, where names do not matter.
ADAM = {"aten::_fused_adam_", "aten::lerp_", "aten::_unsafe_view"}


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::_log_softmax", "loss"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::add_", "sums and products"),
        ("aten::convolution_backward", "convolutions"),
        ("aten::native_layer_norm_backward", "normalisation"),
        ("aten::expand", "rest"),
        ("aten::exp_", "loss"),
        ("aten::lt", "dropout"),
        ("aten::transpose", "rest"),
        ("AddmmBackward0", "rest"),
    ],
)
def test_operations_are_told_apart(operation, part):
    assert part_of(operation) == part


class Operations(TorchDispatchMode):
    """Collects the names of the operations that compute many numbers: no views, which share those of another."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [one for one in (made if isinstance(made, tuple) else [made]) if isinstance(one, torch.Tensor)]
        if not func.is_view and any(one.is_floating_point() and one.numel() > 1000 for one in tensors):
            self.names.add(func.name().split(".")[0])
        return made


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_operation_of_a_step_is_of_a_part(name):
    system = SYSTEMS[name]
    batch, model = system.batch("tiny", 2), system.model("tiny").train()
    for step in (naive_step(model, system.loss, system.published), our_step(model, system.loss)):
        with Operations() as seen:
            step(batch)
        lost = {operation for operation in seen.names if part_of(operation) == "rest"}
        assert lost <= ADAM, lost
        found = profiled(lambda step=step: step(batch))
        assert min(found["Adam", ""], found["matrix products", "forward"], found["matrix products", "backward"]) > 0


def test_what_is_in_the_optimizer_is_adams():
    weight = torch.nn.Parameter(torch.randn(64, 64))
    optimizer = torch.optim.Adam([weight], foreach=False)
    weight.grad = torch.randn(64, 64)
    found = profiled(optimizer.step)
    assert found["Adam", ""] > 0 and not found["sums and products", "forward"]


@pytest.fixture
def threads():
    """Have as many threads afterwards as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_table_of_both_ways_is_printed(threads, monkeypatch, capsys):
    monkeypatch.setattr("scripts.benchmarks.profile_step.keep_freed_memory", lambda: True)  # it is the process's
    assert main(["--systems", "vlm", "--size", "tiny", "--samples", "2", "--rounds", "1", "--threads", "1"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("vlm, tiny, 2 pairs, 1 threads.") and "ratio" in head
    assert lines[0].startswith("| part") and lines[-2].startswith("| all but Adam")
    assert any(line.startswith("| matrix products") for line in lines)
