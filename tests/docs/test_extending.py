"""docs/extending.md: its classes train a step and evaluate, each in under 40 lines."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.evaluators.evaluator import Evaluator
from mmpt.tasks.task import config_task
from mmpt.utils.config import apply_overrides, read_yaml
from mmpt.utils.files import REPOSITORY
from mmpt.utils.schema import validate

PAGE = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|yaml)\n# (my_\w+\.\w+)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
CLIPS = "video,caption\na,cut an onion\nb,fry the onion\nc,slice some bread\nd,boil water\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The job of the page, in a folder with its modules and data; those alone are importable there."""
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "data/mine/feat").mkdir(parents=True)
    (tmp_path / "data/mine/clips.csv").write_text(CLIPS, encoding="utf-8")
    generator = np.random.default_rng(0)
    for seconds, name in enumerate("abcd", start=1):
        np.save(tmp_path / f"data/mine/feat/{name}.npy", generator.normal(size=(seconds, 8)).astype("float16"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield apply_overrides(read_yaml(tmp_path / "my_job.yaml"), [f"dataset.bert_name={REPOSITORY}/tests/data/tiny_bert"])
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def test_every_example_is_short_and_complete() -> None:
    classes = ("processor", "model", "loss", "metric", "predictor")
    assert [name for name, _ in BLOCKS] == [*(f"my_{what}.py" for what in classes), "my_job.yaml"]
    assert all(len(text.splitlines()) < 40 for _, text in BLOCKS)


def test_they_train_and_evaluate(config: Any) -> None:
    assert validate(config, "my_job.yaml") == []
    torch.manual_seed(0)
    task = config_task(config)
    task.build_dataset()
    model = task.build_model()
    loss = task.build_loss()
    assert loss.margin == 0.3
    data = task.train_data
    assert data is not None
    loader = DataLoader(data, batch_size=4, collate_fn=data.collater)
    batch = next(iter(loader))
    before = task(model, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before["loss"].backward()
    optimizer.step()
    assert float(task(model, batch)["loss_scalar"]) < float(before["loss_scalar"])
    metrics = Evaluator(config).evaluate(model, loader)
    assert metrics["seconds"] == 2.5 and metrics["count"] == 4
    assert Path("runs/mine/eval/merged.npz").is_file()
