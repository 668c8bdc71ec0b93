"""Items of MERLOT's pre-training (arXiv:2106.02636, section 3): chunks of videos, their words, and the order to tell.

What attention masks of the words needs the model: the item brings the randomness of that choice.

Shapes: N chunks of a record, X text positions of a chunk, (H, W) pixels of a frame.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.attention_masking import masked_count, masking_noise
from mmpt.modules.merlot_tokens import FIRST_WORD, NEXTCAPTION_START, PADDING, START
from mmpt.processors.base import UnusableItemError, flat_ids
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.segment_base import Record, RecordSegments, subwords_of_kind
from mmpt.processors.segment_images import MERLOT_SCALE, MERLOTTransform, image_scale
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = ["MERLOTPretrainingAligner", "MERLOTPretrainingAlignerOptions", "lay_out_chunk", "scramble", "shuffle_order"]

# How often training takes the second transcript, as recognised, where there is one.
_RAW = 0.5
# Index embeddings that images have in all: the positions in a group, then those of scrambled ones.
_IMAGE_INDICES = 1024


@dataclass
class MERLOTPretrainingAlignerOptions:
    """Keys of ``dataset``.

    Attributes:
        split: train, valid or test; only training changes frames, transcripts and the order of videos at random.
        tokenizer: folder of the byte-pair encoding that the stored ids are of.
        num_chunks: segments of a record (N).
        chunks_in_group: of these, how many the joint encoder sees together.
        max_text_len: positions of the text of a chunk, its start among them (X).
        image_size: height and width of a frame, in pixels.
        image_scale: least and greatest factor by which training enlarges a frame before cropping; null: 1.125 to 1.5.
        image_shuffle_prob: how often images of a group lose their place in time.
        shuffle_offset: index of the first unknown place. The model must take it for one: it does from 64 on.
        shuffle_chunks: whether training changes the order of the videos of a record.
    """

    split: str = "train"
    tokenizer: str | None = None
    num_chunks: int = 16
    chunks_in_group: int = 4
    max_text_len: int = 32
    image_size: list[int] = field(default_factory=lambda: [192, 352])
    image_scale: Any = None
    image_shuffle_prob: float = 0.4
    shuffle_offset: int = 64
    shuffle_chunks: bool = True


class MERLOTPretrainingAligner:
    """Lay out a record of chunks and draw what the model is to tell of it."""

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTPretrainingAlignerOptions}
    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the sizes.

        Raises:
            ConfigError: if one cannot be, or there is no tokenizer.
        """
        self.options = options = read_options(config, MERLOTPretrainingAlignerOptions)
        self.split = options.split
        if options.chunks_in_group < 1 or options.num_chunks % options.chunks_in_group:
            raise ConfigError(
                f"dataset.num_chunks: {options.num_chunks} is no multiple of dataset.chunks_in_group:"
                f" {options.chunks_in_group}"
            )
        if options.max_text_len < 2:
            raise ConfigError(f"dataset.max_text_len: {options.max_text_len} has no room for the start and a word")
        if len(options.image_size) != 2 or min(options.image_size) < 1:
            raise ConfigError(f"dataset.image_size: {options.image_size} is not [height, width] in pixels")
        if not 0 <= options.image_shuffle_prob <= 1:
            raise ConfigError(f"dataset.image_shuffle_prob: {options.image_shuffle_prob} is not in [0, 1]")
        if not options.chunks_in_group <= options.shuffle_offset <= _IMAGE_INDICES - options.chunks_in_group:
            raise ConfigError(
                f"dataset.shuffle_offset: {options.shuffle_offset} is not between the places of a group,"
                f" {options.chunks_in_group}, and {_IMAGE_INDICES - options.chunks_in_group}"
            )
        self.vocab_size = subwords_of_kind(options.tokenizer, "merlot").vocab_size
        height, width = options.image_size
        self.transform = MERLOTTransform((height, width), image_scale(options.image_scale, MERLOT_SCALE))
        self.cut = CutTexts("are cut at their end: dataset.max_text_len leaves too little room")

    def __call__(
        self,
        video_id: Record,
        video_feature: RecordSegments,
        text_feature: RecordSegments,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return a record of chunks, nothing masked yet.

        Args:
            video_id: which record.
            video_feature: its stored segments; frames are read from here.
            text_feature: the same; words are read from here.
            rng: of the item.

        Returns:
            ``vfeats`` uint8 (N, 3, H, W); ``tokens`` int64 (N, X), each row ``START w1..wn PADDING..``, or
            ``NEXTCAPTION_START`` where the transcript is as recognised, the same for a whole record;
            ``shuffled_idx_img`` int64 (N,), the place of each image in its group as the model is told it;
            ``video_src_ids`` int64 (N,), which video each chunk is of; ``video_id``; and the noise of
            :func:`~mmpt.modules.attention_masking.masking_noise`.

        Raises:
            UnusableItemError: if a frame is damaged, or nobody speaks in the whole record; names it.
            DataError: if the record is of another length.
        """
        options = self.options
        if len(video_feature) != options.num_chunks:
            raise DataError(f"{video_id.name}: {len(video_feature)} chunks, dataset.num_chunks is {options.num_chunks}")
        rng = np.random.default_rng(0) if rng is None else rng
        drawn = rng if self.split == "train" else None
        tokens = self._texts(video_id, text_feature, drawn)
        pixels = video_feature.frames(self.transform, drawn)
        sources = video_feature.sources
        if drawn is not None and options.shuffle_chunks:
            order = shuffle_order(drawn, sources, options.chunks_in_group)
            tokens, pixels, sources = tokens[order], pixels[order], sources[order]
        groups = options.num_chunks // options.chunks_in_group
        length = options.chunks_in_group * options.max_text_len
        return {
            "vfeats": torch.from_numpy(pixels),
            "tokens": torch.from_numpy(tokens),
            "shuffled_idx_img": torch.from_numpy(
                scramble(rng, groups, options.chunks_in_group, options.image_shuffle_prob, options.shuffle_offset)
            ),
            "video_src_ids": torch.from_numpy(_renumbered(sources)),
            "video_id": video_id.name,
            **masking_noise(rng, groups, length, masked_count(length), FIRST_WORD, self.vocab_size),
        }

    def _build_text_seq(self, text_feature: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out the ids of one text as a chunk's, under the name that the published snippet calls.

        Returns:
            ``START w1..wn PADDING..`` int64 (X,), cut at its end, and bool (X,), true for all but the padding.
        """
        return lay_out_chunk(text_feature, self.options.max_text_len)

    def _texts(self, record: Record, stored: RecordSegments, rng: np.random.Generator | None) -> np.ndarray:
        """Return the words of all chunks, int64 (N, X)."""
        raw = rng is not None and "raw_tokens" in stored.fields and rng.random() < _RAW
        room = self.options.max_text_len - 1
        tokens = np.full((len(stored), room + 1), PADDING, np.int64)
        tokens[:, 0] = NEXTCAPTION_START if raw else START
        for n in range(len(stored)):
            words = stored.raw_tokens(n) if raw else stored.tokens(n)
            tokens[n, 1 : 1 + min(len(words), room)] = words[:room]
            self.cut.add(len(words) > room, f"{stored.where(n)}, {len(words) - room} too many")
        if not (tokens[:, 1:] != PADDING).any():
            raise UnusableItemError(f"{record.name}: nobody speaks in any of these segments")
        return tokens


def scramble(rng: np.random.Generator, groups: int, size: int, probability: float, offset: int) -> np.ndarray:
    """Draw the place of each image in its group that the model is told (specification A2.3).

    With ``probability``, of each group on its own, 2 to ``size`` of its images get unknown places: entries of a random
    order of the group, from ``offset`` on.

    Returns:
        int64 (groups * size,).
    """
    places = np.tile(np.arange(size, dtype=np.int64), (groups, 1))
    for row in places:
        if size >= 2 and rng.random() < probability:
            unknown = rng.permutation(size)[: rng.integers(2, size, endpoint=True)]
            row[unknown] = offset + rng.permutation(size)[unknown]
    return places.ravel()


def shuffle_order(rng: np.random.Generator, sources: np.ndarray, group: int) -> np.ndarray:
    """Draw an order of chunks that keeps the chunks of a video together and in order, and out of more groups.

    What begins with a group and a video changes places as a whole, and of a group that holds several videos also these:
    others would be torn over two groups by the chance of what comes before them.

    Args:
        sources: int64 (N,), which video each chunk is of.
        group: chunks of a group.

    Returns:
        int64 (N,).
    """
    numbers = np.arange(len(sources))
    begins = np.flatnonzero(np.diff(sources) != 0) + 1
    parts = np.split(numbers, begins[begins % group == 0])
    shuffled = list[np.ndarray]()
    for part in (parts[k] for k in rng.permutation(len(parts))):
        videos = np.split(part, np.flatnonzero(np.diff(sources[part]) != 0) + 1) if len(part) == group else [part]
        shuffled.extend(videos[k] for k in rng.permutation(len(videos)))
    return np.concatenate(shuffled)


def _renumbered(sources: np.ndarray) -> np.ndarray:
    """Number videos anew in the order in which they come."""
    return np.concatenate([[0], np.cumsum(np.diff(sources) != 0)]).astype(np.int64)


def lay_out_chunk(text_feature: Any, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out ids as the text of a chunk, ``START w1..wn PADDING..``, cut at their end.

    Returns:
        Ids int64 (length,), and bool (length,), true for all but the padding.
    """
    words = flat_ids(text_feature)[: length - 1]
    tokens = np.full(length, PADDING, np.int64)
    tokens[0], tokens[1 : 1 + len(words)] = START, words
    return torch.from_numpy(tokens), torch.arange(len(tokens)) <= len(words)
