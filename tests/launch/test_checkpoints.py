"""Starting checkpoints that no training will leave; what goes on when one job of a project cannot."""

import sys
from pathlib import Path

import pytest

from mmpt.launch import local
from mmpt.launch.checkpoints import check_inputs, never_written
from mmpt.launch.commands import Command
from mmpt.launch.project import expand_project
from mmpt.utils.errors import DataError
from mmpt_cli.launch import main

WAY_OUT = "task_group.finetune.fairseq.checkpoint.restore_file=runs/mine/checkpoint_best.pt"
PRETRAIN = "task_group.pretrain.fairseq."
PROJECT = """
project_dir: mine
base_dir: base
task_group:
  pretrain: {task_list: [train.yaml]}
  finetune: {task_list: [tune.yaml]}
  more: {task_list: [other.yaml]}
  test: {task_list: [test.yaml]}
"""
TRAINING = "dataset: {train_path: a.lst, val_path: b.lst}\nfairseq: {checkpoint: {save_dir: runs/base%s}}\n"
TEST = (
    "task_type: local_predict\ndataset: {split: test, test_path: test.csv}\n"
    "fairseq: {common_eval: {path: runs/base/ft/checkpoint_best.pt}}\neval: {save_path: runs/base/ft/eval}\n"
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project whose second job starts from checkpoint11.pt; jobs only write two checkpoints."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "projects" / "base"
    folder.mkdir(parents=True)
    (folder / "train.yaml").write_text(TRAINING % "")
    (folder / "tune.yaml").write_text(TRAINING % "/ft, restore_file: runs/base/checkpoint11.pt")
    (folder / "other.yaml").write_text(TRAINING % "/other, restore_file: runs/base/checkpoint_best.pt")
    (folder / "test.yaml").write_text(TEST)
    (tmp_path / "projects" / "mine.yaml").write_text(PROJECT)
    (tmp_path / "job.py").write_text(
        "import pathlib, sys\nfor name in ('best', 'last'):\n"
        "    pathlib.Path(sys.argv[1], f'checkpoint_{name}.pt').touch()\n"
    )
    monkeypatch.setattr(local, "build_command", lambda job, *_: Command([sys.executable, "job.py", str(job.run_dir)]))
    return Path("projects/mine.yaml")


def found(path: Path, *overrides: str, again: bool = False) -> list[str]:
    return never_written(expand_project(path, overrides).jobs, again)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("optimization.max_epoch=10", "max_epoch is 10"),
        ("checkpoint.no_epoch_checkpoints=true", "no_epoch_checkpoints"),
        ("checkpoint.save_interval=2", "save_interval is 2"),
    ],
)
def test_a_checkpoint_that_is_never_left_is_named_with_both_jobs(path: Path, setting: str, reason: str) -> None:
    (line,) = found(path, PRETRAIN + setting)
    for part in ("tune.yaml", "train.yaml", "checkpoint11.pt", reason, f"-o {WAY_OUT}"):
        assert part in line
    assert found(path, PRETRAIN + setting, WAY_OUT) == []


def test_only_the_last_epochs_are_kept(path: Path) -> None:
    keep = f"{PRETRAIN}checkpoint.keep_last_epochs=3"
    assert found(path, keep) == []
    assert found(path, keep, f"{PRETRAIN}optimization.max_epoch=13") == []
    assert found(path, f"{PRETRAIN}optimization.max_epoch=many") == [], "fairseq says what is wrong with it"
    assert "keeps the last 3" in found(path, keep, f"{PRETRAIN}optimization.max_epoch=14")[0]


def test_a_file_that_is_there_will_do_unless_it_is_replaced(path: Path) -> None:
    setting = f"{PRETRAIN}optimization.max_epoch=10"
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/checkpoint11.pt").touch()
    assert found(path, setting) == []
    assert len(found(path, setting, again=True)) == 1


def test_it_is_a_note_of_a_dry_run_and_an_error_before_a_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(path), "-o", f"{PRETRAIN}optimization.max_epoch=10"]
    assert main([*arguments, "--dryrun"]) == 0
    assert "note: tune.yaml starts from runs/mine/checkpoint11.pt" in capsys.readouterr().out
    assert main(arguments) == 2
    assert WAY_OUT in capsys.readouterr().err
    assert not Path("runs").exists(), "nothing has started"


def test_jobs_that_do_not_wait_for_a_failed_one_go_on(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "does not exist: runs/mine/checkpoint11.pt. Run the job that writes it" in error
    assert f"-o {WAY_OUT}" in error
    assert "left out: test.yaml (waits for tune.yaml)" in error
    assert error.splitlines()[-1].startswith("  failed: tune.yaml: the checkpoint it starts from does not exist")
    assert Path("runs/mine/other/checkpoint_best.pt").exists()
    assert not Path("runs/mine/ft/eval").exists()
    assert main([str(path), "-o", WAY_OUT]) == 0


def test_a_published_tensorflow_checkpoint_is_there_by_its_prefix(path: Path) -> None:
    override = "task_group.finetune.fairseq.checkpoint.restore_file=weights/model.ckpt"
    job = next(job for job in expand_project(path, [override]).jobs if job.name == "tune.yaml")
    with pytest.raises(DataError, match="does not exist: weights/model.ckpt"):
        check_inputs(job)
    Path("weights").mkdir()
    Path("weights/model.ckpt.index").touch()
    check_inputs(job)
    assert job.reads == Path("weights/model.ckpt.index")
