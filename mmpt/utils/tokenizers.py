"""Tokenizers by local folder or hub id, loaded once per process.

A local folder needs no more than ``config.json`` and ``vocab.txt``. Special ids always come from
the tokenizer: vocabularies differ in where ``[CLS]`` and its companions stand.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.utils.errors import ConfigError
from mmpt.utils.files import resolve_path

__all__ = ["SpecialIds", "load_tokenizer", "special_ids"]

_VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


class SpecialIds(NamedTuple):
    """Ids of the special tokens of one vocabulary."""

    cls: int
    sep: int
    pad: int
    mask: int


def load_tokenizer(bert_name: str, use_fast: bool = True) -> Any:
    """Return the Hugging Face tokenizer of a local folder or hub id; one object per name and process.

    A relative folder is looked up from the working directory, then from the repository.

    Raises:
        ConfigError: if the folder has no vocabulary or the hub id cannot be had; names both ways out.
    """
    folder = resolve_path(bert_name)
    # Absolute, for the working directory of a process may change; a hub id is no path.
    return _load(str(folder.absolute() if folder.is_dir() else folder), bool(use_fast))


def special_ids(bert_name: str, use_fast: bool = True) -> SpecialIds:
    """Return the ids of ``[CLS]``, ``[SEP]``, ``[PAD]`` and ``[MASK]`` of a tokenizer.

    Raises:
        ConfigError: if the tokenizer cannot be had or lacks one of them.
    """
    tokenizer = load_tokenizer(bert_name, use_fast)
    values = [getattr(tokenizer, f"{name}_token_id") for name in SpecialIds._fields]
    missing = [f"{name}_token" for name, value in zip(SpecialIds._fields, values, strict=True) if value is None]
    if missing:
        raise ConfigError(f"dataset.bert_name: the tokenizer of {bert_name!r} has no {', '.join(missing)}")
    return SpecialIds(*values)


@functools.lru_cache(maxsize=8)
def _load(name: str, use_fast: bool) -> Any:
    folder = Path(name)
    local = folder.is_dir()
    # Without a vocabulary file transformers makes an empty tokenizer that maps every word to [UNK].
    if local and not any((folder / file).is_file() for file in _VOCABULARY_FILES):
        raise ConfigError(f"dataset.bert_name: folder {name!r} holds no vocabulary (vocab.txt or tokenizer.json)")
    from transformers import AutoTokenizer

    try:
        # code beside a tokenizer is not run
        settings = {"use_fast": use_fast, "local_files_only": local, "trust_remote_code": False}
        return AutoTokenizer.from_pretrained(name, **settings)
    except (OSError, ValueError, KeyError) as error:
        kind = "folder" if local else "neither a local folder nor a model that the hub or its cache delivers"
        raise ConfigError(
            f"dataset.bert_name: no tokenizer in {name!r} ({kind}): {str(error).splitlines()[0]}. "
            "A local folder that holds config.json and vocab.txt works without a network."
        ) from error
