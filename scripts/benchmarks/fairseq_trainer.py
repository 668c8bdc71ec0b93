"""fairseq's trainer around a model and a loss, on the CPU, as ``fairseq-train`` makes it."""

from argparse import Namespace
from typing import Any

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim.adam import Adam
from fairseq.tasks import LegacyFairseqTask
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from torch import nn

import mmpt.tasks.fairseq_task  # noqa: F401  registers mmtask, mmarch and mmloss
from mmpt.losses.fairseq_loss import MMCriterion
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.tasks.task import Task

__all__ = ["Adam", "make_trainer", "trainer_arguments"]


def trainer_arguments(workers: int, rank: int, *flags: str) -> Namespace:
    """Return the arguments of ``fairseq-train`` for one process on the CPU."""
    argv = ["job.yaml", "--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss", "--cpu"]
    argv += ["--lr-scheduler", "fixed", "--distributed-world-size", str(workers), "--distributed-rank", str(rank)]
    argv += ["--distributed-no-spawn", "--device-id", "0", "--distributed-init-method", "env://"]
    return options.parse_args_and_arch(options.get_training_parser(), [*argv, *flags])


def make_trainer(model: nn.Module, loss_fn: Any, workers: int, rank: int) -> Trainer:
    """Return the trainer of one process: Adam, float32, gradients reduced by legacy_ddp."""
    flags = ["--optimizer", "adam", "--lr", "1e-5", "--clip-norm", "2.0", "--ddp-backend", "legacy_ddp"]
    args = trainer_arguments(workers, rank, *flags)
    task = LegacyFairseqTask(args)
    task.mmtask = Task(OmegaConf.create())
    task.mmtask.model, task.mmtask.loss_fn = model, loss_fn
    return Trainer(convert_namespace_to_omegaconf(args), task, FairseqMMModel(model), MMCriterion(task))
