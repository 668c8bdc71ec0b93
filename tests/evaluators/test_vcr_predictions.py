"""VCR: worked examples of the metric, the file for the leaderboard, and the way from records to it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.evaluators.vcr import VCRMetric, VCRPredictor
from mmpt.utils.errors import ConfigError, DataError
from tests.evaluators.downstream_tests import build, evaluated
from tests.processors.downstream_data import section

DATASET = {"video_processor": "VCRVideoProcessor", "text_processor": "SubwordTextProcessor"}


def one_hot(chosen: list[int]) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[chosen]


def test_worked_example() -> None:
    """Answers: right, right, wrong, right; rationales: right, wrong, right, right."""
    metrics = VCRMetric().compute_metrics(
        answer_scores=one_hot([0, 1, 2, 3]),
        answer_labels=[0, 1, 3, 3],
        rationale_scores=one_hot([1, 1, 1, 1])[:, None],
        rationale_labels=[1, 0, 1, 1],
    )
    assert (metrics["Q_A"], metrics["QA_R"], metrics["Q_AR"], metrics["count"]) == (0.75, 0.75, 0.5, 4)
    assert next(iter(metrics)) == "Q_AR"
    assert VCRMetric().print_computed_metrics(metrics) == "Q->AR: 0.5000 - Q->A: 0.7500 - QA->R: 0.7500"


def test_of_all_rationales_those_of_the_right_answer_count() -> None:
    rationales = np.stack([one_hot([answer] * 4) for answer in (3, 2, 1, 0)], axis=1)  # of answer j it is 3 - j
    metrics = VCRMetric().compute_metrics(one_hot([0, 0, 0, 0]), [0, 1, 2, 3], rationales, [3, 2, 0, 0])
    assert (metrics["Q_A"], metrics["QA_R"], metrics["Q_AR"]) == (0.25, 0.75, 0.25)


def test_ties_count_against_the_model() -> None:
    metrics = VCRMetric().compute_metrics(np.zeros((3, 4)), [0, 1, 2])
    assert metrics["Q_A"] == 0 and "Q_AR" not in metrics and "QA_R" not in metrics


def test_questions_without_labels() -> None:
    metrics = VCRMetric().compute_metrics(one_hot([0, 1]), [0, -1])
    assert (metrics["Q_A"], metrics["count"], metrics["unlabelled"]) == (1, 1, 1)
    metrics = VCRMetric().compute_metrics(one_hot([0, 1]), [-1, -1])
    assert metrics == {"count": 0, "unlabelled": 2}
    assert VCRMetric().print_computed_metrics(metrics) == "2 questions without labels"
    with pytest.raises(DataError):
        VCRMetric().compute_metrics()
    with pytest.raises(DataError, match="which is the right one"):
        VCRMetric().compute_metrics(rationale_scores=np.zeros((1, 4, 4)), rationale_labels=[0])


def every_context(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "q.jsonl").read_text().splitlines()]
    for line in lines:
        line["rationale"]["contexts"] = [[262 + number] * 3 for number in range(4)]
    (folder / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("system", ["MERLOT", "Reserve"])
@pytest.mark.parametrize("contexts", [1, 4])
def test_from_records_to_the_submission(tmp_path: Path, system: str, contexts: int) -> None:
    own = section(tmp_path, f"{system.lower()}_vcr")
    if contexts == 4:
        every_context(tmp_path)
    names = {"meta_processor": f"{system}VCRMetaProcessor", "aligner": f"{system}VCRAligner"}
    task, model = build(f"{system}VCR", {**own, **DATASET, **names})
    metrics = evaluated(task, model, tmp_path / "eval", "VCRPredictor", "VCRMetric")
    assert metrics["count"] == 4
    saved = np.load(tmp_path / "eval/vcr.npz")
    assert saved["answer_scores"].shape == (4, 4) and saved["rationale_scores"].shape == (4, contexts, 4)
    submission = tmp_path / "eval/submission.csv"
    assert submission.exists() == (contexts == 4)
    if contexts == 4:
        rows = list(csv.DictReader(submission.open()))
        assert list(rows[0])[:6] == ["annot_id", *(f"answer_{i}" for i in range(4)), "rationale_conditioned_on_a0_0"]
        assert len(rows[0]) == 21 and [row["annot_id"] for row in rows] == [f"val-{number}" for number in range(4)]
        given = [float(rows[1][f"rationale_conditioned_on_a2_{i}"]) for i in range(4)]
        expected = np.exp(saved["rationale_scores"][1, 2]) / np.exp(saved["rationale_scores"][1, 2]).sum()
        np.testing.assert_allclose(given, expected, rtol=1e-4)


def batch(**changes: Any) -> dict[str, Any]:
    given = {"answers": torch.tensor([[0], [1]]), "caps": torch.zeros(2, 4, 3), "video_id": ["a", "b"]}
    return {**given, "question_kind": torch.tensor([0, 0]), "given": torch.tensor([-1, -1]), **changes}


class Scorer(torch.nn.Module):
    capabilities = frozenset({"multiple_choice"})

    def option_scores(self, caps: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return caps[..., 0].float()


def test_faults(tmp_path: Path) -> None:
    predictor = VCRPredictor({"eval": {"save_path": str(tmp_path)}})
    with pytest.raises(ConfigError, match="VCRPredictor needs a model that scores choices"):
        predictor(torch.nn.Linear(1, 1), [batch()])
    for wrong, told in (
        ({"answers": torch.tensor([[0], [4]])}, "question b: label 4, of 4 choices"),
        ({"caps": torch.full((2, 4, 3), torch.nan)}, "question a: a score is not finite"),
        ({"answers": torch.tensor([0, 1, 2])}, "2 items with 3 labels"),
        ({"video_id": ["a", "a"]}, "question a: the same is asked twice"),
        ({"question_kind": torch.tensor([0, 1])}, "1 of 2 choices to make"),
    ):
        with pytest.raises(DataError, match=told):
            predictor(Scorer(), [batch(**wrong)])
    with pytest.raises(DataError, match="no questions with choices"):
        predictor(Scorer(), [{"video_id": ["a"]}])
