"""Runs whose settings name files relative to where they were started, used from elsewhere."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mmpt.api.loading import find_model
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.utils.errors import ConfigError
from tests.api.tiny_models import write_model


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of work with a training, a test of it, and their data, all named relative to it."""
    project = tmp_path_factory.mktemp("project")
    (project / "runs").mkdir()
    write_model(project / "runs", "MMFusionSeparate").rename(project / "runs" / "vtt")
    shutil.copytree(Path(__file__).parents[1] / "data" / "tiny_bert", project / "data" / "places" / "bert")
    shutil.move(project / "runs" / "feat", project / "data" / "feat")
    run = project / "runs" / "vtt"
    config = OmegaConf.load(run / "config.yaml")
    config.dataset.bert_name, config.dataset.vfeat_dir = "data/places/bert", "data/feat"
    config = OmegaConf.merge(config, {"fairseq": {"checkpoint": {"save_dir": "runs/vtt/"}}})
    OmegaConf.save(config, run / "config.yaml")
    tested = {"fairseq": {"common_eval": {"path": "runs/vtt/checkpoint_best.pt"}}, "eval": {"save_path": "runs/test"}}
    (project / "runs" / "test").mkdir()
    OmegaConf.save(OmegaConf.merge(config, tested), project / "runs" / "test" / "config.yaml")
    return project


@pytest.mark.parametrize("source", ["runs/vtt", "runs/vtt/checkpoint_best.pt", "runs/test"])
def test_a_run_is_the_same_from_every_folder(
    project: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "places" / "bert").mkdir(parents=True)  # another project's, not the run's
    monkeypatch.chdir(project)
    here = VideoTextPipeline.from_pretrained(source, device="cpu")
    monkeypatch.chdir(tmp_path)
    there = VideoTextPipeline.from_pretrained(project / source, device="cpu")
    assert there.fingerprint() == here.fingerprint() and there.provenance == here.provenance is not None
    assert torch.equal(*(torch.tensor(one.encode_text("w5 w6")) for one in (here, there)))
    assert find_model(project / source, overrides=["dataset.vfeat_dir=data/feat"]).settings.dataset.vfeat_dir == (
        "data/feat"
    )


def test_a_run_that_was_moved_says_where_it_was_looked_for(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(project / "runs" / "vtt", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"data/places/bert is not in the working directory {tmp_path}\. Work in"):
        VideoTextPipeline.from_pretrained(moved)
    again = shutil.copytree(project / "runs" / "vtt", tmp_path / "other" / "runs" / "vtt")
    with pytest.raises(ConfigError, match=rf"{tmp_path} nor in {tmp_path / 'other'}\..*-o dataset\.bert_name=FOLDER"):
        VideoTextPipeline.from_pretrained(again)
    given = [f"dataset.bert_name={project / 'data' / 'places' / 'bert'}"]
    assert VideoTextPipeline.from_pretrained(moved, overrides=given, device="cpu").dim is not None
