"""A training step of a model on a batch, as our trainer does it and plainly: what the benchmarks of training run."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.benchmarks.work import Run

__all__ = ["WAYS", "Training", "eager_attention", "training_run"]

#: Ways of the step beside the plain one: what the model is built with, and what the step does is named alike.
WAYS: dict[str, dict[str, Any]] = {
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "bf16": {},
    "bf16_autocast": {},
    "compile": {},
    "fused": {},
    "foreach": {},
}


def _eager(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, **_: Any,
) -> Tensor:  # fmt: skip
    """Attend as the formula has it: all scores, their softmax, and its dropout are tensors."""
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~attn_mask, lowest) if attn_mask.dtype == torch.bool else scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


@contextlib.contextmanager
def eager_attention() -> Iterator[None]:
    """Replace torch's fused attention by the formula, as the published models have it."""
    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _eager
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


class Training:
    """A model, its optimizer, and a step of one of :data:`WAYS`, of the "plain" one, or of the "naive" one.

    The naive step attends eagerly and updates parameter after parameter.
    """

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
        how: dict[str, Any] = {"foreach": True} if way == "foreach" else {"fused": way != "naive" or None}
        if way == "naive":
            how = {"foreach": False}
        self.optimizer = torch.optim.AdamW(self.masters, lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3, **how)

    def _loss(self) -> Tensor:
        eager = eager_attention() if self.way == "naive" else contextlib.nullcontext()
        with eager, torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.way == "bf16_autocast"):
            outputs = self.model(**self.batch)
        return self.loss(**self.batch, **outputs)

    def step(self, *_: Any) -> Tensor:
        """Do one update; return the loss before it."""
        loss = self._loss()
        loss.backward()
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
        return loss.detach()


def training_run(model: nn.Module, step: Callable[[Any], Tensor], batch: Mapping[str, Tensor], samples: int) -> Run:
    """Return the run of a training's steps on a batch; compared are the losses of two steps without dropout."""
    model.eval()
    losses = [float(step(batch)) for _ in range(2)]
    model.train()
    return Run(lambda: step(batch), samples, counted=True, check=lambda: losses)
