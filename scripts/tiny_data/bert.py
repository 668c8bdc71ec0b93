"""A very narrow BERT of 12 layers: as many as ``num_iso_layer: 12`` of the public files needs."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save

from mmpt.modules.bert import BertConfig, BertModel
from mmpt.utils.files import atomic_open

__all__ = ["write_bert"]

_SIZES = {
    "model_type": "bert",
    "hidden_size": 24,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    # wider than BERT's 0.02: so narrow a model would else begin with states that hardly depend on its input
    "initializer_range": 0.1,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def write_bert(folder: Path, words: Iterable[str], seed: int) -> None:
    """Write config.json, vocab.txt and random weights; ``words`` are whole pieces, anything else is spelled."""
    whole = sorted(set(words) - set(_LETTERS))
    pieces = [*_SPECIALS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *whole]
    sizes = {**_SIZES, "vocab_size": len(pieces)}
    with atomic_open(folder / "vocab.txt") as file:
        file.writelines(f"{piece}\n" for piece in pieces)
    with atomic_open(folder / "config.json") as file:
        file.write(json.dumps(sizes, indent=2) + "\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(**{key: value for key, value in sizes.items() if key != "model_type"}))
    with atomic_open(folder / "model.safetensors", "wb") as file:
        file.write(save({f"bert.{name}": value.contiguous() for name, value in model.state_dict().items()}))
