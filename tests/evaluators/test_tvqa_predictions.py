"""TVQA: the metric, the files for the leaderboard, and the way from records to them."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmpt.evaluators.tvqa import TVQAMetric, TVQAPredictor, write_submission
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import write_json
from tests.evaluators.downstream_tests import build, evaluated
from tests.processors.downstream_data import section

DATASET = {
    "meta_processor": "TVQAMetaProcessor",
    "video_processor": "WholeSegmentsVideoProcessor",
    "text_processor": "SubwordTextProcessor",
    "aligner": "TVQAAligner",
    "lang_seq_len": 192,
}


def test_from_records_to_the_submission(tmp_path: Path) -> None:
    task, model = build("ReserveTVQA", {**section(tmp_path, "tvqa"), **DATASET})
    other = tmp_path / "prediction_test_public.json"
    write_json(other, {"7": 3})
    metrics = evaluated(task, model, tmp_path / "eval", "TVQAPredictor", "TVQAMetric", 2, other_prediction=str(other))
    assert metrics["count"] == 4 and metrics["unlabelled"] == 0
    answers = json.loads((tmp_path / "eval/prediction_val.json").read_text())
    assert list(answers) == ["0", "1", "2", "3"]
    assert list(answers.values()) == np.load(tmp_path / "eval/merged.npy").tolist()
    with zipfile.ZipFile(tmp_path / "eval/submission.zip") as archive:
        assert sorted(archive.namelist()) == ["meta.json", "prediction_test_public.json", "prediction_val.json"]
        assert json.loads(archive.read("prediction_val.json")) == answers
        meta = json.loads(archive.read("meta.json"))
    assert (meta["with_ts"], meta["model_name"]) == (True, "MERLOT Reserve")


def test_only_questions_with_labels_count() -> None:
    scores = np.eye(5)[[0, 1, 2]]
    metrics = TVQAMetric().compute_metrics(targets=[0, -1, 3], scores=scores)
    assert (metrics["acc"], metrics["count"], metrics["unlabelled"]) == (0.5, 2, 1)
    hidden = TVQAMetric().compute_metrics(targets=[-1] * 3, scores=scores)
    assert hidden == {"count": 0, "unlabelled": 3}
    assert TVQAMetric().print_computed_metrics(hidden) == "3 without labels"


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="submission_split"):
        TVQAPredictor({"eval": {"save_path": str(tmp_path), "submission_split": "test"}})
    good, bad = tmp_path / "prediction_val.json", tmp_path / "prediction_test_public.json"
    write_json(good, {"1": 0})
    write_json(bad, {"1": 5})
    with pytest.raises(DataError, match="test_public.json: holds no answers"):
        write_submission(tmp_path / "s.zip", [good, bad], {})
    with pytest.raises(DataError, match="needs prediction_test_public.json and prediction_val.json"):
        write_submission(tmp_path / "s.zip", [good, good], {})
    assert not (tmp_path / "s.zip").exists()
