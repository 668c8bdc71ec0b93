"""The templates for a corpus of one's own: every job trains a step or predicts, in one process."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.launch.project import Job, Project, expand_project, job_from_yaml
from mmpt.processors.corpus import CorpusMetaProcessor
from mmpt.processors.corpus_rows import KINDS
from mmpt.tasks.task import config_task
from mmpt_cli.predict import predict

DIM = 8
LABELS = ("w1", "w2", "w3")


def write_corpus(folder: Path) -> list[str]:
    """Write features and rows that every task reads; return the overrides that name them."""
    rng = np.random.default_rng(0)
    (folder / "feat").mkdir()
    rows = []
    for number in range(12):
        name = f"-v{number}"
        np.save(folder / "feat" / f"{name}.npy", rng.standard_normal((14, DIM)).astype(np.float16))
        for start, label in ((0.0, LABELS[number % 3]), (6.5, LABELS[(number + 1) % 3])):
            row = {"video": name, "start": start, "end": start + 5, "text": f"{label} w{number}", "label": label}
            row |= {"question": "w9", "options": list(LABELS[: 2 + number % 2]), "answer": number % 2}
            rows.append({**row, "split": ("train", "train", "train", "valid", "test", "test")[number % 6]})
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = {f"dataset.{key}": folder / "corpus.jsonl" for key in ("train_path", "val_path", "test_path")}
    settings = {
        **corpus,
        "dataset.vfeat_dir": folder / "feat",
        "dataset.bert_name": "tests/data/tiny_bert",
        "dataset.use_fast": "false",
        "dataset.max_video_len": 8,
        "dataset.max_len": 24,
        "dataset.sliding_window": 4,
        "dataset.sliding_window_size": 8,
        "dataset.num_iso_layer": 1,
        "dataset.num_workers": 0,
        "model.input_dim": DIM,
        "model.init": "random",
    }
    return [f"{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("own")
    project = expand_project("projects/own_corpus.yaml", write_corpus(folder))
    for job in project.jobs:
        if job.kind == "predict":
            job.config.eval.save_path = str(folder / job.config.eval.save_path)
            job.config.fairseq.common_eval.path = str(folder / job.config.fairseq.common_eval.path)
        elif job.kind == "train":
            job.config.fairseq.checkpoint.save_dir = str(folder / job.config.fairseq.checkpoint.save_dir)
            job.config.fairseq.checkpoint.restore_file = None
    return project


def train(job: Job) -> tuple[float, int]:
    """Train one step, write the checkpoint, and return the loss and the size of the validation split."""
    torch.manual_seed(0)
    task = config_task(job.config)
    task.build_dataset()
    model = task.build_model().train()
    task.build_loss()
    data = task.train_data
    assert data is not None and task.val_data is not None
    number = int(job.config.fairseq.dataset.batch_size)
    outputs = task(model, data.collater([data[i] for i in range(min(number, len(data)))]))
    outputs["loss"].backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    write_checkpoint(model, Path(job.config.fairseq.checkpoint.save_dir) / "checkpoint_best.pt")
    with torch.no_grad():
        assert np.isfinite(float(task(model.eval(), task.val_data.collater([task.val_data[0]]))["loss"]))
    return float(outputs["loss_scalar"]), len(task.val_data)


def write_checkpoint(model: torch.nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, path)


@pytest.mark.slow
def test_every_job_trains_a_step_or_predicts(project: Project) -> None:
    kinds = {kind: [job for job in project.jobs if job.kind == kind] for kind in ("script", "train", "predict")}
    assert [len(jobs) for jobs in kinds.values()] == [1, 9, 13]
    for job in kinds["train"]:
        loss, validated = train(job)
        assert np.isfinite(loss) and loss > 0, job.name
        assert validated == (2 if "segmentation" in job.name else 4), job.name
    for job in kinds["predict"]:
        checkpoint = Path(job.config.fairseq.common_eval.path)
        if not checkpoint.exists():  # zero-shot: what VideoCLIP's pre-training would have written
            write_checkpoint(config_task(job.config).build_model(), checkpoint)
        job.config.fairseq.dataset.num_workers = 0
        lines = predict(job.config, "cpu")
        record = json.loads((Path(job.config.eval.save_path) / "metrics.json").read_text())
        assert np.isfinite(record["metrics"][record["main"]]), job.name
        assert lines[-1].endswith("metrics.json")
        if "qa" in job.name:
            assert record["count"] == 8 and record["metrics"]["chance"] == pytest.approx((1 / 2 + 1 / 3) / 2)


@pytest.mark.parametrize("name", ["retrieval", "qa", "classification", "captioning", "segmentation"])
def test_every_task_has_its_templates(project: Project, name: str) -> None:
    jobs = {job.name for job in project.jobs}
    wanted = {f"own_{name}.yaml", f"test_own_{name}.yaml"}
    if name != "captioning":  # VideoCLIP writes no text
        wanted |= {f"own_{name}_videoclip.yaml", f"test_own_{name}_videoclip.yaml", f"test_own_{name}_zs.yaml"}
    assert wanted <= jobs


def test_no_correction_is_needed() -> None:
    assert expand_project("projects/own_corpus.yaml").corrections == []


def test_thirty_clips_leave_the_warm_up(project: Project) -> None:
    for job in (job for job in project.jobs if job.kind == "train"):
        settings = job.config.fairseq
        updates = math.ceil(30 / settings.dataset.batch_size) * settings.optimization.max_epoch
        assert updates > settings.optimization.warmup_updates, job.name


def snippets(kind: str) -> list[str]:
    text = Path("docs/own_corpus.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_documented_jobs_are_complete(tmp_path: Path) -> None:
    jobs = {}
    for text in snippets("yaml"):
        if text.startswith("# "):
            path = tmp_path / text.split(maxsplit=2)[1]
            path.write_text(text)
            jobs[path.name] = job_from_yaml(path)
    assert len(jobs) == 12
    for line in "".join(snippets("bash")).splitlines():
        if line.startswith("python locallaunch.py kitchen") or line.startswith("python locallaunch.py test_kitchen"):
            assert line.split()[2] in jobs, line
    written = {str(job.run_dir) for job in jobs.values() if job.kind == "train"}
    for name, job in jobs.items():
        if name.startswith("test_"):
            assert str(job.reads.parent) in written, name


def test_the_documented_files_can_be_read(tmp_path: Path) -> None:
    for suffix, kinds in (("jsonl", KINDS), ("csv", sorted(set(KINDS) - {"segmentation"}))):
        (text,) = snippets(suffix)
        path = tmp_path / f"clips.{suffix}"
        path.write_text(text, encoding="utf-8")
        for items in kinds:
            for split in ("train", "test"):
                meta = CorpusMetaProcessor({"train_path": str(path), "test_path": str(path), "split": split}, items)
                assert len(meta), (suffix, items)
