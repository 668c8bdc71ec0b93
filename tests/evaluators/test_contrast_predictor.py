"""Contrastive objectives as retrieval over a whole test set: known ranks, equal candidates, files, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmpt.evaluators.contrast_predictor import ContrastMetric, ContrastPredictor
from mmpt.models.base import Contrast
from mmpt.utils.errors import ConfigError, DataError


class Echo(nn.Module):
    """Returns what it is given."""

    def forward(self, x: Tensor, y: Tensor, other: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"x": x, "y": y, "other": other}

    def contrasted(self, outputs: dict[str, Tensor]) -> dict[str, Contrast]:
        x = outputs["x"][0]
        return {
            "sound": Contrast(x, outputs["y"][0], outputs["other"][0]),
            "text": Contrast(x, x, keys=x.long()),
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
    assert loaded["contrasts"]["text"]["keys"].dtype == np.int64 and "keys" not in loaded["contrasts"]["sound"]


def test_candidates_of_the_same_words_are_one_however_their_vectors_are_rounded() -> None:
    """In batches of other sizes sums are in other orders: equal spans get vectors that differ by 1e-7 and more."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 40, 200)[:, None]
    vectors = rng.normal(size=(40, 64)).astype(np.float32)[words[:, 0]]
    for noise in (1e-7, 1e-3):
        candidates = vectors * (1 + noise * rng.standard_normal(vectors.shape).astype(np.float32))
        pair = {"queries": vectors, "candidates": candidates, "keys": words}
        metrics = ContrastMetric().compute_metrics({"text": pair})
        assert metrics["text_R1"] == 1 and metrics["text_candidates"] == len(np.unique(words)) < 41
        assert metrics["text_chance"] == 1 / metrics["text_candidates"]
        unlike = ContrastMetric().compute_metrics({"text": {"queries": vectors, "candidates": candidates}})
        assert unlike["text_R1"] < 0.5 and unlike["text_candidates"] == 200


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Linear compares no vectors in pre-training"):
        predictor(tmp_path)(nn.Linear(1, 1), batches(), "cpu")
    with pytest.raises(DataError, match="no contrastive objective"):
        ContrastMetric().compute_metrics({})
    empty = np.zeros((0, 2), np.float32)
    with pytest.raises(DataError, match="text: the test set has nothing to find"):
        ContrastMetric().compute_metrics({"text": {"queries": empty, "candidates": empty}})
