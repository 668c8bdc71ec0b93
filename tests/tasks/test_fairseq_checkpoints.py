"""The weights beside a training's checkpoints, through fairseq's own saving: which are written, deleted, left alone."""

import os
from pathlib import Path

import pytest
import torch

pytest.importorskip("fairseq")

from fairseq_fakes import FakeTrainer, Position, checkpoints, safe, save

from mmpt.tasks.fairseq_checkpoints import _read, save_last
from mmpt.utils import checkpoint_files
from mmpt.utils.checkpoint_files import damage_of
from mmpt.utils.weight_files import load_state_dict_file, save_safetensors


@pytest.fixture(autouse=True)
def _safe(monkeypatch: pytest.MonkeyPatch) -> None:
    safe(monkeypatch)


def weights_in(folder: Path) -> dict[str, int]:
    """The number of updates by name, which is what the weights of a fake trainer are."""
    return {path.stem: int(load_state_dict_file(path)["w"][0]) for path in sorted(folder.glob("*.safetensors"))}


def test_files_of_others_stay_through_saves(tmp_path: Path) -> None:
    cfg, trainer = checkpoints(tmp_path, save_interval_updates=2, keep_interval_updates=1), FakeTrainer()
    save(trainer, cfg, 2, 1.0)
    kept, average = tmp_path / "checkpoint_1_2.safetensors", tmp_path / "checkpoint_average.safetensors"
    save_safetensors(average, {"w": torch.full((4,), 77.0)}, {"provenance": "{}"})
    (tmp_path / "checkpoint_1_2.pt").unlink()  # by the user, who keeps its weights
    save(trainer, cfg, 4)
    save(trainer, cfg, 6)
    assert kept.exists() and average.exists()
    assert weights_in(tmp_path) == {
        "checkpoint_1_2": 2, "checkpoint_1_6": 6, "checkpoint_average": 77, "checkpoint_best": 2, "checkpoint_last": 6
    }  # fmt: skip


def test_a_save_exports_what_it_wrote_once_and_looks_at_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoint3.pt").write_bytes(b"cut")
    torch.save({"w": torch.ones(1)}, tmp_path / "checkpoint_copied.pt")
    written = []
    real = checkpoint_files.export_weights
    monkeypatch.setattr(checkpoint_files, "export_weights", lambda *args: (written.append(args[0].name), real(*args)))
    save(FakeTrainer(), checkpoints(tmp_path, save_interval_updates=2), 2, 1.0)
    assert weights_in(tmp_path) == {"checkpoint_1_2": 2, "checkpoint_best": 2, "checkpoint_last": 2}
    assert written == ["checkpoint_1_2.pt"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_disk_too_full_for_the_weights_is_a_warning_and_they_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg, trainer = checkpoints(tmp_path, save_interval_updates=2, keep_interval_updates=1), FakeTrainer()
    save(trainer, cfg, 2)
    orphan = tmp_path / "checkpoint_1_2.safetensors"

    real = os.fsync

    def full(handle: int) -> None:
        if ".safetensors." in os.readlink(f"/proc/self/fd/{handle}"):
            assert not orphan.exists(), "room is made first"
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        save(trainer, cfg, 4, 1.0)
    assert "checkpoint_last.safetensors: not written" in caplog.text and "the disk is full" in caplog.text
    assert all(damage_of(path) is None for path in tmp_path.glob("*.pt"))
    assert {path.stem for path in tmp_path.glob("*.pt")} == {"checkpoint_1_4", "checkpoint_best", "checkpoint_last"}
    save(trainer, cfg, 5)
    assert weights_in(tmp_path) == {"checkpoint_1_4": 4, "checkpoint_best": 4, "checkpoint_last": 5}


def test_the_last_checkpoint_alone_is_saved_whatever_is_configured(tmp_path: Path) -> None:
    cfg = checkpoints(tmp_path, save_interval_updates=2, no_last_checkpoints=True, keep_interval_updates=1)
    trainer = FakeTrainer()
    for updates in (2, 4):
        trainer.updates = updates
        assert save_last(cfg, trainer, Position())
        assert save_last(cfg, trainer, Position()), "it is there"
    assert trainer.saved == [("checkpoint_last.pt", 2), ("checkpoint_last.pt", 4)]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.pt"], "weights are left to the next start"
    assert cfg.no_last_checkpoints and cfg.save_interval_updates == 2
    save(trainer, cfg, 6)
    assert weights_in(tmp_path) == {"checkpoint_1_6": 6, "checkpoint_last": 4}
    assert not save_last(checkpoints(tmp_path, no_save=True), FakeTrainer(), Position())


def test_a_flat_file_of_weights_is_a_training_not_begun(tmp_path: Path) -> None:
    """As VIOLET and LAVENDER have published theirs; fairseq's own files are left to fairseq."""
    torch.save({"fc.3.weight": torch.ones(2), "w": torch.zeros(1)}, tmp_path / "lavender.pt")
    torch.save({"model": {"w": torch.ones(1)}, "extra_state": {"epoch": 3}}, tmp_path / "checkpoint_best.pt")

    def theirs(path: str) -> dict[str, object]:
        return torch.load(path, weights_only=True)

    state = _read(theirs, str(tmp_path / "lavender.pt"))
    assert sorted(state["model"]) == ["mmmodel.fc.3.weight", "mmmodel.w"] and not state["optimizer_history"]
    assert state["extra_state"]["train_iterator"]["epoch"] == 1
    whole = _read(theirs, str(tmp_path / "checkpoint_best.pt"))
    assert whole["extra_state"] == {"epoch": 3} and whole["criterion"] == {}
