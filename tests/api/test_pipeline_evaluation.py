"""A pipeline on the files of videos against the evaluation of what was extracted from them: the same numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from mmpt.api.pipeline import VideoTextPipeline
from mmpt_cli import extract_features, extract_frames
from mmpt_cli.predict import predict
from tests.api.tiny_models import write_model, write_video

pytest.importorskip("av")

TEXTS = ["w5 w6", "w7 w3 w1", "w2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Videos of 3, 5 and 7.5 seconds; the model of features sees 8."""
    folder = tmp_path_factory.mktemp("evaluation") / "videos"
    folder.mkdir()
    return [write_video(folder / f"v{number}.mp4", 3 + 2.25 * number, number) for number in range(3)]


def evaluated(run: Path, dataset: dict[str, Any], predictor: str) -> Path:
    """Test a run on the videos; return the folder of the test."""
    test = {
        "dataset": {"split": "test", **dataset},
        "fairseq": {"common_eval": {"path": str(run / "checkpoint_best.pt")}, "dataset": {"batch_size": 2}},
        "eval": {"save_path": str(run / "eval")},
        "metric": "RetrievalMetric",
        "predictor": predictor,
    }
    config = OmegaConf.merge(OmegaConf.load(run / "config.yaml"), test)
    predict(config, "cpu")
    OmegaConf.save(config, run / "eval" / "config.yaml")  # as the launcher does
    return run / "eval"


def test_vectors_of_features_are_those_of_the_evaluation(videos: list[Path], tmp_path: Path) -> None:
    features = tmp_path / "feat"
    made = ["--vdir", str(videos[0].parent), "--fdir", str(features), "--type", "conv3d", "--device", "cpu"]
    assert extract_features.main(made) == 0
    rows = [f"v{number},{text}" for number, text in enumerate(TEXTS)]
    (tmp_path / "test.csv").write_text("\n".join(["video_id,sentence", *rows]))
    run = write_model(tmp_path, "MMFusionSeparate")
    dataset = {"meta_processor": "MSRVTTMetaProcessor", "text_processor": "MSRVTTTextProcessor", "aligner": "DSAligner"}
    dataset |= {"video_processor": "VideoProcessor", "vfeat_dir": str(features)}
    tested = evaluated(run, dataset | {"test_path": str(tmp_path / "test.csv")}, "RetrievalPredictor")
    stored = np.load(tested / "embeddings.npz")
    pipeline = VideoTextPipeline.from_pretrained(tested)
    np.testing.assert_allclose(pipeline.encode_text(TEXTS), stored["text"], atol=1e-5)
    np.testing.assert_allclose(pipeline.encode_video(videos), stored["video"], atol=2e-3)  # float16 of other batches
    of_features = pipeline.encode_video([np.load(features / f"{video.stem}.npy") for video in videos])
    np.testing.assert_allclose(of_features, stored["video"], atol=1e-5)


def test_scores_of_frames_are_those_of_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    videos = [write_video(tmp_path / "videos" / f"v{number}.mp4", 4, number) for number in range(3)]
    run = write_model(tmp_path, "VIOLETRetrieval", {"num_frames": 2})
    made = ["--path", str(tmp_path / "videos"), "--store", str(tmp_path / "frames"), "--frames", "2", "--quality", "95"]
    assert extract_frames.main(made) == 0
    items = [{"video": f"v{number}", "caption": text} for number, text in enumerate(TEXTS)]
    (tmp_path / "txt.json").write_text(json.dumps({"test": items}))
    dataset = {"meta_processor": "ClipRetrievalMetaProcessor", "text_processor": "ClipTextProcessor"}
    dataset |= {"video_processor": "FrameVideoProcessor", "frame_path": str(tmp_path / "frames")}
    tested = evaluated(run, dataset | {"test_path": str(tmp_path / "txt.json")}, "FusionRetrievalPredictor")
    stored = np.load(tested / "merged.npy")
    found = VideoTextPipeline.from_pretrained(tested).similarity(TEXTS, videos)
    np.testing.assert_allclose(found, stored, atol=0.1 * np.ptp(stored))  # JPEG
