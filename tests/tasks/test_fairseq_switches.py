"""Switches of fairseq: those refused at the start, and real trainings with half precision, averages and groups."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq import checkpoint_utils
from torch import nn

from mmpt.models.fairseq_model import FairseqMMModel, mmarch
from mmpt.tasks.fairseq_switches import ExactEMA, check_switches, prepare_ema
from mmpt.tasks.fairseq_task import FairseqMMTask
from mmpt.utils.errors import ConfigError
from mmpt.utils.weight_files import load_state_dict_file
from mmpt_cli import average
from tests.tasks.conftest import plain
from tests.tasks.fairseq_runs import run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"ddp_backend": "fully_sharded"}, "fully_sharded is not supported.*gradient_checkpointing.*no_c10d"),
        ({"optimizer": "mmadamw", "memory_efficient_bf16": True, "bf16": True}, "memory_efficient_bf16.*bf16: true"),
        ({"optimizer": "mmadamw", "memory_efficient_fp16": True, "fp16": True}, "memory_efficient_fp16.*fp16: true"),
        ({"optimizer": "mmadamw", "fp16": True}, "fp16_no_flatten_grads: true"),
        ({"store_ema": True, "bf16": True}, "ema_fp32: true"),
        ({"store_ema": True, "fp16": True}, "ema_fp32: true"),
    ],
)
def test_what_cannot_work_is_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_switches(Namespace(**flags))
    with pytest.raises(ConfigError, match=message):
        FairseqMMTask(Namespace(taskconfig="none.yaml", **flags))


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"ddp_backend": "no_c10d", "optimizer": "adam", "fp16": True, "memory_efficient_fp16": True},
        {"optimizer": "mmadamw", "bf16": True, "store_ema": True, "ema_fp32": True},
        {"optimizer": "mmadamw", "fp16": True, "fp16_no_flatten_grads": True},
        {"store_ema": True},
    ],
)
def test_the_rest_is_let_through(flags: dict[str, Any]) -> None:
    check_switches(Namespace(**flags))


def test_bf16_is_no_wish_for_a_tpu() -> None:
    args = Namespace(bf16=True, tpu=True)
    mmarch(args)
    assert not args.tpu


def test_the_model_is_prepared_as_the_config_says() -> None:
    network = nn.ModuleDict({"tower": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    task = Namespace(mmtask=Namespace(model=network, config={"optim": {"freeze": ["tower.*"]}}))
    wrapped: Any = FairseqMMModel.build_model(Namespace(optimizer="adam", cpu=True), task)
    assert [name for name, weight in wrapped.named_parameters() if weight.requires_grad] == [
        "mmmodel.head.weight",
        "mmmodel.head.bias",
    ]
    task.mmtask.config = {"optim": {"lr_multipliers": {"head.*": 2}}}
    with pytest.raises(ConfigError, match="mmadamw"):
        FairseqMMModel.build_model(Namespace(optimizer="adam", cpu=True), task)


@pytest.mark.parametrize("resumed_at", [0, 2, 3])
def test_an_average_of_every_third_update_counts_through_a_resume(resumed_at: int) -> None:
    config = Namespace(
        ema_decay=0.5, ema_start_update=0, ema_update_freq=3, ema_fp32=False, ema_seed_model=None, store_ema=True
    )
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    kept = ExactEMA(model, config)
    for update in range(1, 8):
        nn.init.constant_(model.weight, float(update))
        kept.step(model, update)
        if update == resumed_at:
            state, kept = kept.get_model().state_dict(), ExactEMA(model, config)
            kept.restore(state)
    # taken in after updates 3 and 6: (0 + 3) / 2, then (1.5 + 6) / 2
    assert kept.get_model().weight.item() == 3.75


def test_an_average_begins_with_the_weights_of_a_checkpoint_without_one(monkeypatch) -> None:
    monkeypatch.setattr("fairseq.trainer.build_ema", None)
    stored: dict[str, Any] = {}
    monkeypatch.setattr(checkpoint_utils, "load_checkpoint_to_cpu", lambda path, **options: stored)

    def loaded(reset_optimizer: bool, **extra: Any) -> Any:
        stored.clear()
        stored.update(model={"w": torch.ones(2)}, extra_state=dict(extra))
        prepare_ema(Namespace(store_ema=True, reset_optimizer=reset_optimizer))
        return checkpoint_utils.load_checkpoint_to_cpu("checkpoint.pt")["extra_state"]["ema"]["w"].tolist()

    assert loaded(False) == [1, 1]
    assert loaded(True) == [1, 1]
    assert loaded(False, ema={"w": torch.zeros(2)}) == [0, 0], "a training that goes on keeps its own"
    assert loaded(True, ema={"w": torch.zeros(2)}, ema_fp32_params={}) == [1, 1], "one that begins, begins anew"


def train(config: dict[str, Any], folder: Path, name: str, **optimization: Any) -> str:
    """Train into ``folder / name``, going on from what is there, and return the log."""
    fairseq = {**config["fairseq"], "optimization": {**config["fairseq"]["optimization"], **optimization}}
    fairseq["checkpoint"] = {**fairseq["checkpoint"], "save_dir": str(folder / name)}
    codes, said = run({**config, "fairseq": fairseq}, folder)
    assert codes == [0], said[-6000:]
    return said


@pytest.fixture
def short_config(pretraining_config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a training on clips, three updates an epoch."""
    config = plain(pretraining_config)
    config["fairseq"]["dataset"]["batch_size"] = 18
    config["fairseq"]["optimization"]["max_epoch"] = 2
    config["fairseq"]["checkpoint"] = {}
    return config


@pytest.mark.slow
def test_everything_at_once_resumes_exactly(short_config: dict[str, Any], tmp_path: Path) -> None:
    """bf16, groups of learning rates, frozen weights and a sparse moving average, cut in the middle of an epoch."""
    config = short_config
    config["optim"] = {
        "freeze": ["text_encoder.embeddings.*"],
        "lr_multipliers": {"video_encoder.videomlp.*": 2.0},
        "layer_decay": 0.8,
    }
    config["fairseq"]["common"]["bf16"] = True
    config["fairseq"]["ema"] = {"store_ema": True, "ema_decay": 0.8, "ema_fp32": True, "ema_update_freq": 3}
    config["fairseq"]["optimization"] |= {"optimizer": "mmadamw", "weight_decay": 0.1}
    output = train(config, tmp_path, "whole")
    assert "optim.freeze: 5 of" in output
    train(config, tmp_path, "cut", max_update=4)
    assert "Loading EMA fp32 params from checkpoint" in train(config, tmp_path, "cut")
    whole, cut = (torch.load(tmp_path / run / "checkpoint_last.pt", weights_only=False) for run in ("whole", "cut"))
    assert whole["optimizer_history"][-1]["num_updates"] == cut["optimizer_history"][-1]["num_updates"] == 6
    states = [(state["model"], state["extra_state"]["ema_fp32_params"]) for state in (whole, cut)]
    for one, other in zip(*states, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    moments = [state["last_optimizer_state"] for state in (whole, cut)]
    assert all(map(torch.equal, moments[0]["fp32_params"], moments[1]["fp32_params"]))
    for one, other in zip(moments[0]["state"].values(), moments[1]["state"].values(), strict=True):
        assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])
    first = torch.load(tmp_path / "whole" / "checkpoint1.pt", weights_only=False)["model"]
    moved = {key for key, value in whole["model"].items() if not torch.equal(value, first[key])}
    assert moved and not any(".text_encoder.embeddings." in key for key in moved)
    last = tmp_path / "whole" / "checkpoint_last.pt"
    kept, weights = load_state_dict_file(last, "ema"), load_state_dict_file(last)
    assert kept.keys() == weights.keys()
    assert not torch.equal(
        kept["video_encoder.videomlp.linear1.weight"], weights["video_encoder.videomlp.linear1.weight"]
    )


@pytest.mark.slow
def test_a_training_starts_from_an_average_and_keeps_one(short_config: dict[str, Any], tmp_path: Path) -> None:
    config = short_config
    train(config, tmp_path, "first")
    mean = tmp_path / "mean.pt"
    assert average.main(["--last", "2", "--folder", str(tmp_path / "first"), "--output", str(mean)]) == 0
    config["fairseq"]["checkpoint"] = {
        "restore_file": str(mean),
        **dict.fromkeys(("reset_optimizer", "reset_dataloader", "reset_meters"), True),
    }
    config["fairseq"]["ema"] = {"store_ema": True, "ema_decay": 0.5}
    train(config, tmp_path, "tuned", max_epoch=1, lr=[0.0])
    expected = load_state_dict_file(mean)
    last = tmp_path / "tuned" / "checkpoint_last.pt"
    for kind in ("model", "ema"):
        state = load_state_dict_file(last, kind)
        assert all(torch.equal(expected[key], state[key]) for key in expected), kind
