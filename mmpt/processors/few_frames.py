"""A few frames of many and a text about them: what the aligners of MERLOT and MERLOT Reserve share beside segments.

Shapes: T frames, (H, W) pixels.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.base import UnusableItemError
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.frame_sampling import sample_frames
from mmpt.processors.oblong_frames import OblongFrames
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import ConfigError

__all__ = ["FewFrames"]

_CUT = "are cut at their end: dataset.max_text_len leaves too little room"


class FewFrames:
    """Choose, decode and transform frames, of which only training draws which and how, and count texts that are cut.

    Args:
        options: with ``split`` and ``num_frames`` (T).
        frames: reads images into frames of one size.
        cut: how texts are cut, for the log.

    Raises:
        ConfigError: if ``num_frames`` is not 1 or more.
    """

    whole_videos: ClassVar[bool] = False

    def __init__(self, options: Any, frames: OblongFrames, cut: str = _CUT) -> None:
        if options.num_frames < 1:
            raise ConfigError(f"dataset.num_frames: {options.num_frames} is not a number of frames (1 or more)")
        self.split, self.num_frames, self.frames = options.split, options.num_frames, frames
        self.cut = CutTexts(cut)

    def few(
        self, read: Callable[[int], Any], stored: int, name: str, rng: np.random.Generator | None
    ) -> dict[str, Any]:
        """Return ``vfeats`` uint8 (T, 3, H, W) and ``vmasks`` bool (T,) of some of the ``stored`` images.

        Args:
            read: gives an image by its number.
            stored: how many there are, 1 or more.
            name: of the item, for errors.
            rng: draws frames and crops, in training.

        Raises:
            UnusableItemError: if an image is damaged; names the item.
        """
        drawn = rng if self.split == "train" else None
        numbers = sample_frames(stored, self.num_frames, drawn)
        vfeats, vmasks = self.frames([read(number) for number in numbers], name, self.num_frames, drawn)
        return {"vfeats": vfeats, "vmasks": vmasks}

    def clip(self, name: str, stored: StoredFrames, rng: np.random.Generator | None) -> dict[str, Any]:
        """Return :meth:`few` of a clip and its ``video_id``; UnusableItemError if it has no usable frame."""
        if not len(stored):
            raise UnusableItemError(f"video {name}: has no stored frame")
        return {**self.few(stored.__getitem__, len(stored), f"video {name}", rng), "video_id": name}

    def count_cut(self, name: str, over: int) -> None:
        """Count a text about a video of which ``over`` ids, if positive, do not fit."""
        self.cut.add(over > 0, f"video {name}, {over} ids too many")
