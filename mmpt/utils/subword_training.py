"""Training small tokenizers of the kinds of MERLOT and MERLOT Reserve on own texts, in the published file layouts."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, write_json
from mmpt.utils.special_ids import MERLOT_FIRST_WORD, RESERVE, RESERVE_FIRST_WORD
from mmpt.utils.subwords import MERGES_FILE, RESERVE_FILE, VOCABULARY_FILE

__all__ = ["KINDS", "RESERVE_FILE", "train_subwords"]

KINDS = ("merlot", "reserve")
_BYTES = 256
_END_OF_TEXT = "<|endoftext|>"


def train_subwords(
    kind: str, texts: Iterable[str], vocab_size: int, folder: str | os.PathLike[str], least_count: int = 2
) -> list[Path]:
    """Train byte-level BPE on texts and write it; the same texts give the same files.

    Args:
        kind: ``merlot`` or ``reserve``.
        texts: one after the other, each spoken or written by itself.
        vocab_size: of all ids, special ones included; fewer come of little text.
        folder: where ``encoder.json`` and ``vocab.bpe`` (merlot), or ``lowercase_encoder.json`` (reserve), are written.
        least_count: how often two parts must meet before they are merged.

    Returns:
        The files that were written.

    Raises:
        DataError: if ``vocab_size`` leaves no room for the bytes, there is no text, or the folder holds files with
            which the tokenizer could not be told apart.
        StorageError: if the folder may not be written.
    """
    if kind not in KINDS:
        raise ValueError(f"a tokenizer is one of {', '.join(KINDS)}, not {kind!r}")
    least = _BYTES + (MERLOT_FIRST_WORD + 1 if kind == "merlot" else RESERVE_FIRST_WORD)
    if vocab_size < least:
        raise DataError(f"a vocabulary of {vocab_size} ids is too small: special ids and bytes alone are {least}")
    _refuse_other_files(kind, Path(folder))
    counted = _Counted(texts)
    if kind == "merlot":
        # GPT-2's last id, the end of a text, is the vocabulary's too
        tokenizer = _trained(_gpt2(), counted, vocab_size - MERLOT_FIRST_WORD - 1, [], least_count)
    else:
        tokenizer = _trained(_lower_case(), counted, vocab_size, _reserve_specials(), least_count)
    if not counted.characters:
        raise DataError("there is no text to train a tokenizer on")
    return (_write_merlot if kind == "merlot" else _write_reserve)(tokenizer, Path(folder))


def _refuse_other_files(kind: str, folder: Path) -> None:
    """Refuse a folder that would not say which tokenizer it is."""
    if kind == "merlot":
        other = [RESERVE_FILE] if (folder / RESERVE_FILE).exists() else []
    else:
        other = sorted(file.name for file in folder.glob("*.json") if file.name != RESERVE_FILE)
    if other:
        raise DataError(
            f"{folder}: holds {other[0]}, so that it would not say which tokenizer it is. Use another folder"
        )


class _Counted:
    """Texts that pass through, and how many characters they had."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.characters = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.characters += len(text)
            yield text


def _gpt2() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    # words of a transcript are encoded as in running text, after a space
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def _lower_case() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _reserve_specials() -> list[Any]:
    from tokenizers import AddedToken

    names = {number: name for name, number in RESERVE.items()}
    return [
        AddedToken(f"<|{names.get(number, 'unused0')}|>", normalized=False, special=True)
        for number in range(RESERVE_FIRST_WORD)
    ]


def _trained(tokenizer: Any, texts: Iterable[str], vocab_size: int, special: list[Any], least_count: int) -> Any:
    from tokenizers import pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=least_count,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _write_merlot(tokenizer: Any, folder: Path) -> list[Path]:
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    vocabulary[_END_OF_TEXT] = len(vocabulary)
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    write_json(folder / VOCABULARY_FILE, vocabulary, indent=None)
    with atomic_open(folder / MERGES_FILE) as file:
        # with a new line at the end, so that no reader drops the last merge
        file.write("#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in pairs))
    return [folder / VOCABULARY_FILE, folder / MERGES_FILE]


def _write_reserve(tokenizer: Any, folder: Path) -> list[Path]:
    with atomic_open(folder / RESERVE_FILE) as file:
        file.write(tokenizer.to_str(pretty=True) + "\n")
    return [folder / RESERVE_FILE]
