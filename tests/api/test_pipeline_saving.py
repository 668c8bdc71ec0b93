"""Folders of save_pretrained: whole or not there, with a card that says what is known; and their way to the hub."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmpt.api import saving
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.utils.errors import CheckpointError, DataError, StorageError
from tests.api.tiny_models import write_model

TOKEN = "hf_secret"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> VideoTextPipeline:
    run = write_model(tmp_path_factory.mktemp("saving"), "MMFusionSeparate")
    (run / "eval").mkdir()
    numbers: dict[str, Any] = {"R1": 0.25, "R1_ci": [0.1, 0.4], "count": 8, "chance": 0.125, "by": {"what": 0.5}}
    record = {"metrics": numbers, "metric": "Own", "count": 8, "config": {"model": {"hidden_size": 32}}}
    (run / "eval" / "metrics.json").write_text(json.dumps(record))
    return VideoTextPipeline.from_pretrained(run)


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("step", ["save_safetensors", "_copy_tokenizer", "save_config", "write_card", "_replace"])
def test_a_save_that_is_killed_leaves_what_was_there(
    step: str, pipeline: VideoTextPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.save_pretrained(tmp_path / "old", licence="mit")
    before = {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir() if file.is_file()}

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(saving, step, killed)
    for name in ("old", "new"):
        with pytest.raises(Killed):
            pipeline.save_pretrained(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "old").iterdir() if file.is_file()}
    assert VideoTextPipeline.from_pretrained(tmp_path / "old").fingerprint() == pipeline.fingerprint()


def test_what_a_power_cut_leaves_behind_does_not_load(pipeline: VideoTextPipeline, tmp_path: Path) -> None:
    """Weights are written before the settings that name them: without those it is no saved folder."""
    pipeline.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="neither a run folder nor one of save_pretrained"):
        VideoTextPipeline.from_pretrained(tmp_path / "saved")


def test_a_folder_of_something_else_is_not_replaced(pipeline: VideoTextPipeline, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match="exists, and is no saved model"):
            pipeline.save_pretrained(target)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(DataError, match="include_video_encoder: there are no weights of S3D at .*none"):
        pipeline.provenance, kept = {"encoder": "s3d"}, pipeline.provenance
        pipeline.encoder_weights = tmp_path / "none"
        try:
            pipeline.save_pretrained(tmp_path / "new", include_video_encoder=True)
        finally:
            pipeline.provenance, pipeline.encoder_weights = kept, None


def test_the_card_says_what_is_known_and_nothing_else(pipeline: VideoTextPipeline, tmp_path: Path) -> None:
    repocard = pytest.importorskip("huggingface_hub.repocard")
    pipeline.save_pretrained(tmp_path / "plain")
    card = repocard.ModelCard.load(tmp_path / "plain" / "README.md")
    about = card.data.to_dict()
    assert "license" not in about and "No licence was named" in card.text and "datasets" not in about
    assert (about["library_name"], about["pipeline_tag"]) == ("mmpt", "feature-extraction")
    assert "videoclip" in about["tags"] and about["metrics"] == ["R1"]
    results = card.text.partition("## Results")[2].partition("##")[0]
    rows = ("R1 | 0.25", "count | 8", "chance | 0.125", "by.what | 0.5")
    assert [line for line in results.splitlines() if line.startswith("| MMF")] == [
        f"| MMFusionSeparate | {row} |" for row in rows
    ]
    assert "config" not in results and "VideoTextPipeline.from_pretrained" in card.text
    pipeline.config.dataset.train_path = "data/msrvtt/MSRVTT_train.csv"
    try:
        pipeline.save_pretrained(tmp_path / "told", licence="cc-by-4.0", metrics={})
    finally:
        del pipeline.config.dataset.train_path
    told = repocard.ModelCard.load(tmp_path / "told" / "README.md")
    about = told.data.to_dict()
    assert (about["license"], about["datasets"]) == ("cc-by-4.0", ["MSR-VTT"])
    assert "No licence" not in told.text and "`MSRVTT_train.csv` of MSR-VTT" in told.text and "metrics" not in about


def test_a_copy_of_a_copy_says_the_same(pipeline: VideoTextPipeline, tmp_path: Path) -> None:
    """Also one that takes the place of what it was loaded from; what is given anew counts."""
    pipeline.config.dataset.train_path = "data/msrvtt/MSRVTT_train.csv"
    try:
        pipeline.save_pretrained(tmp_path / "a" / "one", licence="cc-by-4.0")
    finally:
        del pipeline.config.dataset.train_path
    shutil.copy(__file__, tmp_path / "a" / "one" / "s3d.pth")  # any file: it is not read
    config = tmp_path / "a" / "one" / "config.yaml"
    config.write_text(config.read_text().replace("encoder: conv3d", "encoder: s3d"))
    contents = {}
    for source, target in (("a/one", "a/one"), ("a/one", "b/one"), ("b/one", "c/one")):
        VideoTextPipeline.from_pretrained(tmp_path / source, device="cpu").save_pretrained(tmp_path / target)
        files = [file for file in (tmp_path / target).rglob("*") if file.is_file()]
        contents[target] = {str(file.relative_to(tmp_path / target)): file.read_bytes() for file in files}
    card = contents["c/one"]["README.md"].decode()
    assert "license: cc-by-4.0" in card and "MSR-VTT" in card and "| MMFusionSeparate | R1 | 0.25 |" in card
    assert contents["a/one"] == contents["b/one"] == contents["c/one"] and "s3d.pth" in contents["a/one"]
    again = VideoTextPipeline.from_pretrained(tmp_path / "c" / "one", device="cpu")
    again.save_pretrained(tmp_path / "d", licence="mit", metrics={"mine": {"R5": 1}})
    card = (tmp_path / "d" / "README.md").read_text()
    assert "license: mit" in card and "| mine | R5 | 1 |" in card and "0.25" not in card
    weights = tmp_path / "d" / "model.safetensors"
    other = VideoTextPipeline.from_pretrained(tmp_path / "c" / "one", checkpoint=weights, device="cpu")
    other.save_pretrained(tmp_path / "e")  # of other weights it says nothing
    assert "No licence was named" in (tmp_path / "e" / "README.md").read_text()
    (tmp_path / "d" / "card.json").write_text("[]")
    with pytest.raises(DataError, match=r"card\.json: holds no facts"):
        VideoTextPipeline.from_pretrained(tmp_path / "d")


def test_only_a_saved_model_is_replaced_and_a_link_to_it_stays(
    pipeline: VideoTextPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.safetensors").write_text("of another library")
    with pytest.raises(DataError, match="exists, and is no saved model"):
        pipeline.save_pretrained(mine)
    real = tmp_path / "disk" / "real"
    pipeline.save_pretrained(real)
    (tmp_path / "link").symlink_to(real)
    pipeline.save_pretrained(tmp_path / "link", licence="mit")
    assert (tmp_path / "link").is_symlink() and "license: mit" in (real / "README.md").read_text()
    assert "# link" in (real / "README.md").read_text()
    rename = os.rename

    def failing(source: Any, target: Any) -> None:
        if Path(target) == real and Path(source).suffix == ".tmp":
            raise OSError(errno.EIO, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises((OSError, StorageError)):
        pipeline.save_pretrained(real, licence="apache-2.0")
    assert [file.name for file in real.parent.iterdir()] == ["real"]
    assert "license: mit" in (real / "README.md").read_text()


class Hub:
    """Stands for the client of the hub: notes what it is given."""

    made: "list[Hub]" = []

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        Hub.made.append(self)

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.repository = (repo_id, options)
        if repo_id.startswith("others/"):
            raise PermissionError("403: you may not\nmore")
        return f"https://hub.invalid/{repo_id}"

    def upload_folder(self, folder_path: str, repo_id: str, commit_message: str) -> None:
        folder = Path(folder_path)
        self.message = commit_message
        self.files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
        self.card = (folder / "README.md").read_text()
        self.folder = folder


def test_what_is_pushed_is_what_is_saved(
    pipeline: VideoTextPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    Hub.made.clear()
    with caplog.at_level(logging.DEBUG):
        address = pipeline.push_to_hub(
            "me/shapes", private=True, token=TOKEN, licence="mit", metrics={"vtt": {"R1": 1}}
        )
        with pytest.raises(
            CheckpointError, match=r"others/x: the hub did not take the model \(403: you may not\)"
        ) as no:
            pipeline.push_to_hub("others/x", token=TOKEN)
    hub = Hub.made[0]
    assert address == "https://hub.invalid/me/shapes"
    assert hub.repository == ("me/shapes", {"private": True, "exist_ok": True})
    pipeline.save_pretrained(tmp_path / "saved")
    saved = tmp_path / "saved"
    assert hub.files == {str(file.relative_to(saved)) for file in saved.rglob("*") if file.is_file()}
    assert hub.message == "A VideoCLIP model of MMPT" and hub.token == TOKEN
    assert "license: mit" in hub.card and "# shapes" in hub.card and 'from_pretrained("me/shapes")' in hub.card
    assert not hub.folder.exists()
    assert TOKEN not in caplog.text + "".join(capsys.readouterr()) + str(no.value) + hub.card
