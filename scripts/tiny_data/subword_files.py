"""Tiny tokenizers in the files of MERLOT and MERLOT Reserve: bytes, and a few merges of them."""

import json
from collections.abc import Iterable
from pathlib import Path

from mmpt.utils.special_ids import RESERVE

__all__ = ["write_merlot_tokenizer", "write_reserve_tokenizer"]


def write_merlot_tokenizer(folder: Path, merges: Iterable[str] = ("t h", "Ġ a")) -> Path:
    """Write ``encoder.json`` and ``vocab.bpe`` of all bytes and some merges; return the folder."""
    listed = list(merges)
    tokens = [*_bytes(), *(merge.replace(" ", "") for merge in listed)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *listed]) + "\n")
    return folder


def write_reserve_tokenizer(path: Path) -> Path:
    """Write a file of the library ``tokenizers`` with Reserve's special ids and all bytes; return it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    names = {number: f"<|{name}|>" for name, number in RESERVE.items()}
    special = [names.get(number, f"<|unused{number}|>") for number in range(max(names) + 1)]
    vocabulary = {token: number for number, token in enumerate([*special, *_bytes()])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=names[RESERVE["UNK"]]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


def _bytes() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())
