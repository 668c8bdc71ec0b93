"""What fairseq optimizers share whose groups of parameters differ in learning rate and weight decay."""

import abc
import ast
import logging
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from fairseq.optim import FairseqOptimizer
from omegaconf import OmegaConf
from torch import nn

from mmpt.optim.parameters import scales_of
from mmpt.utils.errors import CheckpointError

__all__ = ["GroupedOptimizer"]

logger = logging.getLogger(__name__)

#: What identifies a group of parameters, beside their number.
_FACTORS = ("lr_scale", "weight_decay_scale")


class GroupedOptimizer(FairseqOptimizer, abc.ABC):
    """Base of optimizers whose parameters carry factors (:mod:`mmpt.optim.parameters`).

    A schedule sets one learning rate, of which every group takes its part. A subclass says which optimizer of torch
    steps (:meth:`make`), and under which name fairseq knows it (``flag``).
    """

    flag: ClassVar[str] = ""

    def __init__(self, cfg: Any, params: Collection[nn.Parameter]) -> None:
        super().__init__(cfg)
        grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in params:
            grouped.setdefault(scales_of(parameter), []).append(parameter)
        config = self.optimizer_config
        groups = [
            {
                "params": members,
                "lr": config["lr"] * rate,
                "weight_decay": config["weight_decay"] * decay,
                **dict(zip(_FACTORS, (rate, decay), strict=True)),
            }
            for (rate, decay), members in grouped.items()
        ]
        self._optimizer = self.make(groups, params)
        self._lr = config["lr"]
        parts = [f"{len(group['params'])} x {group['lr_scale']:g}, {group['weight_decay']:g}" for group in groups]
        logger.info("%s: tensors x part of the learning rate, weight decay: %s", self.flag, "; ".join(parts))

    @abc.abstractmethod
    def make(self, groups: list[dict[str, Any]], params: Collection[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer that steps, of groups with their ``lr`` and ``weight_decay``."""

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Return the settings of the whole, before the factors of the groups."""
        lr, betas = self.cfg.lr, self.cfg.adam_betas
        if OmegaConf.is_config(betas):
            betas = OmegaConf.to_container(betas)
        return {
            "lr": lr if isinstance(lr, float | int) else lr[0],
            "betas": tuple(ast.literal_eval(betas) if isinstance(betas, str) else betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    def get_lr(self) -> float:
        """Return the learning rate of the schedule: that of a group whose factor is 1."""
        for group in self.param_groups:
            if group["lr_scale"] == 1:
                return group["lr"]
        return self._lr

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the schedule, of which each group takes its part."""
        self._lr = lr
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None) -> None:
        """Take over the moments of a checkpoint; settings stay those of the config.

        Raises:
            CheckpointError: if its groups of parameters are others.
        """
        saved, own = state_dict["param_groups"], self._optimizer.state_dict()["param_groups"]
        if [_identity(group) for group in saved] != [_identity(group) for group in own]:
            raise CheckpointError(
                "the optimizer's state in the checkpoint has other groups of parameters: the optimizer, or the section "
                "optim, has changed since. Take the change back, or begin anew with "
                "fairseq.checkpoint.reset_optimizer: true"
            )
        kept = [{**mine, "params": old["params"], "lr": old["lr"]} for mine, old in zip(own, saved, strict=True)]
        super().load_state_dict({**state_dict, "param_groups": kept}, optimizer_overrides)
        self._lr = next((group["lr"] / group["lr_scale"] for group in self.param_groups), self._lr)


def _identity(group: dict[str, Any]) -> tuple[Any, ...]:
    return len(group["params"]), *(group.get(key) for key in _FACTORS)
