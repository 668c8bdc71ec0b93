"""The command that averages checkpoints: its files, what they say of their origin, and its exit codes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mmpt.utils.files import file_sha256
from mmpt.utils.weight_files import load_state_dict_file
from mmpt_cli.average import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        state = {"mmmodel.w": torch.full((2,), float(number)), "mmmodel.v": torch.full((2,), -float(number))}
        torch.save({"model": state, "extra_state": {"ema": state}}, tmp_path / f"checkpoint{number}.pt")
    return tmp_path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_last_two_are_averaged_and_named_in_the_file(run: Path, suffix: str, capsys) -> None:
    output = run / "new" / f"mean{suffix}"
    assert main(["--last", "2", "--folder", str(run), "--output", str(output)]) == 0
    assert "the average of 2 checkpoints" in capsys.readouterr().out
    state = load_state_dict_file(output)
    assert state["w"].tolist() == [2.5, 2.5] and state["v"].tolist() == [-2.5, -2.5]
    if suffix == ".safetensors":
        with safe_open(output, "pt") as file:
            origin = json.loads(file.metadata()["provenance"])
    else:
        origin = torch.load(output, weights_only=True)["provenance"]
    files = [run / "checkpoint2.pt", run / "checkpoint3.pt"]
    assert origin["averaged"] == [{"path": str(file), "sha256": file_sha256(file)} for file in files]
    assert origin["weights"] == "model" and origin["version"]


def test_json_names_what_was_averaged(run: Path, capsys) -> None:
    assert main(["--last", "2", "--folder", str(run), "--output", str(run / "mean.safetensors"), "--json"]) == 0
    files = [str(run / f"checkpoint{number}.pt") for number in (2, 3)]
    wrote = str(run / "mean.safetensors")
    assert json.loads(capsys.readouterr().out) == {"wrote": wrote, "tensors": 2, "averaged": files}


def test_one_file_is_taken_out_of_a_training_checkpoint(run: Path) -> None:
    output = run / "ema.safetensors"
    assert main(["--weights", "ema", "--inputs", str(run / "checkpoint1.pt"), "--output", str(output)]) == 0
    assert load_state_dict_file(output)["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--last", "4", "--folder", "{run}", "--output", "{run}/mean.pt"], "4 numbered checkpoints are asked for"),
        (["--best", "1", "--folder", "{run}", "--output", "{run}/mean.pt"], "1 checkpoints checkpoint.best_"),
        (["--last", "1", "--folder", "{run}/none", "--output", "{run}/mean.pt"], "there is no such folder"),
        (["--inputs", "{run}/checkpoint9.pt", "--output", "{run}/mean.pt"], "checkpoint9.pt: no such checkpoint"),
        (["--inputs", "{run}/checkpoint1.pt", "--output", "{run}/mean.bin"], "must end in .safetensors or .pt"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(run: Path, arguments: list[str], message: str, capsys) -> None:
    before = sorted(run.iterdir())
    assert main([argument.format(run=run) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("arguments", [["--last", "1"], ["--inputs", "a.pt", "--folder", "runs"], []])
def test_arguments_that_do_not_go_together(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--output", "mean.pt"])
    assert caught.value.code == 2


def test_help_shows_how(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "mmpt average --last 5 --folder" in capsys.readouterr().out
