"""A trainer that only pretends, whose checkpoints fairseq's own code saves, keeps and deletes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig
from omegaconf import OmegaConf

from mmpt.tasks.fairseq_checkpoints import make_checkpoints_safe


class FakeTrainer:
    """Writes small checkpoints whose weights are the number of updates."""

    checkpoint_suffix = ""
    data_parallel_rank = 0
    is_data_parallel_master = should_save_checkpoint_on_current_rank = True
    always_call_state_dict_during_save_checkpoint = False

    def __init__(self, **task: Any) -> None:
        mmtask = SimpleNamespace(model=torch.nn.Linear(2, 1))
        self.task = SimpleNamespace(config=OmegaConf.create(), mmtask=mmtask, **task)
        self.updates = 0
        self.saved: list[tuple[str, int]] = []

    def get_num_updates(self) -> int:
        return self.updates

    def consolidate_optimizer(self) -> None:
        """Nothing is sharded."""

    def cumulative_training_time(self) -> float:
        return 0.0

    def save_checkpoint(self, filename: str, extra_state: dict[str, Any]) -> str:
        self.saved.append((Path(filename).name, self.updates))
        state = {
            "model": {"mmmodel.w": torch.full((4,), float(self.updates))},
            "optimizer_history": [{"num_updates": self.updates}],
            "extra_state": extra_state,
            "last_optimizer_state": {},
        }
        checkpoint_utils.torch_persistent_save(state, filename)
        return filename


class Position(SimpleNamespace):
    """A place in an epoch."""

    epoch, next_epoch_idx, ended = 1, 1, False

    def end_of_epoch(self) -> bool:
        return self.ended

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "iterations_in_epoch": 1}


def checkpoints(folder: Path, **options: Any) -> CheckpointConfig:
    """Return fairseq's options for a folder."""
    return CheckpointConfig(save_dir=str(folder), **options)


def safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fairseq's checkpoints safe, and have it forget the best one of another test."""
    make_checkpoints_safe()
    monkeypatch.delattr(checkpoint_utils.save_checkpoint, "best", raising=False)


def save(trainer: FakeTrainer, cfg: CheckpointConfig, updates: int, loss: float | None = None) -> None:
    """Save as the training loop does after an update in the middle of an epoch."""
    trainer.updates = updates
    checkpoint_utils.save_checkpoint(cfg, trainer, Position(), loss)
