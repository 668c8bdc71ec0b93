"""fairseq's optimizer ``compact_adam``: MERLOT's and MERLOT Reserve's Adam with groups of parameters."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from fairseq.optim import register_optimizer
from torch import nn

from mmpt.optim.compact_adam import CORRECTIONS, MOMENTS, CompactAdam
from mmpt.optim.fairseq_adamw import FairseqMMAdamWConfig
from mmpt.optim.fairseq_grouped import GroupedOptimizer

__all__ = ["FairseqCompactAdam", "FairseqCompactAdamConfig"]


@dataclass
class FairseqCompactAdamConfig(FairseqMMAdamWConfig):
    """The flags of ``mmadamw``, with the published values as defaults, and what the publications differ in."""

    adam_betas: Any = field(default=(0.9, 0.98), metadata={"help": "betas for Adam optimizer"})
    adam_eps: float = field(default=1e-6, metadata={"help": "epsilon for Adam optimizer"})
    weight_decay: float = field(default=0.1, metadata={"help": "weight decay"})
    moments: str = field(default="bfloat16", metadata={"help": f"how moments are kept: {', '.join(MOMENTS)}"})
    correction: str = field(default="rate", metadata={"help": f"of moments that begin at 0: {', '.join(CORRECTIONS)}"})
    decay_to_start: bool = field(default=False, metadata={"help": "decay towards the first weights, not towards 0"})


@register_optimizer("compact_adam", dataclass=FairseqCompactAdamConfig)
class FairseqCompactAdam(GroupedOptimizer):
    """:class:`~mmpt.optim.compact_adam.CompactAdam` in groups that differ in learning rate and weight decay."""

    flag: ClassVar[str] = "compact_adam"

    def make(self, groups: list[dict[str, Any]], params: Collection[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer."""
        config = self.optimizer_config
        return CompactAdam(
            groups,
            lr=config["lr"],
            betas=config["betas"],
            eps=config["eps"],
            moments=self.cfg.moments,
            correction=self.cfg.correction,
            decay_to_start=self.cfg.decay_to_start,
        )
