"""Base classes of the data path: ids -> features and token ids -> fixed-size model inputs.

A dataset item is made in four steps, each a class named in the YAML (``dataset.meta_processor`` ...)
and built with the ``dataset`` section of the config:

    meta[i] -> (video_id, text_id);  video(video_id) -> (seconds, dim);  text(text_id) -> token ids;
    aligner(video_id, video_feature, text_feature) -> {"caps", "cmasks", "vfeats", "vmasks", ...}
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.store import features
from mmpt.store.features import FeatureStore
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.tokenizers import SpecialIds, load_tokenizer, special_ids

__all__ = [
    "PATH_KEYS",
    "Aligner",
    "AlignerOptions",
    "MetaProcessor",
    "SplitOptions",
    "TextOptions",
    "TextProcessor",
    "UnusableItemError",
    "VideoOptions",
    "VideoProcessor",
    "clip_name",
    "flat_ids",
    "holdout",
    "read_id_list",
    "video_name",
]

#: The splits, and the key of ``dataset`` that names the list of each.
PATH_KEYS = {"train": "train_path", "valid": "val_path", "test": "test_path"}


class UnusableItemError(DataError):
    """Report one item that cannot be used; the dataset counts it and goes on with another."""


@dataclass
class SplitOptions:
    """Which items: ``split`` is train, valid or test; ``val_holdout`` is a fraction in [0, 1)."""

    split: str = "train"
    train_path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    val_holdout: float = 0.0


@dataclass
class VideoOptions:
    """Where the video features lie."""

    vfeat_dir: str | None = None


@dataclass
class TextOptions:
    """Which tokenizer: a local folder or a hub id."""

    bert_name: str = "bert-base-uncased"
    use_fast: bool = True


@dataclass
class AlignerOptions(TextOptions):
    """Sizes of the model input, in tokens (one video token is one second)."""

    split: str = "train"
    max_video_len: int = 32
    max_len: int = 96


def holdout(video_ids: Sequence[str], fraction: float) -> np.ndarray:
    """Return a bool mask of the ids that are held out for validation, the share ``fraction`` in expectation.

    Membership depends on the id alone (a hash): the sides never share a video, whatever else is listed.
    """
    limit = int(fraction * 2**64)
    hashes = (hashlib.blake2b(name.encode(), digest_size=8, person=b"mmpt-holdout").digest() for name in video_ids)
    return np.fromiter((int.from_bytes(digest, "little") < limit for digest in hashes), bool, len(video_ids))


def read_id_list(path: str | Path, key: str) -> list[str]:
    """Read one id per line; blank lines are ignored.

    Raises:
        DataError: if the file is missing or holds no id; names file and key.
    """
    return features.read_id_list(path, f"dataset.{key}")


def video_name(video_id: Any) -> str:
    """Return the id of a video from an id or a tuple that starts with it."""
    return str(video_id[0] if isinstance(video_id, (tuple, list)) else video_id)


def clip_name(video_id: Any) -> str:
    """Return the id of an item: of ``(id, start, end)``, ``id_start_end``, since two clips of a video are two items."""
    return "_".join(map(str, video_id)) if isinstance(video_id, tuple | list) else str(video_id)


class MetaProcessor:
    """List the items of one split as ``(video_id, text_id)``; subclasses fill ``self.data``.

    ``dup`` is how many copies of one list, one after another, ``self.data`` is.
    """

    dup: int = 1
    #: Whether a file says itself which of its items are for training, validation and test.
    file_names_splits: ClassVar[bool] = False
    config_options: ClassVar[dict[str, type]] = {"dataset": SplitOptions}

    def __init__(self, config: Any) -> None:
        options = read_options(config, SplitOptions)
        if options.split not in PATH_KEYS:
            raise ConfigError(f"dataset.split: {options.split!r} is none of {', '.join(PATH_KEYS)}")
        if not 0.0 <= options.val_holdout < 1.0:
            raise ConfigError(f"dataset.val_holdout: {options.val_holdout} is not in [0, 1)")
        self.split = options.split
        self.val_holdout = options.val_holdout
        self.path_key = PATH_KEYS[options.split]
        self._path: str | None = getattr(options, self.path_key)
        self.data: list[Any] = []

    @property
    def path(self) -> Path:
        """The annotation file; ConfigError if its key is not set, DataError if there is no such file."""
        if not self._path:
            raise ConfigError(f"dataset.{self.path_key}: not set, and split {self.split!r} needs it")
        path = resolve_path(self._path)
        if not path.exists():
            raise DataError(f"dataset.{self.path_key}: no such file: {self._path}")
        return path

    def in_split(self, video_ids: Sequence[str]) -> np.ndarray:
        """Return a bool mask of the items of this split; with ``val_holdout``, valid keeps that share, train the rest.

        Raises:
            DataError: if nothing is left.
        """
        keep = np.ones(len(video_ids), dtype=bool)
        if self.val_holdout > 0.0 and self.split != "test":
            held_out = holdout(video_ids, self.val_holdout)
            keep = held_out if self.split == "valid" else ~held_out
        if not keep.any():
            share = f" with dataset.val_holdout {self.val_holdout}" if self.val_holdout else ""
            raise DataError(f"dataset.{self.path_key}: {self._path} gives an empty {self.split} split{share}")
        return keep

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.data[index]


class VideoProcessor:
    """Read the features of a video from ``vfeat_dir/<id>.npy``: ``(seconds, dim)``, native dtype, memory-mapped."""

    config_options: ClassVar[dict[str, type]] = {"dataset": VideoOptions}

    def __init__(self, config: Any) -> None:
        self.vfeat_dir = read_options(config, VideoOptions).vfeat_dir
        if not self.vfeat_dir:
            raise ConfigError("dataset.vfeat_dir: not set; it names the folder of video features")
        self.store = FeatureStore(str(resolve_path(self.vfeat_dir)))

    def __call__(self, video_id: Any) -> np.ndarray:
        """Return the features of a video; DataError if it has none."""
        return self.store[video_name(video_id)]


class TextProcessor:
    """Turn a string into word-piece ids without special tokens."""

    config_options: ClassVar[dict[str, type]] = {"dataset": TextOptions}

    def __init__(self, config: Any) -> None:
        options = read_options(config, TextOptions)
        self.bert_name, self.use_fast = options.bert_name, options.use_fast

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of ``bert_name``; shared in the process, never pickled."""
        return load_tokenizer(self.bert_name, self.use_fast)

    def __call__(self, text_id: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the ids of a text (here ``text_id`` is the text itself)."""
        return self.tokenizer(text_id, add_special_tokens=False, verbose=False)["input_ids"]


class Aligner:
    """Lay out features and token ids as fixed-size model inputs; subclasses say what is cut out of them.

    The model reads ``[CLS] v1..vM [SEP] w1..wn [SEP] [PAD]..`` of ``max_len`` tokens, of which ``caps``
    holds everything but the video tokens: ``[CLS] [SEP] w1..wn [SEP] [PAD]..``.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": AlignerOptions}
    whole_videos: ClassVar[bool] = False  # an item is a whole video in windows, a batch one item

    def __init__(self, config: Any) -> None:
        options = read_options(config, AlignerOptions)
        self.split = options.split
        self.max_video_len, self.max_len = options.max_video_len, options.max_len
        if self.max_video_len < 1 or self.max_text_len < 1:
            raise ConfigError(
                f"dataset.max_len {self.max_len}, dataset.max_video_len {self.max_video_len}: "
                "max_len must exceed max_video_len by at least 4 (three special tokens and a word)"
            )
        self.bert_name = options.bert_name
        self.special_ids: SpecialIds = special_ids(options.bert_name, options.use_fast)
        self.vocab_size = len(load_tokenizer(options.bert_name, options.use_fast))

    @property
    def caps_len(self) -> int:
        """Length of ``caps``, specials included."""
        return self.max_len - self.max_video_len

    @property
    def max_text_len(self) -> int:
        """Word pieces that fit beside the three specials."""
        return self.max_len - self.max_video_len - 3

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the model inputs of one item, for the collater of the dataset."""
        raise TypeError(f"{type(self).__name__} does not say how to align video and text")

    def _build_video_seq(
        self, video_feature: np.ndarray, video_clips: Mapping[str, Sequence[int]] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Concatenate clips of a video until ``max_video_len`` seconds are full.

        Args:
            video_feature: ``(seconds, dim)``, any float dtype.
            video_clips: ``{"start": [..], "end": [..]}`` in whole seconds; default is the first ``max_video_len``.

        Returns:
            ``vfeats`` float32 ``(max_video_len, dim)``, zero-padded, and ``vmasks`` bool ``(max_video_len,)``.

        Raises:
            DataError: if the features are not two-dimensional.
        """
        feature = np.asarray(video_feature)
        if feature.ndim != 2:
            raise DataError(f"video features have shape {feature.shape}; expected (seconds, dim)")
        clips = video_clips or {"start": [0], "end": [min(len(feature), self.max_video_len)]}
        vfeats = np.zeros((self.max_video_len, feature.shape[1]), dtype=np.float32)
        filled = 0
        for start, end in zip(clips["start"], clips["end"], strict=True):
            clip = feature[max(int(start), 0) : max(int(end), 0)][: self.max_video_len - filled]
            vfeats[filled : filled + len(clip)] = clip
            filled += len(clip)
        vmasks = np.arange(self.max_video_len) < filled
        return torch.from_numpy(vfeats), torch.from_numpy(vmasks)

    def _build_text_seq(
        self, text_feature: Any, text_clip_indexes: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out token ids as ``[CLS] [SEP] w1..wn [SEP] [PAD]..``, cutting words that do not fit.

        Args:
            text_feature: token ids (list, array, tensor or a tokenizer's output), or ``{"cap": [ids, ..]}``,
                of which the chosen clips are concatenated.
            text_clip_indexes: clips of ``cap``, default the first.

        Returns:
            ``caps`` int64 and ``cmasks`` bool (specials and words), both ``(max_len - max_video_len,)``.
        """
        words = flat_ids(text_feature, text_clip_indexes)[: self.max_text_len]
        cls, sep, pad, _ = self.special_ids
        caps = np.full(self.caps_len, pad, dtype=np.int64)
        caps[0], caps[1], caps[2 + len(words)] = cls, sep, sep
        caps[2 : 2 + len(words)] = words
        cmasks = np.arange(self.caps_len) < len(words) + 3
        return torch.from_numpy(caps), torch.from_numpy(cmasks)


def flat_ids(text_feature: Any, clip_indexes: Sequence[int] | None = None) -> np.ndarray:
    """Return the int64 ids ``(words,)`` of a text feature of any kind that :class:`Aligner` accepts.

    Raises:
        DataError: if it is anything but a flat list of whole numbers.
    """
    if isinstance(text_feature, Mapping) and "cap" in text_feature:
        clips = text_feature["cap"]
        if not len(clips):
            raise DataError("a text feature holds no clip")
        chosen = [np.asarray(clips[i], dtype=np.int64) for i in ([0] if clip_indexes is None else clip_indexes)]
        return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    if isinstance(text_feature, Mapping):
        text_feature = text_feature["input_ids"]
    ids = np.asarray(text_feature)
    if ids.ndim == 2 and len(ids) == 1:
        ids = ids[0]
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise DataError(f"expected a flat list of token ids, got {ids.dtype} of shape {ids.shape}")
    return ids.astype(np.int64)
