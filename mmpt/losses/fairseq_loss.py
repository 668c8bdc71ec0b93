"""fairseq's criterion ``mmloss``: the loss of the task, with what fairseq logs."""

import logging
from collections.abc import Mapping
from typing import Any

from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from torch import Tensor, nn

from mmpt.losses.scoring import ScoringLoss
from mmpt.utils.errors import CheckpointError

__all__ = ["MMCriterion"]

logger = logging.getLogger(__name__)

# What is logged beside the loss: the sum over the batches that have it, and their number.
_TOTAL, _BATCHES = "total/", "batches/"


@register_criterion("mmloss")
class MMCriterion(FairseqCriterion):
    """Hand model and batch to the task.

    A loss with parameters, such as a learned temperature, is a part of this module: fairseq trains it with the model,
    reduces its gradient over workers, and keeps it in the checkpoint under ``criterion``.
    """

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.mmtask = task.mmtask
        self.begins = bool(getattr(getattr(task, "args", None), "reset_optimizer", False))
        if isinstance(task.mmtask.loss_fn, nn.Module):
            self.loss_fn = task.mmtask.loss_fn

    def forward(self, model: nn.Module, sample: dict[str, Any]) -> tuple[Tensor, int, dict[str, Any]]:
        """Return the loss, its denominator (1, as it is a mean already; 0 where it does not count) and what to log."""
        outputs = self.mmtask(model, sample)
        sample_size = outputs["sample_size"]
        logging_output = {
            "loss": outputs["loss_scalar"],
            "nsentences": outputs["batch_size"],
            "ntokens": outputs["max_len"] * outputs["batch_size"],
            "sample_size": sample_size,
        }
        # Every output has all of them: fairseq adds the outputs of the workers up key by key.
        for name, (value, counts) in outputs.get("measures", {}).items():
            logging_output |= {f"{_TOTAL}{name}": value, f"{_BATCHES}{name}": counts}
        scale = self.learned_scale()
        if scale is not None:
            logging_output["logit_scale"] = scale * sample_size
        return outputs["loss"], sample_size, logging_output

    def learned_scale(self) -> Tensor | None:
        """Return what a learned temperature multiplies the scores by, a scalar without gradient; None without one."""
        loss_fn = self.mmtask.loss_fn
        if not isinstance(loss_fn, ScoringLoss) or loss_fn.log_scale is None:
            return None
        scale = loss_fn.scale()
        assert isinstance(scale, Tensor)
        return scale.detach()

    def load_state_dict(self, state_dict: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> Any:
        """Load a learned temperature; a training that begins from a checkpoint without one starts at its own.

        Args:
            state_dict: None from a training without one; empty from weights alone, from which one can only begin.

        Raises:
            CheckpointError: if a training goes on from a checkpoint without what the loss has learned.
        """
        if state_dict:
            return super().load_state_dict(state_dict, *args, **kwargs)
        if state_dict is None and not self.begins:
            raise CheckpointError(
                "the checkpoint has no learned temperature: loss.learn_temperature was off when it was written. Leave "
                "it off to go on with that training, or begin another one from it (fairseq.checkpoint.reset_optimizer)"
            )
        logger.info("the checkpoint has no learned temperature: it starts at loss.temperature")
        return None

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Average the loss, in nats, over the workers that count, and tell the scale of a learned temperature.

        What a loss measures, and in a multi-task training ``<member>_loss``, is the mean over the batches that have it.
        """
        workers = sum(output.get("sample_size", 0) for output in logging_outputs)
        for key in ("loss", "logit_scale"):
            if key == "loss" or any(key in output for output in logging_outputs):
                total = sum(output.get(key, 0.0) for output in logging_outputs)
                metrics.log_scalar(key, total / max(workers, 1), workers, round=3)
        keys = {key: None for output in logging_outputs for key in output if key.startswith(_BATCHES)}
        for name in (key.removeprefix(_BATCHES) for key in keys):
            batches = sum(output.get(_BATCHES + name, 0) for output in logging_outputs)
            if batches:
                total = sum(output.get(_TOTAL + name, 0.0) for output in logging_outputs)
                metrics.log_scalar(name, total / batches, batches, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Let fairseq add up the workers' outputs by a fast all-reduce."""
        return True
