"""The encoder of a model's features, built again from what they say of themselves."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.api import provenance as module
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.provenance import build_feature_encoder
from mmpt.modules.feature_encoders import build_encoder
from mmpt.modules.s3d import random_s3d
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.files import file_sha256
from tests.api.tiny_models import CONV3D, write_model

#: Facts of an extraction that another one need not share.
OF_THE_RUN = {"decoder": "PyAV 0", "dtype": "float16", "hflip": False}
VIT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32}


@pytest.fixture(scope="module")
def s3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of S3D in a file."""
    file = tmp_path_factory.mktemp("s3d") / "s3d.pth"
    torch.save(random_s3d(0).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A local folder of a tiny CLIP, whose vectors are its own projection's."""
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text |= {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config={**VIT, "patch_size": 16}, projection_dim=12)
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.CLIPModel(config).eval().save_pretrained(folder)
    facts = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 32}, "crop_size": 32}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return str(folder)


def frames_of(encoder: Any) -> np.ndarray:
    size = encoder.size
    return np.random.default_rng(0).integers(0, 255, (1, encoder.fps, size, size, 3), np.uint8)


def test_s3d_is_that_of_the_file_whose_hash_the_features_name(s3d: Path, tmp_path: Path) -> None:
    made = build_encoder("s3d", weights=str(s3d))
    known = made.provenance() | OF_THE_RUN
    assert known["weights_sha256"] == file_sha256(s3d)
    built, expected = (encoder.model.state_dict() for encoder in (build_feature_encoder(known, s3d, "cpu"), made))
    assert built.keys() == expected.keys() and all(torch.equal(built[key], expected[key]) for key in built)
    other = tmp_path / "other.pth"
    other.write_bytes(s3d.read_bytes() + b"0")
    with pytest.raises(CheckpointError, match=r"other\.pth: not the weights of S3D .* \(SHA-256 " + file_sha256(s3d)):
        build_feature_encoder(known, other, "cpu")
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file\. This model reads features of S3D"):
        build_feature_encoder(known, tmp_path / "none.pth", "cpu")


def test_where_nothing_says_it_is_s3d_as_published(
    s3d: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "S3D_WEIGHTS", str(s3d))
    with caplog.at_level(logging.WARNING):
        found = build_feature_encoder(None, None, "cpu")
    assert (found.name, found.l2_normalize) == ("s3d", True)
    assert "nothing says which encoder made the features" in caplog.text


def test_a_hugging_face_model_is_that_of_the_folder_that_is_named(vit: str) -> None:
    made = build_encoder("hf", model=vit, fps=2)
    known = made.provenance() | OF_THE_RUN
    frames = frames_of(made)
    np.testing.assert_array_equal(build_feature_encoder(known, vit, "cpu")(frames), made(frames))
    with pytest.raises(DataError, match="a Hugging Face model of a local folder: name it by s3d_weights="):
        build_feature_encoder(known, None, "cpu")
    changed = known | {"weights_sha256": {"model.safetensors": "0"}}
    with pytest.raises(CheckpointError, match="made by another hf than there is here: weights_sha256"):
        build_feature_encoder(changed, vit, "cpu")


def test_an_encoder_that_is_no_more_what_it_was_is_refused() -> None:
    assert build_feature_encoder(CONV3D | OF_THE_RUN, None, "cpu").provenance() == CONV3D
    with pytest.raises(CheckpointError, match=r"another conv3d than there is here: size 48, not 64"):
        build_feature_encoder(CONV3D | {"size": 48}, None, "cpu")
    with pytest.raises(ConfigError, match="no_such"):
        build_feature_encoder({"encoder": "no_such"}, None, "cpu")


def test_a_model_of_s3d_takes_features_without_weights(tmp_path: Path, s3d: Path) -> None:
    run = write_model(tmp_path, "MMFusionSeparate", {"vfeat_dir": None})
    pipeline = VideoTextPipeline.from_pretrained(run, device="cpu", s3d_weights=tmp_path / "none.pth")
    assert pipeline.encode_video(np.ones((3, 512))).shape == (pipeline.dim,)
    with pytest.raises(CheckpointError, match="s3d_weights=FILE"):
        pipeline.encode_video(np.zeros((8, 32, 32, 3), np.uint8), fps=8)


@pytest.mark.slow
def test_weights_of_s3d_may_come_along_in_the_folder(tmp_path: Path, s3d: Path) -> None:
    run = write_model(tmp_path, "MMFusionSeparate", {"vfeat_dir": None})
    pipeline = VideoTextPipeline.from_pretrained(run, device="cpu", s3d_weights=s3d)
    pipeline.save_pretrained(tmp_path / "saved", include_video_encoder=True)
    saved = VideoTextPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert saved.encoder_weights == tmp_path / "saved" / "s3d.pth"
    frames = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    found = saved.encode_video(frames, fps=30)
    np.testing.assert_allclose(found, pipeline.encode_video(frames, fps=30), rtol=1e-4, atol=1e-5)
