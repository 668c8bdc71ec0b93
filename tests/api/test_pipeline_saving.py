"""Folders of save_pretrained: whole or not there, with a card that says what is known; and their way to the hub."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mmpt.api import saving
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.utils.errors import CheckpointError, DataError
from tests.api.tiny_models import write_model

TOKEN = "hf_secret"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> VideoTextPipeline:
    run = write_model(tmp_path_factory.mktemp("saving"), "MMFusionSeparate")
    (run / "eval").mkdir()
    numbers = {"metrics": {"R1": 0.25, "R1_ci": [0.1, 0.4], "count": 8}, "date": "today"}
    (run / "eval" / "metrics.json").write_text(json.dumps(numbers))
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
    assert "videoclip" in about["tags"] and "metrics.R1" in about["metrics"]
    assert "| eval | metrics.R1 | 0.25 |" in card.text and "VideoTextPipeline.from_pretrained" in card.text
    pipeline.config.dataset.train_path = "data/msrvtt/MSRVTT_train.csv"
    try:
        pipeline.save_pretrained(tmp_path / "told", licence="cc-by-4.0", metrics={})
    finally:
        del pipeline.config.dataset.train_path
    told = repocard.ModelCard.load(tmp_path / "told" / "README.md")
    about = told.data.to_dict()
    assert (about["license"], about["datasets"]) == ("cc-by-4.0", ["MSR-VTT"])
    assert "No licence" not in told.text and "`MSRVTT_train.csv` of MSR-VTT" in told.text and "metrics" not in about


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
