"""The tokenizers of MERLOT and MERLOT Reserve, from the published files or from those of ``scripts/tokenizers``.

======== ============================================== ============================================================
kind     path                                           what it does
======== ============================================== ============================================================
merlot   a folder with ``encoder.json`` and             GPT-2's byte-level BPE; every id is 100 higher, and what is
         ``vocab.bpe``                                  below 100 is special and no text encodes to it
reserve  a ``.json`` file of the library                lower case without accents, byte-level BPE, a space before the
         ``tokenizers``                                 first word; ``<|MASK|>`` and its like in a text are special ids
======== ============================================== ============================================================

Both need nothing but ``tokenizers``, which comes with transformers.
"""

import functools
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.utils.errors import ConfigError, shown
from mmpt.utils.files import resolve_path
from mmpt.utils.special_ids import MERLOT, MERLOT_FIRST_WORD, RESERVE, RESERVE_FIRST_WORD

__all__ = [
    "MERGES_FILE",
    "RESERVE_FILE",
    "VOCABULARY_FILE",
    "MerlotSubwords",
    "ReserveSubwords",
    "Subwords",
    "load_subwords",
    "subwords_files",
]

VOCABULARY_FILE, MERGES_FILE = "encoder.json", "vocab.bpe"
#: The name of the published file of MERLOT Reserve.
RESERVE_FILE = "lowercase_encoder.json"
_REMEMBERED = 1 << 16  # words


class Subwords(ABC):
    """A tokenizer between text and ids; pickled, it is its path.

    Attributes:
        kind: ``"merlot"`` or ``"reserve"``.
        vocab_size: one more than the largest id.
        special: the named special ids.
        first_word: ids from here on are words and parts of words.

    Args:
        tokenizer: of the library ``tokenizers``.
        special: the named special ids.
        shift: what is added to the ids of ``tokenizer``.
    """

    kind: str
    first_word: int

    def __init__(self, tokenizer: Any, special: Mapping[str, int], shift: int = 0) -> None:
        self._tokenizer, self.special, self._shift = tokenizer, special, shift
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1 + shift
        self._word = functools.lru_cache(_REMEMBERED)(self._encode_word)
        self._origin: tuple[str, bool] | None = None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special ids around them."""
        return [id + self._shift for id in self._tokenizer.encode(text, add_special_tokens=False).ids]

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word as it stands in running text, after a space; none of an empty word."""
        return [list(self._word(word)) for word in words]

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """Return ``{"input_ids": ids}`` of running text, as a store has its words: what the published snippet calls.

        Raises:
            ValueError: if special ids are asked for: aligners lay them out.
        """
        if add_special_tokens:
            raise ValueError("add_special_tokens: the aligner lays out special ids, not this tokenizer")
        return {"input_ids": [id for word in self.encode_words(text.split()) for id in word]}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; special ones read ``<|NAME|>``, those that are no token's ``<|number|>``."""
        names = {number: name for name, number in self.special.items()}
        text = []
        for is_token, run in itertools.groupby(map(int, ids), lambda id: self._shift <= id < self.vocab_size):
            if is_token:
                text.append(self._tokenizer.decode([id - self._shift for id in run], skip_special_tokens=False))
            else:
                text += [f"<|{names.get(id, id)}|>" for id in run]
        return "".join(text)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin is None:
            raise TypeError("a tokenizer that was not loaded from a path cannot be pickled")
        return load_subwords, self._origin

    def _encode_word(self, word: str) -> tuple[int, ...]:
        return tuple(self.encode(self._in_text(word))) if word else ()

    @abstractmethod
    def _in_text(self, word: str) -> str:
        """Return a word so that it is encoded as after a space."""


class MerlotSubwords(Subwords):
    """MERLOT's: the ids of GPT-2 plus 100 (arXiv:2106.02636)."""

    kind = "merlot"
    first_word = MERLOT_FIRST_WORD

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, MERLOT, MERLOT_FIRST_WORD)

    def _in_text(self, word: str) -> str:
        return f" {word}"


class ReserveSubwords(Subwords):
    """MERLOT Reserve's (arXiv:2201.02639)."""

    kind = "reserve"
    first_word = RESERVE_FIRST_WORD

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, RESERVE)

    def _in_text(self, word: str) -> str:
        return word  # the tokenizer puts the space before it


def load_subwords(path: str | os.PathLike[str], keep_last_merge: bool = False) -> Subwords:
    """Return the tokenizer of a path (``dataset.tokenizer``); one object per path and process.

    Args:
        path: a folder with ``encoder.json`` and ``vocab.bpe``, or a ``.json`` file (or a folder with one); looked up
            from the working directory, then from the repository.
        keep_last_merge: also read the last line of a ``vocab.bpe`` that does not end with a new line. The published
            reader drops it, and the published file has none there: MERLOT's weights never saw its last merge.

    Raises:
        ConfigError: if there is no tokenizer, or one with other special ids; names path and key.
    """
    states = [os.stat(file) for file in subwords_files(path)]
    stamp = tuple((state.st_size, state.st_mtime_ns) for state in states)  # of files that were trained anew
    return _load(str(resolve_path(path).absolute()), bool(keep_last_merge), stamp)


def subwords_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of the tokenizer of a path: the two of MERLOT's kind, or the one of MERLOT Reserve's.

    Raises:
        ConfigError: if there is none, or one of either kind; names path and key.
    """
    place = resolve_path(path)
    pair = [place / VOCABULARY_FILE, place / MERGES_FILE]
    if all(file.is_file() for file in pair):
        if (place / RESERVE_FILE).exists():
            raise ConfigError(
                f"dataset.tokenizer: {str(path)!r} holds MERLOT's files and MERLOT Reserve's {RESERVE_FILE}: put one of"
                " the tokenizers elsewhere, or name the file"
            )
        return pair
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if len(files) != 1 or not files[0].is_file():
        raise ConfigError(
            f"dataset.tokenizer: {str(path)!r} is neither a folder with {VOCABULARY_FILE} and {MERGES_FILE} (MERLOT)"
            " nor a .json file of the library tokenizers (MERLOT Reserve). Copy the published files there, or train"
            " your own with scripts/tokenizers/train.py"
        )
    return files


@functools.lru_cache(maxsize=8)
def _load(path: str, keep_last_merge: bool, stamp: tuple[tuple[int, int], ...]) -> Subwords:
    files = subwords_files(path)
    subwords: Subwords
    if len(files) == 2:
        subwords = _load_merlot(Path(path), keep_last_merge)
    else:
        subwords = _load_reserve(files[0])
    subwords._origin = (path, keep_last_merge)
    return subwords


def _load_merlot(folder: Path, keep_last_merge: bool) -> MerlotSubwords:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary_file, merges_file = folder / VOCABULARY_FILE, folder / MERGES_FILE
    try:
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        if not (keep_last_merge and lines[-1]):
            lines.pop()
        merges = [(first, second) for first, second in (line.split(" ") for line in lines[1:])]
        odd = next((pair for pair in merges if not {*pair, "".join(pair)} <= vocabulary.keys()), None)
        if odd is not None:  # the library would panic
            raise _unusable(folder, f"{MERGES_FILE} does not fit {VOCABULARY_FILE}: the merge {' '.join(odd)}")
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except ConfigError:
        raise
    except Exception as error:  # the library raises no class of its own
        raise _unusable(folder, f"{VOCABULARY_FILE} or {MERGES_FILE}: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return MerlotSubwords(tokenizer)


def _load_reserve(file: Path) -> ReserveSubwords:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no class of its own
        raise _unusable(file, str(error)) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    there = {name: tokenizer.token_to_id(f"<|{name}|>") for name in RESERVE}
    if there != RESERVE:
        differing = {name: id for name, id in there.items() if id != RESERVE[name]}
        raise _unusable(file, f"its special ids are not MERLOT Reserve's: {differing}, not {dict(RESERVE)}")
    return ReserveSubwords(tokenizer)


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"dataset.tokenizer: {path} is no usable tokenizer ({shown(reason, 300)})")
