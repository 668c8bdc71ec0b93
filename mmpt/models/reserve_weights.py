"""Published weights of MERLOT Reserve (Flax files) under our names, and back, without a change of any bit.

Specification B6: Flax's kernels are transposed, and its heads have dimensions of their own; its query, key and value
are one matrix, ours three.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmpt.utils.errors import CheckpointError, shown

__all__ = ["flax_names", "is_published", "published_names", "sizes_of"]

_TOWERS = r"(?:(?:vision|audio|span)_encoder/transformer|joint_transformer)"
_LAYER = r"layer_(\d+)"


class _Rule(NamedTuple):
    """A pattern of Flax names, ours with its groups, and how its array of so many dimensions becomes ours and back."""

    pattern: re.Pattern[str]
    name: str
    dimensions: int
    forward: Callable[[Tensor], Tensor]


def _same(value: Tensor) -> Tensor:
    return value


def _transposed(value: Tensor) -> Tensor:
    return value.T


def _heads_out(value: Tensor) -> Tensor:
    return value.flatten(1).T  # (in, heads, size) -> (heads * size, in)


def _heads_in(value: Tensor) -> Tensor:
    return value.flatten(0, 1).T  # (heads, size, out) -> (out, heads * size)


def _flat(value: Tensor) -> Tensor:
    return value.flatten()


def _convolution(value: Tensor) -> Tensor:
    return value.permute(2, 1, 0)


def _rule(pattern: str, name: str, dimensions: int, forward: Callable[[Tensor], Tensor]) -> _Rule:
    return _Rule(re.compile(pattern), name, dimensions, forward)


_NORMS = {"pre_attn_ln": "layernorm_before", "pre_mlp_ln": "layernorm_after"}
_QKV = re.compile(rf"({_TOWERS})/{_LAYER}/attention_layer/qkv/(kernel|bias)")
_RULES = (
    _rule(r"vision_encoder/embedding/kernel", "vision_encoder.embedding.weight", 2, _transposed),
    _rule(r"audio_encoder/embedding/kernel", "audio_encoder.embedding.weight", 3, _convolution),
    _rule(r"(vision|audio)_encoder/embedding/bias", r"\1_encoder.embedding.bias", 1, _same),
    _rule(r"token_encoder/Embed_0/embedding", "token_encoder.weight", 2, _same),
    _rule(rf"({_TOWERS})/cls", r"\1.cls", 1, _same),
    _rule(rf"({_TOWERS})/(pre_ln|final_ln)/scale", r"\1.\2.weight", 1, _same),
    _rule(rf"({_TOWERS})/(pre_ln|final_ln)/bias", r"\1.\2.bias", 1, _same),
    *(
        _rule(rf"({_TOWERS})/{_LAYER}/{flax}/{part}", rf"\1.encoder.layer.\2.{ours}.{end}", 1, _same)
        for flax, ours in _NORMS.items()
        for part, end in (("scale", "weight"), ("bias", "bias"))
    ),
    _rule(
        rf"({_TOWERS})/{_LAYER}/attention_layer/attn_proj/kernel",
        r"\1.encoder.layer.\2.attention.output.dense.weight",
        3,
        _heads_in,
    ),
    _rule(
        rf"({_TOWERS})/{_LAYER}/mlp_layer/intermediate/kernel",
        r"\1.encoder.layer.\2.intermediate.dense.weight",
        2,
        _transposed,
    ),
    _rule(
        rf"({_TOWERS})/{_LAYER}/mlp_layer/intermediate/bias", r"\1.encoder.layer.\2.intermediate.dense.bias", 1, _same
    ),
    _rule(rf"({_TOWERS})/{_LAYER}/mlp_layer/out/kernel", r"\1.encoder.layer.\2.output.dense.weight", 2, _transposed),
    _rule(rf"({_TOWERS})/cls_proj/kernel", r"\1.cls_proj.weight", 2, _transposed),
    _rule(rf"({_TOWERS})/cls_proj/bias", r"\1.cls_proj.bias", 1, _same),
    _rule(
        r"(vision|audio)_encoder/seq_attnpool/(query|key|value)/kernel",
        r"\1_encoder.seq_attnpool.\2.weight",
        3,
        _heads_out,
    ),
    _rule(r"(vision|audio)_encoder/seq_attnpool/(query|key|value)/bias", r"\1_encoder.seq_attnpool.\2.bias", 2, _flat),
    _rule(r"(vision|audio)_encoder/seq_attnpool/out/kernel", r"\1_encoder.seq_attnpool.out.weight", 3, _heads_in),
    _rule(r"(vision|audio)_encoder/seq_attnpool/out/bias", r"\1_encoder.seq_attnpool.out.bias", 1, _same),
    _rule(r"(head|proj)/kernel", r"\1.weight", 2, _transposed),
    _rule(r"head/bias", "head.bias", 1, _same),
    _rule(r"contrastive_scales", "contrastive_scales", 1, _same),
)


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Tell whether weights have the names of a published Flax file."""
    return any("/" in key for key in state)


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published file under our names; those that have our names already stay as they are.

    Raises:
        CheckpointError: if a name is unknown, or an array has a wrong number of dimensions; names it.
    """
    if not is_published(state):
        return dict(state)
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        key = name.removeprefix("params/")
        joined = _QKV.fullmatch(key)
        if joined is not None:
            found |= _split_qkv(key, value, joined)
            continue
        ours, rule = _rule_of(key)
        _check(key, value, rule.dimensions)
        found[ours] = rule.forward(value).contiguous()
    return found


def _rule_of(key: str) -> tuple[str, _Rule]:
    for rule in _RULES:
        match = rule.pattern.fullmatch(key)
        if match is not None:
            return _numbered(match.expand(rule.name)), rule
    raise CheckpointError(f"{shown(key)} is no parameter of MERLOT Reserve")


def _numbered(name: str) -> str:
    """Return a name of ours: parts joined by dots, the numbers of layers without leading zeros."""
    return re.sub(r"\.layer\.0*(\d+)\.", r".layer.\1.", name.replace("/", "."))


def _split_qkv(key: str, value: Tensor, match: re.Match[str]) -> dict[str, Tensor]:
    tower, layer, part = match.groups()
    kernel = part == "kernel"
    _check(key, value, 3 if kernel else 2)
    if value.shape[-2] % 3:
        raise CheckpointError(f"{key}: {value.shape[-2]} heads are not those of query, key and value")
    begin = _numbered(f"{tower}.encoder.layer.{layer}.attention.attention.")
    parts = (_heads_out(value) if kernel else _flat(value)).chunk(3)
    end = "weight" if kernel else "bias"
    return {
        f"{begin}{name}.{end}": one.contiguous() for name, one in zip(("query", "key", "value"), parts, strict=True)
    }


def _check(key: str, value: Tensor, dimensions: int) -> None:
    if value.dim() != dimensions:
        raise CheckpointError(f"{key}: shape {tuple(value.shape)}, expected {dimensions} dimensions")


def flax_names(state: Mapping[str, Tensor], size_per_head: int = 64) -> dict[str, Tensor]:
    """Return weights under the names and in the shapes of a published file, the reverse of :func:`published_names`.

    Raises:
        CheckpointError: if a name is none of MERLOT Reserve's; names it.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        layer = re.fullmatch(r"(.+)\.encoder\.layer\.(\d+)\.(.+)", name)
        if layer is None:
            key, new = _outside(name, value, size_per_head)
        else:
            begin = f"{layer[1].replace('.', '/')}/layer_{int(layer[2]):02d}/"
            if layer[3].startswith("attention.attention."):
                key = f"{begin}attention_layer/qkv/{'kernel' if layer[3].endswith('weight') else 'bias'}"
                if key not in found:
                    found[key] = _joined_qkv(state, name, size_per_head)
                continue
            key, new = _inside(layer[3], value, size_per_head)
            key = begin + key
        found[key] = new.contiguous()
    return found


def _joined_qkv(state: Mapping[str, Tensor], name: str, size_per_head: int) -> Tensor:
    begin, end = re.sub(r"(query|key|value)\.(weight|bias)$", "", name), name.rsplit(".", 1)[1]
    whole = torch.cat([state[f"{begin}{part}.{end}"] for part in ("query", "key", "value")])
    if end == "bias":
        return whole.view(-1, size_per_head)
    return whole.T.unflatten(1, (-1, size_per_head)).contiguous()


def _inside(name: str, value: Tensor, size_per_head: int) -> tuple[str, Tensor]:
    """Return the Flax name and array of a parameter of a layer."""
    norms = {ours: flax for flax, ours in _NORMS.items()}
    part, _, end = name.rpartition(".")
    if part in norms:
        return f"{norms[part]}/{'scale' if end == 'weight' else 'bias'}", value
    if name == "attention.output.dense.weight":
        return "attention_layer/attn_proj/kernel", value.T.unflatten(0, (-1, size_per_head))
    names = {"intermediate.dense": "mlp_layer/intermediate", "output.dense": "mlp_layer/out"}
    if part not in names:
        raise CheckpointError(f"{name} is no parameter of a layer of MERLOT Reserve")
    return (f"{names[part]}/kernel", value.T) if end == "weight" else (f"{names[part]}/bias", value)


def _outside(name: str, value: Tensor, size_per_head: int) -> tuple[str, Tensor]:
    """Return the Flax name and array of a parameter outside of the layers."""
    part, _, end = name.rpartition(".")
    path = part.replace(".", "/")
    if name == "token_encoder.weight":
        return "token_encoder/Embed_0/embedding", value
    if not part or end == "cls":
        return name.replace(".", "/"), value
    if part.endswith("_ln"):
        return f"{path}/{'scale' if end == 'weight' else 'bias'}", value
    if ".seq_attnpool." in name and not name.endswith("out.bias"):
        if end == "bias":
            return f"{path}/bias", value.view(-1, size_per_head)
        if part.endswith(".out"):
            return f"{path}/kernel", value.T.unflatten(0, (-1, size_per_head))
        return f"{path}/kernel", value.T.unflatten(1, (-1, size_per_head))
    if end == "bias":
        return f"{path}/bias", value
    return f"{path}/kernel", value.permute(2, 1, 0) if value.dim() == 3 else value.T


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the sizes of the model that weights are of, as keys of ``model``; of a published file the heads' too.

    Raises:
        CheckpointError: if they are not those of a MERLOT Reserve.
    """
    sizes = {}
    heads = next((value for key, value in state.items() if key.endswith("seq_attnpool/query/kernel")), None)
    if heads is not None and heads.dim() == 3:
        sizes["size_per_head"] = heads.shape[2]
    named = published_names({key: value.to("meta") for key, value in state.items()})  # the shapes are enough
    table, norm = named.get("token_encoder.weight"), named.get("joint_transformer.final_ln.weight")
    if table is None or norm is None or table.dim() != 2:
        raise CheckpointError("holds no MERLOT Reserve: there is no table of words or no joint transformer")
    for key, tower in (
        ("joint_layers", "joint_transformer."),
        ("vision_layers", "vision_encoder."),
        ("audio_layers", "audio_encoder."),
        ("span_layers", "span_encoder."),
    ):
        found = [re.search(r"\.encoder\.layer\.(\d+)\.", name) for name in named if name.startswith(tower)]
        sizes[key] = 1 + max((int(match[1]) for match in found if match), default=-1)
    return {**sizes, "vocab_size": table.shape[0], "hidden_size": table.shape[1]}
