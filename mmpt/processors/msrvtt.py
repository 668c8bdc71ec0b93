"""MSR-VTT text-video retrieval: videos listed in CSV files, captions in the corpus' JSON file."""

import functools
import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mmpt.processors.annotations import AnnotationOptions, SkipReport, features_of, missing_field, safe_video_id
from mmpt.processors.base import MetaProcessor, SplitOptions, TextOptions, TextProcessor
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.options import read_options

if TYPE_CHECKING:
    import pandas  # takes a second to import, which whoever loads a model need not wait for

__all__ = [
    "MSRVTTMetaOptions",
    "MSRVTTMetaProcessor",
    "MSRVTTTextOptions",
    "MSRVTTTextProcessor",
    "fixed_caption",
    "read_captions",
]

logger = logging.getLogger(__name__)


@dataclass
class MSRVTTMetaOptions(SplitOptions, AnnotationOptions):
    """Lists of MSR-VTT.

    Attributes:
        jsfusion_path: the 1k-A test list; with ``full_test_path`` it defines which test videos train too.
        full_test_path: the full test list.
        json_path: MSRVTT_data.json, the captions of lists without a ``sentence`` column.
        all_captions: a test takes every caption of ``json_path`` (the full protocol), also where its list has a
            ``sentence`` column.
        dup: how often the training list is repeated, so that an epoch is long (published: 20).
    """

    jsfusion_path: str | None = None
    full_test_path: str | None = None
    json_path: str | None = None
    all_captions: bool = False
    dup: int = 1


@dataclass
class MSRVTTTextOptions(TextOptions):
    """Tokenizer, and the captions that training picks from."""

    split: str = "train"
    json_path: str | None = None


def read_captions(path: str | os.PathLike[str]) -> Mapping[str, list[str]]:
    """Return video id -> captions of ``{"sentences": [{"video_id", "caption"}, ..]}``; read once per process.

    Raises:
        DataError: if the file is anything else; names file and key.
    """
    file = resolve_path(path)
    try:
        status = os.stat(file)
    except OSError as error:
        raise DataError(f"dataset.json_path: {path} cannot be read ({error.strerror})") from error
    return _read_captions(str(file), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _read_captions(path: str, _modified: int, _size: int) -> Mapping[str, list[str]]:
    content = read_json(path)
    sentences = content.get("sentences") if isinstance(content, dict) else None
    if not isinstance(sentences, list):
        raise missing_field(path, "list", "sentences", content if isinstance(content, dict) else [])
    captions: dict[str, list[str]] = {}
    for number, sentence in enumerate(sentences):
        for key in ("video_id", "caption"):
            if not isinstance(sentence, dict) or not isinstance(sentence.get(key), str):
                present = sentence if isinstance(sentence, dict) else []
                raise missing_field(f"{path}: sentence {number}", "text", key, present)
        if sentence["caption"].strip():
            captions.setdefault(sentence["video_id"], []).append(sentence["caption"])
    return MappingProxyType(captions)


def fixed_caption(video_id: str, captions: Mapping[str, list[str]]) -> str:
    """Return one caption of a video, always the same: it depends on the id and the captions alone."""
    choices = captions[video_id]
    return choices[zlib.crc32(video_id.encode()) % len(choices)]


class MSRVTTMetaProcessor(MetaProcessor):
    """List ``(video_id, text_id)`` of MSR-VTT.

    In training with ``json_path`` the text id is the video id, and the text processor draws a caption.
    Otherwise it is the text: the ``sentence`` column, or, in a list that has none, captions of
    ``json_path``: in a test every caption of each video is an item, so that a video is the answer to
    several queries; in a validation split (held out of the training list) one fixed caption per video.

    Training with both ``full_test_path`` and ``jsfusion_path`` adds the videos of the former that are not
    in the latter (the 1k-A protocol), and repeats the list ``dup`` times.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MSRVTTMetaOptions}

    def __init__(self, config: Any) -> None:
        """Read the list.

        Raises:
            ConfigError: if a needed key is not set, or a value cannot be used.
            DataError: if a file or column is missing, the split is empty or too much of it has no features.
        """
        super().__init__(config)
        self.options = read_options(config, MSRVTTMetaOptions)
        if self.options.dup < 1:
            raise ConfigError(f"dataset.dup: {self.options.dup} is not a number of repetitions (1 or more)")
        if self.split == "test" and self.options.all_captions and not self.options.json_path:
            raise ConfigError("dataset.all_captions: the captions come from dataset.json_path, which is not set")
        table = _read_list(self.path)
        table = self._with_full_test(table) if self.split == "train" else table
        table = table[self.in_split(table["video_id"].tolist())]
        if self.split == "test" and self.options.json_path and (self.options.all_captions or "sentence" not in table):
            table = _with_every_caption(table, read_captions(self.options.json_path))
        store = features_of(config)
        skips = SkipReport(self.path, self.options.max_missing)
        for video_id, text in zip(table["video_id"], self._texts(table), strict=True):
            if not text:
                skips.add("without a caption", video_id)
            elif store is not None and video_id not in store:
                skips.add("without features", video_id)
            else:
                self.data.append((video_id, text))
        skips.close(len(table))
        if self.split == "train":
            self.dup = self.options.dup
            self.data = self.data * self.dup

    def _with_full_test(self, table: "pandas.DataFrame") -> "pandas.DataFrame":
        """Return the training list with the test videos that the 1k-A test list leaves over."""
        full, tested = self.options.full_test_path, self.options.jsfusion_path
        if not (full and tested):
            if full or tested:
                alone = "full_test_path" if full else "jsfusion_path"
                logger.warning("dataset.%s is ignored: it needs both full_test_path and jsfusion_path", alone)
            return table
        added = _read_list(resolve_path(full))
        excluded = {*_read_list(resolve_path(tested))["video_id"], *table["video_id"]}
        added = added[~added["video_id"].isin(excluded)].drop_duplicates("video_id")
        logger.info("%s: %d videos of %s added for training", self.path, len(added), full)
        import pandas

        return pandas.concat([table, added], ignore_index=True)

    def _texts(self, table: "pandas.DataFrame") -> list[str]:
        """Return the text id of each row, an empty string where there is no caption."""
        if self.options.json_path and (self.split == "train" or "sentence" not in table):
            captions = read_captions(self.options.json_path)
            names = [name if name in captions else "" for name in table["video_id"]]
            return names if self.split == "train" else [name and fixed_caption(name, captions) for name in names]
        if "sentence" not in table:
            absent = missing_field(self.path, "column", "sentence", table.columns)
            raise DataError(f"{absent} Without it the captions come from dataset.json_path, which is not set")
        return [text.strip() for text in table["sentence"].fillna("")]


class MSRVTTTextProcessor(TextProcessor):
    """Tokenise; in training with ``json_path``, one of the video's captions, drawn at each access."""

    config_options: ClassVar[dict[str, type]] = {"dataset": MSRVTTTextOptions}

    def __init__(self, config: Any) -> None:
        """Check the caption file.

        Raises:
            DataError: if training has ``json_path`` and it is not the corpus' caption file.
        """
        super().__init__(config)
        options = read_options(config, MSRVTTTextOptions)
        self.json_path = options.json_path if options.split == "train" else None
        if self.json_path:
            read_captions(self.json_path)

    def __call__(self, text_id: str, rng: np.random.Generator | None = None) -> list[int]:
        """Return the word-piece ids of a text or, in training, of a caption drawn with ``rng`` (:meth:`choose`)."""
        return super().__call__(self.choose(text_id, rng))

    def choose(self, text_id: str, rng: np.random.Generator | None = None) -> str:
        """Return a text or, in training, a caption drawn with ``rng``.

        Without ``rng`` the caption is the fixed one of :func:`fixed_caption`.

        Raises:
            DataError: if the video has no captions.
        """
        if not self.json_path:
            return text_id
        captions = read_captions(self.json_path)
        if text_id not in captions:
            raise DataError(f"{self.json_path}: no captions for video {text_id!r}.{nearest(text_id, captions)}")
        if rng is None:
            return fixed_caption(text_id, captions)
        choices = captions[text_id]
        return choices[int(rng.integers(len(choices)))]


def _with_every_caption(table: "pandas.DataFrame", captions: Mapping[str, list[str]]) -> "pandas.DataFrame":
    """Return a row for every caption of every video in ``table``; a video without captions keeps an empty one."""
    import pandas

    ids = list(dict.fromkeys(table["video_id"]))  # a list of sentences may name a video once for each
    rows = [(name, text) for name in ids for text in captions.get(name, [""])]
    return pandas.DataFrame(rows, columns=["video_id", "sentence"])


def _read_list(path: str | os.PathLike[str]) -> "pandas.DataFrame":
    """Read a CSV with a column ``video_id``, everything as text.

    Raises:
        DataError: if there is no such file, column or row; names file and column.
    """
    import pandas

    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from error
    if "video_id" not in table:
        raise missing_field(path, "column", "video_id", table.columns)
    if table.empty:
        raise DataError(f"{path}: lists no videos")
    for video_id in table["video_id"]:
        safe_video_id(video_id, path)
    return table
