"""Folders of save_pretrained that someone else made: what they say reaches no code and no file outside of them."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.provenance import build_feature_encoder
from mmpt.utils.errors import CheckpointError, ConfigError, MMPTError, UnsafePathError
from tests.api.tiny_models import write_model

SECRET = "root:x:0:0"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("strangers")
    VideoTextPipeline.from_pretrained(write_model(place, "MMFusionSeparate"), device="cpu").save_pretrained(place / "s")
    return place / "s"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "folder"))


def spoiled(folder: Path, **settings: Any) -> Path:
    config = OmegaConf.load(folder / "config.yaml")
    for key, value in settings.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    OmegaConf.save(config, folder / "config.yaml")
    return folder


@pytest.mark.parametrize("settings", [{}, {"common_eval": {"path": "/etc/passwd"}}, {"includes": "/etc/passwd"}])
@pytest.mark.parametrize("fetched", [False, True])
def test_a_folder_without_the_mark_is_not_read(
    folder: Path, settings: dict[str, Any], fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    spoiled(folder, **settings)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text("".join(line for line in text.splitlines(True) if "saved_by" not in line))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    sources = ["org/name"] if fetched else [folder, folder / "model.safetensors", folder / "s3d.pth"]
    (folder / "s3d.pth").touch()
    for source in sources:
        with pytest.raises(CheckpointError, match="does not say that save_pretrained wrote it") as error:
            VideoTextPipeline.from_pretrained(source)
        assert SECRET not in str(error.value)
    if fetched:  # nor is it a run
        (folder / "model.safetensors").rename(folder / "checkpoint_best.pt")
        with pytest.raises(CheckpointError, match="org/name: no model of save_pretrained"):
            VideoTextPipeline.from_pretrained("org/name")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"includes": "/etc/passwd"}, "includes"),
        ({"fairseq": {"common_eval": {"path": "/etc/passwd"}}}, "fairseq"),
        ({"dataset__train_path": "/etc/passwd"}, r"dataset\.train_path"),
        ({"model__swin_weights": "/etc/passwd"}, r"model\.swin_weights"),
        ({"dataset__provenance": {"encoder": "this:Cls"}}, "encoder: 'this:Cls' is none of conv3d, hf, s3d"),
        ({"dataset__provenance": {"encoder": "no_such"}}, "'no_such' is none of"),
        ({"dataset__provenance": "hf"}, "no description of an encoder"),
        ({"dataset__provenance": {"encoder": "hf", "model": "/etc"}}, "'/etc' is no hub id"),
        ({"dataset__provenance": {"encoder": "hf", "model": "../up"}}, "'../up' is no hub id"),
    ],
)
def test_settings_that_reach_out_are_refused(folder: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        VideoTextPipeline.from_pretrained(spoiled(folder, **settings), device="cpu")
    assert SECRET not in str(error.value)


def test_a_hub_model_is_fetched_only_where_the_user_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmpt.api import provenance

    named: list[str] = []

    def built(name: str, **options: Any) -> Any:
        named.append(options["model"])
        raise CheckpointError("stop")

    monkeypatch.setattr(provenance, "build_encoder", built)
    known = {"encoder": "hf", "model": "their/choice"}
    spoiled(folder, dataset__provenance=known)
    pipeline = VideoTextPipeline.from_pretrained(folder, device="cpu")
    with pytest.raises(CheckpointError, match="nothing is fetched because it says so.*s3d_weights='their/choice'"):
        _ = pipeline.reader.encoder
    pipeline = VideoTextPipeline.from_pretrained(folder, device="cpu", s3d_weights="their/choice")
    for call in (lambda: pipeline.reader.encoder, lambda: build_feature_encoder(known, None, "cpu")):
        with pytest.raises(CheckpointError, match="stop"):
            call()
    assert named == ["their/choice"] * 2


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "bert/vocab.txt", "bert"])
def test_links_that_lead_out_are_refused(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError, match="is a link that leads out of"):
        VideoTextPipeline.from_pretrained(folder, device="cpu")
    monkeypatch.setenv("MMPT_FOLLOW_LINKS", "1")
    VideoTextPipeline.from_pretrained(folder, device="cpu")


def test_links_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = Path(shutil.copytree(folder, repository / "snapshots" / "abc"))
    for number, file in enumerate(sorted(file for file in snapshot.rglob("*") if file.is_file())):
        file.rename(repository / "blobs" / str(number))
        file.symlink_to(os.path.relpath(repository / "blobs" / str(number), file.parent))
    VideoTextPipeline.from_pretrained(snapshot, device="cpu")
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to("/etc/passwd")
    with pytest.raises(UnsafePathError, match=r"README\.md"):
        VideoTextPipeline.from_pretrained(snapshot, device="cpu")


def test_what_a_source_cannot_use_is_said(folder: Path, tmp_path: Path) -> None:
    load = VideoTextPipeline.from_pretrained
    weights = folder / "model.safetensors"
    cases: list[tuple[Path, dict[str, Any], type[MMPTError], str]] = [
        (folder, {"revision": "v1"}, ConfigError, "revision= is of a model on the hub"),
        (weights, {"revision": "v1"}, ConfigError, "revision= is of a model on the hub"),
        (weights, {"checkpoint": "other.pt"}, ConfigError, r"is a file of weights itself"),
        (folder, {"checkpoint": "none.pt"}, CheckpointError, r"none\.pt: there is no such checkpoint"),
        (folder, {"checkpoint": tmp_path / "no.pt"}, CheckpointError, r"no\.pt: there is no such checkpoint"),
    ]
    for source, options, kind, match in cases:
        with pytest.raises(kind, match=match):
            load(source, **options)
    other = load(folder, device="cpu")
    next(other.model.parameters()).data += 1
    other.save_pretrained(tmp_path / "other")
    for checkpoint in (tmp_path / "other" / "model.safetensors", Path("second.safetensors")):
        shutil.copy(tmp_path / "other" / "model.safetensors", folder / "second.safetensors")
        assert load(folder, checkpoint=checkpoint, device="cpu").fingerprint() == other.fingerprint()
