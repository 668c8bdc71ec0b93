"""Published weights of MERLOT (arXiv:2106.02636), TensorFlow variables, as ours and back.

The published files hold beside the weights the step and Adam's moments (``*/adam_m``, ``*/adam_v``): these are left
aside. Names that are not MERLOT's stay as they are, so that loading reports them.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from mmpt.utils.checkpoint import matches
from mmpt.utils.tf_checkpoint import OPTIMIZER_STATE

__all__ = ["from_published", "to_published"]

logger = logging.getLogger(__name__)

_VISION = "vision_backbone/vision_transformer"
_RESNET = f"{_VISION}/resnet50lite"
_LAYER = re.compile(r"(.*/)layer(\d+)/.*|(.*\.)layer\.(\d+)\..*")
_CONV = re.compile(
    r".*/block_group(\d)/conv2d(?:_(\d+))?/kernel|vision\.resnet\.stages\.(\d)\.(\d+)\.expand\.conv\.weight"
)

_Leaves = tuple[tuple[str, str], ...]
#: How the tensors of a module are called, theirs and ours.
_LINEAR: _Leaves = (("kernel", "weight"), ("bias", "bias"))
_NORM: _Leaves = (("gamma", "weight"), ("beta", "bias"))
_CONVOLUTION: _Leaves = (("kernel", "weight"),)
_SELF: _Leaves = (("", ""),)

_IN_LAYER = {
    "LayerNorm_attn_ln0": ("layernorm_before", _NORM),
    "LayerNorm_mlp_ln0": ("layernorm_after", _NORM),
    "query_layer": ("attention.attention.query", _LINEAR),
    "key_layer": ("attention.attention.key", _LINEAR),
    "value_layer": ("attention.attention.value", _LINEAR),
    "context_projection_layer": ("attention.output.dense", _LINEAR),
    "intermediate": ("intermediate.dense", _LINEAR),
    "output": ("output.dense", _LINEAR),
}
_MODULES: dict[str, tuple[str, _Leaves]] = {
    f"{_VISION}/conv_postresnet_proj": ("vision.projection", _LINEAR),
    f"{_VISION}/LayerNorm_ctx_patches_pre_ln": ("vision.input_norm", _NORM),
    f"{_VISION}/LayerNorm_ln_final": ("vision.norm", _NORM),
    f"{_VISION}/pos_embs/pos_embs": ("vision.positions.patches", _SELF),
    f"{_VISION}/pos_embs/cls_emb": ("vision.positions.cls", _SELF),
    "vision_backbone/img_idx_pe": ("image_tokens.index.weight", _SELF),
    "vision_backbone/final_pe/pos_embs": ("image_tokens.positions.patches", _SELF),
    "vision_backbone/final_pe/cls_emb": ("image_tokens.positions.cls", _SELF),
    "vision_backbone/LayerNorm_final_ln": ("image_tokens.norm", _NORM),
    "word_embeddings/word_embeddings": ("word_embeddings.weight", _SELF),
    "position_embeddings/position_embeddings": ("joint_text.position_embeddings.weight", _SELF),
    "position_embeddings/LayerNorm_embed_norm": ("joint_text.LayerNorm", _NORM),
    "langonly_embeddings/position_embeddings": ("language_text.position_embeddings.weight", _SELF),
    "langonly_embeddings/LayerNorm_embed_norm": ("language_text.LayerNorm", _NORM),
    "encoder/LayerNorm_ln_final": ("norm", _NORM),
    "lm_head/projection": ("lm_head.transform.dense", _LINEAR),
    "lm_head/LayerNorm": ("lm_head.transform.LayerNorm", _NORM),
    "lm_head/output_bias": ("lm_head.bias", _SELF),
    "contrastive/lang_proj_intermediate": ("text_head.dense", _LINEAR),
    "contrastive/LayerNorm_lang_proj_ln": ("text_head.LayerNorm", _NORM),
    "contrastive/lang_proj": ("text_head.output", _LINEAR),
    "contrastive/viz_proj_intermediate": ("image_head.dense", _LINEAR),
    "contrastive/LayerNorm_viz_proj_ln": ("image_head.LayerNorm", _NORM),
    "contrastive/viz_proj": ("image_head.output", _LINEAR),
    "lang_viz_temporal/intermediate": ("text_image_order.dense", _LINEAR),
    "lang_viz_temporal/LayerNorm_ln0": ("text_image_order.LayerNorm", _NORM),
    "lang_viz_temporal/logits": ("text_image_order.output", _LINEAR),
    "viz_viz_temporal/intermediate": ("image_image_order.dense", _LINEAR),
    "viz_viz_temporal/LayerNorm_ln0": ("image_image_order.LayerNorm", _NORM),
    "viz_viz_temporal/logits": ("image_image_order.output", _LINEAR),
    "answer_cls/classifier_mlp0": ("answer_cls.dense", _LINEAR),
    "answer_cls/classifier_mlp1": ("answer_cls.output", _LINEAR),
    "rationale_cls/classifier_mlp0": ("rationale_cls.dense", _LINEAR),
    "rationale_cls/classifier_mlp1": ("rationale_cls.output", _LINEAR),
}
#: The word embeddings and the bias of the language-model head, under the names that a tied head adds.
_ALIASES = {"lm_head.decoder.weight": "word_embeddings.weight", "lm_head.decoder.bias": "lm_head.bias"}


class _Name(NamedTuple):
    """One tensor: the published ``name``, ``ours``."""

    name: str
    ours: str


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published checkpoint under our names and in our layouts; another state stays as it is.

    Matrices are transposed, and convolutions brought from (k, k, in, out) to (out, in, k, k); nothing is rounded.
    Shapes are compared where the weights are loaded, :func:`~mmpt.utils.checkpoint.load_into`.
    """
    if "word_embeddings/word_embeddings" not in state:
        return dict(state)
    table = {name.name: name.ours for name in _names(state)}
    converted, aside = {}, []
    for key, value in state.items():
        if key in table:
            converted[table[key]] = _transposed(value, key.endswith("kernel"), (3, 2, 0, 1))
        elif matches(key, OPTIMIZER_STATE):
            aside.append(key)
        else:
            converted[key] = value
    for alias, key in _ALIASES.items():
        if "lm_head.bias" in converted:
            converted[alias] = converted[key]
    logger.info("%d published variables converted, %d of the optimizer left aside", len(table), len(aside))
    return converted


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under the published names and in the published layouts: the inverse of :func:`from_published`.

    Weights that the published model has not keep their names.
    """
    table = {name.ours: name.name for name in _names(state)}
    named = {}
    for key, value in state.items():
        name = table.get(key, key)
        if key not in _ALIASES:
            named[name] = _transposed(value, name.endswith("kernel"), (2, 3, 1, 0))
    return named


def _transposed(value: Tensor, kernel: bool, order: tuple[int, ...]) -> Tensor:
    if not kernel or value.dim() not in (2, 4):
        return value
    return (value.T if value.dim() == 2 else value.permute(*order)).contiguous()


def _names(keys: Iterable[str]) -> list[_Name]:
    """Return the names, theirs and ours, of the tensors among ``keys``, which are of either kind."""
    known = set(keys)
    modules = dict(_MODULES)
    for theirs, ours in ((f"{_VISION}/", "vision.encoder."), ("encoder/", "encoder.")):
        for layer in range(_layers(known, theirs, ours)):
            for name, (part, kind) in _IN_LAYER.items():
                modules[f"{theirs}layer{layer:02d}/{name}"] = (f"{ours}layer.{layer}.{part}", kind)
    modules |= dict(_resnet(known))
    pairs = []
    for theirs, (own, kind) in modules.items():
        for leaf, part in kind:
            pairs.append(_Name("/".join(filter(None, (theirs, leaf))), ".".join(filter(None, (own, part)))))
    return [pair for pair in pairs if pair.name in known or pair.ours in known]


def _layers(keys: set[str], theirs: str, ours: str) -> int:
    found = [_LAYER.fullmatch(key) for key in keys]
    numbers = [
        int(match[2] or match[4]) for match in found if match and (match[1] == theirs or match[3] == ours)
    ]  # fmt: skip
    return max(numbers, default=-1) + 1


def _resnet(keys: set[str]) -> Iterator[tuple[str, tuple[str, _Leaves]]]:
    """Yield the modules of the ResNet.

    Of a stage, block 0 has the convolutions 0 (its shortcut) to 3, block b those from 3b + 1 to 3b + 3.
    """
    for number in range(3):
        suffix = f"_{number}" if number else ""
        yield f"{_RESNET}/stem/conv2d{suffix}", (f"vision.resnet.stem.{number}.conv", _CONVOLUTION)
        yield f"{_RESNET}/stem/GroupNorm_stem{number}", (f"vision.resnet.stem.{number}.norm", _NORM)
    blocks: dict[int, int] = {}
    for match in filter(None, map(_CONV.fullmatch, keys)):
        stage = int(match[1]) - 1 if match[1] else int(match[3])
        block = (int(match[2] or 0) - 1) // 3 if match[1] else int(match[4])
        blocks[stage] = max(blocks.get(stage, 0), block)
    for stage, last in blocks.items():
        for block in range(last + 1):
            parts = [(3 * block + 1 + place, part) for place, part in enumerate(("reduce", "spatial", "expand"))]
            for number, part in [*([] if block else [(0, "shortcut")]), *parts]:
                suffix = f"_{number}" if number else ""
                ours = f"vision.resnet.stages.{stage}.{block}.{part}"
                yield f"{_RESNET}/block_group{stage + 1}/conv2d{suffix}", (f"{ours}.conv", _CONVOLUTION)
                yield f"{_RESNET}/block_group{stage + 1}/GroupNorm{suffix}", (f"{ours}.norm", _NORM)
