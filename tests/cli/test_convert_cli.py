"""`mmpt convert`: published layouts in, safetensors with this toolkit's names out."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from mmpt.models.merlot import MERLOTPretraining
from mmpt.models.merlot_weights import to_published
from mmpt.models.reserve import ReservePretraining
from mmpt.models.reserve_weights import published_names
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.utils.weight_files import load_state_dict_file
from mmpt_cli.convert import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny VideoCLIP: its config, its weights, and a checkpoint as fairseq writes it, in half precision."""
    folder = tmp_path_factory.mktemp("trained")
    config = MMFusionSeparate.tiny_config()
    OmegaConf.save(config, folder / "job.yaml")
    state = MMFusionSeparate(config).state_dict()
    half = {f"mmmodel.{key}": value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save({"args": None, "model": half, "last_optimizer_state": {}}, folder / "checkpoint_best.pt")
    return folder, state


def test_a_fairseq_checkpoint_keeps_its_values_under_plain_names(trained, tmp_path, capsys):
    folder, state = trained
    assert main([str(folder / "checkpoint_best.pt"), str(tmp_path / "out.safetensors"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    written = load_state_dict_file(tmp_path / "out.safetensors")
    assert written.keys() == state.keys()
    assert report["tensors"] == len(state) and report["layout"] == "mmpt"
    assert report["parameters"] == sum(value.numel() for value in state.values())
    for key, value in state.items():
        torch.testing.assert_close(written[key], value.half().float() if value.is_floating_point() else value)


def test_floats_are_written_as_asked_and_whole_numbers_stay(trained, tmp_path, capsys):
    torch.save({"weight": torch.ones(2), "steps": torch.tensor(3)}, tmp_path / "flat.pt")
    arguments = [str(tmp_path / "flat.pt"), str(tmp_path / "out.safetensors"), "--dtype", "bfloat16", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["dtypes"] == {"bfloat16": 1, "int64": 1}


def test_weights_are_checked_against_the_model_of_a_config(trained, tmp_path, capsys):
    folder, state = trained
    config = ["--model-config", str(folder / "job.yaml")]
    assert main([str(folder / "checkpoint_best.pt"), str(tmp_path / "good.safetensors"), *config]) == 0
    assert "fits MMFusionSeparate" in capsys.readouterr().out
    first = next(iter(state))
    torch.save({key: value for key, value in state.items() if key != first}, tmp_path / "short.pt")
    assert main([str(tmp_path / "short.pt"), str(tmp_path / "bad.safetensors"), *config]) == 2
    assert first in capsys.readouterr().err and not (tmp_path / "bad.safetensors").exists()


def test_merlots_variables_come_out_under_our_names(tmp_path, capsys):
    own = MERLOTPretraining(MERLOTPretraining.tiny_config()).state_dict()
    torch.save(to_published(own), tmp_path / "tf.pt")
    assert main([str(tmp_path / "tf.pt"), str(tmp_path / "out.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "merlot"
    written = load_state_dict_file(tmp_path / "out.safetensors")
    assert written.keys() == own.keys()
    assert all(torch.equal(written[key], value) for key, value in own.items())


def test_reserves_arrays_come_out_under_our_names(tmp_path, capsys):
    from mmpt.models.reserve_weights import flax_names

    own = ReservePretraining(ReservePretraining.tiny_config()).state_dict()
    flax = flax_names(own)
    torch.save(flax, tmp_path / "flax.pt")
    assert main([str(tmp_path / "flax.pt"), str(tmp_path / "out.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "reserve"
    written = load_state_dict_file(tmp_path / "out.safetensors")
    assert written.keys() == published_names(flax).keys()
    assert all(torch.equal(written[key], own[key]) for key in written)


def test_what_is_there_is_not_replaced_unasked(trained, tmp_path, capsys):
    folder, _ = trained
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")
    assert main([str(folder / "checkpoint_best.pt"), str(target)]) == 2
    assert "--force" in capsys.readouterr().err and target.read_bytes() == b"mine"
    assert main([str(folder / "checkpoint_best.pt"), str(target), "--force"]) == 0
    assert target.stat().st_size > 4


@pytest.mark.parametrize("name", ["out.pt", "out"])
def test_the_output_says_what_it_is(trained, tmp_path, capsys, name):
    assert main([str(trained[0] / "checkpoint_best.pt"), str(tmp_path / name)]) == 2
    assert ".safetensors" in capsys.readouterr().err


def test_a_damaged_source_is_named(tmp_path, capsys):
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 no more")
    assert main([str(tmp_path / "cut.pt"), str(tmp_path / "out.safetensors")]) == 2
    assert "cut.pt" in capsys.readouterr().err


def test_a_folder_is_a_model_that_commands_take(tmp_path, capsys):
    pytest.importorskip("av")
    from mmpt.api import VideoTextPipeline
    from tests.api.tiny_models import write_model

    run = write_model(tmp_path, "VIOLETRetrieval")
    capsys.readouterr()
    command = [str(run / "checkpoint_best.pt"), str(tmp_path / "folder"), "--model-config", str(run / "config.yaml")]
    assert main([*command, "--licence", "mit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    saved = VideoTextPipeline.from_pretrained(tmp_path / "folder", device="cpu")
    assert report["model"] == "VIOLETRetrieval" and report["tensors"] == len(saved.model.state_dict())
    trained = VideoTextPipeline.from_pretrained(run, device="cpu").model.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in saved.model.state_dict().items())
    assert "license: mit" in (tmp_path / "folder" / "README.md").read_text()
    assert main(command) == 2 and "--force" in capsys.readouterr().err
    assert main([*command, "--force", "--dtype", "float16"]) == 2


def test_a_folder_is_read_once_and_reported_as_it_was_loaded(tmp_path, capsys, monkeypatch):
    from mmpt.api import loading
    from tests.api.tiny_models import write_model

    run = write_model(tmp_path, "LAVENDER")
    content = torch.load(run / "checkpoint_best.pt", weights_only=False)
    monkeypatch.chdir(tmp_path)
    torch.save({"model": content["model"] | {"mmmodel.extra.weight": torch.ones(2)}}, "mine.pt")
    read, plain = [], loading.load_state_dict_file
    monkeypatch.setattr(loading, "load_state_dict_file", lambda *given: (read.append(given), plain(*given))[1])
    command = ["mine.pt", "out", "--model-config", str(run / "config.yaml"), "--json"]
    assert main(command) == 2 and "extra.weight" in capsys.readouterr().err
    from mmpt.models.lavender import LAVENDER

    monkeypatch.setattr(LAVENDER, "allow_unexpected", ("extra.*",), raising=False)
    read.clear()
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unexpected"] == ["extra.weight"] and report["layout"] == "mmpt" and len(read) == 1


def test_options_that_an_output_has_no_use_for_are_refused(trained, tmp_path, capsys):
    source = str(trained[0] / "checkpoint_best.pt")
    assert main([source, str(tmp_path / "out.safetensors"), "--licence", "mit"]) == 2
    assert "--licence" in capsys.readouterr().err and not (tmp_path / "out.safetensors").exists()
    assert main([source, str(tmp_path / "out")]) == 2
    assert "--model-config" in capsys.readouterr().err


def test_a_large_file_is_announced_beside_the_answer(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmpt_cli.convert._LARGE", 100)
    assert main([str(trained[0] / "checkpoint_best.pt"), str(tmp_path / "out.safetensors"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "reading " in shown.err and json.loads(shown.out)["layout"] == "mmpt"
