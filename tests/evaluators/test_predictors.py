"""Predictors and the evaluator on small models: files, de-duplication, moments, faults."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from mmpt.evaluators import Evaluator
from mmpt.evaluators.base import NothingEvaluated
from mmpt.evaluators.didemo_predictor import DiDeMoPredictor, moment_vectors
from mmpt.evaluators.metrics import MOMENTS
from mmpt.evaluators.retrieval_predictor import RetrievalPredictor, unique_videos
from mmpt.utils.errors import ConfigError, DataError

DIM = 6


class PairDataset(Dataset):
    """Pairs whose text id encodes the matching video."""

    def __init__(self, videos: list[str], annotations: list[dict] | None = None, seconds: int = 8) -> None:
        self.videos = videos
        self.meta_processor = self
        self.data = annotations
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        if index >= len(self.videos):
            raise IndexError(index)
        rng = np.random.default_rng([ord(letter) for letter in self.videos[index]])
        features = rng.standard_normal((self.seconds, DIM)).astype(np.float32)
        used = 5 + ord(self.videos[index][-1]) % 3 if self.seconds == 8 else self.seconds
        mask = np.arange(self.seconds) < used
        caps = np.full(4, index)
        return {
            "caps": torch.from_numpy(caps),
            "cmasks": torch.ones(4, dtype=torch.bool),
            "vfeats": torch.from_numpy(np.where(mask[:, None], features, 0)).float(),
            "vmasks": torch.from_numpy(mask),
            "video_id": self.videos[index],
            "text": f"text {index}",
            "idx": index,
        }


class Model(nn.Module):
    """Text vectors from a table, video vectors by masked mean; counts what it encodes."""

    def __init__(self, texts: np.ndarray) -> None:
        super().__init__()
        self.texts = nn.Parameter(torch.from_numpy(texts).float())
        self.dropout = nn.Dropout(0.5)
        self.videos_encoded = 0

    def forward(self, caps, cmasks, vfeats, vmasks, **_):
        weights = vmasks.float() / vmasks.sum(1, keepdim=True)
        video = (self.dropout(vfeats) * weights[:, :, None]).sum(1)
        return {"pooled_video": video, "pooled_text": self.encode_text(caps, cmasks)}

    def encode_text(self, caps, cmasks):
        return self.texts[caps[:, 0]]

    def encode_video_frames(self, vfeats, vmasks):
        self.videos_encoded += len(vfeats)
        states = self.dropout(vfeats).clone()
        states[~vmasks] = float("nan")  # whatever stands at padded seconds must not matter
        return states


def loader(dataset: Dataset, batch_size: int = 3) -> DataLoader:
    return DataLoader(dataset, batch_size=batch_size, collate_fn=default_collate)


def retrieval_config(tmp_path, **options) -> dict:
    return {
        "metric": "RetrievalMetric",
        "predictor": "RetrievalPredictor",
        "eval": {"save_path": str(tmp_path / "eval"), **options},
        "fairseq": {"common_eval": {"path": str(tmp_path / "checkpoint.pt")}},
    }


class TestRetrievalPredictor:
    def test_files_and_scores(self, tmp_path):
        dataset = PairDataset(list("abcdefg"))
        model = Model(np.random.default_rng(0).standard_normal((7, DIM)))
        outputs = RetrievalPredictor(retrieval_config(tmp_path))(model, loader(dataset), device="cpu")
        item = dataset[2]
        expected = item["vfeats"][item["vmasks"]].mean(0).numpy() @ model.texts[4].detach().numpy()
        assert outputs["outputs"][4, 2] == pytest.approx(expected, rel=1e-5)
        saved = np.load(tmp_path / "eval" / "merged.npy", allow_pickle=False)
        assert saved.dtype == np.float32
        assert (saved == outputs["outputs"]).all()
        stored = np.load(tmp_path / "eval" / "embeddings.npz", allow_pickle=False)
        assert sorted(stored) == ["ids", "target", "text", "texts", "video"]
        assert stored["ids"].tolist() == list("abcdefg")
        assert stored["texts"].tolist() == [f"text {i}" for i in range(7)]
        assert stored["target"].tolist() == list(range(7))

    def test_repeated_videos_are_indexed_once(self, tmp_path):
        dataset = PairDataset(["a", "b", "a", "c", "b", "a"])
        model = Model(np.random.default_rng(0).standard_normal((6, DIM)))
        outputs = RetrievalPredictor(retrieval_config(tmp_path))(model, loader(dataset, 2), device="cpu")
        assert outputs["outputs"].shape == (6, 3)
        assert outputs["target"].tolist() == [0, 1, 0, 2, 1, 0]
        plain = RetrievalPredictor(retrieval_config(tmp_path, unique_videos=False))(
            model, loader(dataset), device="cpu"
        )
        assert plain["outputs"].shape == (6, 6)
        assert plain["target"].tolist() == list(range(6))

    def test_large_matrix_is_not_saved_and_a_stale_one_goes(self, tmp_path):
        model = Model(np.random.default_rng(0).standard_normal((6, DIM)))
        config = retrieval_config(tmp_path, save_scores_max=5)
        RetrievalPredictor(config)(model, loader(PairDataset(list("abcde"))), device="cpu")
        assert (tmp_path / "eval" / "merged.npy").exists()
        outputs = RetrievalPredictor(config)(model, loader(PairDataset(list("abcdef"))), device="cpu")
        assert outputs["outputs"] is None
        assert [file.name for file in (tmp_path / "eval").iterdir()] == ["embeddings.npz"]

    def test_clips_that_share_an_id_stay_apart(self):
        video = np.array([[1.0, 2.0], [5.0, 2.0], [1.0, 2.0 + 1e-7], [5.0, 2.0]])
        first, target = unique_videos(["a", "a", "a", "b"], video)
        assert first.tolist() == [0, 1, 3]
        assert target.tolist() == [0, 1, 0, 2]

    def test_empty_set(self, tmp_path):
        with pytest.raises(NothingEvaluated, match="the test set is empty"):
            RetrievalPredictor(retrieval_config(tmp_path))(Model(np.zeros((1, DIM))), [], device="cpu")
        with pytest.raises(NothingEvaluated, match="the test set is empty"):
            DiDeMoPredictor(retrieval_config(tmp_path))(Model(np.zeros((1, DIM))), [], device="cpu")
        assert not (tmp_path / "eval").exists()

    def test_needs_a_folder(self):
        with pytest.raises(ConfigError, match=r"eval\.save_path"):
            RetrievalPredictor({"eval": {}})


class TestDiDeMoPredictor:
    def test_moment_vectors_average_valid_seconds_only(self):
        states = np.arange(32, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
        mask = np.arange(32) < 12
        states[12:] = np.nan
        vectors, frames = moment_vectors(states, mask)
        expected = {(0, 0): 2.0, (1, 1): 7.0, (2, 2): 10.5, (0, 2): 5.5, (0, 5): 5.5, (2, 5): 10.5}
        for moment, mean in expected.items():
            assert vectors[MOMENTS.index(moment)] == pytest.approx([mean, mean]), moment
        assert frames[MOMENTS.index((0, 5))] == 12
        assert [moment for moment, count in zip(MOMENTS, frames, strict=True) if count == 0] == [
            (first, last) for first, last in MOMENTS if first >= 3
        ]

    def test_seconds_after_the_sixth_chunk_are_left_out(self):
        states = np.ones((32, 1), np.float32)
        states[30:] = 100
        vectors, frames = moment_vectors(states, np.ones(32, bool))
        assert (vectors == 1).all()
        assert frames.max() == 30

    def test_run(self, tmp_path):
        videos = ["a", "a", "b", "a", "b"]
        notes = [{"video": name, "description": "d", "times": [[0, 0]] * 4} for name in videos]
        dataset = PairDataset(videos, notes, seconds=8)
        model = Model(np.random.default_rng(0).standard_normal((5, DIM)))
        model.train()
        config = {"metric": "DiDeMoMetric", "predictor": "DiDeMoPredictor", "eval": {"save_path": str(tmp_path)}}
        evaluator = Evaluator(config)
        metrics = evaluator.evaluate(model, loader(dataset, 2), device="cpu")
        assert model.videos_encoded == 2  # not 5: one pass per video
        assert model.training  # put back
        assert metrics == evaluator()
        scores = np.load(tmp_path / "embeddings.npz")["scores"]
        item = dataset[2]
        seconds = int(item["vmasks"].sum())
        expected = (
            item["vfeats"][5:seconds].mean(0).numpy() @ model.texts[2].detach().numpy() if seconds > 5 else -np.inf
        )
        assert scores[2, MOMENTS.index((1, 1))] == pytest.approx(expected, rel=1e-4)
        ranking = np.load(tmp_path / "merged.npy", allow_pickle=False)
        assert ranking.shape == (5, 21, 2)
        assert (ranking[:, -1] == -1).all()  # eight seconds fill no sixth chunk

    def test_annotations_of_another_file(self, tmp_path):
        dataset = PairDataset(["a"], [{"video": "b", "times": [[0, 0]]}])
        config = {"eval": {"save_path": str(tmp_path)}}
        with pytest.raises(DataError, match="video a"):
            DiDeMoPredictor(config)(Model(np.zeros((1, DIM))), loader(dataset), device="cpu")


class TestEvaluator:
    def test_record(self, tmp_path):
        (tmp_path / "checkpoint.pt").write_bytes(b"weights")
        config = retrieval_config(tmp_path)
        evaluator = Evaluator(config)
        model = Model(np.random.default_rng(0).standard_normal((7, DIM)))
        metrics = evaluator.evaluate(model, loader(PairDataset(list("abcdefg"))), device="cpu")
        record = json.loads((tmp_path / "eval" / "metrics.json").read_text())
        assert record["metrics"] == metrics
        assert (record["main"], record["count"], record["setting"]) == ("R1", 7, "-")
        assert record["checkpoint"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
        assert record["config"] == config
        assert evaluator() == metrics
        assert Evaluator({**config, "metric": "mmpt.evaluators.metrics:RetrievalMetric"})() == metrics

    def test_config_hash_tells_configs_apart(self, tmp_path):
        hashes = set()
        model = Model(np.random.default_rng(0).standard_normal((3, DIM)))
        for maximum in (5000, 10, 5000):
            evaluator = Evaluator(retrieval_config(tmp_path, save_scores_max=maximum))
            evaluator.evaluate(model, loader(PairDataset(list("abc"))), device="cpu")
            hashes.add(json.loads((tmp_path / "eval" / "metrics.json").read_text())["config_sha256"])
        assert len(hashes) == 2

    def test_a_failed_test_leaves_no_record(self, tmp_path):
        evaluator = Evaluator(retrieval_config(tmp_path))
        good = Model(np.random.default_rng(0).standard_normal((3, DIM)))
        evaluator.evaluate(good, loader(PairDataset(list("abc"))), device="cpu")
        with pytest.raises(DataError, match="3 of 3 text embeddings hold NaN"):
            evaluator.evaluate(Model(np.full((3, DIM), np.nan)), loader(PairDataset(list("abc"))), device="cpu")
        assert not (tmp_path / "eval" / "metrics.json").exists()

    def test_offline_without_or_with_damaged_files(self, tmp_path):
        evaluator = Evaluator(retrieval_config(tmp_path))
        with pytest.raises(DataError, match=r"embeddings\.npz: no such file"):
            evaluator()
        (tmp_path / "eval").mkdir()
        (tmp_path / "eval" / "embeddings.npz").write_bytes(b"PK\x03\x04 cut")
        with pytest.raises(DataError, match=r"embeddings\.npz: cannot be read"):
            evaluator()

    def test_objects_are_never_unpickled(self, tmp_path):
        (tmp_path / "eval").mkdir()
        arrays = dict.fromkeys(("text", "video", "target", "ids", "texts"), np.array([{}], dtype=object))
        np.savez(tmp_path / "eval" / "embeddings.npz", **arrays)
        with pytest.raises(DataError, match="cannot be read"):
            Evaluator(retrieval_config(tmp_path))()

    def test_names_are_needed_and_checked(self, tmp_path):
        with pytest.raises(ConfigError, match="predictor"):
            Evaluator({"metric": "RetrievalMetric", "eval": {"save_path": str(tmp_path)}})
        for metric, predictor in (("DiDeMoMetric", "RetrievalPredictor"), ("RetrievalMetric", "DiDeMoPredictor")):
            with pytest.raises(ConfigError, match=f"metric: {metric} measures .* predictor {predictor} predicts"):
                Evaluator({**retrieval_config(tmp_path), "metric": metric, "predictor": predictor})
        with pytest.raises(ConfigError, match="'RetrievalMetric'"):
            Evaluator({**retrieval_config(tmp_path), "metric": "RetrivalMetric"})

    def test_setting_is_recorded_when_the_test_runs(self, tmp_path):
        (tmp_path / "config.yaml").write_text("fairseq: {checkpoint: {restore_file: runs/a/checkpoint_best.pt}}")
        model = Model(np.random.default_rng(0).standard_normal((3, DIM)))
        for options, expected in (({}, "fine-tuned"), ({"setting": "linear probe"}, "linear probe")):
            evaluator = Evaluator(retrieval_config(tmp_path, **options))
            evaluator.evaluate(model, loader(PairDataset(list("abc"))), device="cpu")
            assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["setting"] == expected

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "eval").write_text("a file")
        evaluator = Evaluator(retrieval_config(tmp_path))
        with pytest.raises(ConfigError, match=r"eval\.save_path: cannot write to .*eval"):
            evaluator.evaluate(Model(np.zeros((1, DIM))), [], device="cpu")
