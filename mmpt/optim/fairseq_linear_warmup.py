"""fairseq's learning-rate schedule ``warmup_linear``: up in a share of the training, then down, in straight lines.

LAVENDER's (arXiv:2206.07160), of BERT's (Devlin et al. 2019).
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from mmpt.utils.errors import ConfigError

__all__ = ["LinearWarmup", "LinearWarmupConfig", "linear_warmup"]


@dataclass
class LinearWarmupConfig(FairseqDataclass):
    """Flags of ``--lr-scheduler warmup_linear``; ``lr`` is the highest learning rate."""

    warmup_share: float = field(default=0.1, metadata={"help": "share of all updates in which the rate goes up"})
    min_lr: float = field(default=1e-8, metadata={"help": "the rate is never lower: not in the first update either"})
    total_num_update: int = field(
        default=0, metadata={"help": "updates until min_lr; 0: all that max_epoch and max_update leave"}
    )
    lr: list[float] = II("optimization.lr")  # noqa: RUF009  a string


def linear_warmup(update: int, total: float, share: float) -> float:
    """Return the part of the highest rate that update number ``update``, from 0, of ``total`` has: 0 .. 1.

    The first ``int(share * total)`` updates go up from 0, the others down to 0.
    """
    warm_up = int(share * total)
    if update < warm_up:
        return update / warm_up
    return max(0.0, (total - update) / max(1.0, total - warm_up))


@register_lr_scheduler("warmup_linear", dataclass=LinearWarmupConfig)
class LinearWarmup(FairseqLRScheduler):
    """Set the learning rate of every update by :func:`linear_warmup`.

    fairseq's schedules know ``--max-update`` but not how many updates ``--max-epoch`` makes: ``planned`` says so,
    which the task sets when it knows the length of an epoch. Until then the rate is ``min_lr``, at which the first
    update is made anyway.

    Raises:
        ConfigError: if ``warmup_share`` is not in [0, 1), or nothing limits the training.
    """

    planned: ClassVar[float | None] = None
    name: ClassVar[str] = "warmup_linear"

    def __init__(self, cfg: LinearWarmupConfig, optimizer: FairseqOptimizer) -> None:
        super().__init__(cfg, optimizer)
        if not 0 <= cfg.warmup_share < 1:
            raise ConfigError(f"fairseq.optimization.warmup_share: {cfg.warmup_share} is not in [0, 1)")
        self.step_update(0)

    def step_begin_epoch(self, epoch: int) -> float:
        """Leave the rate as it is: updates alone change it."""
        return self.optimizer.get_lr()

    def step_update(self, num_updates: int) -> float:
        """Set and return the rate of the update after ``num_updates`` ones."""
        total = self.cfg.total_num_update or self.planned
        if total == math.inf:
            raise ConfigError(
                f"fairseq.optimization.lr_scheduler: {self.name} ends with the training, which nothing limits: set "
                "max_epoch, max_update or total_num_update"
            )
        part = self.part(num_updates, total) if total else 0.0
        self.optimizer.set_lr(max(self.cfg.lr[0] * part, self.cfg.min_lr))
        return self.optimizer.get_lr()

    def part(self, update: int, total: float) -> float:
        """Return the part of the highest rate that an update of ``total`` has."""
        return linear_warmup(update, total, self.cfg.warmup_share)
