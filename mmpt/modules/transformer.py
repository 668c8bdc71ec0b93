"""The transformer encoder that every system shares.

Post-norm layers carry the parameter names of Hugging Face's BERT (``layer.N.attention.self.query``,
``attention.output.{dense,LayerNorm}``, ``intermediate.dense``, ``output.{dense,LayerNorm}``), pre-norm layers those
of its ViT (``attention.attention.query``, ``layernorm_before``, ``layernorm_after``). What stands before the first
layer and after the last one (embeddings, a leading or a final norm) belongs to the model that holds the encoder.

Shapes: B batch, L sequence, H hidden size, A heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt.modules.activations import ACTIVATIONS, activation
from mmpt.modules.dropout import Dropout
from mmpt.modules.kv_cache import KeyValueCache
from mmpt.modules.linear import Linear, feed_forward
from mmpt.modules.packing import Packing, reordered
from mmpt.modules.self_attention import MASKED_SCORE, AttentionInputs, Rotary, SelfAttention, additive_mask
from mmpt.utils.errors import ConfigError

__all__ = [
    "ACTIVATIONS",
    "MASKED_SCORE",
    "EncoderOutput",
    "KeyValueCache",
    "Rotary",
    "TransformerEncoder",
    "TransformerOptions",
    "activation",
    "additive_mask",
    "initialise",
]


@dataclass(frozen=True)
class TransformerOptions:
    """What the systems' encoders differ in.

    ``norm`` is ``"post"`` (BERT) or ``"pre"`` (ViT). ``qkv_bias`` is the bias of query, key and value, ``bias`` that of
    the widening layer, ``output_bias`` that of the two projections that are added to the residual; None: as ``bias``.
    ``masked_score`` is added to the scores of masked keys: it shows in rows alone of which all keys are masked.
    ``gradient_checkpointing`` recomputes each layer in the backward pass: about one more forward pass of time for the
    memory of one layer's activations instead of all.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    activation: str = "gelu"
    norm: str = "post"
    layer_norm_eps: float = 1e-12
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    qkv_bias: bool = True
    bias: bool = True
    output_bias: bool | None = None
    masked_score: float = MASKED_SCORE
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.norm not in ("post", "pre"):
            raise ConfigError(f"norm: {self.norm!r} is neither 'post' nor 'pre'")
        if self.hidden_size % self.num_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")


class EncoderOutput(NamedTuple):
    """``last_hidden_state`` (B, L, H); ``hidden_states`` one per layer and the input; ``attentions`` (B, A, L, L)."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ResidualOutput(nn.Module):
    """Projection, dropout and residual sum, followed by a LayerNorm in post-norm layers."""

    def __init__(self, options: TransformerOptions, input_size: int) -> None:
        super().__init__()
        bias = options.bias if options.output_bias is None else options.output_bias
        self.dense = Linear(input_size, options.hidden_size, bias=bias)
        if options.norm == "post":
            self.LayerNorm = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)
        self.dropout = Dropout(options.hidden_dropout)
        self.post_norm = options.norm == "post"

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Return (B, L, H)."""
        return self.finish(self.dense(hidden), residual)

    def finish(self, projected: Tensor, residual: Tensor) -> Tensor:
        """Do what follows the projection, whose result is (B, L, H)."""
        output = self.dropout(projected) + residual
        return self.LayerNorm(output) if self.post_norm else output


class AttentionBlock(nn.Module):
    """Self-attention with its output projection; the inner module is named as BERT or ViT name it."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.core = "self" if options.norm == "post" else "attention"
        self.add_module(
            self.core,
            SelfAttention(options.hidden_size, options.num_heads, options.qkv_bias, options.attention_dropout),
        )
        self.output = ResidualOutput(options, options.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Return the block's output (B, L, H) and, when asked for, its attention maps."""
        context, probabilities = getattr(self, self.core)(hidden, inputs)
        if inputs.rows is not None:
            context, residual = (given.flatten(0, -2).index_select(0, inputs.rows) for given in (context, residual))
        return self.output(context, residual), probabilities


class Intermediate(nn.Module):
    """What the widening half of the feed-forward block has; the layer computes with it, and calls no hooks of it."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.dense = Linear(options.hidden_size, options.intermediate_size, bias=options.bias)
        self.activation = activation(options.activation)
        self.checkpointed = options.gradient_checkpointing


class TransformerLayer(nn.Module):
    """One layer: attention and feed-forward, each with a residual and a norm."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.pre_norm = options.norm == "pre"
        self.attention = AttentionBlock(options)
        self.intermediate = Intermediate(options)
        self.output = ResidualOutput(options, options.intermediate_size)
        if self.pre_norm:
            self.layernorm_before = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)
            self.layernorm_after = nn.LayerNorm(options.hidden_size, eps=options.layer_norm_eps)

    def forward(self, hidden: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output (B, L, H) and, when asked for, its attention maps."""
        normed = self.layernorm_before(hidden) if self.pre_norm else hidden
        hidden, probabilities = self.attention(normed, hidden, inputs)
        normed = self.layernorm_after(hidden) if self.pre_norm else hidden
        return self._feed_forward(normed, hidden), probabilities

    def _feed_forward(self, normed: Tensor, residual: Tensor) -> Tensor:
        wide, narrow = self.intermediate, self.output
        widened = feed_forward(normed, wide.dense, narrow.dense, not wide.checkpointed, wide.activation)
        return narrow.finish(widened, residual)


class TransformerEncoder(nn.Module):
    """A stack of layers under the name ``layer``."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.gradient_checkpointing = options.gradient_checkpointing
        self.masked_score = options.masked_score
        self.layer = nn.ModuleList(TransformerLayer(options) for _ in range(options.num_layers))

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | Packing | Sequence[Tensor | Packing] | None = None,
        rotary: Rotary | None = None,
        output_hidden_states: bool = False,
        need_attention: bool = False,
        num_layers: int | None = None,
        cache: KeyValueCache | None = None,
        rows: Tensor | None = None,
    ) -> EncoderOutput:
        """Encode ``hidden`` (B, L, H).

        Args:
            attention_mask: true where a key may be seen: (B, L), (B, L, L), or a sequence with one of these per
                layer. Layers that share a mask share the tensor: nothing of size (B, layers, L, L) is ever built.
                With a cache that holds C positions the keys are C + L: (B, C + L) or (B, L, C + L).
                Where it is a packing, or one per layer of the same positions, ``hidden`` is packed by the first of
                them, (N, H), and so is what is returned; rotary, attention maps and caches are for padded states.
            rotary: hook that turns queries and keys by position.
            need_attention: compute and return attention maps, on an explicit path that keeps (B, A, L, L) per layer.
            num_layers: run only the first so many layers.
            cache: keys and values of earlier positions; those of ``hidden`` are added. Switches gradient
                checkpointing off, which would add them twice.
            rows: int64 (n,), which of the B * L positions, or of the N packed ones, the last states are wanted of:
                ``last_hidden_state`` is (n, H) then, and behind its attention the last layer computes no others.

        Raises:
            ValueError: if there are fewer layers than ``num_layers``, or the number of masks is neither that of the
                layers to run nor that of all.
        """
        layers = self._first(num_layers)
        masks = self._masks(attention_mask, hidden.dtype, len(layers))
        packing: Packing | None = None
        first = next((mask for mask in masks if isinstance(mask, Packing)), None)
        if first is not None and (rotary is not None or need_attention or cache is not None):
            raise ValueError("packed states have neither rotary positions, attention maps nor a cache")
        if rows is not None and any(isinstance(mask, Packing) and mask is not first for mask in masks):
            raise ValueError("rows of packed states are of one packing: give the same one for all layers")
        states, attentions = [hidden], []
        for number, (layer, mask) in enumerate(zip(layers, masks, strict=True)):
            stored = None if cache is None else cache.layer(number)
            if isinstance(mask, Packing):
                hidden = reordered(hidden, packing or mask, mask)
                packing = mask
                inputs = AttentionInputs(packing=packing)
            else:
                inputs = AttentionInputs(mask, rotary, need_attention, stored)
            if rows is not None and number == len(layers) - 1:
                inputs = inputs._replace(rows=rows)
            if self.gradient_checkpointing and torch.is_grad_enabled() and cache is None:
                hidden, probabilities = checkpoint(layer, hidden, inputs, use_reentrant=False)
            else:
                hidden, probabilities = layer(hidden, inputs)
            if output_hidden_states:
                states.append(hidden)
            if need_attention:
                attentions.append(probabilities)
        if rows is not None and not layers:
            hidden = hidden.flatten(0, -2).index_select(0, rows)
        elif packing is not None and first is not None and rows is None:
            hidden = reordered(hidden, packing, first)
        return EncoderOutput(
            hidden,
            tuple(states) if output_hidden_states else None,
            tuple(attentions) if need_attention else None,
        )

    def _first(self, num_layers: int | None) -> Sequence[nn.Module]:
        if num_layers is None:
            return list(self.layer)
        if not 0 <= num_layers <= len(self.layer):
            raise ValueError(f"num_layers {num_layers}: the encoder has {len(self.layer)} layers")
        return list(self.layer)[:num_layers]

    def _masks(
        self, mask: Tensor | Packing | Sequence[Tensor | Packing] | None, dtype: torch.dtype, count: int
    ) -> Sequence[Tensor | Packing | None]:
        if mask is None or isinstance(mask, Packing):
            return [mask] * count
        if isinstance(mask, Tensor):
            return [additive_mask(mask, dtype, self.masked_score)] * count
        if len(mask) not in (count, len(self.layer)):
            raise ValueError(f"{len(mask)} attention masks for {count} layers")
        used = list(mask)[:count]
        score = self.masked_score
        made = {
            key: one if isinstance(one, Packing) else additive_mask(one, dtype, score)
            for key, one in {id(one): one for one in used}.items()
        }
        return [made[id(one)] for one in used]


def initialise(module: nn.Module, std: float) -> None:
    """Initialise linear and embedding weights from N(0, ``std``), biases with 0, norms with 1 and 0 (BERT's rule).

    Draws from torch's generator, which the trainer seeds.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
