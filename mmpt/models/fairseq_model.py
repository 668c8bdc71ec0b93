"""fairseq's model ``mmmodel`` and arch ``mmarch``: any MMPT model, under the key prefix ``mmmodel.``."""

from argparse import Namespace
from typing import Any

import torch
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn

from mmpt.modules.compiling import compile_layers, compile_mode
from mmpt.optim.options import OptimOptions
from mmpt.optim.parameters import prepare_parameters
from mmpt.utils.checkpoint import reconcile
from mmpt.utils.options import read_section, section_of
from mmpt.utils.weight_files import FAIRSEQ_PREFIX

__all__ = ["FairseqMMModel", "mmarch"]


@register_model("mmmodel")
class FairseqMMModel(BaseFairseqModel):
    """Wrap the model of the task."""

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> "FairseqMMModel":
        """Wrap the model that the task has built from its config, after what the config says of its training."""
        model = task.mmtask.model
        config = getattr(task.mmtask, "config", None)
        options = read_section(config, "optim", OptimOptions)
        prepare_parameters(model, options, getattr(args, "optimizer", None))
        mode = compile_mode((section_of(config, "model") or {}).get("compile") or False)
        if mode is not None:
            compile_layers(model, mode, "cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
        return cls(model, begins=bool(getattr(args, "reset_optimizer", False)))

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
        adapt = getattr(self.mmmodel, "published_state", None)
        if adapt is not None:
            plain = {key.removeprefix(FAIRSEQ_PREFIX): value for key, value in state_dict.items()}
            state_dict.clear()
            state_dict |= {FAIRSEQ_PREFIX + key: value for key, value in adapt(plain).items()}
        reconcile(
            state_dict,
            self.state_dict(),
            prefix=FAIRSEQ_PREFIX,
            allow_missing=getattr(self.mmmodel, "allow_missing", ()),
            allow_unexpected=getattr(self.mmmodel, "allow_unexpected", ()),
            new_heads=getattr(self.mmmodel, "new_heads", ()) if self.begins else (),
        )


@register_model_architecture("mmmodel", "mmarch")
def mmarch(args: Namespace) -> None:
    """Set nothing of the network, which the YAML of the job describes.

    fairseq takes ``--bf16`` for the wish for a TPU and then fails without one; it runs on CPUs and GPUs alike.
    """
    args.tpu = False
