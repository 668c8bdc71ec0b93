"""Every job of every shipped project, in one process, on tiny data at the paths that the project names.

A training takes one optimizer step from the checkpoint it names and leaves one; a test evaluates the checkpoint it
names. So a project's classes, files and checkpoints fit together.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("fairseq")

from mmpt.launch.graph import stages
from mmpt.launch.project import Job, expand_project, is_project
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.tasks.task import Task, config_task
from mmpt.utils.checkpoint import load_state_dict_file
from mmpt.utils.config import read_yaml
from mmpt.utils.files import read_json
from mmpt_cli.predict import predict
from scripts.tiny_data.generate import generate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Projects of the published systems; retri/didemo tests a checkpoint of retri/videoclip.
PUBLISHED = ("mfmmlm", "mtm/mmfusionmtm", "mtm/vlm", "retri/videoretri", "retri/videoclip", "retri/didemo")
#: Data of their own, which their first jobs make: tests/scripts and `make demo` run them.
OWN_DATA = ("demo", "demo_vlm", "own_corpus")
#: Sizes of a training batch are cut to these; none changes the network.
_SMALL = {"dataset.subsampling": 4, "dataset.num_video_per_batch": 3, "dataset.clip_per_video": 4}
_ITEMS = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of tiny data; what jobs write lies there too, so that a project sees what another wrote."""
    folder = tmp_path_factory.mktemp("one_step") / "tiny"
    generate(folder)
    return folder


@pytest.fixture(autouse=True)
def _inside(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tiny)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shipped() -> set[str]:
    files = (path for pattern in ("*.yaml", "*/*.yaml") for path in (ROOT / "projects").glob(pattern))
    names = (str(path.relative_to(ROOT / "projects").with_suffix("")) for path in files if is_project(read_yaml(path)))
    return set(names)


def test_no_shipped_project_is_forgotten() -> None:
    assert shipped() <= {*PUBLISHED, *OWN_DATA}
    assert set(PUBLISHED) <= shipped()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_job_trains_a_step_or_tests(name: str) -> None:
    project = expand_project(f"projects/{name}.yaml")
    done = []
    for job in (job for stage in stages(project) for job in stage):
        try:
            train_a_step(job) if job.kind == "train" else evaluate(job)
        except Exception as error:
            error.add_note(f"in {job.path}, after {', '.join(done) or 'no other job'}")
            raise
        done.append(job.name)
    assert len(done) == len(project.jobs)


def train_a_step(job: Job) -> None:
    """Take one step and save the weights as fairseq does, under every name that jobs read."""
    for key, value in _SMALL.items():
        if OmegaConf.select(job.config, key) is not None:
            OmegaConf.update(job.config, key, value)
    task = config_task(job.config, seed=1)
    task.build_dataset()
    task.build_loss()
    model = FairseqMMModel(task.build_model())
    if job.reads is not None:
        state = load_state_dict_file(job.reads)
        model.load_state_dict({f"mmmodel.{key}": value for key, value in state.items()})
    assert task.val_data is not None, "a checkpoint is chosen on validation data"
    if hasattr(task, "random_groups"):
        task.train_data.meta_processor.set_candidates(task.random_groups(0))
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = loss_of(task, model.train(), "train_data", job)
    loss.backward()
    optimizer.step()
    changed = sum(not torch.equal(before[key], value) for key, value in model.named_parameters())
    assert changed > len(before) / 4, "hardly a parameter was trained"
    with torch.no_grad():
        loss_of(task, model.eval(), "val_data", job)
    job.run_dir.mkdir(parents=True, exist_ok=True)
    for file in ("checkpoint_best.pt", "checkpoint_last.pt", "checkpoint11.pt"):
        torch.save({"model": model.state_dict()}, job.run_dir / file)


def loss_of(task: Task, model: torch.nn.Module, split: str, job: Job) -> torch.Tensor:
    """Compute the loss of the first batch of a split, as fairseq's task would."""
    data: Any = getattr(task, split)
    size = min(_ITEMS, OmegaConf.select(job.config, "fairseq.dataset.batch_size"), len(data))
    data.set_epoch(1)
    output = task(model, data.collater([data[index] for index in range(size)]))
    assert math.isfinite(float(output["loss"])), f"{split}: loss {output['loss']}"
    assert output["sample_size"] >= 1
    return output["loss"]


def evaluate(job: Job) -> None:
    """Run a test as mmpt_cli/predict.py does; the record must have the main metric, and it must be a number."""
    OmegaConf.update(job.config, "dataset.num_workers", 0)
    lines = predict(job.config, "cpu")
    assert lines
    record = read_json(job.run_dir / "metrics.json")
    assert record["metric"] == job.config.metric
    assert record["main"] == next(iter(record["metrics"]))
    assert 0 <= record["metrics"][record["main"]] <= 1
    assert record["count"] > 0
