"""What tests of the predictors of MERLOT's and Reserve's tasks share: a model, a data set, and an evaluation."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators.evaluator import Evaluator
from mmpt.tasks.task import Task
from mmpt.utils.registry import resolve_class


def build(model: str, dataset: dict[str, Any], **sections: Any) -> tuple[Task, Any]:
    """Return a task with its test data, and a random model of the tiny config."""
    tiny = resolve_class("model", model).tiny_config()
    config = OmegaConf.merge(tiny, {"dataset": dataset, "model": {"model_cls": model}}, sections)
    config.model.vocab_size = 500
    torch.manual_seed(0)
    task = Task(config)
    task.build_dataset()
    return task, task.build_model().eval()


def evaluated(
    task: Task, model: Any, folder: Path, predictor: str, metric: str, batch_size: int = 3, **options: Any
) -> dict[str, Any]:
    """Evaluate a model on the test data of a task; return the metrics."""
    config = OmegaConf.merge(
        task.config, {"predictor": predictor, "metric": metric, "eval": {"save_path": str(folder), **options}}
    )
    evaluator = Evaluator(config)
    assert task.test_data is not None
    loader = DataLoader(task.test_data, batch_size=batch_size, collate_fn=MMDataset.collater)
    metrics = evaluator.evaluate(model, loader)
    assert evaluator() == metrics  # from the files
    assert evaluator.metric.print_computed_metrics(metrics)
    return metrics
