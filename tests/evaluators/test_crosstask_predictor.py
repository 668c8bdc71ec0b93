"""Locating steps with a model of known answers: averaging over windows, order, files, what is left out."""

import itertools
import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators import Evaluator
from mmpt.evaluators.base import NothingEvaluated
from mmpt.evaluators.crosstask_predictor import CrossTaskPredictor
from mmpt.processors.crosstask import CrossTaskAligner, StepVideo
from mmpt.processors.crosstask_files import Segment
from mmpt.utils.errors import DataError
from mmpt.utils.files import REPOSITORY

DIM = 5
DATASET = {
    "bert_name": str(REPOSITORY / "tests/data/tiny_bert"),
    "use_fast": False,
    "max_video_len": 4,
    "max_len": 14,
    "sliding_window": 2,
    "sliding_window_size": 4,
    "split": "test",
}
STEPS = {"23": ("w1 w2", "w3", "w4"), "7": ("w5", "w6")}


def item(video: str, task: str, seconds: int, *segments: Segment) -> dict:
    feature = np.random.default_rng([*video.encode()]).standard_normal((seconds, DIM)).astype(np.float32)
    text = [[5 + number] for number in range(len(STEPS[task]))]
    return CrossTaskAligner(DATASET)(StepVideo(video, task, STEPS[task], segments), feature, text)


@pytest.fixture
def items() -> list[dict]:
    return [
        item("a", "23", 9, Segment(0, 0, 3), Segment(2, 4.5, 5)),
        item("b", "23", 3, Segment(1, 1, 2)),
        item("a", "7", 9, Segment(0, 2, 3), Segment(1, 7, 8.5)),
    ]


def loader(items: list[dict], size: int = 1) -> list[dict]:
    return [MMDataset.collater(items[start : start + size]) for start in range(0, len(items), size)]


class Model(nn.Module):
    """Says something else of a second in each window, and something random in training mode."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.steps = nn.Parameter(torch.randn(64, DIM, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, caps, cmasks, vfeats, vmasks):
        assert not torch.is_grad_enabled() and caps.ndim == 2 and vfeats.ndim == 3
        shift = torch.arange(len(vfeats))[:, None, None] * torch.arange(vfeats.shape[1])[:, None]
        states = self.dropout(vfeats) * (1 + 0.1 * shift)
        return {"logits": states[vmasks] @ self.steps[caps[:, 2]].T}


def config(tmp_path, **dataset) -> dict:
    return {
        "metric": "CrossTaskMetric",
        "predictor": "CrossTaskPredictor",
        "dataset": {**DATASET, **dataset},
        "eval": {"save_path": str(tmp_path / "eval")},
    }


def expected(model: Model, item: dict) -> np.ndarray:
    """The likeliest ordered seconds, from plain loops over windows and all choices."""
    logits: dict[int, list[np.ndarray]] = {}
    with torch.inference_mode():
        rows = iter(model.eval()(*(item[name] for name in ("caps", "cmasks", "vfeats", "vmasks")))["logits"].numpy())
    for window, mask in enumerate(item["vmasks"].tolist()):
        for position, valid in enumerate(mask):
            if valid:
                logits.setdefault(2 * window + position, []).append(next(rows))
    mean = np.array([np.mean(logits[second], axis=0) for second in range(item["video_len"])], dtype=np.float64)
    scores = mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
    choices = itertools.combinations(range(len(scores)), scores.shape[1])
    return np.array(max(choices, key=lambda chosen: sum(scores[t, k] for k, t in enumerate(chosen))))


def test_steps_are_located_where_all_windows_say(tmp_path, items) -> None:
    model = Model().train()
    outputs = CrossTaskPredictor(config(tmp_path))(model, loader(items), device="cpu")
    assert model.training and model.dropout.training
    assert {task: list(videos) for task, videos in outputs["outputs"].items()} == {"23": ["a", "b"], "7": ["a"]}
    for one in items:
        predicted = outputs["outputs"][one["task"]][one["video_id"]]
        assert predicted.shape == (one["video_len"], len(one["steps"])) and predicted.dtype == np.float32
        assert np.argwhere(predicted.T)[:, 1].tolist() == expected(model, one).tolist()
    assert np.argwhere(outputs["targets"]["23"]["a"]).tolist() == [[0, 0], [1, 0], [2, 0], [4, 2]]
    assert np.argwhere(outputs["targets"]["7"]["a"]).tolist() == [[2, 0], [7, 1], [8, 1]]
    assert outputs["skipped"] == []


def test_files(tmp_path, items) -> None:
    predictor = CrossTaskPredictor(config(tmp_path))
    outputs = predictor(Model(), loader(items), device="cpu")
    loaded = predictor.load()
    assert loaded["skipped"] == outputs["skipped"]
    for name in ("outputs", "targets"):
        assert list(loaded[name]) == list(outputs[name])
        for task, videos in outputs[name].items():
            for video, table in videos.items():
                np.testing.assert_array_equal(loaded[name][task][video], table)
                assert loaded[name][task][video].dtype == table.dtype
    stored = np.load(tmp_path / "eval/merged.npz", allow_pickle=False)
    assert stored["sizes"].tolist() == [[9, 3], [3, 3], [9, 2]]
    np.testing.assert_allclose(np.exp(stored["scores"][:3]).sum(), 1, rtol=1e-5)
    records = json.loads((tmp_path / "eval/predictions.json").read_text())
    assert [(record["task"], record["video_id"]) for record in records] == [("23", "a"), ("23", "b"), ("7", "a")]
    assert records[1]["steps"] == [{"step": name, "second": second} for second, name in enumerate(STEPS["23"])]


def test_a_batch_of_videos_of_one_length(tmp_path) -> None:
    items = [item(name, "23", 7, Segment(0, 1, 2)) for name in "abc"]
    predictor = CrossTaskPredictor(config(tmp_path))
    one, three = (predictor(Model(), loader(items, size), device="cpu") for size in (1, 3))
    for video, table in one["outputs"]["23"].items():
        np.testing.assert_array_equal(three["outputs"]["23"][video], table)


def test_a_video_too_short_for_its_steps_is_counted(tmp_path, items, caplog) -> None:
    short = [*items, item("c", "23", 2, Segment(0, 0, 1))]
    predictor = CrossTaskPredictor(config(tmp_path, max_missing=0.25))
    with caplog.at_level(logging.WARNING):
        outputs = predictor(Model(), loader(short), device="cpu")
    assert "1 of 4 videos are left out: 1 with fewer seconds than steps (for example c: 2 s, 3 steps)" in caplog.text
    assert outputs["skipped"] == ["c"] == predictor.load()["skipped"]
    assert "c" not in outputs["outputs"]["23"] and "c" not in outputs["targets"]["23"]
    with pytest.raises(DataError, match="1 of 4 videos are left out"):
        CrossTaskPredictor(config(tmp_path))(Model(), loader(short), device="cpu")
    with pytest.raises(DataError, match="1 of 1 videos are left out"):
        predictor(Model(), loader(short[3:]), device="cpu")


def test_evaluator(tmp_path, items) -> None:
    evaluator = Evaluator(config(tmp_path))
    metrics = evaluator.evaluate(Model(), loader(items), device="cpu")
    record = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert record["main"] == "recall" and record["metrics"] == metrics == evaluator()
    assert record["count"] == 3 and set(metrics["tasks"]) == {"23", "7"}
    assert 0 < metrics["recall_chance"] < 1


def test_damaged_files(tmp_path, items) -> None:
    predictor = CrossTaskPredictor(config(tmp_path))
    predictor(Model(), loader(items), device="cpu")
    with np.load(tmp_path / "eval/merged.npz") as stored:
        arrays = dict(stored)
    for name in ("steps", "seconds", "scores", "targets", "videos", "tasks"):
        np.savez(tmp_path / "eval/merged.npz", **{**arrays, name: arrays[name][:-1]})
        with pytest.raises(DataError, match=r"merged\.npz: its arrays do not belong together"):
            predictor.load()
    del arrays["sizes"]
    np.savez(tmp_path / "eval/merged.npz", **arrays)
    with pytest.raises(DataError, match=r"merged\.npz: cannot be read"):
        predictor.load()


def test_logits_that_are_no_numbers(tmp_path, items) -> None:
    model = Model()
    model.steps.data[5] = float("nan")
    with pytest.raises(DataError, match="task 23, video a: .* not finite"):
        CrossTaskPredictor(config(tmp_path))(model, loader(items), device="cpu")


def test_nothing_to_evaluate(tmp_path) -> None:
    with pytest.raises(NothingEvaluated, match="the test set is empty"):
        CrossTaskPredictor(config(tmp_path))(Model(), [], device="cpu")
    with pytest.raises(DataError, match=r"merged\.npz: no such file"):
        CrossTaskPredictor(config(tmp_path)).load()
