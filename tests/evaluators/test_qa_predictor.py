"""Multiple choice on small models: scores, files, how often videos and texts are encoded, faults."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators import Evaluator
from mmpt.evaluators.base import NothingEvaluated
from mmpt.evaluators.qa_predictor import QAPredictor, read_answers
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import resolve_class

DIM = 6
LENGTH = 7


class Model(nn.Module):
    """Text vectors from a table by the first word, video vectors by masked mean; counts what it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(50, DIM, generator=torch.Generator().manual_seed(0)))
        self.dropout = nn.Dropout(0.5)
        self.videos = self.texts = 0

    def encode_video(self, vfeats, vmasks):
        self.videos += len(vfeats)
        weights = vmasks.float() / vmasks.sum(1, keepdim=True)
        return (self.dropout(vfeats) * weights[:, :, None]).sum(1)

    def encode_text(self, caps, cmasks):
        self.texts += len(caps)
        assert cmasks.dtype == torch.bool
        return self.table[caps[:, 2]]


class JointModel(nn.Module):
    """Knows nothing but pairs: the text changes the video's vector."""

    capabilities = frozenset()

    def __init__(self, model: Model, outputs: tuple[str, str] = ("pooled_video", "pooled_text")) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def encode_text(self, caps, cmasks):
        raise AssertionError("its text depends on the video")

    def forward(self, caps, cmasks, vfeats, vmasks, **_):
        assert len(caps) == len(vfeats)
        text = self.model.encode_text(caps, cmasks)
        return dict(zip(self.outputs, (self.model.encode_video(vfeats, vmasks) + text, text), strict=True))


def question(number: int, words: list[int], answer: int, slots: int = 0, **more) -> dict:
    rng = np.random.default_rng(number)
    rows = max(slots, len(words))
    caps = np.zeros((rows, LENGTH), np.int64)
    caps[:, :2], caps[:, 3] = (2, 3), 3
    caps[: len(words), 2] = words
    item = {
        "caps": torch.from_numpy(caps),
        "cmasks": torch.arange(LENGTH).expand(rows, -1) < 4,
        "vfeats": torch.from_numpy(rng.standard_normal((8, DIM)).astype(np.float32)),
        "vmasks": torch.arange(8) < 3 + number % 5,
        "answers": torch.tensor([answer]),
        "video_id": f"-v{number}",
        "question": f"which, {number}?",
        "options": [f"word {word}" for word in words],
        "idx": number,
    }
    if slots:
        item["option_mask"] = torch.arange(rows) < len(words)
    return {**item, **more}


ITEMS = [question(i, [10 + (7 * i + j) % 11 for j in range(5)], i % 5) for i in range(10)]


def loader(items: list[dict], batch_size: int = 4) -> DataLoader:
    return DataLoader(items, batch_size=batch_size, collate_fn=MMDataset.collater)


def config(tmp_path, **more) -> dict:
    return {"metric": "QAMetric", "predictor": "QAPredictor", "eval": {"save_path": str(tmp_path / "eval")}, **more}


def expected(model: Model, item: dict) -> list[float]:
    video = item["vfeats"][item["vmasks"]].mean(0)
    words = item["caps"][: len(item["options"]), 2]
    return (model.table[words] @ video).tolist()


class TestQAPredictor:
    def test_scores_and_files(self, tmp_path):
        model = Model()
        outputs = QAPredictor(config(tmp_path))(model, loader(ITEMS), device="cpu")
        scores = np.array([expected(model, item) for item in ITEMS])
        assert outputs["scores"] == pytest.approx(scores, rel=1e-5) and outputs["scores"].dtype == np.float32
        assert outputs["targets"].tolist() == [i % 5 for i in range(10)]
        saved = np.load(tmp_path / "eval" / "merged.npy", allow_pickle=False)
        assert saved.dtype == np.int64 and saved.tolist() == scores.argmax(1).tolist() == outputs["outputs"].tolist()
        records = json.loads((tmp_path / "eval" / "predictions.json").read_text())
        assert list(records[3]) == [*("video_id", "question", "options", "answer", "prediction", "correct", "scores")]
        assert records[3]["video_id"] == "-v3" and records[3]["options"] == ITEMS[3]["options"]
        assert records[3]["question"] == "which, 3?" and records[3]["answer"] == 3
        assert records[3]["scores"] == pytest.approx(scores[3], rel=1e-5)

    def test_options_that_all_questions_share_are_written_once(self, tmp_path):
        words = list(range(10, 40))
        items = [question(i, words, 3 * i) for i in range(6)]
        predictor = QAPredictor(config(tmp_path))
        outputs = predictor(Model(), loader(items), device="cpu")
        content = json.loads((tmp_path / "eval" / "predictions.json").read_text())
        assert content["options"] == [f"word {word}" for word in words] and len(content["questions"]) == 6
        for row, record in enumerate(content["questions"]):
            best = np.argsort(-outputs["scores"][row])[:5].tolist()
            assert {int(number) for number in record["scores"]} == {*best, 3 * row}
            assert "options" not in record and record["prediction"] == best[0]
            assert record["correct"] == (best[0] == 3 * row)
        for name, value in predictor.load().items():
            assert value.tolist() == outputs[name].tolist() and value.dtype == outputs[name].dtype
        read = read_answers(tmp_path / "eval" / "predictions.json")
        assert read[5]["options"] is read[0]["options"] and read[5]["scores"][15] == outputs["scores"][5, 15]
        metric = Evaluator(config(tmp_path))()
        assert metric["acc"] == np.mean([record["correct"] for record in content["questions"]])
        (tmp_path / "eval" / "scores.npz").unlink()
        with pytest.raises(DataError, match=r"scores\.npz: no such file"):
            predictor.load()
        content["questions"].pop()
        np.savez(tmp_path / "eval" / "scores.npz", scores=outputs["scores"])
        (tmp_path / "eval" / "predictions.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="holds no predictions"):
            predictor.load()

    def test_equal_options_are_kept_once_in_memory(self, tmp_path):
        predictor, known = QAPredictor(config(tmp_path)), {}
        for number in range(3):
            batch = MMDataset.collater([question(number, [10, 11], 0, options=["".join("ab"), "c"])])
            (one,) = predictor._answers(batch, np.zeros((1, 2), np.float32), known)
            assert one.options is next(iter(known))
        assert len(known) == 1

    @pytest.mark.parametrize(("words", "correct"), [([10, 10, 11], False), ([10, 12, 11], True)])
    def test_a_tie_is_not_correct(self, tmp_path, words, correct):
        model = Model()
        with torch.no_grad():
            model.table[10] = ITEMS[0]["vfeats"][ITEMS[0]["vmasks"]].mean(0) * 100
        evaluator = Evaluator(config(tmp_path))
        metrics = evaluator.evaluate(model, loader([question(0, words, 0)]), device="cpu")
        (record,) = json.loads((tmp_path / "eval" / "predictions.json").read_text())
        assert record["prediction"] == record["answer"] == 0
        assert record["correct"] is correct and metrics["acc"] == float(correct)

    def test_a_right_answer_that_is_no_option(self, tmp_path):
        with pytest.raises(DataError, match="video -v0: the right answer 2 is none of its 2 options"):
            QAPredictor(config(tmp_path))(Model(), loader([question(0, [10, 11], 2, slots=4)]), device="cpu")

    def test_what_is_loaded_is_what_was_predicted(self, tmp_path):
        items = [*ITEMS, question(11, [10, 11], 1, slots=5)]
        items = [{**item, "option_mask": torch.arange(5) < len(item["options"])} for item in items]
        predictor = QAPredictor(config(tmp_path))
        outputs = predictor(Model(), loader(items), device="cpu")
        for name, value in predictor.load().items():
            assert value.tolist() == outputs[name].tolist() and value.dtype == outputs[name].dtype

    @pytest.mark.parametrize("batch_size", [1, 3, 10])
    def test_every_video_is_encoded_once_and_every_text_once_per_batch(self, tmp_path, batch_size):
        model = Model()
        QAPredictor(config(tmp_path))(model, loader(ITEMS, batch_size), device="cpu")
        assert model.videos == 10
        batches = [ITEMS[start : start + batch_size] for start in range(0, 10, batch_size)]
        assert model.texts == sum(len({option for item in batch for option in item["options"]}) for batch in batches)

    def test_the_model_is_not_in_training_mode(self, tmp_path):
        model = Model().train()
        one = QAPredictor(config(tmp_path))(model, loader(ITEMS), device="cpu")["scores"]
        assert (
            model.training
            and (one == QAPredictor(config(tmp_path))(model, loader(ITEMS, 3), device="cpu")["scores"]).all()
        )

    def test_questions_with_fewer_options(self, tmp_path):
        items = [question(0, [10, 11], 1, slots=4), question(1, [10, 11, 12, 13], 3, slots=4)]
        model = Model()
        with torch.no_grad():
            model.table[0] = 100.0  # the empty texts would win
        outputs = QAPredictor(config(tmp_path))(model, loader(items), device="cpu")
        assert np.isneginf(outputs["scores"]).tolist() == [[False, False, True, True], [False] * 4]
        records = json.loads((tmp_path / "eval" / "predictions.json").read_text())
        assert [len(record["scores"]) for record in records] == [len(r["options"]) for r in records] == [2, 4]
        assert records[0]["prediction"] in (0, 1)

    def test_batches_may_have_different_numbers_of_options(self, tmp_path):
        items = [question(0, [10, 11], 1), question(1, [10, 11, 12], 2)]
        outputs = QAPredictor(config(tmp_path))(Model(), loader(items, 1), device="cpu")
        assert outputs["scores"].shape == (2, 3) and np.isneginf(outputs["scores"][0, 2])

    def test_models_that_know_pairs_only_see_each_pair(self, tmp_path):
        model = Model()
        outputs = QAPredictor(config(tmp_path))(JointModel(model), loader(ITEMS), device="cpu")
        item = ITEMS[2]
        text = model.table[item["caps"][:, 2]]
        video = item["vfeats"][item["vmasks"]].mean(0)
        assert outputs["scores"][2] == pytest.approx(((video + text) * text).sum(1).detach().numpy(), rel=1e-4)
        with pytest.raises(ConfigError, match="JointModel gives no pooled_video"):
            QAPredictor(config(tmp_path))(JointModel(model, ("a", "b")), loader(ITEMS), device="cpu")

    def test_options_are_decoded_where_the_data_have_no_texts(self, tmp_path):
        items = [{k: v for k, v in item.items() if k not in ("options", "question")} for item in ITEMS]
        dataset = {"bert_name": "tests/data/tiny_bert", "use_fast": False}
        QAPredictor(config(tmp_path, dataset=dataset))(Model(), loader(items), device="cpu")
        records = json.loads((tmp_path / "eval" / "predictions.json").read_text())
        assert records[0]["options"] == [f"w{word - 5}" for word in range(10, 15)] and records[0]["question"] == ""

    def test_a_score_that_is_not_finite_names_the_video(self, tmp_path):
        model = Model()
        with torch.no_grad():
            model.table[12] = float("nan")
        with pytest.raises(DataError, match="video -v0: a score is not finite"):
            QAPredictor(config(tmp_path))(model, loader(ITEMS), device="cpu")
        assert not (tmp_path / "eval" / "merged.npy").exists()

    def test_data_of_another_task_and_no_data(self, tmp_path):
        pairs = [{name: item[name][0] for name in ("caps", "cmasks", "vfeats", "vmasks")} for item in ITEMS]
        with pytest.raises(DataError, match="dataset.aligner must be that of QA"):
            QAPredictor(config(tmp_path))(Model(), loader(pairs), device="cpu")
        with pytest.raises(NothingEvaluated):
            QAPredictor(config(tmp_path))(Model(), [], device="cpu")

    def test_damaged_files(self, tmp_path):
        predictor = QAPredictor(config(tmp_path))
        with pytest.raises(DataError, match="no such file"):
            predictor.load()
        (tmp_path / "eval").mkdir()
        for content in ("{", "[]", "{}", '{"options": [], "questions": [1]}', '[{"scores": [1]}]', "[1]"):
            (tmp_path / "eval" / "predictions.json").write_text(content)
            with pytest.raises(DataError, match="predictions.json"):
                predictor.load()


def test_the_evaluator_writes_the_metrics(tmp_path):
    evaluator = Evaluator(config(tmp_path))
    metrics = evaluator.evaluate(Model(), loader(ITEMS), device="cpu")
    scores = np.array([expected(Model(), item) for item in ITEMS])
    assert metrics["acc"] == (scores.argmax(1) == np.arange(10) % 5).mean() and metrics["chance"] == pytest.approx(0.2)
    record = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert record["main"] == "acc" and record["count"] == 10
    assert evaluator() == metrics


@pytest.mark.parametrize("name", ["MMFusionSeparate", "MMFusionShare", "MMFusionJoint"])
def test_the_systems(tmp_path, name):
    """Scores are those of the published way: the video repeated for each option, dot products of pairs."""
    settings = resolve_class("model", name).tiny_config()
    settings.model.input_dim = DIM
    if name == "MMFusionJoint":
        settings.dataset.num_iso_layer = settings.dataset.get("num_iso_layer") or 1
    torch.manual_seed(0)
    model = resolve_class("model", name)(settings).eval()
    outputs = QAPredictor(config(tmp_path))(model, loader(ITEMS), device="cpu")
    with torch.no_grad():
        for item, scores in zip(ITEMS[:3], outputs["scores"], strict=False):
            video, mask = item["vfeats"].expand(5, 8, DIM), item["vmasks"].expand(5, 8)
            pairs = model(caps=item["caps"], cmasks=item["cmasks"], vfeats=video, vmasks=mask)
            wanted = (pairs["pooled_video"] * pairs["pooled_text"]).sum(1)
            assert torch.allclose(torch.from_numpy(scores), wanted, atol=1e-4, rtol=1e-5)


class Choosing(nn.Module):
    """Scores options itself, of one text that holds them all: by the words of the text."""

    capabilities = frozenset({"fusion", "multiple_choice"})

    def option_scores(self, caps, cmasks, vfeats, vmasks, option_mask, objective, **_):
        assert objective == ["options"] * len(caps) and not self.training
        return (caps[:, :4] * 7 % 11).float()


class TestModelsThatChoose:
    def test_the_model_scores_the_options(self, tmp_path):
        items = []
        for number in range(5):
            item = question(number, [10, 11, 12, 13 + number], number % 3, objective="options")
            item["caps"], item["cmasks"] = torch.arange(number, number + LENGTH), torch.ones(LENGTH, dtype=torch.bool)
            item["option_mask"] = torch.tensor([True, True, True, number > 2])
            items.append(item)
        outputs = QAPredictor(config(tmp_path))(Choosing(), loader(items, 2), device="cpu")
        wanted = np.array([[7 * (n + j) % 11 for j in range(4)] for n in range(5)], dtype=np.float32)
        wanted[:3, 3] = -np.inf
        assert np.array_equal(outputs["scores"], wanted)
        records = read_answers(tmp_path / "eval" / "predictions.json")
        assert [len(record["options"]) for record in records] == [3, 3, 3, 4, 4]
        assert QAPredictor(config(tmp_path)).load()["scores"].tolist() == wanted.tolist()

    def test_options_without_texts_have_numbers(self, tmp_path):
        item = question(0, [10, 11, 12, 13], 1, objective="options", option_mask=torch.ones(4, dtype=torch.bool))
        item["caps"], item["cmasks"] = item["caps"][0], item["cmasks"][0]
        del item["options"]
        settings = config(tmp_path, dataset={"bert_name": "tests/data/tiny_bert"})
        QAPredictor(settings)(Choosing(), loader([item]), device="cpu")
        assert read_answers(tmp_path / "eval" / "predictions.json")[0]["options"] == [f"option {n}" for n in range(4)]
