"""The data path of systems that see a few raw frames (VIOLET, LAVENDER): stored frames -> fixed-size model inputs.

Shapes: T frames, S pixels a side, X text positions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.processors.base import (
    TextOptions,
    UnusableItemError,
    clip_name,
    flat_ids,
    video_name,
)
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.frame_sampling import nearest_frame, sample_frames
from mmpt.processors.frame_transforms import FrameTransform, refuse_oblong
from mmpt.processors.text_layouts import plain
from mmpt.store.frame_store import StoredFrames, open_frames
from mmpt.store.images import decode_image
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options
from mmpt.utils.tokenizers import SpecialIds, load_tokenizer, special_ids

__all__ = [
    "FrameAligner",
    "FrameAlignerOptions",
    "FrameVideoOptions",
    "FrameVideoProcessor",
    "lay_out_words",
]


@dataclass
class FrameVideoOptions:
    """Where the frames lie.

    Attributes:
        frame_path: the folder of the frame store.
    """

    frame_path: str | None = None


@dataclass
class FrameAlignerOptions(TextOptions):
    """Sizes of the model input.

    Attributes:
        split: train, valid or test; only training draws frames and crops at random.
        num_frames: frames that the model takes of a video (T).
        image_size: side of a frame, in pixels (S).
        image_transform: how a frame becomes a square: ``pad_resize``, ``vid_rand_crop``, ``img_rand_crop``,
            ``vid_center_crop``, ``img_center_crop``, or a list of them, of which training draws one for each clip.
        max_text_len: word pieces of a text, with ``[CLS]`` and ``[SEP]`` (X).
    """

    split: str = "train"
    num_frames: int = 4
    image_size: int = 224
    image_transform: Any = field(default_factory=lambda: ["pad_resize"])
    max_text_len: int = 32


class FrameVideoProcessor:
    """Find the stored frames of a video, or those of ``(id, start, end)``; nothing is decoded yet."""

    config_options: ClassVar[dict[str, type]] = {"dataset": FrameVideoOptions}

    def __init__(self, config: Any) -> None:
        """Open the store.

        Raises:
            ConfigError: if ``frame_path`` is not set.
            DataError: if there is no such store.
        """
        path = read_options(config, FrameVideoOptions).frame_path
        if not path:
            raise ConfigError("dataset.frame_path: not set; it names the frame store")
        self.frame_path = str(resolve_path(path))
        self.store = open_frames(self.frame_path)

    def __call__(self, video_id: Any) -> StoredFrames:
        """Return the frames of a video id; of ``(id, start, end)`` those within these seconds, or the nearest one.

        Raises:
            DataError: if the store has none of the video, or does not know the times that a clip needs; names it.
        """
        stored = self.store[video_name(video_id)]
        if not isinstance(video_id, tuple | list) or len(video_id) < 3 or not len(stored):
            return stored
        start, end = map(float, video_id[1:3])
        clip = stored.between(start, end)
        if len(clip):
            return clip
        try:
            nearest = nearest_frame(stored.seconds, start, end)
        except DataError as error:
            raise DataError(f"{self.frame_path}: video {video_id[0]!r}: {error}") from error
        return stored[nearest : nearest + 1]


class FrameAligner:
    """Align a few frames of a clip with a sentence; retrieval as it is, other tasks by what they make of the text.

    Text is laid out as ``[CLS] w1..wn [SEP] [PAD]..`` in ``max_text_len`` positions.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": FrameAlignerOptions}
    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the sizes.

        Raises:
            ConfigError: if one cannot be, a transform is not known, or there is no tokenizer.
        """
        options = read_options(config, FrameAlignerOptions)
        self.split = options.split
        if options.num_frames < 1:
            raise ConfigError(f"dataset.num_frames: {options.num_frames} is not a number of frames (1 or more)")
        if options.max_text_len < 3:
            raise ConfigError(f"dataset.max_text_len: {options.max_text_len} has no room for [CLS], a word and [SEP]")
        self.num_frames, self.image_size = options.num_frames, options.image_size
        self.max_text_len = options.max_text_len
        self.transform = FrameTransform(options.image_transform, options.image_size)
        self.bert_name = options.bert_name
        self.special_ids: SpecialIds = special_ids(options.bert_name, options.use_fast)
        self.vocab_size = len(load_tokenizer(options.bert_name, options.use_fast))
        self.cut = CutTexts("are cut at their end: dataset.max_text_len leaves too little room")

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the model inputs of one clip and one sentence.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, JPEG bytes, of a :class:`FrameVideoProcessor`.
            text_feature: ids of the word pieces, without special ones.
            rng: draws frames and crops, in training.

        Returns:
            ``vfeats`` uint8 (T, 3, S, S), ``vmasks`` bool (T,), ``caps`` int64 (X,), ``cmasks`` bool (X,),
            ``video_id``, and ``video_key`` int64 (), which is the same for items of the same clip: what is no negative
            of each other in a batch. In the test split also ``text``, where the text processor keeps it.

        Raises:
            UnusableItemError: as :meth:`frames`.
            DataError: if the ids are not a flat list; names the video.
        """
        item = self.video(video_id, stored, rng)
        try:
            item["caps"], item["cmasks"] = self.text(text_feature)
        except DataError as error:
            raise DataError(f"video {item['video_id']}: {error}") from error
        self.count_cut(item["video_id"], len(flat_ids(text_feature)) - (self.max_text_len - 2))
        text = getattr(text_feature, "text", None)
        return {**item, "text": text} if self.split == "test" and text is not None else item

    def video(self, video_id: Any, stored: StoredFrames, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return what an item holds of the video: ``vfeats``, ``vmasks``, ``video_id`` and ``video_key``."""
        return self.video_item(video_id, *self.frames(video_id, stored, rng))

    def video_item(self, video_id: Any, vfeats: torch.Tensor, vmasks: torch.Tensor) -> dict[str, Any]:
        """Return frames that are read, under the names of an item, with the clip's id and key."""
        name = clip_name(video_id)
        return {"vfeats": vfeats, "vmasks": vmasks, "video_id": name, "video_key": torch.tensor(_key(name))}

    def frames(
        self, video_id: Any, stored: StoredFrames, rng: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose, decode and transform frames; others are not decoded.

        Returns:
            ``vfeats`` uint8 (T, 3, S, S), RGB, and ``vmasks`` bool (T,). Where fewer frames are stored than T, all of
            them stand at the beginning, and black ones with a false mask behind.

        Raises:
            UnusableItemError: if there is no frame, or one is damaged; names video and frame. A dataset may take
                another item in place of this one.
        """
        return self.read_frames(video_id, stored, self.choose_frames(video_id, stored, rng), rng)

    def choose_frames(self, video_id: Any, stored: StoredFrames, rng: np.random.Generator | None) -> list[int]:
        """Return the numbers of the stored frames to look at; UnusableItemError if there is none."""
        if not len(stored):
            raise UnusableItemError(f"video {clip_name(video_id)}: has no stored frame")
        return sample_frames(len(stored), self.num_frames, rng if self.split == "train" else None)

    def read_frames(
        self, video_id: Any, stored: StoredFrames, numbers: Sequence[int], rng: np.random.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode and transform the frames of these numbers; as :meth:`frames`."""
        name = clip_name(video_id)
        images = []
        for number in numbers:
            try:
                images.append(refuse_oblong(decode_image(stored.read(number))))
            except DataError as error:
                raise UnusableItemError(f"video {name}: frame {number} of {len(stored)}: {error}") from error
        vfeats = np.empty((self.num_frames, 3, self.image_size, self.image_size), dtype=np.uint8)
        self.transform(images, rng if self.split == "train" else None, vfeats[: len(numbers)])
        vfeats[len(numbers) :] = 0
        vmasks = np.arange(self.num_frames) < len(numbers)
        return torch.from_numpy(vfeats), torch.from_numpy(vmasks)

    def text(self, words: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``caps`` int64 (X,) and ``cmasks`` bool (X,) of word-piece ids; those that do not fit are cut off."""
        return lay_out_words(words, self.max_text_len, self.special_ids)

    def count_cut(self, name: str, over: int) -> None:
        """Count a text about a video, and whether word pieces of it, ``over`` if positive, are cut off."""
        self.cut.add(over > 0, f"video {name}, {over} word pieces too many")

    def _build_text_seq(self, text_feature: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out one text under the name that the published snippet calls, of every system's aligner."""
        return self.text(text_feature)


def lay_out_words(words: Any, length: int, special: SpecialIds) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out word-piece ids as ``[CLS] w1..wn [SEP] [PAD]..``, cutting off those that do not fit.

    Returns:
        Ids int64 (length,), and bool (length,), true for all but ``[PAD]``.

    Raises:
        DataError: if the ids are not a flat list.
    """
    text = plain(flat_ids(words).tolist(), length, special)
    return torch.from_numpy(text.caps), torch.from_numpy(text.cmasks)


def _key(name: str) -> int:
    """Return 64 bits that stand for an id: the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
