"""Timelines: of trained heads, by states of seconds, by windows; and which labels they take."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mmpt.api.outputs import Timeline
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.utils.errors import DataError
from mmpt_cli.predict import predict
from tests.api.tiny_models import write_model

STEPS = {1: "w5", 2: "w6 w7", 4: "w3"}
HEADS = ("MMFusionSeparateActionSegmentation", "MMFusionActionSegmentation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of steps in the public layout, features of its videos, and models that were trained on it."""
    folder = tmp_path_factory.mktemp("segment")
    database: dict[str, Any] = {}
    (folder / "features").mkdir()
    for number, (name, subset) in enumerate({"a": "training", "b": "testing", "c": "testing"}.items()):
        steps = [{"id": str(id_), "label": label, "segment": [id_, id_ + 1]} for id_, label in STEPS.items()]
        database[name] = {"subset": subset, "annotation": steps}
        features = np.random.default_rng(number).standard_normal((11 + number, 512))
        np.save(folder / "features" / f"{name}.npy", features.astype(np.float16))
    (folder / "COIN.json").write_text(json.dumps({"database": database}))
    lists = {key: str(folder / "COIN.json") for key in ("train_path", "test_path")}
    coin = "COINActionSegmentation"
    parts = {"meta_processor": f"{coin}MetaProcessor", "text_processor": f"{coin}TextProcessor"}
    parts |= {"aligner": f"{coin}Aligner", "video_processor": "VideoProcessor", "vfeat_dir": str(folder / "features")}
    for name in (*HEADS, "MMFusionSeparate", "MMFusionActionLocalization"):
        write_model(folder, name, {**lists, **parts, "max_video_len": 8, "sliding_window": 4})
    return folder


def seconds(timeline: Timeline, count: int) -> list[str]:
    """Return the label of each second, "" where there is none."""
    found = [""] * count
    for span in timeline.spans():
        found[int(span.start) : int(span.end)] = [span.label] * int(span.end - span.start)
    return found


@pytest.mark.parametrize(
    ("name", "predictor"), [*((name, "COINPredictor") for name in HEADS), ("MMFusionSeparate", "COINZSPredictor")]
)
def test_timelines_are_what_the_evaluation_predicts(name: str, predictor: str, folder: Path, tmp_path: Path) -> None:
    test = {
        "dataset": {"split": "test"},
        "fairseq": {"common_eval": {"path": str(folder / name / "checkpoint_best.pt")}, "dataset": {"batch_size": 1}},
        "eval": {"save_path": str(tmp_path), "background_threshold": "none"},
        "metric": "COINActionSegmentationMetric",
        "predictor": predictor,
    }
    predict(OmegaConf.merge(OmegaConf.load(folder / name / "config.yaml"), test), "cpu")
    pipeline = VideoTextPipeline.from_pretrained(folder / name, device="cpu")
    labels = None if name in HEADS else list(STEPS.values())
    videos = json.loads((tmp_path / "predictions.json").read_text())
    assert [video["video_id"] for video in videos] == ["b", "c"]
    for video in videos:
        expected = [""] * video["seconds"]
        for part in video["segments"]:
            expected[part["start"] : part["end"]] = [part["name"]] * (part["end"] - part["start"])
        features = np.load(folder / "features" / f"{video['video_id']}.npy")
        assert seconds(pipeline.segment(features, labels), len(features)) == expected
        assert len(set(expected)) > 1


@pytest.mark.parametrize("name", HEADS)
def test_a_trained_head_needs_no_labels(name: str, folder: Path) -> None:
    pipeline = VideoTextPipeline.from_pretrained(folder / name, device="cpu")
    features = np.load(folder / "features" / "b.npy")
    timeline = pipeline.segment(features)
    assert list(timeline.labels) == ["O", "w5", "w6 w7", "w3"] and timeline.scores.shape == (12, 4)
    assert timeline.nothing == "O" and pipeline.calls == {"segment"}
    best = [timeline.labels[number] for number in timeline.scores.argmax(1)]
    assert seconds(timeline, 12) == ["" if label == "O" else label for label in best]
    some = pipeline.segment(features, ["w3", "w5"])
    assert list(some.labels) == ["w3", "w5", "O"]
    np.testing.assert_array_equal(some.scores, timeline.scores[:, [3, 1, 0]])
    with pytest.raises(DataError, match="the label 'fry' is none of the 5 classes .* such as 'O', 'w5', 'w6 w7'"):
        pipeline.segment(features, ["w3", "fry"])
    with pytest.raises(DataError, match="more than once"):
        pipeline.segment(features, ["w3", "w3"])


def test_a_saved_head_keeps_the_names_of_its_classes(folder: Path, tmp_path: Path) -> None:
    first = VideoTextPipeline.from_pretrained(folder / HEADS[0], device="cpu")
    first.save_pretrained(tmp_path / "saved")
    second = VideoTextPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    features = np.load(folder / "features" / "c.npy")
    assert second.segment(features).as_dict() == first.segment(features).as_dict()


def test_a_head_without_names_asks_for_them(folder: Path) -> None:
    lists = ["dataset.train_path=null", "dataset.test_path=null"]
    pipeline = VideoTextPipeline.from_pretrained(folder / HEADS[0], device="cpu", overrides=lists)
    features = np.load(folder / "features" / "b.npy")
    with pytest.raises(DataError, match="tells 5 classes .* give all of them as labels"):
        pipeline.segment(features)
    with pytest.raises(DataError, match="tells 5 classes"):
        pipeline.segment(features, ["w5"])
    assert pipeline.segment(features, list("abcde")).nothing == "a"


@pytest.mark.parametrize("name", ["MMFusionSeparate", "MMFusionActionLocalization"])
def test_states_of_seconds_take_any_labels(name: str, folder: Path) -> None:
    pipeline = VideoTextPipeline.from_pretrained(folder / name, device="cpu")
    features = np.load(folder / "features" / "b.npy")
    timeline = pipeline.segment(features, ["w5", "w6 w7"], background=-1e9)
    assert timeline.scores.shape == (12, 2) and timeline.nothing is None
    assert "" not in seconds(timeline, 12)
    assert pipeline.segment(features, ["w5", "w6 w7"], background=1e9).spans() == []
    with pytest.raises(DataError, match="there is no label"):
        pipeline.segment(features)


def test_windows_are_asked_for(folder: Path) -> None:
    pipeline = VideoTextPipeline.from_pretrained(folder / "MMFusionSeparate", device="cpu")
    features = np.load(folder / "features" / "b.npy").astype(np.float32)
    timeline = pipeline.segment(features, ["w5", "w6"], window_seconds=4, stride_seconds=2)
    assert timeline.starts.tolist() == [0, 2, 4, 6, 8, 10]
    alone = pipeline.similarity(["w5", "w6"], features[3:7])[:, 0]  # around the part from second 4 to 6
    np.testing.assert_allclose(timeline.scores[2], alone, atol=1e-4)
    for wrong in (0, -1):
        with pytest.raises(DataError, match="window_seconds"):
            pipeline.segment(features, ["w5"], window_seconds=wrong)
    with pytest.raises(DataError, match="stride_seconds: 0"):
        pipeline.segment(features, ["w5"], window_seconds=2, stride_seconds=0)
