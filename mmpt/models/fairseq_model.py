"""fairseq's model ``mmmodel`` and arch ``mmarch``: any MMPT model, under the key prefix ``mmmodel.``."""

from argparse import Namespace
from typing import Any

from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn

from mmpt.utils.checkpoint import FAIRSEQ_PREFIX, reconcile

__all__ = ["FairseqMMModel", "mmarch"]


@register_model("mmmodel")
class FairseqMMModel(BaseFairseqModel):
    """Wrap the model of the task."""

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> "FairseqMMModel":
        """Wrap the model that the task has built from its config."""
        return cls(task.mmtask.model, begins=bool(getattr(args, "reset_optimizer", False)))

    def __init__(self, mmmodel: nn.Module, begins: bool = False) -> None:
        """Wrap ``mmmodel``; ``begins`` says that a training begins from another one's weights, not goes on."""
        super().__init__()
        self.mmmodel = mmmodel
        self.begins = begins

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped model."""
        return self.mmmodel(*args, **kwargs)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Drop and fill only the keys that the model's class declares; any other difference stays an error.

        Heads that fine-tuning adds keep their initialisation; a training that goes on must have them.
        """
        super().upgrade_state_dict_named(state_dict, name)
        new_heads = getattr(self.mmmodel, "new_heads", ())
        reconcile(
            state_dict,
            self.state_dict(),
            prefix=FAIRSEQ_PREFIX,
            allow_missing=(*getattr(self.mmmodel, "allow_missing", ()), *(new_heads if self.begins else ())),
            allow_unexpected=getattr(self.mmmodel, "allow_unexpected", ()),
        )


@register_model_architecture("mmmodel", "mmarch")
def mmarch(args: Namespace) -> None:
    """Set nothing: the YAML of the job describes the network."""
