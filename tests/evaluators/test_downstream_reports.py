"""Results of MERLOT's and Reserve's tasks stand in tables and on the page, and their data sets are pickled."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.evaluators.report import build_report, render
from mmpt.evaluators.results import collect_results, results_table
from tests.evaluators import test_story_ordering, test_tvqa_predictions, test_vcr_predictions
from tests.evaluators.downstream_tests import build, evaluated
from tests.processors.downstream_data import section

VCR = {"meta_processor": "MERLOTVCRMetaProcessor", "aligner": "MERLOTVCRAligner", **test_vcr_predictions.DATASET}
TASKS: dict[str, tuple[Any, ...]] = {
    "vist": ("MERLOTPretraining", {**test_story_ordering.DATASET, "max_text_len": 16}, "StoryOrdering", "Spearman"),
    "merlot_vcr": ("MERLOTVCR", VCR, "VCR", "Q→AR"),
    "tvqa": ("ReserveTVQA", test_tvqa_predictions.DATASET, "TVQA", "accuracy"),
}


@pytest.mark.parametrize("layout", TASKS)
def test_a_result_is_reported(tmp_path: Path, layout: str) -> None:
    model_cls, keys, name, heading = TASKS[layout]
    task, model = build(model_cls, {**section(tmp_path, layout), **keys})
    evaluated(task, model, tmp_path / "run/eval", f"{name}Predictor", f"{name}Metric")
    results, missing = collect_results([tmp_path / "run/eval"])
    assert not missing and results[0].metrics["count"] == 4
    assert heading in results_table(results)
    assert heading in render(build_report("tests", [tmp_path / "run/eval"]))


@pytest.mark.parametrize("layout", TASKS)
def test_a_data_set_is_pickled_as_paths(tmp_path: Path, layout: str) -> None:
    model_cls, keys, *_ = TASKS[layout]
    task, _ = build(model_cls, {**section(tmp_path, layout), **keys})
    content = pickle.dumps(task.test_data)
    assert len(content) < 20_000
    assert task.test_data is not None
    item, other = task.test_data[1], pickle.loads(content)[1]
    assert item.keys() == other.keys()
    for key, value in item.items():
        assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
