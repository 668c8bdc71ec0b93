"""Training through fairseq-train itself: plug-in, checkpoints, restarts that must fail."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mmpt.launch.commands import build_command
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import job_from_yaml
from mmpt.utils.errors import StorageError
from mmpt.utils.weight_files import load_state_dict_file

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
pytest.importorskip("fairseq")


def command_of(path: Path) -> list[str]:
    job = job_from_yaml(path)
    return build_command(job, path, Layout(), Machine(gpus=0)).argv


def train(config: dict[str, Any], folder: Path, name: str = "job") -> tuple[int, str]:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        command_of(path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def test_checkpoints_are_copied_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpt.tasks.fairseq_checkpoints import copy_atomically

    (tmp_path / "new.pt").write_text("new")
    (tmp_path / "last.pt").write_text("old")
    with pytest.raises(FileExistsError):
        copy_atomically(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"))

    def cut(source: Any, target: Any, length: int) -> None:
        target.write(b"n")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", cut)
        with pytest.raises(StorageError, match=r"last.pt: cannot be written: the disk is full.* as they were"):
            copy_atomically(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert (tmp_path / "last.pt").read_text() == "old"
    assert copy_atomically(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "new.pt"]
    assert (tmp_path / "last.pt").read_text() == "new"


def test_a_missing_restore_file_stops_the_training(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    pretraining_config["fairseq"]["checkpoint"]["restore_file"] = str(tmp_path / "checkpoint11.pt")
    code, output = train(pretraining_config, tmp_path)
    assert code != 0
    assert "checkpoint11.pt: no such checkpoint" in output


def test_finetuning_starts_from_the_pretrained_weights_and_refuses_others(
    pretraining_config: dict[str, Any], tmp_path: Path, tiny_corpus: Path
) -> None:
    config = pretraining_config
    config["fairseq"]["optimization"] |= {"max_epoch": 1, "lr": [0.0]}
    assert train(config, tmp_path, "first")[0] == 0
    first = tmp_path / "run" / "checkpoint_last.pt"
    tuned = {
        "dataset": {
            **{key: config["dataset"][key] for key in ("bert_name", "max_video_len", "max_len")},
            "meta_processor": "MSRVTTMetaProcessor",
            "video_processor": "VideoProcessor",
            "text_processor": "MSRVTTTextProcessor",
            "aligner": "DSAligner",
            "train_path": str(tiny_corpus / "train.csv"),
            "val_path": str(tiny_corpus / "train.csv"),
            "val_holdout": 0.25,
            "json_path": str(tiny_corpus / "captions_vtt.json"),
            "vfeat_dir": str(tiny_corpus / "features"),
            "dup": 2,
        },
        "model": {**config["model"], "init": "pretrained"},
        "loss": {"loss_cls": "T2VContraLoss"},
        "fairseq": {
            **config["fairseq"],
            "dataset": {"batch_size": 8, "num_workers": 0},
            "checkpoint": {
                "save_dir": str(tmp_path / "tuned"),
                "restore_file": str(first),
                "reset_optimizer": True,
                "reset_dataloader": True,
                "reset_meters": True,
            },
        },
    }
    code, output = train(tuned, tmp_path, "tuned")
    assert code == 0, output
    before, after = load_state_dict_file(first), load_state_dict_file(tmp_path / "tuned" / "checkpoint_last.pt")
    assert all(torch.equal(before[key], after[key]) for key in before), "lr is 0: the weights are the pre-trained ones"
    tuned["model"]["num_hidden_video_layers"] = 2
    tuned["fairseq"]["checkpoint"]["save_dir"] = str(tmp_path / "other")
    code, output = train(tuned, tmp_path, "other")
    assert code != 0
    assert "video_encoder.bert.encoder.layer.1" in output


def test_the_plug_in_works_from_another_folder(pretraining_config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(pretraining_config))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "fairseq-train"), str(path), "--user-dir", str(ROOT / "mmpt"),
         "--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss", "--cpu", "--batch-size", "1",
         "--optimizer", "adam", "--max-update", "1", "--save-dir", "typed"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "typed" / "checkpoint_last.pt").exists()
    assert (tmp_path / "typed" / "config.yaml").exists()
