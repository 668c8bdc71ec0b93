"""Texts and questions as ids of the subwords of MERLOT and MERLOT Reserve, without special ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.clip_text_processor import WordPieces
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.open_questions import OpenQuestion
from mmpt.utils.errors import ConfigError, DataError, shown
from mmpt.utils.options import read_options
from mmpt.utils.subwords import Subwords, load_subwords

__all__ = ["SubwordOptions", "SubwordTextProcessor", "TokenizerCheck", "Tokenised", "subwords_of"]


@dataclass
class SubwordOptions:
    """Which tokenizer.

    Attributes:
        tokenizer: a folder with encoder.json and vocab.bpe (MERLOT), or a .json file of ``tokenizers`` (Reserve).
    """

    tokenizer: str | None = None


def subwords_of(config: Any) -> Subwords:
    """Return the tokenizer of ``dataset.tokenizer``, shared in the process; ConfigError if the key is not set."""
    path = read_options(config, SubwordOptions).tokenizer
    if not path:
        raise ConfigError("dataset.tokenizer: not set; it names the tokenizer's file or folder (docs/data.md)")
    return load_subwords(path)


class TokenizerCheck:
    """Compares whose ids the lines of a file of questions hold, where they say so, with ``dataset.tokenizer``."""

    def __init__(self, config: Any) -> None:
        self._path = read_options(config, SubwordOptions).tokenizer

    def __call__(self, record: Mapping[str, Any], place: str) -> None:
        """Check a line.

        Raises:
            DataError: if its ids are those of the other system; names the place.
        """
        said = record.get("tokenizer")
        if said is None or not self._path:
            return
        kind = load_subwords(self._path).kind
        if said != kind:
            raise DataError(
                f"{place}: its texts are ids of the tokenizer of {shown(said)}, and dataset.tokenizer {self._path} is "
                f"one of {kind}"
            )


class Tokenised:
    """Part of a processor that encodes texts; the tokenizer is never pickled with it."""

    def __init__(self, config: Any) -> None:
        self._tokenizer_of = {"tokenizer": read_options(config, SubwordOptions).tokenizer}
        subwords_of(self._tokenizer_of)

    @property
    def subwords(self) -> Subwords:
        """The tokenizer."""
        return subwords_of(self._tokenizer_of)

    def ids(self, text: Any) -> list[int]:
        """Return the ids of a text; a list of ids stays as it is.

        Raises:
            DataError: if the tokenizer does not have an id: the text was tokenised by another.
        """
        if isinstance(text, str):
            return self.subwords.encode(text)
        ids, known = [int(one) for one in text], self.subwords.special.values()
        if ids and not 0 <= min(ids) <= max(ids) < self.subwords.vocab_size:
            raise DataError(
                f"ids {min(ids)} to {max(ids)} are not all of the {self.subwords.vocab_size} of dataset.tokenizer "
                f"{self._tokenizer_of['tokenizer']}: these texts were tokenised by another"
            )
        unknown = [one for one in ids if one < self.subwords.first_word and one not in known]
        if unknown:
            raise DataError(
                f"id {unknown[0]} is neither a word (from {self.subwords.first_word} on) nor a special id of "
                f"dataset.tokenizer {self._tokenizer_of['tokenizer']}: these texts were tokenised by another"
            )
        return ids

    def running(self, text: Any) -> list[int]:
        """Return the ids of a text as it stands behind another, after a space; a list of ids stays as it is."""
        spaced = isinstance(text, str) and text.strip() and self.subwords.kind == "merlot"
        return self.ids(f" {text.strip()}" if spaced else text)


class SubwordTextProcessor(Tokenised):
    """Encode a caption, the options of a question, or an open-ended question, as running text; ids stay as they are.

    =====================  =====================================================================
    a text                 :class:`~mmpt.processors.clip_text_processor.WordPieces`
    ``Choice``             the same with ids for texts, ``texts`` holding question and options
    ``OpenQuestion``       the same with ids for the question, ``texts`` holding question and answer
    =====================  =====================================================================
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": SubwordOptions}

    def __call__(self, text_id: Any, rng: np.random.Generator | None = None) -> Any:
        """Return ids without special ones; anything else than the above is passed on for the aligner to encode."""
        if isinstance(text_id, str):
            return WordPieces(self.running(text_id), text_id)
        if isinstance(text_id, Choice):
            texts = tuple(text if isinstance(text, str) else "" for text in (text_id.question, *text_id.options))
            options = [self.running(option) for option in text_id.options]
            return text_id._replace(options=options, question=self.running(text_id.question), texts=texts)
        if isinstance(text_id, OpenQuestion):
            texts = (text_id.question, text_id.answer_text)
            return text_id._replace(question=self.running(text_id.question), texts=texts)
        return text_id
