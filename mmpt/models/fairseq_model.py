"""fairseq's model ``mmmodel`` and arch ``mmarch``: any MMPT model, under the key prefix ``mmmodel.``."""

import logging
from argparse import Namespace
from typing import Any

from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn

from mmpt.utils.checkpoint import FAIRSEQ_PREFIX, matches

__all__ = ["FairseqMMModel", "mmarch"]

logger = logging.getLogger(__name__)


@register_model("mmmodel")
class FairseqMMModel(BaseFairseqModel):
    """Wrap the model of the task."""

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> "FairseqMMModel":
        """Wrap the model that the task has built from its config."""
        return cls(task.mmtask.model)

    def __init__(self, mmmodel: nn.Module) -> None:
        super().__init__()
        self.mmmodel = mmmodel

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped model."""
        return self.mmmodel(*args, **kwargs)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Drop and fill only the keys that the model's class declares; any other difference stays an error."""
        super().upgrade_state_dict_named(state_dict, name)
        own = {FAIRSEQ_PREFIX + key: value for key, value in self.mmmodel.state_dict().items()}
        for key in [key for key in state_dict if key not in own]:
            if matches(key.removeprefix(FAIRSEQ_PREFIX), getattr(self.mmmodel, "ignored_keys", ())):
                logger.info("%s is ignored: the model has no use for it", key)
                del state_dict[key]
        for key in [key for key in own if key not in state_dict]:
            if matches(key.removeprefix(FAIRSEQ_PREFIX), getattr(self.mmmodel, "expected_missing", ())):
                logger.info("%s is not in the checkpoint and keeps its value", key)
                state_dict[key] = own[key]


@register_model_architecture("mmmodel", "mmarch")
def mmarch(args: Namespace) -> None:
    """Set nothing: the YAML of the job describes the network."""
