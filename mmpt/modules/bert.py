"""BERT (Devlin et al. 2019, arXiv:1810.04805) with the parameter names of Hugging Face's ``BertModel``.

Sizes and weights are read from a folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``,
without transformers; a hub id goes through transformers' download cache.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.modules.dropout import Dropout
from mmpt.modules.linear import Linear
from mmpt.modules.packing import Packing, Segments, packing_of
from mmpt.modules.transformer import EncoderOutput, KeyValueCache, TransformerEncoder, TransformerOptions, initialise
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.weight_files import load_state_dict_file

__all__ = ["BertConfig", "BertEmbeddings", "BertModel", "Mask", "pack_ids", "read_bert_config", "read_bert_weights"]

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# Heads of the pre-training and sentence models that published files carry beside the encoder.
HEADS = ("cls.", "classifier.", "qa_outputs.")
# The one that models of MMPT have too: encoders with a language-model head begin with it.
LM_HEAD = "cls.predictions."


#: What hides positions: (B, L), or (B, L, L) with a row per query; or segments of rows.
Mask = Tensor | Packing | Segments

#: Width of the features that the published models read, which their configs do not say.
S3D_WIDTH = 512


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT, under the names of Hugging Face's config.json, and what the video towers add to them.

    ``input_dim`` is the width of the video features, ``max_video_len`` the number of seconds that the position
    table keeps for the video, ``use_seg_emb`` adds VLM's table of segment embeddings, ``num_labels`` is the number of
    classes of a token classifier. ``packed`` computes nothing for padding, whose states are then zeros.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    gradient_checkpointing: bool = False
    input_dim: int = S3D_WIDTH
    max_video_len: int = 32
    use_seg_emb: bool = False
    num_labels: int = 2
    packed: bool = False

    def transformer(self) -> TransformerOptions:
        """Return the encoder's options."""
        return TransformerOptions(
            hidden_size=self.hidden_size,
            num_layers=self.num_hidden_layers,
            num_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            activation=self.hidden_act,
            layer_norm_eps=self.layer_norm_eps,
            hidden_dropout=self.hidden_dropout_prob,
            attention_dropout=self.attention_probs_dropout_prob,
            gradient_checkpointing=self.gradient_checkpointing,
        )


class BertEmbeddings(nn.Module):
    """Sum of word, position and token-type embeddings, LayerNorm, dropout."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Embed token ids (B, L); positions (L,) or (B, L) default to 0 .. L-1, types to 0.

        Returns:
            (B, L, H), or with a packing of (B, L) its (N, H).
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        if packing is not None:
            input_ids, position_ids, token_type_ids = pack_ids(packing, input_ids, position_ids, token_type_ids)
        return self.combine(self.word_embeddings(input_ids), position_ids, token_type_ids)

    def combine(self, embedded: Tensor, positions: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Add position, (L,) or (B, L), and type embeddings to (B, L, H), then normalise. Packed: (N,), (N, H)."""
        if token_type_ids is None:
            types = self.token_type_embeddings.weight[0]
        else:
            types = self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(embedded + self.position_embeddings(positions) + types))


def pack_ids(
    packing: Packing, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pack token ids (B, L), their positions (L,) or (B, L), and their types (B or 1, L) to (N,) each."""
    positions = position_ids if position_ids.dim() == 2 else position_ids[None]
    types = None if token_type_ids is None else packing.pack(token_type_ids)
    return packing.pack(input_ids), packing.pack(positions), types


class BertPooler(nn.Module):
    """Linear and tanh over the first token. Published files hold its weights; the retrieval models do not call it."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, L, H) to (B, H)."""
        return torch.tanh(self.dense(hidden[:, 0]))


class BertModel(nn.Module):
    """BERT's encoder with its pooler, randomly initialised; :meth:`load_pretrained` brings weights."""

    # transformers before 4.31 saved the constant 0, 1, 2 ... as a weight.
    allow_unexpected = ("*embeddings.position_ids",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings: nn.Module = self.build_embeddings(config)
        self.encoder = TransformerEncoder(config.transformer())
        self.pooler = BertPooler(config)
        initialise(self, config.initializer_range)

    def build_embeddings(self, config: BertConfig) -> nn.Module:
        """Return the module that makes the first hidden states."""
        return BertEmbeddings(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Mask | Sequence[Mask] | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        need_attention: bool = False,
        num_layers: int | None = None,
        cache: KeyValueCache | None = None,
        **embedding_inputs: Any,
    ) -> EncoderOutput:
        """Encode token ids (B, L), int64; masks, layers and cache are those of :meth:`TransformerEncoder.forward`.

        With ``config.packed`` nothing is computed for what a mask (B, L) hides, and its states are zeros. Attention
        maps, hidden states, caches and masks with a row per query are computed with the padding.
        ``embedding_inputs`` (``position_ids``) go to the embeddings, beside the ids.
        """
        attention_mask = self.pack(attention_mask, output_hidden_states or need_attention or cache is not None)
        packing = packing_of(attention_mask)
        if packing is not None:
            hidden = self.embeddings(input_ids, token_type_ids, packing=packing, **embedding_inputs)
            output = self.encoder(hidden, attention_mask, num_layers=num_layers)
            return EncoderOutput(packing.unpack(output.last_hidden_state))
        return self.encoder(
            self.embeddings(input_ids, token_type_ids, **embedding_inputs),
            attention_mask,
            output_hidden_states=output_hidden_states,
            need_attention=need_attention,
            num_layers=num_layers,
            cache=cache,
        )

    def pack(
        self, masks: Mask | Sequence[Mask] | None, whole: bool = False
    ) -> Tensor | Packing | Sequence[Tensor | Packing] | None:
        """Return packings in place of masks (B, L) and :class:`~mmpt.modules.packing.Segments`.

        Masks come back as they are where the config does not pack, one of them has a row per query, or the ``whole`` is
        wanted. Equal masks must be one tensor, which is packed once.

        Raises:
            ValueError: if segments are given where they cannot be packed.
        """
        given: Sequence[Any] = [masks] if masks is None or isinstance(masks, Tensor | Packing | Segments) else masks
        if any(isinstance(mask, Packing) for mask in given):
            return masks  # type: ignore[return-value]  # packed already
        flat = [isinstance(mask, Segments) or (mask is not None and mask.dim() == 2) for mask in given]
        if not given or not self.config.packed or whole or not all(flat):
            if any(isinstance(mask, Segments) for mask in given):
                raise ValueError("segments are for packed states alone: give a mask with a row per query")
            return masks  # type: ignore[return-value]
        made = {key: Packing(one) for key, one in {id(one): one for one in given}.items()}
        return made[id(given[0])] if given[0] is masks else [made[id(one)] for one in given]

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a BERT's weights (:func:`read_bert_weights`); layers beyond this model's depth are left out.

        A pooler or segment table that the file lacks keeps its initialisation.

        Raises:
            CheckpointError: if anything else is missing, unexpected or of another shape.
        """
        depth = len(self.encoder.layer)
        load_into(
            self,
            {key: value for key, value in state.items() if not key.startswith(LM_HEAD) and _layer_number(key) < depth},
            allow_missing=("pooler.*", "embeddings.seg_embeddings.*"),
            source=source,
        )


def read_bert_config(bert_name: str, **added: Any) -> BertConfig:
    """Read the sizes of a BERT from a folder's config.json or from a hub id.

    Args:
        bert_name: folder, also relative to the repository, or hub id.
        added: fields to set on top of the file.

    Raises:
        ConfigError: if there is no such folder or model, or it is not a BERT.
    """
    path = _bert_file(bert_name, "config.json")
    if path is None:
        raise ConfigError(f"dataset.bert_name: {bert_name!r} has no config.json")
    content = read_json(path)
    kind = content.get("model_type", "bert")
    position = content.get("position_embedding_type") or "absolute"
    if kind != "bert" or position != "absolute":
        raise ConfigError(f"dataset.bert_name: {path} describes a {kind!r} with {position} positions, not a plain BERT")
    names = {field.name for field in fields(BertConfig)}
    known = {name: value for name, value in content.items() if name in names and value is not None}
    return BertConfig(**{**known, **added})


def read_bert_weights(bert_name: str) -> tuple[dict[str, Tensor], str]:
    """Read a BERT's weights under the names of :class:`BertModel`, and the file they came from.

    A ``bert.`` prefix is taken off, ``gamma`` and ``beta`` become weight and bias, heads are left out but for that of
    the language model (``cls.predictions.*``).

    Raises:
        CheckpointError: if there is no weights file, or it cannot be read.
    """
    for name in WEIGHT_FILES:
        path = _bert_file(bert_name, name)
        if path is not None:
            state = load_state_dict_file(path)
            wanted = (key for key in state if key.startswith(LM_HEAD) or not key.startswith(HEADS))
            return {_plain_name(key): state[key] for key in wanted}, str(path)
    raise CheckpointError(
        f"dataset.bert_name: {bert_name!r} has no {' or '.join(WEIGHT_FILES)}. Put pretrained weights there, "
        "or set model.init: random to train from scratch."
    )


def _plain_name(key: str) -> str:
    key = key.removeprefix("bert.")
    return re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: "LayerNorm." + {"gamma": "weight", "beta": "bias"}[m[1]], key)


def _layer_number(key: str) -> int:
    found = re.match(r"encoder\.layer\.(\d+)\.", key)
    return int(found[1]) if found else -1


def _bert_file(bert_name: str, filename: str) -> Path | None:
    """Return a file of a local folder or, downloaded or cached, of a hub id; None where the model has no such file."""
    folder = resolve_path(bert_name)
    if folder.is_dir():
        return folder / filename if (folder / filename).is_file() else None
    if folder.is_absolute() or bert_name.startswith(".") or bert_name.count("/") > 1:
        raise ConfigError(f"dataset.bert_name: there is no folder {bert_name!r}")
    from transformers.utils import cached_file

    try:
        found = cached_file(bert_name, filename, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise ConfigError(
            f"dataset.bert_name: {bert_name!r} is neither a folder nor a model that could be fetched "
            f"({str(error).splitlines()[0]})"
        ) from error
    return Path(found) if found else None
