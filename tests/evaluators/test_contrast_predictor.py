"""Contrastive objectives as retrieval over a whole test set: known ranks, equal candidates, files, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmpt.evaluators.contrast_predictor import ContrastMetric, ContrastPredictor
from mmpt.utils.errors import ConfigError, DataError


class Echo(nn.Module):
    """Returns what it is given."""

    def forward(self, x: Tensor, y: Tensor, other: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"x": x, "y": y, "other": other}

    def contrasted(self, outputs: dict[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        return {
            "sound": (outputs["x"][0], outputs["y"][0], outputs["other"][0]),
            "text": (outputs["x"][0], outputs["x"][0]),
        }


def predictor(folder: Path) -> ContrastPredictor:
    return ContrastPredictor(OmegaConf.create({"eval": {"save_path": str(folder)}}))


def batches() -> list[dict[str, Any]]:
    axes = torch.eye(6)
    return [
        {"x": axes[:2][None], "y": axes[[0, 2]][None], "other": axes[5:][None]},
        {"x": axes[3:4][None], "y": axes[3:4][None], "other": axes[1:2][None]},
    ]


def test_rows_of_all_batches_are_candidates(tmp_path: Path) -> None:
    outputs = predictor(tmp_path)(Echo(), batches(), "cpu")
    sound = outputs["contrasts"]["sound"]
    assert sound["queries"].shape == (3, 6) and sound["candidates"].shape == (5, 6)
    metrics = ContrastMetric().compute_metrics(**outputs)
    assert next(iter(metrics)) == "sound_R1"
    # the second query's own candidate scores 0, as three others do, and that of another batch scores 1
    assert metrics["sound_R1"] == pytest.approx(2 / 3) and metrics["sound_R5"] == 1
    assert metrics["sound_chance"] == 1 / 5 and metrics["sound_count"] == 3 and metrics["text_R1"] == 1
    assert "sound: R@1 0.6667 (chance 0.2000)" in ContrastMetric().print_computed_metrics(metrics)
    loaded = predictor(tmp_path).load()
    assert ContrastMetric().compute_metrics(**loaded) == metrics


def test_candidates_that_are_alike_are_one() -> None:
    queries = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    candidates = queries * np.array([[1], [1 + 1e-6], [1]], np.float32)
    metrics = ContrastMetric().compute_metrics({"text": {"queries": queries, "candidates": candidates}})
    assert metrics["text_R1"] == 1 and metrics["text_candidates"] == 2


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Linear compares no vectors in pre-training"):
        predictor(tmp_path)(nn.Linear(1, 1), batches(), "cpu")
    with pytest.raises(DataError, match="no contrastive objective"):
        ContrastMetric().compute_metrics({})
    empty = np.zeros((0, 2), np.float32)
    with pytest.raises(DataError, match="text: the test set has nothing to find"):
        ContrastMetric().compute_metrics({"text": {"queries": empty, "candidates": empty}})
