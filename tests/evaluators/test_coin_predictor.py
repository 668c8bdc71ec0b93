"""Segmentation of a test set with models whose answers are known: files, averages, background, faults."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators import Evaluator
from mmpt.evaluators.base import NothingEvaluated
from mmpt.evaluators.coin_predictor import COINPredictor, COINZSPredictor, label_threshold
from mmpt.models import MMFusionJoint, MMFusionSeparate, MMFusionShare
from mmpt.processors.base import VideoProcessor
from mmpt.processors.coin import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
)
from mmpt.utils.errors import ConfigError, DataError

LABELS = {1: "a b", 2: "c d e", 4: "f"}
SECONDS = {"first": 11, "second": 4, "third": 7}
SEGMENTS = {"first": [(1, (0, 3)), (4, (5.5, 8))], "second": [(2, (0, 4))], "third": []}


@pytest.fixture
def config(tmp_path):
    database = {
        name: {
            "subset": "testing",
            "annotation": [{"id": n, "label": LABELS[n], "segment": times} for n, times in segments],
        }
        for name, segments in SEGMENTS.items()
    }
    (tmp_path / "COIN.json").write_text(json.dumps({"database": database}))
    (tmp_path / "feat").mkdir()
    for number, (name, seconds) in enumerate(SECONDS.items()):
        features = np.random.default_rng(number).standard_normal((seconds, 512))
        np.save(tmp_path / "feat" / f"{name}.npy", features.astype(np.float16))
    return {
        "dataset": {
            "split": "test",
            "test_path": str(tmp_path / "COIN.json"),
            "vfeat_dir": str(tmp_path / "feat"),
            "bert_name": "tests/data/tiny_bert",
            "use_fast": False,
            "max_video_len": 4,
            "max_len": 20,
            "sliding_window": 2,
        },
        "metric": "COINActionSegmentationMetric",
        "predictor": "COINPredictor",
        "eval": {"save_path": str(tmp_path / "eval")},
    }


def loader_of(config):
    section = config["dataset"]
    parts = (
        COINActionSegmentationMetaProcessor(section),
        VideoProcessor(section),
        COINActionSegmentationTextProcessor(section),
        COINActionSegmentationAligner(section),
    )
    return DataLoader(MMDataset(*parts), batch_size=1, collate_fn=MMDataset.collater)


class Linear(nn.Module):
    """Logits that depend on the second and on its place in the window, NaN on padding."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(512, classes, generator=torch.Generator().manual_seed(5)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, caps, cmasks, vfeats, vmasks, **_):
        assert caps.shape == (len(vfeats), 4) and cmasks.tolist() == [[False, True, False, True]] * len(vfeats)
        place = (
            torch.arange(vfeats.shape[1])[:, None] * torch.tensor([0.0, 9.0, -9.0, 3.0, 1.0])[: self.weight.shape[1]]
        )
        logits = self.dropout(vfeats) @ self.weight + place
        return {"logits": logits.masked_fill(~vmasks[..., None], torch.nan)}


def expected_scores(features, weight):
    """Average by hand over the windows 0-4, 2-6, 4-8 ... that hold a second."""
    place = np.arange(4)[:, None] * np.array([0.0, 9.0, -9.0, 3.0, 1.0])
    seconds = len(features)
    last = max(0, -(-(seconds - 4) // 2))
    rows = []
    for second in range(seconds):
        inside = [2 * w for w in range(last + 1) if 2 * w <= second < 2 * w + 4]
        rows.append(np.mean([features[second] @ weight + place[second - start] for start in inside], axis=0))
    return np.stack(rows)


def test_classes_files_and_load(config, tmp_path):
    model = Linear().train()
    outputs = COINPredictor(config)(model, loader_of(config), device="cpu")
    assert model.training and model.dropout.training
    weight = model.weight.detach().numpy()
    wanted = []
    for name in SECONDS:
        features = np.load(tmp_path / "feat" / f"{name}.npy").astype(np.float32)
        scores = expected_scores(features, weight)
        assert name != "first" or 3 in scores.argmax(1)
        scores[:, 3] = -np.inf  # the data have no class 3
        wanted.append(scores.argmax(1))
    assert outputs["Y_pred"].tolist() == np.concatenate(wanted).tolist()
    truth = [1, 1, 1, 0, 0, 4, 4, 4, 0, 0, 0] + [2] * 4 + [0] * 7
    assert outputs["Y_true"].tolist() == truth and outputs["Y_true"].dtype == np.int64
    assert outputs["lengths"].tolist() == [11, 4, 7] and outputs["ids"].tolist() == list(SECONDS)
    loaded = COINPredictor(config).load()
    assert sorted(loaded) == sorted(outputs)
    for key, value in outputs.items():
        assert np.array_equal(loaded[key], value), key
    shown = json.loads((tmp_path / "eval" / "predictions.json").read_text())
    assert [video["video_id"] for video in shown] == list(SECONDS)
    assert shown[0]["annotated"] == [
        {"start": 0, "end": 3, "label": 1, "name": "a b"},
        {"start": 5, "end": 8, "label": 4, "name": "f"},
    ]
    assert shown[2]["annotated"] == [] and shown[2]["seconds"] == 7
    for video, classes in zip(shown, wanted, strict=True):
        drawn = np.zeros(video["seconds"], dtype=int)
        for segment in video["segments"]:
            assert segment["name"] == LABELS[segment["label"]]
            drawn[segment["start"] : segment["end"]] = segment["label"]
        assert drawn.tolist() == classes.tolist()


def test_evaluator_writes_the_record_and_repeats_it_offline(config, tmp_path):
    evaluator = Evaluator(config)
    metrics = evaluator.evaluate(Linear(), loader_of(config), device="cpu")
    record = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert record["main"] == "frame_acc" and record["count"] == 3 and record["metrics"] == metrics
    assert metrics["background_share"] == pytest.approx(12 / 22)
    assert evaluator() == metrics


def test_what_the_data_leave_out_is_in_the_record(config, tmp_path):
    np.save(tmp_path / "feat" / "first.npy", np.zeros((5, 512), np.float16))  # [0, 3) remains, [5.5, 8) is behind
    np.save(tmp_path / "feat" / "second.npy", np.zeros((3, 512), np.float16))  # [0, 4) is cut
    (tmp_path / "feat" / "third.npy").unlink()
    config["dataset"]["max_missing"] = 0.5
    evaluator = Evaluator(config)
    metrics = evaluator.evaluate(Linear(), loader_of(config), device="cpu")
    assert {name: metrics[name] for name in ("count", "skipped", "skipped_segments", "cut_segments")} == {
        "count": 2,
        "skipped": 1,
        "skipped_segments": 1,
        "cut_segments": 1,
    }
    assert evaluator() == metrics
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["metrics"] == metrics


def test_zero_shot_says_how_many_labels_are_not_tested(config, tmp_path, caplog):
    content = json.loads((tmp_path / "COIN.json").read_text())
    content["database"]["other"] = {
        "subset": "training",
        "annotation": [{"id": 9, "label": "b c d e", "segment": [0, 1]}],
    }
    (tmp_path / "COIN.json").write_text(json.dumps(content))
    model = Known([[2.0, 0.2, 0.0], [0.5, 1.0, 0.3], [0.2, 0.0, 1.0]])
    model.encode_text = lambda caps, cmasks: torch.eye(512)[: len(caps)]
    with caplog.at_level("INFO"):
        zero_shot(config, model, background_threshold="none")
    assert "1 of 4 labels are in no tested video (for example 'b c d e')" in caplog.text


def test_fewer_classes_than_the_data_are_refused(config):
    with pytest.raises(DataError, match="the model has 4 classes, but the data have 5"):
        COINPredictor(config)(Linear(4), loader_of(config), device="cpu")


def test_empty_set_and_data_without_classes(config):
    class Empty(list):
        dataset = loader_of(config).dataset

    with pytest.raises(NothingEvaluated, match="the test set is empty"):
        COINPredictor(config)(Linear(), Empty(), device="cpu")
    with pytest.raises(DataError, match="does not say what the classes are"):
        COINPredictor(config)(Linear(), [], device="cpu")


def test_damaged_file(config, tmp_path):
    with pytest.raises(DataError, match=r"merged\.npz: no such file; run the test first"):
        COINPredictor(config).load()
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "merged.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"merged\.npz: cannot be read"):
        COINPredictor(config).load()


class Known(nn.Module):
    """Seconds are their own states; texts are looked up by their words (letters are ids 5 + n of the vocabulary)."""

    def __init__(self, vectors) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(3, 512))
        with torch.no_grad():
            self.vectors[:, :3] = torch.tensor(vectors)
        self.texts = []

    def encode_text(self, caps, cmasks):
        rows = []
        for ids, mask in zip(caps.tolist(), cmasks.tolist(), strict=True):
            words = tuple(ids[2 : sum(mask) - 1])
            self.texts.append(words)
            rows.append({2: 0, 3: 1, 1: 2}[len(words)])
        return self.vectors[rows]

    def encode_video_frames(self, vfeats, vmasks, caps=None, cmasks=None):
        assert not cmasks[:, 0].any()
        return vfeats.masked_fill(~vmasks[..., None], torch.nan)


def write_states(tmp_path, rows):
    """Let the features of video "second" begin with ``rows`` (4, 3), all else be zero."""
    for name, seconds in SECONDS.items():
        features = np.zeros((seconds, 512), np.float32)
        if name == "second":
            features[:, :3] = rows
        np.save(tmp_path / "feat" / f"{name}.npy", features)


def zero_shot(config, model, **options):
    config = {**config, "predictor": "COINZSPredictor", "eval": {**config["eval"], **options}}
    outputs = COINZSPredictor(config)(model, loader_of(config), device="cpu")
    return outputs["Y_pred"][11:15].tolist(), outputs


def test_zero_shot_threshold_and_classes(config, tmp_path):
    # similarities of the labels: 1.2 (first, second), 0.4 (first, third), 0.3 (second, third)
    model = Known([[2.0, 0.2, 0.0], [0.5, 1.0, 0.3], [0.2, 0.0, 1.0]])
    assert label_threshold(model.vectors.detach().numpy(), list(LABELS.values())) == pytest.approx(1.2)
    #                         best label 1: 2.0     label 2: 1.25        label 4: 1.1    nothing
    write_states(tmp_path, [[1.0, 0.0, 0.0], [0.0, 1.25, 0.0], [0.0, 0.0, 1.1], [0.01, 0.0, 0.0]])
    predicted, outputs = zero_shot(config, model)
    # class 3 does not exist, and "f" is class 4: the threshold 1.2 makes its second background
    assert predicted == [1, 2, 0, 0]
    assert not outputs["Y_pred"][:11].any() and not outputs["Y_pred"][15:].any()
    assert len(model.texts) == 3 and all(0 not in words for words in model.texts)
    assert zero_shot(config, model, background_threshold=1.05)[0] == [1, 2, 4, 0]
    assert zero_shot(config, model, background_threshold="none")[0] == [1, 2, 4, 1]
    assert zero_shot(config, model, background_threshold=1e9)[0] == [0, 0, 0, 0]


def test_zero_shot_faults(config, caplog):
    for wrong in ("often", "nan"):
        with pytest.raises(ConfigError, match=rf"background_threshold: '{wrong}' is neither auto, none nor a number"):
            COINZSPredictor({**config, "eval": {**config["eval"], "background_threshold": wrong}})
    with pytest.raises(ConfigError, match="needs a model that encodes texts and seconds, not Linear"):
        zero_shot(config, Linear())
    with pytest.raises(ConfigError, match="auto needs two labels"):
        label_threshold(np.ones((1, 2)), ["a"])
    assert label_threshold(np.eye(3)[[0, 0, 1]], ["cut", "cut", "glue"]) == 1.0
    assert "1 label names stand for several classes (for example 'cut')" in caplog.text


@pytest.mark.parametrize("cls", [MMFusionSeparate, MMFusionShare, MMFusionJoint])
def test_zero_shot_with_every_system(config, tmp_path, cls):
    """One class per second, from the model's own states and texts, recomputed window by window."""
    settings = cls.tiny_config()
    settings.dataset.update(config["dataset"])
    torch.manual_seed(0)
    model = cls(settings).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    predicted, _ = zero_shot(config, model, background_threshold="none")
    loader = loader_of(config)
    aligner, tokenize = loader.dataset.aligner, loader.dataset.text_processor.tokenizer
    labels = []
    for name in LABELS.values():
        caps, cmasks = aligner._build_text_seq(tokenize(name, add_special_tokens=False)["input_ids"])
        labels.append(model.encode_text(caps[None], cmasks[None])[0])
    features = np.load(tmp_path / "feat" / "second.npy").astype(np.float32)
    ids, mask = torch.tensor([[2, 3]]), torch.tensor([[0, 1]])
    with torch.no_grad():
        states = model.forward_video(torch.from_numpy(features)[None], torch.ones(1, 4), ids, mask, True)[0, 1:5]
        scores = states @ torch.stack(labels).T
    assert predicted == [list(LABELS)[best] for best in scores.argmax(1).tolist()]
