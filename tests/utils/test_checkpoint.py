"""Weights files: every published layout is read, nothing is executed, every difference is reported."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mmpt.utils.checkpoint import load_checkpoint, load_into, reconcile
from mmpt.utils.errors import CheckpointError
from mmpt.utils.weight_files import allow_fairseq_checkpoints, load_state_dict_file, save_safetensors, unwrap

WEIGHTS = {"linear.weight": torch.arange(6.0).reshape(2, 3), "linear.bias": torch.tensor([0.5, -0.5])}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)


@pytest.fixture
def safe_globals():
    kept = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(kept)


def fairseq_file(path: Path, dtype: torch.dtype = torch.float32) -> Path:
    content = {
        "args": None,
        "cfg": {"_name": None, "task": argparse.Namespace(taskconfig="x.yaml", seed=1), "common": {"fp16": True}},
        "model": {"mmmodel." + key: value.to(dtype) for key, value in WEIGHTS.items()},
        "criterion": {},
        "optimizer_history": [{"num_updates": 3, "lr_scheduler_state": {"best": None}}],
        "task_state": {},
        "extra_state": {"epoch": 1, "metrics": [(0, "loss", "AverageMeter", {"val": 1.0})]},
        "last_optimizer_state": {"state": {0: {"step": 3, "exp_avg": torch.zeros(2, 3)}}, "param_groups": []},
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fairseq_checkpoints_are_unwrapped_to_float32(tmp_path: Path, safe_globals, dtype: torch.dtype) -> None:
    path = fairseq_file(tmp_path / "checkpoint_best.pt", dtype)
    state = load_state_dict_file(path)
    assert set(state) == set(WEIGHTS)
    for key, value in state.items():
        assert value.dtype == torch.float32 and torch.equal(value, WEIGHTS[key])
    path.unlink()
    assert state["linear.bias"].sum() == 0  # no longer tied to the file
    assert torch.serialization.get_safe_globals() == []


def test_allow_fairseq_checkpoints_lets_fairseq_resume(tmp_path: Path, safe_globals) -> None:
    path = fairseq_file(tmp_path / "checkpoint_last.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    allow_fairseq_checkpoints()
    assert torch.load(path, weights_only=True)["cfg"]["task"].taskconfig == "x.yaml"


@pytest.mark.parametrize("levels", [(), ("model",), ("state_dict",), ("state_dict", "model")])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_nesting_and_both_file_formats_are_read(tmp_path: Path, levels: tuple[str, ...], zipped: bool) -> None:
    content = {**WEIGHTS, "steps": torch.tensor(3)}
    for level in reversed(levels):
        content = {level: content, "epoch": 3}
    torch.save(content, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    state = load_state_dict_file(tmp_path / "weights.pth")
    assert set(state) == {*WEIGHTS, "steps"} and state["steps"].dtype == torch.int64


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": WEIGHTS, "extra": Malicious(tmp_path / "ran")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pt: refused.*mkdir"):
        load_state_dict_file(path)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["zip.pt", "legacy.pt", "st.safetensors"]), st.floats(0, 0.999))
def test_files_cut_anywhere_are_reported(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_safetensors(path, WEIGHTS)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=name == "zip.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=name):
        load_state_dict_file(path)


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt: no such"):
        load_state_dict_file(tmp_path / "gone.pt")
    (tmp_path / "text.pt").write_text("hello world, this is a text")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        load_state_dict_file(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt: holds a list"):
        load_state_dict_file(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"no weights \(top-level keys: epoch\)"):
        unwrap({"epoch": 3})


def test_load_checkpoint_copies_values_and_reports(tmp_path: Path) -> None:
    net = Net()
    report = load_checkpoint(net, fairseq_file(tmp_path / "c.pt"))
    assert report.loaded == ("linear.bias", "linear.weight") and report.missing == report.unexpected == ()
    assert torch.equal(net.linear.weight, WEIGHTS["linear.weight"])


def test_every_difference_is_an_error_with_counts_and_nothing_is_copied() -> None:
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    many = {f"old.{number:02}": torch.zeros(1) for number in range(11)}
    with pytest.raises(CheckpointError) as caught:
        load_into(net, {"linear.weight": torch.zeros(2, 4), **many}, source="runs/x.pt")
    message = str(caught.value)
    for part in (
        "runs/x.pt: does not fit Net",
        "1 missing keys: linear.bias",
        "11 unexpected keys: old.00",
        "and 3 more",
        "1 keys of another shape: linear.weight (2, 4) in the file, (2, 3) in the model",
    ):
        assert part in message
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_checkpoint_without_the_head_of_fine_tuning_is_told_from_another_model() -> None:
    class Fine(Net):
        new_heads = ("linear.bias", "*.classifier.*")

    weights = {"linear.weight": WEIGHTS["linear.weight"]}
    with pytest.raises(CheckpointError, match="has no head for it: it was not fine-tuned.*fine-tune this one first"):
        load_into(Fine(), weights)
    others = ({}, {**weights, "old": torch.zeros(1)}, {"linear.weight": torch.zeros(2, 4)})
    for net, state in ((Net(), weights), *((Fine(), state) for state in others)):
        with pytest.raises(CheckpointError, match="Check that the config's model section"):
            load_into(net, state)


def test_declared_differences_are_allowed_by_argument_or_by_class() -> None:
    class Declaring(Net):
        allow_missing = ("*.bias",)
        allow_unexpected = ("*position_ids",)

    state = {"linear.weight": WEIGHTS["linear.weight"], "a.position_ids": torch.arange(3)}
    for net, options in (
        (Declaring(), {}),
        (Net(), {"allow_missing": ["linear.b*"], "allow_unexpected": ["a.*"]}),
    ):
        kept = net.linear.bias.detach().clone()
        report = load_into(net, state, **options)
        assert report.missing == ("linear.bias",) and report.unexpected == ("a.position_ids",)
        assert torch.equal(net.linear.bias, kept)
    with pytest.raises(CheckpointError):
        load_into(Net(), state, allow_missing=["linear.b*"])


def test_declared_keys_still_need_the_right_shape() -> None:
    with pytest.raises(CheckpointError, match="1 keys of another shape"):
        load_into(Net(), {**WEIGHTS, "linear.bias": torch.zeros(3)}, allow_missing=["*"], allow_unexpected=["*"])


def test_reconcile_drops_and_fills_what_is_declared_below_the_prefix() -> None:
    own = {"mmmodel." + key: value for key, value in WEIGHTS.items()}
    state = {"mmmodel.linear.weight": torch.ones(2, 3), "mmmodel.position_ids": torch.arange(2)}
    with pytest.raises(CheckpointError, match=r"1 missing keys: mmmodel\.linear\.bias; 1 unexpected"):
        reconcile(state, own, prefix="mmmodel.")
    assert "mmmodel.position_ids" in state
    reconcile(state, own, prefix="mmmodel.", allow_missing=["linear.bias"], allow_unexpected=["position_ids"])
    assert set(state) == set(own) and torch.equal(state["mmmodel.linear.weight"], torch.ones(2, 3))
    state["mmmodel.linear.bias"].zero_()
    assert own["mmmodel.linear.bias"][0] == 0.5


def test_safetensors_round_trip_with_shared_and_strided_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "tied": base, "strided": base.T, "ids": torch.arange(3)}
    save_safetensors(tmp_path / "deep" / "w.safetensors", state, {"format": "pt"})
    loaded = load_state_dict_file(tmp_path / "deep" / "w.safetensors")
    assert set(loaded) == set(state) and all(torch.equal(loaded[key], value) for key, value in state.items())
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_a_moving_average_is_read_in_its_place(tmp_path: Path) -> None:
    content = torch.load(fairseq_file(tmp_path / "plain.pt"), weights_only=False)
    half = {key: (value + 1).bfloat16() for key, value in content["model"].items()}
    content["extra_state"]["ema"] = half
    torch.save(content, tmp_path / "half.pt")
    content["extra_state"]["ema_fp32_params"] = {key: value + 1.001 for key, value in content["model"].items()}
    torch.save(content, tmp_path / "whole.pt")
    for name, shift, tolerance in (("half.pt", 1, 0.05), ("whole.pt", 1.001, 1e-6)):
        state = load_state_dict_file(tmp_path / name, "ema")
        assert state.keys() == WEIGHTS.keys()
        for key, value in WEIGHTS.items():
            torch.testing.assert_close(state[key], value + shift, atol=tolerance, rtol=0)
    model = Net()
    load_checkpoint(model, tmp_path / "whole.pt", weights="ema")
    torch.testing.assert_close(model.linear.bias.data, WEIGHTS["linear.bias"] + 1.001)
    load_checkpoint(model, tmp_path / "whole.pt")
    assert torch.equal(model.linear.bias.data, WEIGHTS["linear.bias"])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_without_a_moving_average_say_so(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    if suffix == ".pt":
        fairseq_file(path)
    else:
        save_safetensors(path, WEIGHTS)
    with pytest.raises(CheckpointError, match=f"file{suffix}: holds no moving average.*store_ema: true"):
        load_state_dict_file(path, "ema")
