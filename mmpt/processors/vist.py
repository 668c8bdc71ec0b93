"""Stories of VIST (Huang et al. 2016): images and a sentence about each, to be put in order (MERLOT, section 4.3).

Shapes: N images and sentences of a story, X text positions, R draws.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.modules.merlot_tokens import PADDING, START
from mmpt.processors.annotations import AnnotationOptions, SkipReport
from mmpt.processors.base import MetaProcessor, SplitOptions
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.frame_base import FrameVideoOptions
from mmpt.processors.oblong_frames import MERLOTItemOptions, merlot_frames
from mmpt.processors.question_lines import Text, as_id, as_text, needed
from mmpt.processors.subword_texts import SubwordOptions, Tokenised, TokenizerCheck
from mmpt.store.frame_store import StoredFrames, open_frames
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.json_lines import read_lines
from mmpt.utils.options import read_options

__all__ = ["Story", "StoryAligner", "StoryAlignerOptions", "StoryMetaOptions", "StoryMetaProcessor"]


class Story(NamedTuple):
    """One story: its id, and its sentences in their true order."""

    story_id: str
    sentences: tuple[Text, ...]


@dataclass
class StoryMetaOptions(SplitOptions, AnnotationOptions, SubwordOptions):
    """Files of stories, JSON lines with ``id``, ``images`` (id in the frame store) and ``sentences``.

    Attributes:
        num_images: images and sentences of a story.
    """

    num_images: int = 5


@dataclass
class StoryAlignerOptions(MERLOTItemOptions, FrameVideoOptions):
    """Sizes of the model input.

    Attributes:
        num_images: images and sentences of a story (N).
        order_draws: how often the images get random indices, over which predictions are averaged (R).
        shuffle_offset: least image index that says nothing about the place.
    """

    num_images: int = 5
    order_draws: int = 2
    shuffle_offset: int = 64


class StoryMetaProcessor(MetaProcessor):
    """List ``(images, Story)``; stories whose images the store lacks, or lacks some of, are counted and left out.

    Raises:
        ConfigError: if ``frame_path`` is not set.
        DataError: if the file is wrong (names the line), or too many stories cannot be used.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": StoryMetaOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, StoryMetaOptions)
        if not options.frame_path:
            raise ConfigError("dataset.frame_path: not set; it names the frame store")
        store = open_frames(str(resolve_path(options.frame_path)))
        skips, listed, count = SkipReport(self.path, options.max_missing, "stories"), 0, options.num_images
        check = TokenizerCheck(config)
        for place, record in read_lines(self.path):
            listed += 1
            check(record, place)
            name = as_id(needed(record, "id", place), f"{place}: id")
            images = as_id(needed(record, "images", place), f"{place}: images")
            sentences = needed(record, "sentences", place)
            if not isinstance(sentences, list) or len(sentences) != count:
                raise DataError(f"{place}: story {name}: not {count} sentences (dataset.num_images)")
            texts = tuple(as_text(one, f"{place}: sentence {number}") for number, one in enumerate(sentences))
            if images not in store:
                skips.add("without images", name)
            elif len(store[images]) != count:
                skips.add(f"with images other than {count}", name)
            else:
                self.data.append((images, Story(name, texts)))
        skips.close(listed)


class StoryAligner(Tokenised):
    """Lay a story out: images in their true order under indices that do not say so, and each sentence by itself.

    A sentence is ``START w1..wn``, cut to ``max_text_len``; no END (specification A5.1).
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": StoryAlignerOptions}
    whole_videos: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the sizes; ConfigError if one cannot be."""
        super().__init__(config)
        options = read_options(config, StoryAlignerOptions)
        if options.order_draws < 1:
            raise ConfigError(f"dataset.order_draws: {options.order_draws} is not a number of draws (1 or more)")
        if options.max_text_len < 2:
            raise ConfigError(f"dataset.max_text_len: {options.max_text_len} has no room for START and a word")
        self.options, self.frames = options, merlot_frames(config)
        self.cut = CutTexts("are cut at their end: dataset.max_text_len leaves too little room")

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Story, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the model inputs of a story.

        Args:
            video_id: id of the images in the store.
            stored: the images, in their true order.
            text_feature: the story.
            rng: draws the indices of the images: the same ones for the same story in every test.

        Returns:
            ``vfeats`` uint8 (N, 3, H, W), ``tokens`` int64 (N, X), padded with 0, ``image_index`` int64 (R, N),
            ``video_id``, the story's id, and ``sentences``, texts, as far as they are known.

        Raises:
            UnusableItemError: if an image is damaged; names the story.
        """
        options = self.options
        name, draws = text_feature.story_id, np.random.default_rng(0) if rng is None else rng
        vfeats, _ = self.frames(list(stored), f"story {name}", options.num_images)
        tokens = np.full((options.num_images, options.max_text_len), PADDING, np.int64)
        for row, sentence in zip(tokens, text_feature.sentences, strict=True):
            ids = self.ids(sentence.strip() if isinstance(sentence, str) else sentence)
            ids = ids if ids[:1] == [START] else [START, *ids]
            self.cut.add(len(ids) > len(row), f"story {name}, {len(ids) - len(row)} ids too many")
            row[: min(len(ids), len(row))] = ids[: len(row)]
        index = [options.shuffle_offset + draws.permutation(options.num_images) for _ in range(options.order_draws)]
        return {
            "vfeats": vfeats,
            "tokens": torch.from_numpy(tokens),
            "image_index": torch.from_numpy(np.stack(index)).long(),
            "video_id": name,
            "sentences": [one if isinstance(one, str) else "" for one in text_feature.sentences],
        }
