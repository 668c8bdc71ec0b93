"""Sentences with a gap about a video, as MERLOT Reserve fills them in without training (specification B5.1).

Shapes: T segments, X text positions, (H, W) pixels.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.masking import IGNORED
from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, MASK, PAD, SOUNDS
from mmpt.processors.clip_text_files import READERS, ClipTextFile, Labels, UnusableRecordError
from mmpt.processors.clip_texts import ClipTextMetaProcessor, ClipTextOptions
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.oblong_frames import ReserveItemOptions, reserve_frames
from mmpt.processors.open_questions import OpenQuestion
from mmpt.processors.segment_base import RecordSegments, SegmentOptions
from mmpt.processors.subword_texts import Tokenised
from mmpt.store.segment_store import open_segments
from mmpt.store.spectrogram import mel_blocks
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options

__all__ = ["MASK_TEXT", "ClozeAligner", "ClozeAlignerOptions", "ClozeMetaOptions", "ClozeMetaProcessor"]

#: How the gap is written. A space before it would be a token of its own, which pre-training never had there.
MASK_TEXT = "<|MASK|>"


@dataclass
class ClozeMetaOptions(ClipTextOptions, SegmentOptions):
    """Files of questions that were turned into sentences with a gap, in the form of ``txt_<task>.json``.

    Attributes:
        num_answers: the commonest answers of the training split that are to be chosen from; null: all.
    """

    num_answers: int | None = None


@dataclass
class ClozeAlignerOptions(ReserveItemOptions):
    """Sizes of the model input.

    Attributes:
        max_segments: segments that the model takes at most (T); of more, such as are evenly spread.
        text_segment: the segment that the sentence stands in, in place of its sound; null: the last one there is.
        use_audio: whether the others are heard.
    """

    max_segments: int = 8
    text_segment: int | None = None
    use_audio: bool = True


class ClozeMetaProcessor(ClipTextMetaProcessor):
    """List ``(video, OpenQuestion)``; the question is a sentence with one ``<|MASK|>``.

    ``labels`` are the commonest answers of the training split (``dataset.train_path``), in the order of their number
    and, of as many, of the alphabet. An answer that is none of them cannot be given, and a sentence without exactly one
    gap has no right answer: both count as wrong.

    Raises:
        ConfigError: if ``segment_path`` or ``train_path`` is not set, or a number cannot be.
        DataError: as :class:`~mmpt.processors.clip_texts.ClipTextMetaProcessor`.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": ClozeMetaOptions}

    def __init__(self, config: Any) -> None:
        options = read_options(config, ClozeMetaOptions)
        if not options.segment_path:
            raise ConfigError("dataset.segment_path: not set; it names the segment store")
        if options.num_answers is not None and options.num_answers < 1:
            raise ConfigError(f"dataset.num_answers: {options.num_answers} is not a number of answers (1 or more)")
        self._store = open_segments(str(resolve_path(options.segment_path)))
        super().__init__(config, items="open_ended")
        self.labels = _commonest(options.train_path, options.num_answers)
        numbers = {label: number for number, label in enumerate(self.labels)}
        self.data = [
            (video, question._replace(label=numbers.get(_plain(question.answer_text), -1)))
            for video, question in self.data
        ]

    def _read(self, paths: Any, store: Any) -> None:
        super()._read(paths, self._store)


def _commonest(path: Any, number: int | None) -> list[str]:
    if not isinstance(path, str):
        raise ConfigError("dataset.train_path: not set to one file; its answers are those to choose from")
    file = ClipTextFile(path)
    labels, counts = Labels(file), Counter[str]()
    for record in file.records("train"):
        with suppress(UnusableRecordError):
            counts[_plain(READERS["open_ended"](record, labels).answer_text)] += 1
    counts.pop("", None)
    if not counts:
        raise DataError(f"{path}: its training split has no answers as texts")
    return [answer for answer, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))][:number]


def _plain(answer: str) -> str:
    return answer.strip().lower()


class ClozeAligner(Tokenised):
    """Lay a sentence out behind the sounds of the segments before it, beside the frames of all (published demos)."""

    config_options: ClassVar[dict[str, type]] = {"dataset": ClozeAlignerOptions}
    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        super().__init__(config)
        self.options = options = read_options(config, ClozeAlignerOptions)
        if not 1 <= options.max_segments <= 16:
            raise ConfigError(f"dataset.max_segments: {options.max_segments} is not 1 to 16")
        if options.text_segment is not None and not 0 <= options.text_segment < options.max_segments:
            raise ConfigError(
                f"dataset.text_segment: {options.text_segment} is none of {options.max_segments} segments"
            )
        if options.lang_seq_len < 1:
            raise ConfigError(f"dataset.lang_seq_len: {options.lang_seq_len} has no room for a text")
        self.split, self.frames = options.split, reserve_frames(config)
        self.cut = CutTexts("lose words or sounds: dataset.lang_seq_len leaves too little room")

    def __call__(
        self,
        video_id: Any,
        stored: RecordSegments,
        text_feature: OpenQuestion,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of a sentence.

        Args:
            video_id: whose segments they are.
            stored: of :class:`~mmpt.processors.tvqa.WholeSegmentsVideoProcessor`.
            text_feature: question of ids, MASK among them.
            rng: draws crops, in training.

        Returns:
            ``vfeats`` uint8 (T, 3, H, W), ``vmasks`` bool (T,), ``caps`` and ``segments`` int64, ``cmasks`` bool and
            ``audio_pointers`` int64 (X,), ``audio_clips`` float32 (3 T, 60, 65) with ``use_audio``, ``answers`` int64
            (), -100 where there is none, ``video_id``, ``question`` and ``answer_text``.

        Raises:
            UnusableItemError: if there is no segment, or a frame is damaged; names the video.
            DataError: if it is no question; names the video.
        """
        options, name = self.options, str(video_id)
        if not isinstance(text_feature, OpenQuestion):
            raise DataError(f"video {name}: {type(text_feature).__name__} is no open-ended question")
        count = min(len(stored), options.max_segments)
        chosen = np.rint(np.linspace(0, len(stored) - 1, count)).astype(int).tolist()
        drawn = rng if self.split == "train" else None
        vfeats, vmasks = self.frames([stored.image(n) for n in chosen], f"video {name}", options.max_segments, drawn)
        words = list(text_feature.question)
        place = count - 1 if options.text_segment is None else options.text_segment
        heard = [number for number in range(count) if number != place] if options.use_audio else []
        item = {"vfeats": vfeats, "vmasks": vmasks, **self._text(name, words, place, heard), "video_id": name}
        if options.use_audio:
            item["audio_clips"] = torch.from_numpy(self._sounds(stored, chosen))
        one_gap = words.count(MASK) == 1
        item["answers"] = torch.tensor(text_feature.label if one_gap and text_feature.label >= 0 else IGNORED)
        if text_feature.texts:
            item["question"], item["answer_text"] = (str(text) for text in text_feature.texts)
        return item

    def _text(self, name: str, words: list[int], place: int, heard: list[int]) -> dict[str, torch.Tensor]:
        """Return ids, segments and sounds in the order of the segments.

        Of what is too long, sounds are left out first, then words at the end that is farther from the gap.
        """
        ids = {number: [AUDIOSPAN] * (SOUNDS * AUDIO_TOKENS) for number in heard} | {place: words}
        length = self.options.lang_seq_len
        over = sum(map(len, ids.values())) - length
        self.cut.add(over > 0, f"video {name}, {over} ids too many")
        for number in heard:  # whole segments, so that what is heard of a sound is all of it
            if over > 0:
                over -= len(ids.pop(number))
        ids[place] = _around_gap(words, len(words) - max(over, 0))
        rows = [
            (one, number, SOUNDS * number + at // AUDIO_TOKENS if number != place else -1)
            for number in sorted(ids)
            for at, one in enumerate(ids[number])
        ]
        caps = torch.full((3, length), -1)
        caps[0] = PAD
        caps[:, : len(rows)] = torch.tensor(rows).T if rows else caps[:, :0]
        return {"caps": caps[0], "cmasks": caps[0] != PAD, "segments": caps[1], "audio_pointers": caps[2]}

    def _sounds(self, stored: RecordSegments, chosen: list[int]) -> np.ndarray:
        clips = np.zeros((self.options.max_segments, SOUNDS, 60, 65), np.float32)
        if "spectrograms" in stored.fields:
            for number, segment in enumerate(chosen):
                mel_blocks(stored.spectrogram(segment), stored.speed(segment), out=clips[number])
        return clips.reshape(-1, 60, 65)


def _around_gap(words: list[int], length: int) -> list[int]:
    """Return so many words of a sentence (1 or more), the gap among them; the last ones where there is none."""
    last = len(words) - length
    first = min(max(words.index(MASK) - length // 2, 0), last) if MASK in words else last
    return words[first : first + length]
