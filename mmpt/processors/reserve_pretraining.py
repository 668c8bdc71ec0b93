"""Items of MERLOT Reserve's pre-training (arXiv:2201.02639, section 3): frames, sound, words, and what to tell of them.

Shapes: S segments of a record in groups, three stretches of sound (subsegments) each, P text spans, L positions.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.reserve_noise import SPLIT_PROBABILITY, reserve_noise
from mmpt.modules.reserve_tokens import END, MOST_TEXT, PATCH, SPAN_LENGTH, START
from mmpt.processors.base import flat_ids
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.random_text import RandomText, allowed_tokens, mask_spans, open_random_text
from mmpt.processors.reserve_sequences import (
    Layout,
    audio_to_text,
    fill_spans,
    join_parts,
    matching,
    text_to_audio,
)
from mmpt.processors.reserve_spans import (
    SUBSEGMENTS,
    Words,
    assign_targets,
    block_starts,
    choose_targets,
    locate_words,
)
from mmpt.processors.segment_base import Record, RecordSegments, subwords_of_kind
from mmpt.processors.segment_images import RESERVE_SCALE, ReserveTransform, image_scale
from mmpt.store.spectrogram import mel_blocks
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options
from mmpt.utils.subwords import load_subwords

__all__ = ["ReservePretrainingAligner", "ReservePretrainingAlignerOptions", "lay_out_span"]

#: How often all of a record is matched by its words rather than by its sound.
_MATCHED_BY_TEXT = 0.5
_METADATA = ("title", "description", "tags")


@dataclass
class ReservePretrainingAlignerOptions:
    """Keys of ``dataset``.

    Attributes:
        split: train, valid or test; only training changes frames at random, and cuts sequences into parts that do not
            see each other. What is masked is random in each.
        tokenizer: file of the encoding that the stored ids are of.
        num_segments: segments of a record (S).
        num_segment_groups: how many groups they are, each of which the joint encoder sees together.
        image_grid: rows and columns of patches of 16 x 16 pixels in a frame.
        image_scale: least and greatest factor by which training enlarges a frame before cropping; null: 1.05 to 1.1.
        rotate_tall: whether training turns frames that are high and narrow.
        lang_seq_len: positions of ``text2audio`` and ``audio2text``.
        seq_len: positions of a joint sequence, frames and all. ``audio_text_matching`` and ``random_text`` have no
            frames: they are as long, but have 1024 positions at most.
        mask_rate: the share of the subsegments that is to be told from words, and again of sound.
        text_span_budget: spans of random text that are to be told.
        text_span_length: tokens of a span.
        random_text_path: text files, or a ShardedTensor of ids; null: no random text.
        use_audio: whether the sound is heard; if not, all spectrograms are 0, and what is told of sound is noise.
    """

    split: str = "train"
    tokenizer: str | None = None
    num_segments: int = 16
    num_segment_groups: int = 2
    image_grid: list[int] = field(default_factory=lambda: [12, 20])
    image_scale: Any = None
    rotate_tall: bool = True
    lang_seq_len: int = 160
    seq_len: int = 640
    mask_rate: float = 0.25
    text_span_budget: int = 38
    text_span_length: int = SPAN_LENGTH
    use_audio: bool = True
    random_text_path: Any = None


class ReservePretrainingAligner:
    """Lay out a record of segments as the sequences that the model tells spans of."""

    config_options: ClassVar[dict[str, type]] = {"dataset": ReservePretrainingAlignerOptions}
    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the sizes and open tokenizer and random text.

        Raises:
            ConfigError: if a size cannot be, or there is no tokenizer.
            DataError: if there is no such random text.
        """
        self.options = options = read_options(config, ReservePretrainingAlignerOptions)
        self.split = options.split
        _check(options)
        self.tokenizer = options.tokenizer or ""
        subwords = subwords_of_kind(options.tokenizer, "reserve")
        self.headings = {name: [START, *subwords.encode(f"{name}:")] for name in _METADATA}
        rows, columns = options.image_grid
        scale = image_scale(options.image_scale, RESERVE_SCALE)
        self.transform = ReserveTransform((PATCH * rows, PATCH * columns), scale, options.rotate_tall)
        self.random_text: RandomText | None = None
        if options.random_text_path:
            self.random_text = open_random_text(options.random_text_path, self.tokenizer)
        self.cut = CutTexts("are cut: dataset.lang_seq_len or dataset.seq_len leaves too little room")

    def __call__(
        self,
        video_id: Record,
        video_feature: RecordSegments,
        text_feature: RecordSegments,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return a record of segments as sequences.

        Args:
            video_id: which record.
            video_feature: its stored segments; frames and sound are read from here.
            text_feature: the same; words are read from here.
            rng: of the item.

        Returns:
            ``vfeats`` uint8 (S, 3, 16 rows, 16 columns); ``audio_clips`` float16 (3 S, 60, 65); ``video_src_index``
            int64 (S,), which video each segment is of; ``text_spans`` int64 (P, 15), first of ``text2audio``, then of
            ``audio2text``, then of random text. Of ``text2audio``, ``audio2text``, ``audio_text_matching`` and maybe
            ``random_text``, each: ``<kind>`` int64 (sequences, L), ``<kind>_audio_ptr`` the subsegment of each token
            and ``<kind>_text_ptr`` the span that it asks for. ``video_id``, and the noise of
            :func:`~mmpt.modules.reserve_noise.reserve_noise`. Records in which nobody speaks are items as others are:
            their sound and frames are to be matched.

        Raises:
            UnusableItemError: if a frame is damaged; names it.
            DataError: if the record is of another length, or the store has no sound or no times of words.
        """
        options = self.options
        if len(video_feature) != options.num_segments:
            raise DataError(
                f"{video_id.name}: {len(video_feature)} segments, dataset.num_segments is {options.num_segments}"
            )
        rng = np.random.default_rng(0) if rng is None else rng
        drawn = rng if self.split == "train" else None
        starts = block_starts(options.num_segments, drawn)
        words = locate_words(text_feature, starts)
        spans, item = self._masked(video_id.name, words, rng)
        metadata = self._metadata(text_feature)
        as_text = bool(rng.random() < _MATCHED_BY_TEXT)
        length = min(options.seq_len, MOST_TEXT)
        parts = matching(words, metadata, as_text, length)
        item |= _stacked("audio_text_matching", [join_parts(rng, parts, length)])
        if self.random_text is not None:
            masked = mask_spans(
                rng,
                self.random_text,
                length,
                options.text_span_budget,
                len(spans),
                allowed_tokens(self.tokenizer),
            )
            spans += masked.spans
            item |= _stacked("random_text", [masked.layout])
        sequences = 2 * options.num_segment_groups
        return {
            "vfeats": torch.from_numpy(video_feature.frames(self.transform, drawn)),
            "audio_clips": torch.from_numpy(_sound(video_feature, starts, options.use_audio)),
            "text_spans": torch.from_numpy(fill_spans(spans, options.text_span_length)),
            "video_src_index": torch.from_numpy(video_feature.sources),
            "video_id": video_id.name,
            **item,
            **reserve_noise(rng, len(spans), sequences, SPLIT_PROBABILITY * (drawn is not None)),
        }

    def _build_text_seq(self, text_feature: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out the ids of one text as a span, under the name that the published snippet calls.

        Returns:
            Ids int64 (15,), cut at their end and padded, and bool (15,), true for all but the padding.
        """
        return lay_out_span(text_feature, self.options.text_span_length)

    def _masked(
        self, name: str, words: Words, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], dict[str, torch.Tensor]]:
        """Return the words of all targets, and the sequences that ask for them."""
        options = self.options
        subsegments = SUBSEGMENTS * options.num_segments
        from_text, from_audio = choose_targets(rng, subsegments, options.mask_rate)
        heard, read = assign_targets(words, from_text, grow=True), assign_targets(words, from_audio)
        each = subsegments // options.num_segment_groups
        text_layouts, audio_layouts = [], []
        for group in range(options.num_segment_groups):
            own = range(group * each, (group + 1) * each)
            told = text_to_audio(words, heard, from_text, own)
            text_layouts.append(self._joined(name, rng, told))
            told = audio_to_text(rng, words, read, from_audio, own, len(from_text))
            audio_layouts.append(self._joined(name, rng, told))
        spans = [words.ids[owner == k] for owner in (heard, read) for k in range(len(from_text))]
        return spans, {**_stacked("text2audio", text_layouts), **_stacked("audio2text", audio_layouts)}

    def _joined(self, name: str, rng: np.random.Generator, parts: list[Any]) -> Layout:
        length = self.options.lang_seq_len
        over = sum(len(part.tokens) for part in parts) - length
        self.cut.add(over > 0, f"{name}, {over} tokens too many")
        return join_parts(rng, parts, length)

    def _metadata(self, stored: RecordSegments) -> list[int]:
        """Return what is known of the first video: ``START title: .. START description: .. START tags: .. END``."""
        facts, ids = stored.meta(0), list[int]()
        for name in _METADATA:
            known = facts.get(f"{name}_ids")
            if known is None and facts.get(name):
                given = facts[name]
                text = given if isinstance(given, str) else " ".join(map(str, given))
                known = load_subwords(self.tokenizer).encode(text)
            if known:
                ids += [*self.headings[name], *known]
        return [*ids, END] if ids else []


def _check(options: ReservePretrainingAlignerOptions) -> None:
    """Refuse sizes that cannot be; ConfigError names the key."""
    groups, segments = options.num_segment_groups, options.num_segments
    if groups < 1 or segments < 1 or segments % groups:
        raise ConfigError(f"dataset.num_segments: {segments} is no multiple of dataset.num_segment_groups: {groups}")
    if len(options.image_grid) != 2 or any(side < 2 or side % 2 for side in options.image_grid):
        raise ConfigError(f"dataset.image_grid: {options.image_grid} is not [rows, columns], both even")
    targets = int(options.mask_rate * SUBSEGMENTS * segments)
    if not 0 < options.mask_rate <= 0.5 or not targets:
        raise ConfigError(
            f"dataset.mask_rate: {options.mask_rate} of {SUBSEGMENTS * segments} subsegments, twice, is none, or more "
            "than there are"
        )
    needed = 2 * min(targets, SUBSEGMENTS * segments // groups)
    if options.lang_seq_len < needed:
        raise ConfigError(f"dataset.lang_seq_len: {options.lang_seq_len} has no room for {needed} masks")
    if min(options.seq_len, MOST_TEXT) < max(segments, options.text_span_budget if options.random_text_path else 0):
        raise ConfigError(f"dataset.seq_len: {options.seq_len} has no room for all segments and masks")
    if options.text_span_length < 1:
        raise ConfigError(f"dataset.text_span_length: {options.text_span_length} is not at least 1")
    if options.text_span_budget < 0:
        raise ConfigError(f"dataset.text_span_budget: {options.text_span_budget} is below 0")


def _sound(stored: RecordSegments, starts: np.ndarray, heard: bool) -> np.ndarray:
    """Return the sound of all subsegments, float16 (3 S, 60, 65); zeros if it is not to be heard."""
    blocks = np.empty((*starts.shape, 60, 65), np.float16)
    for n, row in enumerate(starts.tolist()):
        mel_blocks(stored.spectrogram(n), stored.speed(n), row, blocks[n])
    if not heard:
        blocks[:] = 0
    return blocks.reshape(-1, 60, 65)


def _stacked(kind: str, layouts: list[Layout]) -> dict[str, torch.Tensor]:
    """Return sequences under the names that they have in an item, int64 (sequences, L) each."""
    names = (kind, f"{kind}_audio_ptr", f"{kind}_text_ptr")
    arrays = (np.stack(column) for column in zip(*layouts, strict=True))
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}


def lay_out_span(text_feature: Any, length: int = SPAN_LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out ids as a span, cut at their end and padded.

    Returns:
        Ids int64 (length,), and bool (length,), true for all but the padding.
    """
    words = flat_ids(text_feature)
    [span] = fill_spans([words], length)
    return torch.from_numpy(span), torch.arange(len(span)) < len(words)
