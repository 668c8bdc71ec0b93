"""A training step as the published code computes it, and ours: of one model, so that the losses can be compared.

step = naive_step(violet("tiny"), VIOLETLoss(), outputs=violet_as_published)     # or our_step(...)
step(random_clips("tiny", 4))
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.transformer import EncoderOutput, TransformerEncoder
from scripts.benchmarks.naive_transformer import plain_adam
from scripts.benchmarks.videoclip_step import fused_adam

__all__ = ["as_published", "naive_step", "our_step"]

Step = Callable[[Mapping[str, Any]], Tensor]
_encode = TransformerEncoder.forward


def our_step(model: nn.Module, loss: Callable[..., Tensor]) -> Step:
    """Return MMPT's training step as it is by default."""
    return _step(model, loss, fused_adam(model), contextlib.nullcontext)


def naive_step(
    model: nn.Module, loss: Callable[..., Tensor], outputs: Callable[..., Mapping[str, Any]] | None = None
) -> Step:
    """Return the step of the published code: :func:`as_published`, and Adam tensor by tensor.

    ``outputs`` are what the loss needs of the batch, where the published code computes more than ``model`` does.
    """
    return _step(model, loss, plain_adam(model), as_published, outputs)


@contextlib.contextmanager
def as_published() -> Iterator[None]:
    """Compute all padding, all states of the last layer, and all scores of attention as tensors of their own."""
    with (
        mock.patch.object(F, "scaled_dot_product_attention", _attend),
        mock.patch.object(TransformerEncoder, "forward", _encode_all),
        mock.patch("mmpt.modules.swin_windows.window_attention", _attend_in_windows),
        mock.patch("mmpt.models.cross_modal.valid_states", _padded_states),
        mock.patch("mmpt.models.merlot_base.valid_states", _padded_states),
    ):
        yield


def _step(
    model: nn.Module,
    loss: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    way: Callable[[], contextlib.AbstractContextManager[None]],
    outputs: Callable[..., Mapping[str, Any]] | None = None,
) -> Step:
    def step(batch: Mapping[str, Any]) -> Tensor:
        with way():
            value = loss(**{**batch, **(model(**batch) if outputs is None else outputs(model, **batch))})
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    scores = scores if attn_mask is None else scores + attn_mask
    return F.dropout(scores.softmax(-1), dropout_p) @ value


def _attend_in_windows(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return _attend(query, key, value, bias)


def _encode_all(encoder: TransformerEncoder, *inputs: Any, rows: Tensor | None = None, **options: Any) -> EncoderOutput:
    output = _encode(encoder, *inputs, **options)
    return output if rows is None else output._replace(last_hidden_state=output[0].flatten(0, -2)[rows])


def _padded_states(encoder: TransformerEncoder, values: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
    return encoder(values, mask, rows=places).last_hidden_state
