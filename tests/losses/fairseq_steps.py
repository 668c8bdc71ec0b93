"""One step of fairseq's own trainer, on the CPU in float64, with the gradients that its optimizer gets."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.tasks import LegacyFairseqTask
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmpt.datasets.mmdataset import PADDING_STEP
from mmpt.losses.fairseq_loss import MMCriterion
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.tasks.milnce_task import MILNCETask
from mmpt.tasks.task import Task
from scripts.benchmarks.fairseq_trainer import trainer_arguments

Batch = dict[str, Any]


class AlignedPairs(MMFusionSeparate):
    """A model for NCE: scores of pairs, and of the same videos with their texts turned round."""

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        pooled = super().forward(**batch)
        video, text = pooled["pooled_video"], pooled["pooled_text"]
        return {"align_scores": torch.cat([(video * other).sum(1) for other in (text, text.flip(1))])[:, None]}


class RecordingTask(LegacyFairseqTask):
    """fairseq's own steps around an MMPT task; keeps what the optimizer and the log get."""

    def __init__(self, loss_fn: Any, model: nn.Module, args: Any) -> None:
        super().__init__(args)
        self.mmtask = (MILNCETask if "MILNCE" in type(loss_fn).__name__ else Task)(OmegaConf.create())
        self.mmtask.loss_fn, self.mmtask.model = loss_fn, model
        self.parts: dict[str, nn.Module] = {}
        self.gradients: dict[str, Tensor] = {}
        self.logged: dict[str, float] = {}

    def optimizer_step(self, optimizer: Any, model: nn.Module, update_num: int) -> None:
        for prefix, part in self.parts.items():
            for name, value in part.named_parameters():
                gradient = torch.zeros_like(value) if value.grad is None else value.grad  # an unused pooler
                self.gradients[f"{prefix}.{name}"] = gradient.clone()
        super().optimizer_step(optimizer, model, update_num)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        super().reduce_metrics(logging_outputs, criterion)
        total = {key: sum(float(output[key]) for output in logging_outputs) for key in logging_outputs[0]}
        self.logged = {key: value / total["sample_size"] for key, value in total.items() if key != "sample_size"}


class DoubleTrainer(Trainer):
    """fairseq's trainer, whose norm of the gradients, taken after their reduction, would force float32."""

    def clip_grad_norm(self, clip_norm: float) -> Tensor:
        assert clip_norm == 0
        gradients = [value.grad for value in self.optimizer.params if value.grad is not None]
        return nn.utils.get_total_norm(gradients)


def small_model(loss_name: str, grad_cache_rows: int | None = None) -> nn.Module:
    """Return the same small VideoCLIP each time, in float64 and without dropout."""
    torch.manual_seed(5)
    config = MMFusionSeparate.tiny_config()
    config.model.update({"num_hidden_video_layers": 1, "input_dim": 16, "grad_cache_rows": grad_cache_rows})
    model = (AlignedPairs if loss_name == "NCE" else MMFusionSeparate)(config).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    return model


@functools.cache
def _settings(workers: int, rank: int, *flags: str) -> tuple[Any, Any]:
    sgd = ["--optimizer", "sgd"] if "--optimizer" not in flags else []
    args = trainer_arguments(workers, rank, "--lr", "1.0", *sgd, *flags)
    return args, convert_namespace_to_omegaconf(args)


def make_trainer(
    loss_fn: Any, model: nn.Module, workers: int = 1, rank: int = 0, ddp: str = "legacy_ddp", *flags: str
) -> Trainer:
    """Return fairseq's trainer as ``fairseq-train`` would make it; without flags, SGD at a learning rate of 1."""
    args, cfg = copy.deepcopy(_settings(workers, rank, *flags))
    cfg.distributed_training.ddp_backend = ddp
    cfg.distributed_training.find_unused_parameters = ddp == "pytorch_ddp"  # the pooler
    task = RecordingTask(loss_fn, model, args)
    wrapped, criterion = FairseqMMModel(model), MMCriterion(task).to(next(model.parameters()).dtype)
    task.parts = {"model": wrapped, "criterion": criterion}
    return DoubleTrainer(cfg, task, wrapped, criterion)


def whole_batch(count: int, loss_name: str, seed: int = 0) -> Batch:
    """Return ``count`` pairs of up to 8 seconds and 13 words; for MIL-NCE each video with two texts."""
    generator = torch.Generator().manual_seed(100 + seed)
    shape = (count, 2) if loss_name == "MILNCELoss" else (count,)
    words = torch.randint(0, 14, (*shape, 1), generator=generator)
    positions = torch.arange(16)
    caps = torch.randint(5, 64, (*shape, 16), generator=generator)
    caps[..., 0], caps[..., 1] = 2, 3
    caps = caps.where(positions != words + 2, 3).where(positions <= words + 2, 0)
    vmasks = torch.arange(8) < torch.randint(1, 9, (count, 1), generator=generator)
    vfeats = torch.randn(count, 8, 16, generator=generator, dtype=torch.float64)
    return {"caps": caps, "cmasks": positions <= words + 2, "vfeats": vfeats, "vmasks": vmasks}


def share(batch: Batch, sizes: Sequence[int], rank: int) -> Batch:
    """Return a worker's rows of a batch; without any, what the data set gives it in their place."""
    if not sizes[rank]:
        return {key: value[:1] for key, value in batch.items()} | {PADDING_STEP: True}
    return {key: value.split(list(sizes))[rank] for key, value in batch.items()}


def train(trainer: Trainer, samples: Sequence[Batch]) -> dict[str, Any]:
    """Return the gradients of one update, and what it and a validation of its first batch log."""
    trainer.valid_step(dict(samples[-1]))
    validated = trainer.task.logged
    trainer.train_step([dict(sample) for sample in samples])
    return {"gradients": trainer.task.gradients, "logged": trainer.task.logged, "validated": validated}


def checkpoint_state(folder: Path, trainer: Trainer) -> Path:
    """Save the trainer as ``fairseq-train`` does; return the file."""
    path = folder / "checkpoint_last.pt"
    iterator = {"epoch": 1, "iterations_in_epoch": 1, "version": 2, "shuffle": True}
    trainer.consolidate_optimizer()
    trainer.save_checkpoint(str(path), {"train_iterator": iterator, "val_loss": None})
    return path
