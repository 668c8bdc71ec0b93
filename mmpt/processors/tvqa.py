"""TVQA (Lei et al. 2018) as MERLOT Reserve reads it: a question about a clip, with its subtitles and with its sound.

Shapes: W windows of a clip (7), O options (5), X text positions, (H, W) pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.modules.reserve_tokens import AUDIO_TOKENS, AUDIOSPAN, MASK, PAD, SOUNDS, START
from mmpt.processors.annotations import SkipReport
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.oblong_frames import ReserveItemOptions, reserve_frames
from mmpt.processors.question_lines import Text, as_id, as_label, as_text, as_texts, needed
from mmpt.processors.segment_base import Piece, Record, RecordSegments, SegmentOptions
from mmpt.processors.subword_texts import SubwordOptions, Tokenised, TokenizerCheck
from mmpt.store.segment_store import open_segments
from mmpt.store.spectrogram import BLOCK_FRAMES
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.json_lines import read_lines
from mmpt.utils.options import read_options

__all__ = [
    "FRAMES",
    "OPTIONS",
    "WINDOWS",
    "TVQAAligner",
    "TVQAMetaOptions",
    "TVQAMetaProcessor",
    "TVQAQuestion",
    "WholeSegmentsVideoProcessor",
    "sound_blocks",
]

WINDOWS, OPTIONS = 7, 5
#: Frames of the spectrogram of a window.
FRAMES = 180
_JITTER = 4  # frames of noise on either side


class TVQAQuestion(NamedTuple):
    """One question.

    Attributes:
        question_id: "qid~video".
        span: "<start %> to <end %>" where the answer is found; empty where the query begins with it.
        query: what is asked.
        choices: five answers.
        answer: index of the right one; -1 where it is not known.
        subtitles: of each window.
        frames: how many windows are real.
    """

    question_id: str
    span: str
    query: Text
    choices: tuple[Text, ...]
    answer: int
    subtitles: tuple[Text, ...]
    frames: int


@dataclass
class TVQAMetaOptions(SplitOptions, SegmentOptions, SubwordOptions):
    """Files of questions (:mod:`mmpt.store.tfrecord_questions`).

    Attributes:
        max_missing: the fraction of questions whose segments the store may lack.
    """

    max_missing: float = 0.1


@dataclass
class TVQAAlignerOptions(ReserveItemOptions):
    """Sizes of the model input.

    Attributes:
        audio_jitter: in training, shift the sound by up to four frames within noise.
    """

    audio_jitter: bool = True


class TVQAMetaProcessor(MetaProcessor):
    """List ``(segments, TVQAQuestion)``; questions without segments in the store are counted and left out.

    Raises:
        ConfigError: if ``segment_path`` is not set.
        DataError: if the file is wrong (names the line), or too much of it cannot be used.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": TVQAMetaOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, TVQAMetaOptions)
        if not options.segment_path:
            raise ConfigError("dataset.segment_path: not set; it names the segment store")
        store = open_segments(str(resolve_path(options.segment_path)))
        skips, listed = SkipReport(self.path, options.max_missing, "questions"), 0
        check = TokenizerCheck(config)
        for place, record in read_lines(self.path):
            listed += 1
            check(record, place)
            question = _question(record, place)
            segments = as_id(needed(record, "segments", place), f"{place}: segments")
            if segments not in store:
                skips.add("without segments", segments)
            elif self.split != "test" and question.answer < 0:
                skips.add("without an answer", question.question_id)
            else:
                self.data.append((segments, question))
        skips.close(listed)


def _question(record: Mapping[str, Any], place: str) -> TVQAQuestion:
    frames = needed(record, "frames", place)
    if not isinstance(frames, int) or not 1 <= frames <= WINDOWS:
        raise DataError(f"{place}: frames: {frames!r} is not 1 to {WINDOWS}")
    return TVQAQuestion(
        as_id(needed(record, "id", place), f"{place}: id"),
        str(record.get("span") or ""),
        as_text(needed(record, "query", place), f"{place}: query"),
        as_texts(needed(record, "choices", place), OPTIONS, f"{place}: choices"),
        as_label(record.get("answer"), OPTIONS, f"{place}: answer"),
        as_texts(needed(record, "subtitles", place), WINDOWS, f"{place}: subtitles"),
        frames,
    )


class WholeSegmentsVideoProcessor:
    """Find all stored segments of a video; nothing is decoded yet."""

    config_options: ClassVar[dict[str, type]] = {"dataset": SegmentOptions}

    def __init__(self, config: Any) -> None:
        """Open the store; ConfigError if ``segment_path`` is not set, DataError if there is none."""
        path = read_options(config, SegmentOptions).segment_path
        if not path:
            raise ConfigError("dataset.segment_path: not set; it names the segment store")
        self.store = open_segments(str(resolve_path(path)))

    def __call__(self, video_id: Any) -> RecordSegments:
        """Return the segments of a video; DataError if the store has none."""
        name = str(video_id)
        return RecordSegments(self.store, Record([Piece(name, 0, len(self.store[name]))]))


class TVQAAligner(Tokenised):
    """Lay a question out twice, with subtitles and with sound, before each of its options (specification B5.2)."""

    config_options: ClassVar[dict[str, type]] = {"dataset": TVQAAlignerOptions}
    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        super().__init__(config)
        options = read_options(config, TVQAAlignerOptions)
        if options.lang_seq_len < SOUNDS * AUDIO_TOKENS * WINDOWS + 2:
            raise ConfigError(f"dataset.lang_seq_len: {options.lang_seq_len} has no room for the sound of a clip")
        self.split, self.length, self.jitter = options.split, options.lang_seq_len, options.audio_jitter
        self.frames = reserve_frames(config)
        self.cut = CutTexts("are cut: dataset.lang_seq_len leaves too little room")

    def __call__(
        self,
        video_id: Any,
        stored: RecordSegments,
        text_feature: TVQAQuestion,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any]:
        """Return the model inputs of a question.

        Returns:
            ``vfeats`` uint8 (7, 3, H, W), ``vmasks`` bool (7,), ``caps`` int64 and ``cmasks`` bool (2, 5, X), with
            subtitles and with sound, ``segments`` int64 (2, 5, X), 0 the question, 1 to 7 the windows and -1 padding,
            ``audio_clips`` float32 (21, 60, 65), ``answers`` int64 (), -1 where it is not known, and ``video_id``, the
            question's id.

        Raises:
            UnusableItemError: if a frame is damaged; names the question.
            DataError: if there are fewer segments than the question says; names it.
        """
        question, drawn = text_feature, rng if self.split == "train" else None
        if len(stored) < question.frames:
            raise DataError(
                f"question {question.question_id}: {len(stored)} segments are stored, and frames is {question.frames}"
            )
        images = [stored.image(window) for window in range(question.frames)]
        vfeats, vmasks = self.frames(images, f"question {question.question_id}", WINDOWS, drawn)
        texts = [self._texts(question, sound) for sound in (False, True)]
        caps, segments = (torch.stack(parts) for parts in zip(*texts, strict=True))
        return {
            "vfeats": vfeats,
            "vmasks": vmasks,
            "caps": caps,
            "cmasks": caps != PAD,
            "segments": segments,
            "audio_clips": torch.from_numpy(self._sound(stored, question.frames, drawn)),
            "answers": torch.tensor(question.answer),
            "video_id": question.question_id,
        }

    def _texts(self, question: TVQAQuestion, sound: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and segments, int64 (5, X), of the options with subtitles or with sound."""
        asked = [*self.ids(question.query), *self.ids("answer: ")]
        if question.span:
            asked = [*self.ids(question.span), START, *asked]
        if sound:
            told = [[AUDIOSPAN] * (SOUNDS * AUDIO_TOKENS)] * question.frames
        else:
            told = [self.ids(one) for one in question.subtitles[: question.frames]]
        behind = sum(map(len, told))
        caps, segments = torch.full((OPTIONS, self.length), PAD), torch.full((OPTIONS, self.length), -1)
        over = 0
        for row, choice in enumerate(question.choices):
            text = [*asked, *self.ids(choice), MASK]
            # the mask must be there, and of the sound whole runs: a long question gives way at its beginning
            room = self.length - behind if sound else self.length
            over = max(over, len(text) + behind - self.length)
            text = text[max(len(text) - room, 0) :]
            ids = [*text, *(one for window in told for one in window)][: self.length]
            places = [0] * len(text) + [1 + number for number, window in enumerate(told) for _ in window]
            caps[row, : len(ids)], segments[row, : len(ids)] = torch.tensor(ids), torch.tensor(places[: len(ids)])
        self.cut.add(over > 0, f"question {question.question_id}, {over} ids too many")
        return caps, segments

    def _sound(self, stored: RecordSegments, windows: int, rng: np.random.Generator | None) -> np.ndarray:
        """Return the sounds of all windows, float32 (21, 60, 65); zeros where there is none."""
        clips = np.zeros((WINDOWS, SOUNDS, BLOCK_FRAMES, 65), np.float32)
        if "spectrograms" in stored.fields:
            for window in range(windows):
                spectrogram = stored.spectrogram(window)[:FRAMES].astype(np.float32)
                clips[window] = sound_blocks(spectrogram, rng if self.jitter else None)
        return clips.reshape(WINDOWS * SOUNDS, BLOCK_FRAMES, 65)


def sound_blocks(spectrogram: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Cut a window's spectrogram (180, 64) into three blocks without gaps, float32 (3, 60, 65); the speed is 1.

    With ``rng``, four frames of noise of each band's mean and deviation are put on either side, and the blocks begin
    at a random frame of the first nine.
    """
    if rng is not None:
        mean, deviation = spectrogram.mean(axis=0), spectrogram.std(axis=0)
        noise = mean + deviation * rng.standard_normal((2, _JITTER, spectrogram.shape[1]))
        padded = np.concatenate([noise[0], spectrogram, noise[1]])
        first = int(rng.integers(2 * _JITTER + 1))
        spectrogram = padded[first : first + FRAMES]
    speed = np.ones((FRAMES, 1), np.float32)
    return np.concatenate([spectrogram, speed], axis=1).reshape(SOUNDS, BLOCK_FRAMES, -1).astype(np.float32)
