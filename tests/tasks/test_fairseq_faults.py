"""Faults of a training's folder, disk and numbers, through fairseq-train: named ends, whole checkpoints, resumption."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq_runs import assert_same, final, run
from safetensors import safe_open

from mmpt.api.mmpt_model import MMPTModel
from mmpt.utils.checkpoint_files import damage_of
from mmpt.utils.weight_files import load_state_dict_file
from tests.tasks.conftest import plain

pytestmark = pytest.mark.slow


@pytest.fixture
def config(pretraining_config: dict[str, Any]) -> dict[str, Any]:
    """Six batches of 3 videos an epoch, a checkpoint after every second; two epochs."""
    config = plain(pretraining_config)
    config["fairseq"]["dataset"]["batch_size"] = 9
    config["fairseq"]["optimization"]["max_epoch"] = 2
    return config


def folder_of(config: dict[str, Any]) -> Path:
    return Path(config["fairseq"]["checkpoint"]["save_dir"])


def test_keep_options_weights_beside_and_a_damaged_last_checkpoint(config: dict[str, Any], tmp_path: Path) -> None:
    config["fairseq"]["checkpoint"] |= {"keep_last_epochs": 1, "keep_best_checkpoints": 1}
    codes, output = run(config, tmp_path)
    assert codes == [0], output
    folder = folder_of(config)
    names = {path.stem for path in folder.glob("checkpoint*.pt")}
    best = {name for name in names if name.startswith("checkpoint.best_loss_")}
    assert names == {"checkpoint2", "checkpoint_2_10", "checkpoint_best", "checkpoint_last"} | best and len(best) == 1
    assert {path.stem for path in folder.glob("*.safetensors")} == names
    for name in names:
        expected, found = (load_state_dict_file(folder / f"{name}.{kind}") for kind in ("pt", "safetensors"))
        assert_same(expected, found)
    with safe_open(folder / "checkpoint_last.safetensors", framework="pt") as file:
        described = file.metadata()
    assert (described["model"], described["updates"], described["epoch"]) == ("MMFusionSeparate", "12", "2")

    model, *_ = MMPTModel.from_pretrained(folder / "config.yaml", "checkpoint_last.safetensors", s3d_weights=None)
    assert_same(dict(load_state_dict_file(folder / "checkpoint_last.pt")), dict(model.model.state_dict()))

    expected = final(folder)
    for path in (folder / "checkpoint_last.pt", folder / "checkpoint2.pt"):
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        assert damage_of(path) is not None
    (folder / "checkpoint_best.pt").unlink()
    for path in (folder / name for name in best):
        path.with_name(f"{path.name}.pt").unlink()
    (folder / "checkpoint_last.safetensors").unlink()  # as if the training had left before it wrote it
    (folder / "checkpoint_copied.pt").write_bytes(b"cut")
    shutil.copy(folder / "checkpoint_best.safetensors", folder / "checkpoint_mine.safetensors")
    codes, output = run(config, tmp_path)
    assert codes == [0], output
    assert output.count("checkpoint_copied.safetensors: not written") == 1, "said at the start, and not at every save"
    kept = {"checkpoint_mine", "checkpoint_best", "checkpoint_last"} | best
    assert kept <= {path.stem for path in folder.glob("*.safetensors")}
    assert "checkpoint_last.pt: the checksum of" in output and "resuming from" in output
    assert (folder / "checkpoint_last.pt.damaged").exists()
    assert "@ 10 updates" in output and "@ 12 updates" in output
    found = final(folder)
    assert_same({**expected, "best": None}, {**found, "best": None})


def test_a_full_disk_ends_the_training_and_the_next_start_resumes(config: dict[str, Any], tmp_path: Path) -> None:
    config["save_safetensors"] = False
    codes, output = run(config, tmp_path, fault=("full_disk", "checkpoint_1_4.pt"))
    assert codes == [1]
    assert "StorageError" in output and "checkpoint_1_4.pt: cannot be written: the disk is full" in output
    folder = folder_of(config)
    assert {path.name for path in folder.glob("*checkpoint*")} == {
        "checkpoint_1_2.pt", "checkpoint_best.pt", "checkpoint_last.pt"
    }  # fmt: skip
    assert all(damage_of(path) is None for path in folder.glob("checkpoint*"))
    codes, output = run(config, tmp_path)
    assert codes == [0] and "@ 2 updates" in output
    assert not list(folder.glob("*.safetensors"))


def test_two_trainings_do_not_share_a_folder(config: dict[str, Any], tmp_path: Path) -> None:
    import fcntl

    folder = folder_of(config)
    folder.mkdir()
    (folder / "config.yaml").write_text("that of the running one")
    with (folder / ".training.lock").open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        codes, output = run(config, tmp_path)
    assert codes == [1]
    assert f"{folder}: another training is writing there" in output
    assert (folder / "config.yaml").read_text() == "that of the running one"


def report(folder: Path, update: int, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"nonfinite_update{update}_rank{rank}.json").read_text())


def test_a_nan_ends_the_training_with_the_ids_of_its_batch(config: dict[str, Any], tmp_path: Path) -> None:
    codes, output = run(config, tmp_path, fault=("nan_features", "v03"))
    assert codes == [1]
    assert "NonFiniteError: update " in output and "The inputs of v03 are not finite" in output
    folder = folder_of(config)
    (path,) = folder.glob("nonfinite_*.json")
    found = json.loads(path.read_text())
    (batch,) = found["batches"]
    assert "v03" in batch["video_id"] and len(batch["idx"]) == 3 and batch["loss"] == "nan"
    assert {(row["key"], row["video_id"]) for row in batch["nonfinite_inputs"]} == {("vfeats", "v03")}
    assert (found["epoch"], found["seed"], found["rank"]) == (1, 3, 0)
    assert found["nonfinite_gradients"] and found["nonfinite_parameters"] == []
    assert not (folder / "crash.pt").exists()
    for saved in folder.glob("checkpoint*.pt"):
        assert all(torch.isfinite(value).all() for value in load_state_dict_file(saved).values())


def test_two_processes_end_together_at_a_nan_of_one(config: dict[str, Any], tmp_path: Path) -> None:
    config["fairseq"]["distributed_training"] = {"ddp_backend": "no_c10d"}
    codes, output = run(config, tmp_path, ranks=2, fault=("nan_features", "v03"), on=(0, 1))
    assert codes == [1, 1] and output.count("NonFiniteError: update ") == 2
    found = [json.loads(path.read_text()) for path in sorted(folder_of(config).glob("nonfinite_*.json"))]
    assert [one["rank"] for one in found] == [0, 1] and found[0]["update"] == found[1]["update"]
    ids = [one["batches"][0]["video_id"] for one in found]
    losses = [one["batches"][0]["loss"] for one in found]
    assert sorted(loss == "nan" for loss in losses) == [False, True]
    assert "v03" in ids[losses.index("nan")]


@pytest.mark.parametrize(
    ("fault", "guilty", "reason"),
    [
        (("nan_features", "v05"), 1, "video 'v05': its vector is not finite"),  # of the second batch that is embedded
        (("failing_search",), 0, "the search failed"),
    ],
)
def test_a_worker_that_fails_while_batches_are_retrieved(
    pretraining_config: dict[str, Any], tmp_path: Path, fault: tuple[Any, ...], guilty: int, reason: str
) -> None:
    """The other one does not wait for it."""
    pretraining_config["fairseq"]["distributed_training"] = {"ddp_backend": "no_c10d"}
    codes, _ = run(pretraining_config, tmp_path, ranks=2, fault=fault, on=(0, 1))
    assert codes == [1, 1]
    logs = [(tmp_path / f"rank{rank}.log").read_text() for rank in range(2)]
    assert f"DataError: {reason}" in logs[guilty]
    assert f"ProcessFailed: process {guilty} of 2: {reason}" in logs[1 - guilty]


def test_a_nan_of_validation_ends_the_training_before_it_is_taken_for_the_best(
    config: dict[str, Any], tmp_path: Path
) -> None:
    codes, output = run(config, tmp_path, fault=("nan_features", "v20"))
    assert codes == [1] and "the validation loss is not finite" in output
    found = report(folder_of(config), 2)
    assert "v20" in found["batches"][0]["video_id"]
    assert not list(folder_of(config).glob("checkpoint*.pt"))


def test_weights_that_are_not_finite_are_not_saved(config: dict[str, Any], tmp_path: Path) -> None:
    config["fairseq"]["dataset"]["disable_validation"] = True
    codes, output = run(config, tmp_path, fault=("infinite_weight", 4))
    assert codes == [1] and "the weight is not finite" in output
    assert report(folder_of(config), 4)["nonfinite_parameters"]
    assert final(folder_of(config))["updates"] == 2
    assert os.path.exists(folder_of(config) / "checkpoint_1_2.pt")


def test_a_training_begins_from_safetensors(config: dict[str, Any], tmp_path: Path) -> None:
    config["fairseq"]["optimization"] |= {"max_epoch": 1, "lr": [0.0]}
    assert run(config, tmp_path)[0] == [0]
    start = folder_of(config) / "checkpoint_last.safetensors"
    config["fairseq"]["checkpoint"] |= {"save_dir": str(tmp_path / "tuned"), "restore_file": str(start)}
    codes, output = run(config, tmp_path)
    assert codes == [0], output
    tuned = load_state_dict_file(tmp_path / "tuned" / "checkpoint_last.safetensors")
    assert_same(load_state_dict_file(start), tuned)
