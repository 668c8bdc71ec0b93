"""The transformer encoder that every system shares.

Post-norm layers carry the parameter names of Hugging Face's BERT (``layer.N.attention.self.query``,
``attention.output.{dense,LayerNorm}``, ``intermediate.dense``, ``output.{dense,LayerNorm}``), pre-norm layers those
of its ViT (``attention.attention.query``, ``layernorm_before``, ``layernorm_after``). What stands before the first
layer and after the last one (embeddings, a leading or a final norm) belongs to the model that holds the encoder.

Shapes: B batch, L sequence, H hidden size, A heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmpt.modules.activations import ACTIVATIONS, activation, gelu_linear
from mmpt.modules.dropout import Dropout
from mmpt.modules.kv_cache import KeyValueCache, LayerCache
from mmpt.modules.packing import Packing, packed_attention, reordered
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

# Added to masked scores. Finite in fp16 too, so that a row whose keys are all masked gives numbers and not NaN,
# and low enough that exp() of it is exactly zero beside any unmasked score.
MASKED_SCORE = -3e4

# Turns queries and keys, each (B, A, L, H / A), by their positions.
Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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


def additive_mask(mask: Tensor, dtype: torch.dtype, score: float = MASKED_SCORE) -> Tensor:
    """Turn a mask, true where a key may be seen, into scores to add.

    Args:
        mask: (B, L) for keys, or (B or 1, L, L) with a row per query; bool or integer.

    Returns:
        (B, 1, 1, L) or (B, 1, L, L) of ``dtype``: 0 where seen, ``score`` where not.
    """
    mask = mask.bool()
    mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
    if dtype == torch.float16:  # holds no lower number with room for what it is added to
        score = max(score, MASKED_SCORE)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, score)


class AttentionInputs(NamedTuple):
    """What a layer's attention takes beside the hidden states: an additive mask, and the arguments of the encoder.

    For packed states (N, H) the packing stands in place of the mask; neither a cache nor maps are there. ``rows``,
    int64 (n,), are the positions of all sequences in one row that go on behind attention, the others being seen alone.
    """

    mask: Tensor | None = None
    rotary: Rotary | None = None
    need_attention: bool = False
    cache: LayerCache | None = None
    packing: Packing | None = None
    rows: Tensor | None = None


class SelfAttention(nn.Module):
    """Multi-head attention up to, but without, the output projection."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        size = options.hidden_size
        self.num_heads = options.num_heads
        self.query = nn.Linear(size, size, bias=options.qkv_bias)
        self.key = nn.Linear(size, size, bias=options.qkv_bias)
        self.value = nn.Linear(size, size, bias=options.qkv_bias)
        self.dropout = nn.Dropout(options.attention_dropout)

    def forward(self, hidden: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, L, H) and, when asked for, the probabilities (B, A, L, L) before dropout."""
        query, key, value = (
            projection(hidden).unflatten(-1, (self.num_heads, -1)) for projection in (self.query, self.key, self.value)
        )
        dropout = self.dropout.p if self.training else 0.0
        if inputs.packing is not None:
            return packed_attention(query, key, value, inputs.packing, dropout).flatten(1), None
        query, key, value = (projected.transpose(1, 2) for projected in (query, key, value))
        if inputs.rotary is not None:
            query, key = inputs.rotary(query, key)
        if inputs.cache is not None:
            key, value = inputs.cache.append(key, value)
        mask = inputs.mask
        if mask is not None and mask.dtype != query.dtype:  # under autocast
            if query.dtype == torch.float16:
                mask = mask.clamp(min=MASKED_SCORE)
            mask = mask.to(query.dtype)
        if inputs.need_attention:
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            probabilities = (scores if mask is None else scores + mask).softmax(-1)
            context = self.dropout(probabilities) @ value
        else:
            probabilities = None
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), probabilities


class ResidualOutput(nn.Module):
    """Projection, dropout and residual sum, followed by a LayerNorm in post-norm layers."""

    def __init__(self, options: TransformerOptions, input_size: int) -> None:
        super().__init__()
        bias = options.bias if options.output_bias is None else options.output_bias
        self.dense = nn.Linear(input_size, options.hidden_size, bias=bias)
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
        self.add_module(self.core, SelfAttention(options))
        self.output = ResidualOutput(options, options.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Return the block's output (B, L, H) and, when asked for, its attention maps."""
        context, probabilities = getattr(self, self.core)(hidden, inputs)
        if inputs.rows is not None:
            context, residual = (given.flatten(0, -2).index_select(0, inputs.rows) for given in (context, residual))
        return self.output(context, residual), probabilities


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.dense = nn.Linear(options.hidden_size, options.intermediate_size, bias=options.bias)
        self.activation = activation(options.activation)
        self.recomputes = options.activation == "gelu"

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (B, L, intermediate size)."""
        return self.activation(self.dense(hidden))


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
        if not wide.recomputes or not _keeps_little(narrow.dense, normed):
            return narrow(wide(normed), residual)
        return narrow.finish(gelu_linear(wide.dense(normed), narrow.dense.weight, narrow.dense.bias), residual)


def _keeps_little(dense: nn.Module, hidden: Tensor) -> bool:
    """Say whether the activation is computed again in the backward pass: on a CPU, in eager training."""
    return (
        hidden.device.type == "cpu"
        and torch.is_grad_enabled()
        and type(dense) is nn.Linear
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


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
