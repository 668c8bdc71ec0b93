"""Story ordering: worked examples of the metric, and the way from records to places."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.evaluators.story_ordering import StoryOrderingMetric, StoryOrderingPredictor
from mmpt.utils.errors import ConfigError, DataError
from tests.evaluators.downstream_tests import build, evaluated
from tests.processors.downstream_data import section

DATASET = {
    "meta_processor": "StoryMetaProcessor",
    "video_processor": "FrameVideoProcessor",
    "text_processor": "SubwordTextProcessor",
    "aligner": "StoryAligner",
}


@pytest.mark.parametrize(
    ("order", "spearman", "pairwise", "distance"),
    [
        ([0, 1, 2, 3, 4], 1.0, 1.0, 0.0),
        ([4, 3, 2, 1, 0], -1.0, 0.0, 2.4),
        ([1, 0, 2, 3, 4], 0.9, 0.9, 0.4),
        ([4, 0, 1, 2, 3], 0.0, 0.6, 1.6),
    ],
)
def test_worked_examples(order: list[int], spearman: float, pairwise: float, distance: float) -> None:
    """Spearman of d: 1 - 6 sum d^2 / 120."""
    metrics = StoryOrderingMetric().compute_metrics(orders=[order])
    assert [metrics[name] for name in ("spearman", "pairwise", "distance")] == pytest.approx(
        [spearman, pairwise, distance]
    )
    assert metrics["exact"] == float(spearman == 1) and metrics["count"] == 1


def test_chance_is_what_the_docstring_says() -> None:
    rng = np.random.default_rng(0)
    metrics = StoryOrderingMetric().compute_metrics(orders=[rng.permutation(5) for _ in range(4000)])
    assert metrics["spearman"] == pytest.approx(0, abs=0.03)
    assert metrics["pairwise"] == pytest.approx(0.5, abs=0.02)
    assert metrics["distance"] == pytest.approx(1.6, abs=0.03)
    low, high = metrics["spearman_ci"]
    assert low < metrics["spearman"] < high < 0.05


@pytest.mark.parametrize("orders", [[], [[0, 0, 1]], [[0, 1, 3]], [0, 1]])
def test_what_is_no_order(orders: list) -> None:
    with pytest.raises(DataError):
        StoryOrderingMetric().compute_metrics(orders=orders)


def test_from_records_to_places(tmp_path: Path) -> None:
    task, model = build("MERLOTPretraining", {**section(tmp_path, "vist", max_text_len=16), **DATASET})
    metrics = evaluated(task, model, tmp_path / "eval", "StoryOrderingPredictor", "StoryOrderingMetric")
    assert metrics["count"] == 4
    saved = np.load(tmp_path / "eval/orders.npz")
    assert saved["probabilities"].shape == (4, 5, 5, 3) and saved["ids"].tolist() == [f"story{n}" for n in range(4)]
    told = json.loads((tmp_path / "eval/predictions.json").read_text())
    assert [one["places"] for one in told] == saved["orders"].tolist()
    # each story is averaged over its own draws, whatever the batch
    assert task.test_data is not None
    item = task.test_data[2]
    with torch.no_grad():
        draws = [
            model.order_logits(item["vfeats"][None], item["tokens"][None], draw[None]).softmax(-1)[..., 1:]
            for draw in item["image_index"]
        ]
    np.testing.assert_allclose(saved["probabilities"][2], ((draws[0] + draws[1]) / 2)[0].numpy(), atol=1e-5)


def test_perfect_logits_give_the_true_order(tmp_path: Path) -> None:
    task, _ = build("MERLOTPretraining", {**section(tmp_path, "vist"), **DATASET})

    class Knowing(torch.nn.Module):
        def order_logits(self, vfeats: torch.Tensor, tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            i, j = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
            label = torch.where(i == j, 1, torch.where(i < j, 2, 3))
            return 5 * torch.nn.functional.one_hot(label, 4).float().expand(len(vfeats), 5, 5, 4)

    metrics = evaluated(task, Knowing(), tmp_path / "eval", "StoryOrderingPredictor", "StoryOrderingMetric")
    assert metrics["exact"] == metrics["spearman"] == metrics["pairwise"] == 1 and metrics["distance"] == 0


def test_other_models_and_batches_are_refused(tmp_path: Path) -> None:
    predictor = StoryOrderingPredictor({"eval": {"save_path": str(tmp_path)}})
    with pytest.raises(ConfigError, match="needs order_logits"):
        predictor(torch.nn.Linear(1, 1), [])
    _, model = build("MERLOTPretraining", {**section(tmp_path, "vist", 1), **DATASET})
    with pytest.raises(DataError, match="holds no stories"):
        predictor(model, [{"video_id": ["x"]}])
