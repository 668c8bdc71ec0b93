"""Every task file of MERLOT's and Reserve's downstream tasks, on tiny data at the paths that it names.

A training takes one step, a test is evaluated; the models are small.
"""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators.evaluator import Evaluator
from mmpt.launch.project import Project, expand_project
from mmpt.tasks.task import Task
from mmpt.utils.files import read_json, write_json
from mmpt.utils.registry import resolve_class
from scripts.tiny_data.concepts import World
from scripts.tiny_data.frame_files import write_frames
from scripts.tiny_data.question_files import write_downstream
from scripts.tiny_data.subword_files import write_merlot_tokenizer, write_reserve_tokenizer

MERLOT_CLIPS = ("tgif_action", "tgif_transition", "lsmdc_mc", "msrvtt_qa", "msvd_qa", "tgif_frame")
TRAININGS = ["merlot_vcr", "merlot_tvqa", "reserve_vcr", "reserve_tvqa", *(f"merlot_{name}" for name in MERLOT_CLIPS)]
TESTS = [
    *(f"test_{name}" for name in TRAININGS),
    "test_merlot_vist_zs",
    "test_reserve_msrvtt_qa_zs",
    "test_reserve_epic_kitchens_zs",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Project]:
    """Return the folder of the data, and the jobs of all task files."""
    folder = tmp_path_factory.mktemp("downstream")
    write_frames(folder / "data", World(0), 6)
    write_downstream(folder / "data", 2)
    write_merlot_tokenizer(folder / "pretrained_models/merlot")
    write_reserve_tokenizer(folder / "pretrained_models/reserve/lowercase_encoder.json")
    groups = {group: {"task_list": [f"{name}.yaml" for name in names]} for group, names in
              (("finetune", TRAININGS), ("test", TESTS))}  # fmt: skip
    file = folder / "downstream.yaml"
    file.write_text(OmegaConf.to_yaml({"project_dir": "downstream", "base_dir": "task", "task_group": groups}))
    return folder, expand_project(str(file))


def small(config: OmegaConf) -> OmegaConf:
    """Return a job's config with the tiny sizes of its model."""
    name = str(config.model.model_cls)
    tiny = resolve_class("model", name).tiny_config()
    config = OmegaConf.merge(config, {"model": {**tiny.model, "vocab_size": 600, "model_cls": name}})
    config.model.pop("num_labels", None)  # the data say it
    reserve = "image_grid" in config.dataset
    config.dataset.update({"image_grid": [2, 4]} if reserve else {"image_size": [32, 64]})
    if not reserve:
        config.model.max_text_positions = 256  # of one text
    return config


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training(project: tuple[Path, Project], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, expanded = project
    monkeypatch.chdir(folder)
    (job,) = (job for job in expanded.jobs if job.name == f"{name}.yaml")
    task = Task(small(job.config))
    task.build_dataset()
    task.build_loss()
    assert task.train_data is not None and task.val_data is not None
    model = task.build_model().train()
    batch = MMDataset.collater([task.train_data[0], task.train_data[1]])
    loss = task(model, batch)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    unused = {key.rsplit(".", 1)[0] for key, value in model.named_parameters() if value.grad is None}
    assert not {key for key in unused if not key.endswith("cls_proj")}  # the vector of a frame or sound as a whole


@pytest.mark.parametrize("name", TESTS)
def test_a_test(project: tuple[Path, Project], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, expanded = project
    monkeypatch.chdir(folder)
    (job,) = (job for job in expanded.jobs if job.name == f"{name}.yaml")
    config = small(job.config)
    config.eval.save_path = str(tmp_path)
    task = Task(config)
    task.build_dataset()
    assert task.test_data is not None
    loader = DataLoader(task.test_data, batch_size=2, collate_fn=MMDataset.collater)
    metrics = Evaluator(config).evaluate(task.build_model().eval(), loader)
    assert metrics["count"] == read_json(tmp_path / "metrics.json")["count"] > 0
    write_json(tmp_path / "again.json", Evaluator(config)())
    assert read_json(tmp_path / "again.json") == read_json(tmp_path / "metrics.json")["metrics"]
