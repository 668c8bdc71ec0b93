"""A training step of a model on a batch, by each of the switches of training: what ``switch-...`` run."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scripts.benchmarks.work import Run

__all__ = ["OPTIMIZERS", "WAYS", "Training", "training_run"]

#: Ways of the step beside the plain one: what the model is built with, and what the step does is named alike.
WAYS: dict[str, dict[str, Any]] = {
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "bf16": {},
    "bf16_autocast": {},
    "compile": {},
    "accumulation": {},
    "fused": {},
    "foreach": {},
}
#: Batches of which "accumulation" adds up the gradients, in place of one as large as all of them.
_BATCHES = 2
#: Ways that differ in how AdamW steps; "one_by_one" is what they are compared with.
OPTIMIZERS = {"fused": {"fused": True}, "foreach": {"foreach": True}, "one_by_one": {"foreach": False}}


class Training:
    """A model, its optimizer, and a step of one of :data:`WAYS`, or the "plain" one."""

    def __init__(
        self, model: nn.Module, loss: Callable[..., Tensor], batch: Mapping[str, Tensor], way: str = "plain"
    ) -> None:
        self.model, self.loss, self.batch, self.way = model.train(), loss, dict(batch), way
        if way == "compile":
            from mmpt.modules.compiling import compile_layers

            compile_layers(model, "default")
        self.weights = list(model.parameters())
        # fairseq's --bf16 keeps float32 copies of the weights, which the optimizer works on
        self.masters = (
            [nn.Parameter(weight.detach().clone()) for weight in self.weights] if way == "bf16" else self.weights
        )
        if way == "bf16":
            model.bfloat16()
            self.batch = {key: v.bfloat16() if v.is_floating_point() else v for key, v in self.batch.items()}
        how = OPTIMIZERS.get(way, OPTIMIZERS["fused"])
        self.optimizer = torch.optim.AdamW(self.masters, lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3, **how)

        batches = _BATCHES if way == "accumulation" else 1
        self.batches = [{key: value[part::batches] for key, value in self.batch.items()} for part in range(batches)]

    def _loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.way == "bf16_autocast"):
            outputs = self.model(**batch)
        return self.loss(**batch, **outputs) / len(self.batches)

    def step(self, *_: Any) -> Tensor:
        """Do one update; return the loss before it, the mean of its batches."""
        loss = torch.zeros(())
        for batch in self.batches:
            part = self._loss(batch)
            part.backward()
            loss += part.detach()
        if self.masters is not self.weights:
            for master, weight in zip(self.masters, self.weights, strict=True):
                master.grad = None if weight.grad is None else weight.grad.float()
                weight.grad = None
        nn.utils.clip_grad_norm_(self.masters, 2.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.masters is not self.weights:
            with torch.no_grad():
                for master, weight in zip(self.masters, self.weights, strict=True):
                    weight.copy_(master)
        return loss


def training_run(model: nn.Module, step: Callable[[Any], Tensor], batch: Mapping[str, Tensor], samples: int) -> Run:
    """Return the run of a training's steps on a batch; compared are the losses of two steps without dropout."""
    model.eval()
    losses = [float(step(batch)) for _ in range(2)]
    model.train()
    return Run(lambda: step(batch), samples, counted=True, check=lambda: losses)
