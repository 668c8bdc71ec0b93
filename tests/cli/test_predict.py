"""predict.py: which checkpoint it takes, what it prints, how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import mmpt.tasks.task
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt_cli import predict as command

REPOSITORY = Path(__file__).resolve().parents[2]


class Data(list):
    """Six pairs; text i and video i are the same vector up to noise."""

    collater = staticmethod(torch.utils.data.default_collate)


class Model(nn.Module):
    def forward(self, caps, vfeats, **_):
        return {"pooled_video": vfeats, "pooled_text": caps}


class Task:
    """Stands for the task: notes what it was asked for."""

    asked: ClassVar[dict] = {}

    def __init__(self, config):
        self.config = config
        self.test_data = None

    def build_dataset(self):
        if self.config.dataset.split == "test":
            eye = np.eye(6, dtype=np.float32)
            rows = range(6)
            self.test_data = Data(
                {"caps": eye[i], "cmasks": eye[i], "vfeats": eye[i], "video_id": f"v{i}", "text": f"t{i}"} for i in rows
            )

    def build_model(self, checkpoint=None):
        Task.asked["checkpoint"] = checkpoint
        return Model()


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(mmpt.tasks.task, "config_task", Task)
    for name in ("checkpoint_best.pt", "checkpoint1.pt", "checkpoint2.pt"):
        (tmp_path / name).write_bytes(name.encode())
    return OmegaConf.create(
        {
            "dataset": {"split": "test"},
            "metric": "RetrievalMetric",
            "predictor": "RetrievalPredictor",
            "eval": {"save_path": str(tmp_path / "eval")},
            "fairseq": {"common_eval": {"path": str(tmp_path / "checkpoint1.pt")}, "dataset": {"batch_size": 4}},
        }
    )


def test_exactly_the_named_checkpoint_is_evaluated(config, tmp_path):
    lines = command.predict(config, "cpu")
    assert Task.asked["checkpoint"] == str(tmp_path / "checkpoint1.pt")
    assert lines[0] == "R@1: 1.0000 - R@5: 1.0000 - R@10: 1.0000 - Median R: 1.0"
    assert "95% interval of R1: 0.6097 - 1.0000 (6 queries)" in lines
    assert any(line.startswith("video to text: R@1: 1.0000") for line in lines)
    record = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert record["checkpoint"]["path"] == str(tmp_path / "checkpoint1.pt")


def test_json_is_the_record_that_was_written(config, tmp_path, capsys):
    OmegaConf.save(config, tmp_path / "test.yaml")
    assert command.main([str(tmp_path / "test.yaml"), "--device", "cpu", "--json"]) == 0
    document, file = json.loads(capsys.readouterr().out), tmp_path / "eval" / "metrics.json"
    assert document == {**json.loads(file.read_text()), "wrote": str(file)}
    assert document["metrics"]["R1"] == 1.0


@pytest.mark.parametrize(
    ("metric", "metrics", "lines"),
    [
        (
            "QAMetric",
            {"acc": 0.75, "chance": 0.2, "acc_ci": [0.5, 0.9], "count": 16},
            ["95% interval of acc: 0.5000 - 0.9000 (16 questions)", "chance: 0.2000"],
        ),
        (
            "COINActionSegmentationMetric",
            {"frame_acc": 0.6, "background_share": 0.291, "frame_acc_ci": [0.5, 0.7], "count": 6},
            ["95% interval of frame_acc: 0.5000 - 0.7000 (6 videos)", "all background: 0.2910"],
        ),
        ("CrossTaskMetric", {"recall": 0.5, "recall_chance_ordered": 0.367}, ["in order at random: 0.3670"]),
        ("mine:Metric", {"score": 0.5, "count": 3}, []),
    ],
)
def test_details_name_what_is_counted_and_what_guessing_gives(metric, metrics, lines):
    assert command._details(metrics, metric) == lines


def test_missing_checkpoint_names_what_is_there(config, tmp_path):
    config.fairseq.common_eval.path = str(tmp_path / "checkpoint9.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint9\.pt \(the folder holds checkpoint1\.pt, checkpoint2\.pt"):
        command.predict(config, "cpu")
    config.fairseq.common_eval.path = str(tmp_path / "nowhere" / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        command.predict(config, "cpu")
    del config.fairseq.common_eval.path
    with pytest.raises(ConfigError, match=r"fairseq\.common_eval\.path: not set"):
        command.predict(config, "cpu")
    assert not (tmp_path / "eval").exists()


def test_config_of_a_training(config):
    config.dataset.split = "train"
    with pytest.raises(ConfigError, match=r"dataset\.split"):
        command.predict(config, "cpu")


def test_by_path_from_anywhere(tmp_path):
    """The public command line; the working directory is not the repository and PYTHONPATH is empty."""
    (tmp_path / "test.yaml").write_text("dataset: {split: test, tset_path: x}\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        script = [sys.executable, str(REPOSITORY / "mmpt_cli" / "predict.py")]
        return subprocess.run([*script, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)

    shown = run("--help")
    assert shown.returncode == 0
    assert "mmpt predict projects/" in shown.stdout
    wrong = run("test.yaml")
    assert wrong.returncode == 2
    assert "error: test.yaml: unknown key 'dataset.tset_path'" in wrong.stderr
    assert "test_path" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert run().returncode == 2


def one_line(capsys) -> str:
    """Return the last line of standard error; nothing of a traceback may be there."""
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown.splitlines()[-1]


def test_interrupted_and_empty(config, capsys, monkeypatch, tmp_path):
    import mmpt.utils.config

    monkeypatch.setattr(mmpt.utils.config, "load_config", lambda *_: config)

    class Empty(Task):
        def build_dataset(self):
            self.test_data = Data()

    monkeypatch.setattr(mmpt.tasks.task, "config_task", Empty)
    assert command.main(["test.yaml", "--device", "cpu"]) == 1
    assert one_line(capsys) == "error: the test set is empty: nothing to evaluate"

    class Interrupted(Task):
        def build_dataset(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(mmpt.tasks.task, "config_task", Interrupted)
    assert command.main(["test.yaml", "--device", "cpu"]) == 130
    assert one_line(capsys) == "interrupted"


TINY = """\
dataset:
  split: test
  meta_processor: {meta}
  video_processor: VideoProcessor
  text_processor: {text}
  aligner: {aligner}
  bert_name: {repository}/tests/data/tiny_bert
  use_fast: false
  test_path: {folder}/test.{suffix}
  vfeat_dir: {folder}/features
  max_video_len: 8
  max_len: 24
fairseq:
  common_eval: {{path: {folder}/checkpoint_best.pt}}
  dataset: {{batch_size: 3, num_workers: 0}}
model: {{model_cls: MMFusionSeparate, num_hidden_video_layers: 2, init: random,
  mm_encoder_cls: null, video_encoder_cls: MMBertForEncoder, text_encoder_cls: BertModel}}
eval: {{save_path: {folder}/eval}}
metric: {metric}
predictor: {predictor}
"""


@pytest.fixture
def tiny(tmp_path):
    """A checkpoint in fairseq's layout and features of seven videos."""
    from mmpt.models.videoclip import MMFusionSeparate

    torch.manual_seed(0)
    model = MMFusionSeparate(MMFusionSeparate.tiny_config())
    state = {f"mmmodel.{key}": value for key, value in model.state_dict().items()}
    torch.save({"model": state, "args": None}, tmp_path / "checkpoint_best.pt")
    (tmp_path / "features").mkdir()
    for video in range(7):
        features = np.random.default_rng(video).standard_normal((4 + video, 512)).astype(np.float16)
        np.save(tmp_path / "features" / f"v{video}.npy", features)
    return model.eval()


def write_yaml(tmp_path, **names) -> str:
    (tmp_path / "test.yaml").write_text(TINY.format(folder=tmp_path, repository=REPOSITORY, **names))
    return str(tmp_path / "test.yaml")


def test_retrieval_from_files_to_metrics(tiny, tmp_path, capsys):
    lines = ["video_id,sentence", *(f"v{i},the video of number {i}" for i in range(7)), "v0,another caption"]
    (tmp_path / "test.csv").write_text("\n".join(lines))
    names = {"meta": "MSRVTTMetaProcessor", "text": "MSRVTTTextProcessor", "aligner": "DSAligner", "suffix": "csv"}
    path = write_yaml(tmp_path, **names, metric="RetrievalMetric", predictor="RetrievalPredictor")
    assert command.main([path, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("R@1: ")
    stored = np.load(tmp_path / "eval" / "embeddings.npz")
    assert (stored["text"].shape, stored["video"].shape) == ((8, 32), (7, 32))
    assert stored["target"].tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    features = torch.from_numpy(np.load(tmp_path / "features" / "v2.npy"))[None].float()
    with torch.no_grad():
        alone = tiny.encode_video(features, torch.ones(1, 6, dtype=torch.bool))[0].numpy()
    assert np.allclose(stored["video"][2], alone, atol=1e-4)
    record = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert (record["count"], record["metrics"]["candidates"]) == (8, 7)
    for wrong in ("0", "abc", "-3", "2.5", "true"):
        assert command.main([path, "--device", "cpu", "-o", f"fairseq.dataset.batch_size={wrong}"]) == 2, wrong
        assert one_line(capsys).startswith("error: fairseq.dataset.batch_size: ")
    assert command.main([path, "--device", "cpu", "-o", "metric=DiDeMoMetric"]) == 2
    assert "DiDeMoMetric measures moments" in one_line(capsys)
    (tmp_path / "file").touch()
    assert command.main([path, "--device", "cpu", "-o", f"eval.save_path={tmp_path}/file/eval"]) == 2
    assert f"eval.save_path: cannot write to {tmp_path}/file/eval" in one_line(capsys)
    assert command.main([path, "--device", "cpu", "-o", "eval.unique_videos=false"]) == 0
    assert np.load(tmp_path / "eval" / "merged.npy").shape == (8, 8)


def run_two(path: str) -> subprocess.CompletedProcess:
    """Run the command with two processes by torchrun, from another folder."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = [str(REPOSITORY / "mmpt_cli" / "predict.py"), path, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, *script], capture_output=True, text=True, cwd=Path(path).parent, env=environment, timeout=300
    )


@pytest.mark.slow
def test_two_processes_by_torchrun(tiny, tmp_path, capsys):
    (tmp_path / "test.csv").write_text("\n".join(["video_id,sentence", *(f"v{i},the {i}" for i in range(7))]))
    names = {"meta": "MSRVTTMetaProcessor", "text": "MSRVTTTextProcessor", "aligner": "DSAligner", "suffix": "csv"}
    path = write_yaml(tmp_path, **names, metric="RetrievalMetric", predictor="RetrievalPredictor")
    assert command.main([path, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (tmp_path / "eval").rename(tmp_path / "alone")
    shared = run_two(path)
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout.splitlines() == lines  # printed once
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("alone", "eval"))
    assert {**one, "date": ""} == {**two, "date": ""}
    one, two = (np.load(tmp_path / name / "embeddings.npz") for name in ("alone", "eval"))
    assert all(np.array_equal(one[key], two[key]) for key in one)
    (tmp_path / "features" / "v4.npy").write_bytes(b"cut")  # of the second batch, the other process's
    failed = run_two(path)
    assert failed.returncode != 0
    assert "v4.npy" in failed.stderr and not failed.stdout
    assert not (tmp_path / "eval" / "metrics.json").exists()


def test_moments_from_files_to_metrics(tiny, tmp_path, capsys):
    records = [
        {"video": f"v{i % 7}", "description": f"moment number {i}", "times": [[0, 0], [0, 1], [1, 1], [5, 5]]}
        for i in range(10)
    ]
    (tmp_path / "test.json").write_text(json.dumps(records))
    names = {"meta": "DiDeMoMetaProcessor", "text": "DiDeMoTextProcessor", "aligner": "DiDeMoAligner", "suffix": "json"}
    path = write_yaml(tmp_path, **names, metric="DiDeMoMetric", predictor="DiDeMoPredictor")
    assert command.main([path, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("Average rank@1: ")
    scores = np.load(tmp_path / "eval" / "embeddings.npz")["scores"]
    assert scores.shape == (10, 21)
    assert np.isneginf(scores[0, 1])  # four seconds: nothing but the first chunk
    assert not np.isneginf(scores[2, 1])
