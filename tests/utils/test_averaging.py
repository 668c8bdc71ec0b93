"""Averages of checkpoints: known answers, which files of a folder they are made of, and files that do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.utils.averaging import average_checkpoints, best_checkpoints, last_checkpoints
from mmpt.utils.errors import CheckpointError


def write(path: Path, ema: dict[str, Any] | None = None, **weights: Any) -> Path:
    content: dict[str, Any] = {"model": {f"mmmodel.{key}": torch.as_tensor(value) for key, value in weights.items()}}
    if ema is not None:
        content["extra_state"] = {"ema": {f"mmmodel.{key}": torch.as_tensor(value) for key, value in ema.items()}}
    torch.save(content, path)
    return path


def test_the_mean_is_that_of_the_numbers(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.pt", w=[float(n), 2.0 * n], steps=torch.tensor([7])) for n in (1, 2, 6)]
    state = average_checkpoints(files)
    assert state["w"].tolist() == [3, 6] and state["w"].dtype == torch.float32
    assert state["steps"].tolist() == [7] and state["steps"].dtype == torch.int64


def test_sums_do_not_lose_small_parts(tmp_path: Path) -> None:
    """In float32, 2**24 + 1 is 2**24: a sum in it would lose every file after the first."""
    files = [write(tmp_path / f"{n}.pt", w=[2.0**24 if n == 0 else 1.0]) for n in range(4)]
    assert average_checkpoints(files)["w"].item() == torch.tensor((2.0**24 + 3) / 4).item()


def test_half_precision_becomes_float32_and_float64_stays(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{n}.pt", half=torch.tensor([float(n)]).bfloat16(), double=torch.tensor([n / 3]).double())
        for n in (1, 2)
    ]
    state = average_checkpoints(files)
    assert state["half"].dtype == torch.float32 and state["half"].item() == 1.5
    assert state["double"].dtype == torch.float64


def test_moving_averages_can_be_averaged(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.pt", ema={"w": [10.0 * n]}, w=[float(n)]) for n in (1, 2)]
    assert average_checkpoints(files, "ema")["w"].item() == 15
    with pytest.raises(CheckpointError, match=r"plain.pt: holds no moving average.*store_ema"):
        average_checkpoints([*files, write(tmp_path / "plain.pt", w=[1.0])], "ema")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": [1.0]}, r"b.pt: its weights are not named as those of .*a.pt.*n, which only .*a.pt has"),
        ({"w": [1.0], "n": [1], "x": [1.0]}, r"x, which only .*b.pt has"),
        ({"w": [1.0, 2.0], "n": [1]}, r"b.pt: w is \(2,\)"),
        ({"w": [1], "n": [1]}, r"b.pt: w is \(1,\) of torch.int64"),
        ({"w": [1.0], "n": [2]}, r"b.pt: n \(torch.int64\) has no average, and differs"),
        ({"w": [float("nan")], "n": [1]}, r"b.pt: w has values that are not finite"),
    ],
)
def test_files_that_do_not_go_together_are_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    first = write(tmp_path / "a.pt", w=[1.0], n=[1])
    with pytest.raises(CheckpointError, match=message):
        average_checkpoints([first, write(tmp_path / "b.pt", **other)])


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "a.pt", w=[1.0])
    (tmp_path / "cut.pt").write_bytes(first.read_bytes()[:200])
    for name in ("cut.pt", "none.pt"):
        with pytest.raises(CheckpointError, match=name):
            average_checkpoints([first, tmp_path / name])
    with pytest.raises(CheckpointError, match="no checkpoint to average"):
        average_checkpoints([])


def test_the_last_of_a_folder(tmp_path: Path) -> None:
    names = ["checkpoint1.pt", "checkpoint2.pt", "checkpoint10.pt", "checkpoint_2_80.pt", "checkpoint_2_150.pt"]
    for name in [*names, "checkpoint_last.pt", "checkpoint_best.pt", "checkpoint.best_loss_1.0000.pt", "other3.pt"]:
        (tmp_path / name).touch()

    def found(count: int) -> list[str]:
        return [file.name for file in last_checkpoints(tmp_path, count)]

    order = ["checkpoint1.pt", "checkpoint_2_80.pt", "checkpoint_2_150.pt", "checkpoint2.pt", "checkpoint10.pt"]
    assert [found(count) for count in (1, 2, 5)] == [order[-1:], order[-2:], order]
    with pytest.raises(CheckpointError, match=r"6 numbered checkpoints are asked for, 5 are there \(checkpoint1.pt"):
        found(6)
    with pytest.raises(CheckpointError, match="0 numbered"):
        found(0)


def test_the_best_of_a_folder(tmp_path: Path) -> None:
    """fairseq writes the value with three digits, and a random one to tell equal values apart."""
    for name in ("loss_2.5001.pt", "loss_10.1250.pt", "loss_2.4992.pt"):
        (tmp_path / f"checkpoint.best_{name}").touch()

    def found(count: int, maximize: bool = False) -> list[str]:
        return [file.name.split("_")[-1] for file in best_checkpoints(tmp_path, count, maximize)]

    assert found(2) == ["2.4992.pt", "2.5001.pt"]
    assert found(1, maximize=True) == ["10.1250.pt"]
    with pytest.raises(CheckpointError, match="4 checkpoints .* are asked for, 3 are there"):
        found(4)
    (tmp_path / "checkpoint.best_ppl_1.0000.pt").touch()
    with pytest.raises(CheckpointError, match="judged by loss and ppl"):
        found(1)
