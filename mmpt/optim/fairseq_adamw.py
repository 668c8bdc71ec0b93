"""fairseq's optimizer ``mmadamw``: torch's AdamW with groups of parameters, fused where the device allows."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import register_optimizer
from omegaconf import II
from torch import nn

from mmpt.optim.fairseq_grouped import GroupedOptimizer

__all__ = ["FairseqMMAdamW", "FairseqMMAdamWConfig"]

#: Devices for which torch has one kernel that updates many parameters at once.
_FUSED_ON = {"cpu", "cuda"}


@dataclass
class FairseqMMAdamWConfig(FairseqDataclass):
    """The flags are those of fairseq's ``adam``."""

    adam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "betas for Adam optimizer"})
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon for Adam optimizer"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay"})
    lr: list[float] = II("optimization.lr")  # noqa: RUF009  a string


@register_optimizer("mmadamw", dataclass=FairseqMMAdamWConfig)
class FairseqMMAdamW(GroupedOptimizer):
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) in groups that differ in learning rate and weight decay.

    Does what fairseq's ``adam`` does, but that epsilon is added after the bias correction.
    """

    flag: ClassVar[str] = "mmadamw"

    def make(self, groups: list[dict[str, Any]], params: Collection[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's AdamW."""
        config = self.optimizer_config
        fused = {parameter.device.type for parameter in params} <= _FUSED_ON
        how = {"fused": True} if fused else {"foreach": True}
        return torch.optim.AdamW(groups, lr=config["lr"], betas=config["betas"], eps=config["eps"], **how)
