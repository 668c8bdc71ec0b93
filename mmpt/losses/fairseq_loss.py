"""fairseq's criterion ``mmloss``: the loss of the task, with what fairseq logs."""

from typing import Any

from fairseq import metrics
from fairseq.criterions import FairseqCriterion, register_criterion
from torch import Tensor, nn

__all__ = ["MMCriterion"]


@register_criterion("mmloss")
class MMCriterion(FairseqCriterion):
    """Hand model and batch to the task."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.mmtask = task.mmtask

    def forward(self, model: nn.Module, sample: dict[str, Any]) -> tuple[Tensor, int, dict[str, Any]]:
        """Return the loss, its denominator 1 (it is a mean already) and what to log."""
        outputs = self.mmtask(model, sample)
        logging_output = {
            "loss": outputs["loss_scalar"],
            "nsentences": outputs["batch_size"],
            "ntokens": outputs["max_len"] * outputs["batch_size"],
            "sample_size": 1,
        }
        return outputs["loss"], 1, logging_output

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Average the loss over workers; it is in nats."""
        workers = sum(output.get("sample_size", 0) for output in logging_outputs)
        total = sum(output.get("loss", 0.0) for output in logging_outputs)
        metrics.log_scalar("loss", total / max(workers, 1), workers, round=3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Let fairseq add up the workers' outputs by a fast all-reduce."""
        return True
