"""Published weights of LAVENDER (arXiv:2206.07160) and of SwinBERT (arXiv:2111.13196), as LAVENDER's.

LAVENDER's files (``lavender.pt``, ``task-specific.pt``, ``lavender_scale_up_pretrain.pt`` and those of its trainings)
are flat state dicts under the names that the model has. What their authors read beside them, ``args.json``, is compared
with the config here, and changes nothing.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmpt.utils.errors import CheckpointError, DataError
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.options import section_of

__all__ = ["ARGS_FILE", "contradictions", "published_names", "read_args", "warn_of_contradictions"]

logger = logging.getLogger(__name__)

#: What the published code writes beside the checkpoints of a training.
ARGS_FILE = "args.json"
#: Beginnings of SwinBERT's names and what they are here; what has none of them is left out.
_SWINBERT = {
    "swin.backbone.": "enc_img.swin.",
    "trans_encoder.bert.encoder.": "trsfr.",
    "trans_encoder.bert.embeddings.": "enc_txt.emb_txt.",
    "trans_encoder.bert.img_embedding.": "enc_img.img_embedding.",
    "trans_encoder.cls.": "fc_mtm.",
    "fc.": "enc_img.fc.",
}
_BIAS = "fc_mtm.predictions.bias"


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under LAVENDER's names; the state of a SwinBERT is known by its names, any other stays as it is.

    SwinBERT brings frames to the width of the text by two linear layers with nothing between them, LAVENDER by one:
    that is their product. SwinBERT has neither frame and place embeddings nor their norm.
    """
    if not any(key.startswith("trans_encoder.") for key in state):
        named = dict(state)
    else:
        named = {}
        for key, value in state.items():
            begin = next((begin for begin in _SWINBERT if key.startswith(begin)), None)
            if begin is not None:
                named[_SWINBERT[begin] + key.removeprefix(begin)] = value
        _join_projections(named)
    if _BIAS in named:  # one parameter under two names
        named.setdefault("fc_mtm.predictions.decoder.bias", named[_BIAS])
    return named


def _join_projections(state: dict[str, Tensor]) -> None:
    inner, outer = ([f"enc_img.{name}.{part}" for part in ("weight", "bias")] for name in ("fc", "img_embedding"))
    if not all(key in state for key in (*inner, *outer)):
        return
    weight, bias = (state[key] for key in inner)
    second, second_bias = (state.pop(key) for key in outer)
    state[inner[0]] = (second.double() @ weight.double()).to(weight.dtype)
    state[inner[1]] = (second.double() @ bias.double() + second_bias).to(bias.dtype)


def read_args(checkpoint: str | Path) -> dict[str, Any]:
    """Return the ``args.json`` beside a checkpoint, under its present names; empty where there is none.

    Raises:
        DataError: if it is no mapping.
    """
    path = Path(checkpoint).parent / ARGS_FILE
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}, not the arguments of a training")
    return {_present(str(key)): value for key, value in content.items()}


def _present(name: str) -> str:
    """Return today's name of an argument of an earlier version."""
    for begin in ("vidswin", "backbone"):
        if name.startswith(begin):
            return "vis_backbone" + name.removeprefix(begin)
    return name


def contradictions(args: Mapping[str, Any], dataset: Any, model: Any) -> list[str]:
    """Return what a config says otherwise than the training of a checkpoint, one sentence for each.

    Weights of other sizes are refused by their shapes. This is about what would pass, and give other numbers.

    Args:
        args: of :func:`read_args`.
        dataset: options of the section dataset: ``bert_name, num_frames, image_size, max_text_len``.
        model: options of the section model: ``swin, max_frames, max_patches``.

    Raises:
        CheckpointError: if the checkpoint has a text encoder of its own, which this model does not have.
    """
    if args.get("txt_backbone_embed_only") is False:
        raise CheckpointError(
            f"{ARGS_FILE}: txt_backbone_embed_only is false: the checkpoint encodes text by a BERT of its own before "
            "the fusing one, which LAVENDER's published models and this one do not have"
        )
    pairs = [
        ("vis_backbone_size", "model.swin", model.swin),
        ("max_size_frame", "model.max_frames", model.max_frames),
        ("max_size_patch", "model.max_patches", model.max_patches),
        ("size_frame", "dataset.num_frames", dataset.num_frames),
        ("size_img", "dataset.image_size", dataset.image_size),
        ("size_txt", "dataset.max_text_len", dataset.max_text_len),
    ]
    found = [(name, args[name], key, value) for name, key, value in pairs if args.get(name) not in (None, value)]
    name = Path(str(dataset.bert_name)).name
    texts = ("txt_backbone", "fusion_encoder", "tokenizer")
    found += [
        (one, args[one], "dataset.bert_name", dataset.bert_name)
        for one in texts
        if isinstance(args.get(one), str) and Path(args[one]).name != name
    ]
    return [f"{one} was {theirs!r}, {key} is {ours!r}" for one, theirs, key, ours in found]


def warn_of_contradictions(config: Any, dataset: Any, model: Any) -> None:
    """Warn of what a config says otherwise than the ``args.json`` beside the checkpoint that it begins from or tests.

    That is ``fairseq.checkpoint.restore_file`` or ``fairseq.common_eval.path``.

    Raises:
        CheckpointError: as :func:`contradictions`.
        DataError: if the file cannot be read.
    """
    settings = section_of(config, "fairseq") or {}
    for group, key in (("checkpoint", "restore_file"), ("common_eval", "path")):
        checkpoint = (settings.get(group) or {}).get(key)
        if not checkpoint:
            continue
        for sentence in contradictions(read_args(resolve_path(checkpoint)), dataset, model):
            logger.warning("%s: in the training of this checkpoint (%s), %s", checkpoint, ARGS_FILE, sentence)
