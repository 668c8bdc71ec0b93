"""Open-ended questions: answers, ranks, answers that cannot be given, the corpus's answers, files, metric and page."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators import Evaluator
from mmpt.evaluators.metrics import wilson_interval
from mmpt.evaluators.open_qa_metrics import OpenQAMetric
from mmpt.evaluators.open_qa_predictor import OpenQAPredictor, question_type, read_open_answers
from mmpt.evaluators.report import build_report, render
from mmpt.evaluators.results import Result
from mmpt.evaluators.task_views import OpenQAView
from mmpt.utils.errors import ConfigError, DataError

BERT = "tests/data/tiny_bert"
PIECES = 64
QUESTIONS = ["what is it?", "Who runs?", "what is he doing?", "is it red?", "how many?", "what?", "who?"]


class Answering(nn.Module):
    """Scores answers by what the video shows: vfeats are the scores."""

    capabilities = frozenset({"answering"})

    def answer_scores(self, vfeats: torch.Tensor, caps: torch.Tensor, **_: Any) -> torch.Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return vfeats


class Questions(list):
    """Items of scores (N, C) and right answers; ``labels`` are the data set's answers."""

    def __init__(self, scores: np.ndarray, answers: list[int], labels: list[str] | None = None, **more: list) -> None:
        caps = torch.tensor([2, 5, 6, 3])
        super().__init__(
            {
                "vfeats": torch.from_numpy(scores[n]).float(),
                "caps": caps,
                "cmasks": caps != 0,
                "answers": torch.tensor(answer),
                "video_id": f"v{n}",
                "question": QUESTIONS[n % len(QUESTIONS)],
                **{key: values[n] for key, values in more.items()},
            }
            for n, answer in enumerate(answers)
        )
        self.meta_processor = SimpleNamespace(labels=labels)


def config(folder: Path, **options: Any) -> dict[str, Any]:
    dataset = {"bert_name": BERT, "use_fast": True, **options.pop("dataset", {})}
    names = {"metric": "OpenQAMetric", "predictor": "OpenQAPredictor"}
    return {**names, "dataset": dataset, "eval": {"save_path": str(folder), **options}}


def loader(items: Questions, size: int = 3) -> DataLoader:
    return DataLoader(items, batch_size=size, collate_fn=MMDataset.collater)


def answered(folder: Path, items: Questions, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the predictor says, and its predictions.json."""
    predictor = OpenQAPredictor(config(folder, **options))
    predictor.make_folder()
    outputs = predictor(Answering(), loader(items), device="cpu")
    loaded = predictor.load()
    assert all(np.array_equal(loaded[name], outputs[name]) for name in outputs)
    assert np.load(folder / "merged.npy").tolist() == outputs["outputs"].tolist()
    return outputs, json.loads((folder / "predictions.json").read_text())


@pytest.fixture
def scores() -> np.ndarray:
    """Return scores of 7 questions and 9 answers, some equal."""
    return np.random.default_rng(0).integers(0, 12, (7, 9)).astype(np.float32)


def test_answers_of_a_list_by_name(tmp_path, scores) -> None:
    labels = [f"label {n}" for n in range(9)]
    answers = [0, 3, -100, 8, 1, 5, 2]
    outputs, records = answered(tmp_path, Questions(scores, answers, labels))
    assert outputs["targets"].tolist() == answers and outputs["ids"].tolist() == [f"v{n}" for n in range(7)]
    assert outputs["types"].tolist() == ["what", "who", "what", "other", "how", "what", "who"]
    for n, answer in enumerate(answers):
        order = sorted(range(9), key=lambda c: -scores[n, c])
        rank = 0 if answer < 0 else sum(scores[n, c] >= scores[n, answer] for c in range(9))  # ties count against
        assert outputs["outputs"][n] == order[0] and outputs["ranks"][n] == rank
        record = records[n]
        assert [best["answer"] for best in record["best"]] == [labels[c] for c in order[:5]]
        assert [best["score"] for best in record["best"]] == [scores[n, c] for c in order[:5]]
        assert record["prediction"] == labels[order[0]] and record["correct"] == (rank == 1)
        assert record["rank"] == (rank or None) and record["answer"] == (labels[answer] if answer >= 0 else "")


def test_word_pieces_have_the_tokenizers_names(tmp_path) -> None:
    scores = np.zeros((3, PIECES), np.float32)
    scores[[0, 1, 2], [7, 20, 9]] = 1
    outputs, records = answered(tmp_path, Questions(scores, [7, 8, -100], answer_text=["w2", "w3", "no piece"]))
    assert [record["prediction"] for record in records] == ["w2", "w15", "w4"]
    assert [record["answer"] for record in records] == ["w2", "w3", "no piece"]
    assert outputs["ranks"].tolist() == [1, PIECES, 0]


def test_the_answers_of_the_corpus_alone(tmp_path) -> None:
    """The likeliest word piece is none of the corpus's answers; 8 is right, but the corpus does not have it."""
    scores = np.tile(np.arange(PIECES, dtype=np.float32), (3, 1))
    items = Questions(scores, [7, 6, 8], ["w1", "w2", "two words", "unheard"])
    plain, _ = answered(tmp_path / "all", items)
    assert plain["outputs"].tolist() == [63] * 3 and plain["ranks"].tolist() == [57, 58, 56]
    outputs, records = answered(tmp_path / "corpus", items, answers="corpus")
    assert outputs["outputs"].tolist() == [7] * 3 and outputs["ranks"].tolist() == [1, 2, 0]
    assert outputs["targets"].tolist() == [7, 6, -100]
    assert [best["answer"] for best in records[0]["best"]] == ["w2", "w1"]


class Training:
    """A list of training questions."""

    def __init__(self, section: Any) -> None:
        assert section.split == "train" and section.frame_path is None
        self.answers = ["w2", "w3"]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> tuple[str, Any]:
        return "video", SimpleNamespace(answer_text=self.answers[row])


def test_without_a_vocabulary_the_training_split_has_the_answers(tmp_path) -> None:
    items = Questions(np.tile(np.arange(PIECES, dtype=np.float32), (2, 1)), [7, 9])
    with pytest.raises(ConfigError, match="corpus needs a vocabulary of answers in the data, or dataset.train_path"):
        answered(tmp_path, items, answers="corpus")
    dataset = {"train_path": "x", "frame_path": "y", "meta_processor": f"{__name__}:Training", "split": "test"}
    outputs, _ = answered(tmp_path, items, answers="corpus", dataset=dataset)
    assert outputs["outputs"].tolist() == [8, 8] and outputs["ranks"].tolist() == [2, 0]


def test_metric_counts_what_cannot_be_said_as_wrong() -> None:
    ranks = [1, 2, 5, 6, 0, 1, 1, 0]
    types = ["what", "what", "who", "who", "what", "how", "what", "who"]
    targets = [4, 4, 2, 3, -100, 4, 1, -100]
    found = OpenQAMetric({"eval": {"size_test": 10}}).compute_metrics(ranks=ranks, targets=targets, types=types)
    assert (found["acc"], found["acc5"], found["adjusted_acc"]) == (3 / 8, 5 / 8, 0.3)
    assert (found["count"], found["unreachable"], found["majority"]) == (8, 2, 3 / 8)
    assert found["acc_ci"] == list(wilson_interval(3, 8)) and found["acc5_ci"] == list(wilson_interval(5, 8))
    assert found["by_type"] == {
        "what": {"acc": 0.5, "count": 4},
        "who": {"acc": 0.0, "count": 3},
        "how": {"acc": 1.0, "count": 1},
    }
    assert found["adjusted_acc"] == found["acc"] * 8 / 10
    plain = OpenQAMetric().compute_metrics(ranks=ranks)
    assert "adjusted_acc" not in plain and "by_type" not in plain and "majority" not in plain
    line = OpenQAMetric().print_computed_metrics(found)
    assert line == "acc: 0.3750 - top-5: 0.6250 - adjusted acc: 0.3000"
    with pytest.raises(ConfigError, match="eval.size_test: 7, but the test set has 8 questions"):
        OpenQAMetric({"eval": {"size_test": 7}}).compute_metrics(ranks=ranks)
    with pytest.raises(DataError, match="ranks of 0"):
        OpenQAMetric().compute_metrics()


@pytest.mark.parametrize(
    ("question", "kind"),
    [("Who is it", "who"), ("is who it", "other"), ("", "other"), ('"What\'s up?"', "what"), ("how  many", "how")],
)
def test_types(question, kind) -> None:
    assert question_type(question) == kind


def test_a_test_with_its_page(tmp_path, scores) -> None:
    scores[:, 8] = 0
    scores[0, 0] = scores[1, 3] = 50
    labels = [f"<label {n}>" for n in range(9)]
    items = Questions(scores, [0, 3, -100, 8, 1, 5, 2], labels, answer_text=["a", "b", "unheard of", "", "", "", ""])
    folder = tmp_path / "run"
    metrics = Evaluator(config(folder, size_test=14)).evaluate(Answering(), loader(items), device="cpu")
    assert metrics["unreachable"] == 1 and metrics["adjusted_acc"] == metrics["acc"] / 2
    report = build_report("Questions", [folder])
    assert not report.problems
    text = render(report)
    assert "open questions" in text and "&lt;label 3&gt;" in text and "<label 3>" not in text
    assert "always the commonest answer 14.3 %" in text
    record = json.loads((folder / "metrics.json").read_text())
    cards = "".join(OpenQAView(Result("run", folder, record)).parts())
    assert "unheard of (not among the model&#x27;s answers)" in cards
    assert '<li class="right" data-mark="✓">&lt;label 0&gt;</li>' in cards
    (folder / "predictions.json").write_text("[]")
    assert "holds no answers to open questions" in build_report("Questions", [folder]).problems[0]


def test_what_cannot_be_answered_is_named(tmp_path, scores) -> None:
    with pytest.raises(ConfigError, match="eval.answers: 'all' is neither"):
        OpenQAPredictor(config(tmp_path, answers="all"))
    with pytest.raises(ConfigError, match="needs a model that answers questions; Linear does not"):
        OpenQAPredictor(config(tmp_path))(nn.Linear(1, 1), loader(Questions(scores, [0])), device="cpu")
    with pytest.raises(DataError, match=r"up to number 9, for scores of shape \(1, 9\)"):
        answered(tmp_path, Questions(scores, [9]))
    scores[1, 2] = np.nan
    with pytest.raises(DataError, match="video v1: a score is not finite"):
        answered(tmp_path, Questions(scores, [0, 1]))


@pytest.mark.parametrize("content", ["[5]", "[]", "{}", '[{"video_id": "a"}]'])
def test_damaged_answers_are_named(tmp_path, content) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"predictions\.json: holds no answers to open questions"):
        read_open_answers(path)
