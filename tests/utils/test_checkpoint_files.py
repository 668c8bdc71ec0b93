"""Checkpoint files: damage is found, the newest whole one takes the last one's place, weights lie beside each."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mmpt.utils import checkpoint_files
from mmpt.utils.checkpoint_files import (
    damage_of,
    export_beside,
    remove_leftovers,
    remove_weights_of,
    repair_last,
    without_weights,
)
from mmpt.utils.errors import CheckpointError, StorageError
from mmpt.utils.files import atomic_copy
from mmpt.utils.weight_files import LAST_CHECKPOINT, load_state_dict_file, save_safetensors


def write(path: Path, updates: int, within: int = 0) -> Path:
    """A checkpoint as fairseq writes it, small; its weights are the number of updates."""
    tied = torch.full((64, 8), float(updates))
    torch.save(
        {
            "model": {"mmmodel.tower.weight": tied, "mmmodel.head.weight": tied, "mmmodel.half": tied[0].half()},
            "optimizer_history": [{"num_updates": updates}],
            "extra_state": {"train_iterator": {"epoch": 2, "iterations_in_epoch": within}},
            "last_optimizer_state": {"state": {0: {"exp_avg": tied * 2}}},
        },
        path,
    )
    return path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip one bit within the first tensor."""
    content = bytearray(path.read_bytes())
    at = content.index(
        torch.full((16,), float(torch.load(path)["optimizer_history"][0]["num_updates"])).numpy().tobytes()
    )
    content[at + 21] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    """What some file systems leave after a power cut: the length, without the content."""
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE = [cut, flip, empty, zeros, Path.unlink]


def test_torch_itself_reads_a_flipped_bit_as_a_weight(tmp_path: Path) -> None:
    flip(path := write(tmp_path / LAST_CHECKPOINT, 6))
    assert not torch.equal(torch.load(path)["model"]["mmmodel.tower.weight"], torch.full((64, 8), 6.0))
    assert "checksum" in str(damage_of(path))


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_newest_whole_checkpoint_takes_the_place_of_a_damaged_last_one(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = write(tmp_path / LAST_CHECKPOINT, 9)
    flip(write(tmp_path / "checkpoint_3_9.pt", 9))
    good = write(tmp_path / "checkpoint2.pt", 8)
    write(tmp_path / "checkpoint_best.pt", 4)  # written later, of fewer updates
    damage(last)
    assert repair_last(tmp_path, LAST_CHECKPOINT) == last
    assert last.read_bytes() == good.read_bytes()
    assert f"resuming from {good}" in caplog.text and str(last) in caplog.text
    aside = {"checkpoint_3_9.pt.damaged"} | ({last.name + ".damaged"} if damage is not Path.unlink else set())
    assert {path.name for path in tmp_path.glob("*.damaged")} == aside
    assert damage_of(last) is None


def test_a_whole_last_checkpoint_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = write(tmp_path / LAST_CHECKPOINT, 6)
    cut(write(tmp_path / "checkpoint1.pt", 4))
    before = last.read_bytes()
    assert repair_last(tmp_path, LAST_CHECKPOINT) == last and last.read_bytes() == before
    assert not caplog.records
    assert repair_last(tmp_path / "new", LAST_CHECKPOINT) is None


def test_without_a_whole_checkpoint_nothing_is_moved_and_nothing_begins_anew(tmp_path: Path) -> None:
    cut(write(tmp_path / LAST_CHECKPOINT, 6))
    flip(write(tmp_path / "checkpoint_1_6.pt", 6))
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole .*checkpoint_last.pt.*checkpoint_1_6.pt"):
        repair_last(tmp_path, LAST_CHECKPOINT)
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_half_written_files_are_cleared_away(tmp_path: Path) -> None:
    for name in (".checkpoint_last.pt.x1.tmp", "checkpoint_1_2.pt.tmp", "checkpoint1.pt", "notes.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint1.pt", "notes.tmp"]


def test_an_average_or_weights_alone_are_nothing_to_go_on_from(tmp_path: Path) -> None:
    for name, key in (("checkpoint_average.pt", "provenance"), ("checkpoint_other.pt", "notes")):
        content = torch.load(write(tmp_path / name, 99))
        if key == "notes":
            del content["last_optimizer_state"]
        torch.save({**content, key: {}}, tmp_path / name)
    assert repair_last(tmp_path, LAST_CHECKPOINT) is None
    good = write(tmp_path / "checkpoint2.pt", 8)
    assert repair_last(tmp_path, LAST_CHECKPOINT) == tmp_path / LAST_CHECKPOINT
    assert (tmp_path / LAST_CHECKPOINT).read_bytes() == good.read_bytes()


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return {key: value for key, value in file.metadata().items() if key != "checkpoint"}


def test_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    last, old = write(tmp_path / LAST_CHECKPOINT, 9, within=1), write(tmp_path / "checkpoint_2_8.pt", 8)
    assert export_beside([last, old], {"model": "Tiny"}) == []
    weights = tmp_path / "checkpoint_last.safetensors"
    assert metadata(weights) == {"format": "pt", "model": "Tiny", "updates": "9", "epoch": "2"}
    found = metadata(tmp_path / "checkpoint_2_8.safetensors")
    assert found["epoch"] == "1", "at the end of an epoch fairseq names the next one"
    expected, found = load_state_dict_file(last), load_state_dict_file(weights)
    assert expected.keys() == found.keys() == {"tower.weight", "head.weight", "half"}
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    with safe_open(weights, framework="pt") as file:
        assert file.get_tensor("half").dtype == torch.float16


def test_equal_checkpoints_are_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, other = write(tmp_path / LAST_CHECKPOINT, 9), write(tmp_path / "checkpoint1.pt", 8)
    best = tmp_path / "checkpoint_best.pt"
    atomic_copy(last, best)
    written = []
    real = checkpoint_files.export_weights
    monkeypatch.setattr(checkpoint_files, "export_weights", lambda *args: (written.append(args[0]), real(*args)))
    export_beside([last, other, best], {})
    assert written == [last, other]
    assert best.with_suffix(".safetensors").read_bytes() == last.with_suffix(".safetensors").read_bytes()


def test_what_is_missing_is_told_by_content_not_by_time(tmp_path: Path) -> None:
    last, best = write(tmp_path / LAST_CHECKPOINT, 9), write(tmp_path / "checkpoint_best.pt", 7)
    assert without_weights(tmp_path) == [best, last]
    export_beside([best, last], {})
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    assert without_weights(tmp_path) == []
    write(last, 10)
    os.utime(last, (1, 1))  # as old as before, and as large
    assert without_weights(tmp_path) == [last]
    last.with_suffix(".safetensors").write_text("a file of someone else's")
    assert without_weights(tmp_path) == []


def test_only_weights_written_beside_a_checkpoint_go_with_it(tmp_path: Path) -> None:
    old, foreign = write(tmp_path / "checkpoint_2_8.pt", 8), tmp_path / "checkpoint_2_9.safetensors"
    export_beside([old], {})
    save_safetensors(foreign, {"w": torch.ones(1)}, {"provenance": "{}"})
    (tmp_path / "checkpoint_2_7.safetensors").write_text("not even weights")
    remove_weights_of([tmp_path / f"checkpoint_2_{number}.pt" for number in (6, 7, 8, 9)])
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "checkpoint_2_7.safetensors", "checkpoint_2_9.safetensors"
    ]  # fmt: skip


def test_what_cannot_be_exported_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(damaged := write(tmp_path / "checkpoint3.pt", 3))
    torch.save({"other": 1}, alone := tmp_path / "checkpoint4.pt")
    missing, good = tmp_path / "checkpoint5.pt", write(tmp_path / LAST_CHECKPOINT, 9)
    assert export_beside([damaged, alone, missing, good], {}) == [missing], "only what may succeed is tried again"
    assert good.with_suffix(".safetensors").exists() and len(list(tmp_path.glob("*.safetensors"))) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert f"{damaged}: damaged" in caplog.text and "and goes on" in caplog.text


def test_a_copy_replaces_a_file_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")

    def fails(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(StorageError, match="old: cannot be written: the disk is full"):
            atomic_copy(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "old"
    atomic_copy(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new" and len(os.listdir(tmp_path)) == 2


def test_reading_a_checkpoint_leaves_what_torch_may_load_as_it_was(tmp_path: Path) -> None:
    from argparse import Namespace

    from mmpt.utils.weight_files import allow_fairseq_checkpoints

    before = torch.serialization.get_safe_globals()
    try:
        allow_fairseq_checkpoints()
        load_state_dict_file(write(tmp_path / LAST_CHECKPOINT, 1))
        assert Namespace in torch.serialization.get_safe_globals(), "fairseq's resume needs it afterwards"
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_logging_is_quiet_about_whole_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert damage_of(write(tmp_path / LAST_CHECKPOINT, 1)) is None
    assert not caplog.records
