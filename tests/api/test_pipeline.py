"""The pipeline of all six systems on tiny random weights, against computation through the models themselves."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.api import VideoTextPipeline
from mmpt.api.capability import MissingCapabilityError
from mmpt.api.outputs import VideoClip
from mmpt.modules.feature_encoders import SmallConv3dEncoder
from mmpt.store.decode import stream_frames
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from tests.api.tiny_models import write_model, write_video

pytest.importorskip("av")

VECTORS = ("MMFusionSeparate", "MMFusionJoint", "MERLOTPretraining", "ReservePretraining")
FUSING = ("VIOLETRetrieval", "LAVENDER")
TEXTS = ["w5 w6", "w7 a the"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 6 and 12.5 seconds, where features come from, and a run folder for each system."""
    folder = tmp_path_factory.mktemp("pipeline")
    write_video(folder / "a.mp4", 6.0, 0)
    write_video(folder / "b.mp4", 12.5, 1)
    for name in (*VECTORS, *FUSING, "MMFusionMTM"):
        write_model(folder, name)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, VideoTextPipeline]:
    return {name: VideoTextPipeline.from_pretrained(folder / name, device="cpu") for name in (*VECTORS, *FUSING)}


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_features_of_a_file_are_those_that_extraction_makes(folder: Path, loaded: Any) -> None:
    pipeline, encoder = loaded["MMFusionSeparate"], SmallConv3dEncoder()
    blocks = stream_frames(folder / "a.mp4", encoder.fps, encoder.resize, block=encoder.fps)
    features = np.concatenate([encoder(block[None]) for block in blocks]).astype(np.float16).astype(np.float32)
    vfeats, vmasks = pipeline.video_inputs(str(folder / "a.mp4"))
    np.testing.assert_allclose(vfeats[0, :6], features, rtol=2e-3, atol=2e-3)  # float16 of other batches
    assert vmasks.sum() == 6 and not vfeats[0, 6:].any()
    with torch.no_grad():
        expected = pipeline.model.encode_video(vfeats, vmasks)[0]
    same(pipeline.encode_video(folder / "a.mp4"), expected)
    same(pipeline.encode_video(vfeats[0, :6]), expected)


def test_windows_of_a_long_video_are_averaged_in_direction_and_length(loaded: Any) -> None:
    pipeline = loaded["MMFusionSeparate"]
    features = np.random.default_rng(0).normal(size=(12, 512)).astype(np.float32)  # the model sees 8 seconds
    halves = pipeline.encode_video([features[:6], features[6:]])
    lengths = np.linalg.norm(halves, axis=1)
    direction = (halves / lengths[:, None]).mean(0)
    same(pipeline.encode_video(features), direction / np.linalg.norm(direction) * lengths.mean())


@pytest.mark.parametrize("name", VECTORS)
def test_similarity_is_the_dot_product_of_vectors_in_any_batch(name: str, folder: Path, loaded: Any) -> None:
    pipeline = loaded[name]
    videos = [str(folder / "a.mp4"), VideoClip(str(folder / "b.mp4"), 1, 4.5), folder / "b.mp4"]
    vectors, texts = pipeline.encode_video(videos), pipeline.encode_text(TEXTS)
    assert vectors.shape == (3, pipeline.dim) and vectors.dtype == np.float32
    same(pipeline.encode_video(videos, batch_size=1), vectors)
    same(np.stack([pipeline.encode_text(text) for text in TEXTS]), texts)
    same(pipeline.similarity(TEXTS, videos), texts @ vectors.T)
    hits = pipeline.retrieve(TEXTS[0], vectors, top=2)
    assert [hit.index for hit in hits] == np.argsort(-(vectors @ texts[0]))[:2].tolist()


@pytest.mark.parametrize("name", FUSING)
def test_similarity_of_fusing_systems_is_what_the_model_scores(name: str, folder: Path, loaded: Any) -> None:
    pipeline = loaded[name]
    videos = [str(folder / "a.mp4"), str(folder / "b.mp4")]
    tokens = pipeline.comparer.texts(TEXTS)
    vfeats, vmasks = (torch.cat(part) for part in zip(*map(pipeline.video_inputs, videos), strict=True))
    with torch.no_grad():
        text = pipeline.model.encode_text(tokens.caps, tokens.cmasks, **tokens.pretext)
        expected = pipeline.model.score_pairs(text, pipeline.model.encode_video(vfeats, vmasks))
    same(pipeline.similarity(TEXTS, videos), expected)
    same(pipeline.similarity(TEXTS, videos, batch_size=1), expected)
    with pytest.raises(MissingCapabilityError, match="VideoCLIP"):
        pipeline.encode_video(videos)


def test_a_model_of_pairs_compares_nothing(folder: Path) -> None:
    pipeline = VideoTextPipeline.from_pretrained(folder / "MMFusionMTM")
    with pytest.raises(MissingCapabilityError):
        pipeline.similarity(TEXTS, np.zeros((3, 512)))


@pytest.mark.parametrize("name", [*VECTORS, *FUSING])
def test_saved_models_load_bit_by_bit_without_their_run(
    name: str, folder: Path, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / name, run)
    first = VideoTextPipeline.from_pretrained(run)
    first.save_pretrained(tmp_path / "saved", licence="mit", metrics={"test_vtt": {"R1": 0.5}})
    shutil.rmtree(run)
    monkeypatch.chdir("/")
    second = VideoTextPipeline.from_pretrained(tmp_path / "saved")
    video = str(folder / "a.mp4")
    assert np.array_equal(second.similarity(TEXTS, video), loaded[name].similarity(TEXTS, video))
    assert second.fingerprint() == first.fingerprint() == loaded[name].fingerprint()
    assert str(tmp_path) not in (tmp_path / "saved" / "config.yaml").read_text()
    assert "license: mit" in (tmp_path / "saved" / "README.md").read_text()


@pytest.mark.parametrize("name", VECTORS)
def test_clips_are_what_their_seconds_are_alone(name: str, folder: Path, loaded: Any) -> None:
    video = str(folder / "b.mp4")
    clips = loaded[name].encode_clips(video, 5, 4)
    assert clips.starts.tolist() == [0, 4, 8] and clips.ends.tolist() == [5, 9, 12.5]
    alone = [VideoClip(video, start, end) for start, end in zip(clips.starts, clips.ends, strict=True)]
    same(clips.vectors, loaded[name].encode_video(alone))


@pytest.mark.parametrize("name", ["MMFusionSeparate", "VIOLETRetrieval"])
def test_timelines_end_where_the_video_does(name: str, folder: Path, loaded: Any) -> None:
    timeline = loaded[name].segment(folder / "b.mp4", ["w5", "w6"])
    assert timeline.scores.shape == (13, 2)
    assert timeline.starts.tolist() == list(range(13)) and timeline.ends.tolist() == [*range(1, 13), 12.5]


def test_templates_are_averaged_before_they_are_compared(folder: Path, loaded: Any) -> None:
    pipeline, video = loaded["MERLOTPretraining"], str(folder / "a.mp4")
    found = {one.label: one for one in pipeline.classify(video, ["w5", "a"], templates=["{}", "the {}"])}
    vector = pipeline.encode_video(video)
    for label in ("w5", "a"):
        mean = pipeline.encode_text([label, f"the {label}"]).mean(0)
        same(found[label].score, vector @ mean / np.linalg.norm(mean))
    assert sum(one.probability for one in found.values()) == pytest.approx(1)


def test_mistakes_are_named(folder: Path, loaded: Any) -> None:
    pipeline, video = loaded["MMFusionSeparate"], str(folder / "a.mp4")
    (folder / "no.mp4").write_bytes(b"not a video")
    cases: list[tuple[Any, str]] = [
        (str(folder / "no.mp4"), "no.mp4"),
        (VideoClip(video, 7), "a.mp4"),
        (VideoClip(video, 1, 9), "a.mp4: a clip ends at second 9"),
        (np.zeros((3, 7)), "7 wide"),
        (np.full((3, 512), np.nan), "not finite"),
        (np.zeros((3, 8, 8, 3), np.uint8), "fps="),
    ]
    for wrong, match in cases:
        with pytest.raises(DataError, match=match):
            pipeline.encode_video([wrong])
    with pytest.raises(DataError, match="text 1 is empty"):
        pipeline.encode_text(["w5", " "])
    with pytest.raises(DataError, match="more than once"):
        pipeline.classify(video, ["w5", "w5"])
    with pytest.raises(CheckpointError, match="no such file or folder"):
        VideoTextPipeline.from_pretrained("no/such/model")


def test_a_picture_is_a_video_that_stands_still(folder: Path, loaded: Any) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
    for name in VECTORS:
        pipeline = loaded[name]
        found = pipeline.encode_image(pictures)
        assert found.shape == (2, pipeline.dim)
        same(found[1], pipeline.encode_video(np.repeat(pictures[1:], 16, 0), fps=16))


def test_a_hub_id_is_a_saved_folder(folder: Path, loaded: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import huggingface_hub

    loaded["MMFusionSeparate"].save_pretrained(tmp_path / "saved")
    asked = []

    def snapshot(repo_id: str, **options: Any) -> str:
        asked.append((repo_id, options["revision"]))
        return str(tmp_path / "saved")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = VideoTextPipeline.from_pretrained("org/name", revision="v1")
    assert asked == [("org/name", "v1")] and found.fingerprint() == loaded["MMFusionSeparate"].fingerprint()


def test_settings_of_strangers_name_no_code_and_no_other_files(loaded: Any, tmp_path: Path) -> None:
    loaded["MMFusionSeparate"].save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "config.yaml"
    good = file.read_text()
    for old, new in (
        ("model_cls: MMFusionSeparate", "model_cls: subprocess:Popen"),
        ("bert_name: bert", "bert_name: ../elsewhere"),
        ("bert_name: bert", "bert_name: ${oc.env:HOME}"),
    ):
        file.write_text(good.replace(old, new))
        with pytest.raises(ConfigError, match="config.yaml"):
            VideoTextPipeline.from_pretrained(tmp_path / "saved")
