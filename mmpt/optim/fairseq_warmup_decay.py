"""fairseq's learning-rate schedule ``warmup_decay``: MERLOT's and MERLOT Reserve's, whose end a cosine may round.

MERLOT (arXiv:2106.02636) goes down in a straight line to 0, Reserve (arXiv:2201.02639) along a cosine to a share of the
highest rate.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import register_lr_scheduler

from mmpt.optim.fairseq_linear_warmup import LinearWarmup, LinearWarmupConfig
from mmpt.utils.errors import ConfigError

__all__ = ["WarmupDecay", "WarmupDecayConfig", "warmup_decay"]

_SHAPES = ("linear", "cosine")


@dataclass
class WarmupDecayConfig(LinearWarmupConfig):
    """Flags of ``--lr-scheduler warmup_decay``; ``lr`` is the highest learning rate."""

    warmup_updates: int = field(default=0, metadata={"help": "updates in which the rate goes up; 0: warmup_share"})
    min_lr: float = field(default=0.0, metadata={"help": "the rate is never lower"})
    decay_shape: str = field(default="linear", metadata={"help": f"how the rate goes down: {' or '.join(_SHAPES)}"})
    final_share: float = field(default=0.0, metadata={"help": "part of the highest rate at the end of a cosine"})


def warmup_decay(update: int, total: float, warm_up: int, shape: str = "linear", final_share: float = 0.0) -> float:
    """Return the part of the highest rate that update number ``update``, from 0, of ``total`` T has: 0 .. 1.

    With W updates of warm-up: t / W for t < W; then T / (T - W + 1) * (1 - t / T), or the cosine from 1 to
    ``final_share`` whose phase is (t - W) / (T - W + 1). Behind the end the rate stays.
    """
    if update < warm_up:
        return update / warm_up
    if shape == "linear":
        return max(0.0, total / (total - warm_up + 1) * (1 - update / total))
    phase = min((update - warm_up) / (total - warm_up + 1), 1.0)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * phase))


@register_lr_scheduler("warmup_decay", dataclass=WarmupDecayConfig)
class WarmupDecay(LinearWarmup):
    """Set the learning rate of every update by :func:`warmup_decay`.

    Raises:
        ConfigError: if the shape is unknown, the final share is not in [0, 1], the warm-up leaves nothing of the
            training, or as :class:`LinearWarmup`.
    """

    name: ClassVar[str] = "warmup_decay"

    def __init__(self, cfg: Any, optimizer: FairseqOptimizer) -> None:
        if cfg.decay_shape not in _SHAPES:
            raise ConfigError(f"fairseq.optimization.decay_shape: {cfg.decay_shape!r} is none of {', '.join(_SHAPES)}")
        if not 0 <= cfg.final_share <= 1:
            raise ConfigError(f"fairseq.optimization.final_share: {cfg.final_share} is not in [0, 1]")
        super().__init__(cfg, optimizer)

    def part(self, update: int, total: float) -> float:
        """Return the part of the highest rate that an update of ``total`` has.

        Raises:
            ConfigError: if the warm-up leaves no update for the decay.
        """
        warm_up = self.cfg.warmup_updates or int(self.cfg.warmup_share * total)
        if warm_up >= total:
            raise ConfigError(
                f"fairseq.optimization.warmup_updates: {warm_up}, and the training has {total:g} updates: the rate "
                "would never go down. Set it to 0, so that warmup_share says it, or to fewer; or raise max_update or "
                "max_epoch"
            )
        return warmup_decay(update, total, warm_up, self.cfg.decay_shape, self.cfg.final_share)
