"""fairseq's switches for memory and speed: what cannot work is refused at the start, its moving average made exact."""

import functools
import logging
from argparse import Namespace
from typing import Any

import fairseq.trainer
from fairseq import checkpoint_utils
from fairseq.models.ema import EMA
from torch import nn

from mmpt.optim.parameters import GROUPED_OPTIMIZERS
from mmpt.utils.errors import ConfigError

__all__ = ["ExactEMA", "check_switches", "prepare_ema"]

logger = logging.getLogger(__name__)


def check_switches(args: Namespace) -> None:
    """Refuse the flags of fairseq that cannot work here.

    Raises:
        ConfigError: naming the key and what to use instead.
    """
    if getattr(args, "ddp_backend", None) == "fully_sharded":
        raise ConfigError(
            "fairseq.distributed_training.ddp_backend: fully_sharded is not supported: it comes from fairscale, "
            "whose last release (0.4.13) needs CUDA to start at all and failed on torch 2.13 where that was got round; "
            "and fairseq wraps the model as one unit, so that every worker holds all weights while it computes. To "
            "save memory use model.gradient_checkpointing: true, fairseq.common.bf16: true, optim.freeze, or a smaller "
            "fairseq.dataset.batch_size with update_freq; for several GPUs, ddp_backend: no_c10d"
        )
    if getattr(args, "optimizer", None) in GROUPED_OPTIMIZERS:
        _check_grouped(args)
    half = getattr(args, "fp16", False) or getattr(args, "bf16", False)
    if getattr(args, "store_ema", False) and half and not getattr(args, "ema_fp32", False):
        raise ConfigError(
            "fairseq.ema.store_ema: an average kept in half precision does not move, because the steps to it are "
            "rounded off; set fairseq.ema.ema_fp32: true"
        )


def _check_grouped(args: Namespace) -> None:
    for key in ("memory_efficient_fp16", "memory_efficient_bf16"):
        if getattr(args, key, False):
            raise ConfigError(
                f"fairseq.common.{key}: {args.optimizer} needs float32 weights to work on; use "
                f"fairseq.common.{key.removeprefix('memory_efficient_')}: true, or fairseq.optimization.optimizer: adam"
            )
    if getattr(args, "fp16", False) and not getattr(args, "fp16_no_flatten_grads", False):
        raise ConfigError(
            f"fairseq.common.fp16: fairseq joins all weights into one, which leaves {args.optimizer} no groups; set "
            "fairseq.common.fp16_no_flatten_grads: true too"
        )


class ExactEMA(EMA):
    """fairseq's moving average; ``ema_update_freq`` counts the updates of the training, not those since it resumed."""

    def step(self, new_model: nn.Module, updates: int | None = None) -> None:
        """Take in the weights after update number ``updates``, if it is the turn of it."""
        if updates is not None and self.config.ema_update_freq > 1:
            self.update_freq_counter = (updates - 1) % self.config.ema_update_freq
        super().step(new_model, updates)


def prepare_ema(args: Namespace) -> None:
    """Let a moving average begin with the weights that a training begins with, and count as one that never stopped.

    fairseq would fail upon a checkpoint without an average, and go on with that of another training.
    """
    if not getattr(args, "store_ema", False):
        return
    fairseq.trainer.build_ema = lambda model, config, device: ExactEMA(model, config, device)
    load = checkpoint_utils.load_checkpoint_to_cpu
    load = getattr(load, "without_average", load)
    begins = bool(getattr(args, "reset_optimizer", False))

    @functools.wraps(load)
    def load_with_average(*arguments: Any, **options: Any) -> dict[str, Any]:
        state = load(*arguments, **options)
        extra = state.get("extra_state")
        if extra is not None and (begins or "ema" not in extra):
            extra.pop("ema_fp32_params", None)
            extra["ema"] = {key: value.clone() for key, value in state["model"].items()}
            logger.info("the moving average begins with the weights of the checkpoint")
        return state

    load_with_average.without_average = load  # type: ignore[attr-defined]
    checkpoint_utils.load_checkpoint_to_cpu = load_with_average
