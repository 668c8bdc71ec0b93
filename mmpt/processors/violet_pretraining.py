"""Items of VIOLET's pre-training (arXiv:2111.12681, section 3): a clip, its visual tokens, a caption, and what to mask.

Masks by attention need the model: the item brings the randomness of that choice, and the model's step makes it.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.modules.masking import maskable
from mmpt.modules.masking_visual import mask_blocks, selection_noise
from mmpt.processors.base import UnusableItemError, video_name
from mmpt.processors.frame_base import FrameAligner, FrameAlignerOptions
from mmpt.store.frame_store import StoredFrames
from mmpt.store.visual_tokens import VisualTokenStore, open_tokens
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options

__all__ = ["VIOLETPretrainingAligner", "VIOLETPretrainingAlignerOptions"]

# The transform that the tokens are made with: another would show the model other squares.
_TRANSFORM = "pad_resize"


@dataclass
class VIOLETPretrainingAlignerOptions(FrameAlignerOptions):
    """Keys of ``dataset``, beside those of the aligner of frames.

    Attributes:
        vq_path: folder of the visual tokens of the frames in ``frame_path`` (scripts/visual_tokens).
        mask_probability: of a word to be masked, and the share of all positions that attention chooses.
        attended_share: of the items of which attention chooses what is masked; of the others it is words at random and
            blocks of squares.
    """

    vq_path: str | None = None
    mask_probability: float = 0.15
    attended_share: float = 0.5


class VIOLETPretrainingAligner(FrameAligner):
    """Align a clip with its caption and draw what the model is to tell of both."""

    config_options: ClassVar[dict[str, type]] = {"dataset": VIOLETPretrainingAlignerOptions}

    def __init__(self, config: Any) -> None:
        """Open the visual tokens, unless they are of no use: a test has this aligner for the layout of texts alone.

        Raises:
            ConfigError: if ``vq_path`` is not set, ``image_transform`` is another than that of the tokens, or a
                probability is none.
            DataError: if there are no tokens, or they do not fit ``image_size``.
        """
        super().__init__(config)
        options = read_options(config, VIOLETPretrainingAlignerOptions)
        if self.transform.names != (_TRANSFORM,):
            raise ConfigError(
                f"dataset.image_transform: {list(self.transform.names)}, but visual tokens are of whole frames: "
                f"pre-training of VIOLET needs [{_TRANSFORM}]"
            )
        for key in ("mask_probability", "attended_share"):
            if not 0 <= getattr(options, key) <= 1:
                raise ConfigError(f"dataset.{key}: {getattr(options, key)} is not in [0, 1]")
        self.mask_probability, self.attended_share = options.mask_probability, options.attended_share
        self.vq_path = options.vq_path
        if self.split != "test" and any(self.image_size % side for side in self.tokens.grid):
            raise DataError(
                f"dataset.vq_path: {self.vq_path} has {self.tokens.grid} tokens a frame, which dataset.image_size: "
                f"{self.image_size} is no multiple of"
            )

    @functools.cached_property
    def tokens(self) -> VisualTokenStore:
        """The visual tokens; ConfigError if ``vq_path`` is not set, DataError if there are none."""
        if not self.vq_path:
            raise ConfigError("dataset.vq_path: not set; it names the folder of visual tokens (scripts/visual_tokens)")
        return open_tokens(resolve_path(self.vq_path))

    def __call__(
        self, video_id: Any, stored: StoredFrames, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return a clip, a caption, and what is masked.

        Args:
            video_id: id, or ``(id, start, end)``.
            stored: the frames, of a :class:`~mmpt.processors.frame_base.FrameVideoProcessor`.
            text_feature: ids of the caption.
            rng: of the item; frames are drawn in training only, masks in every split.

        Returns:
            As :class:`~mmpt.processors.frame_base.FrameAligner`, nothing masked yet, and ``visual_codes`` int64
            (T, h, w); ``masked_words`` bool (X,) and ``masked_squares`` bool (T, h, w), which are to be told unless
            ``attended``, bool (), says that attention chooses; ``selection_noise`` float32 (T * (1 + h * w) + X,),
            the randomness of that.

        Raises:
            UnusableItemError: if a frame is damaged, or the video has no visual tokens; names it.
            DataError: if the tokens are of other frames; names the video.
        """
        rng = np.random.default_rng(0) if rng is None else rng
        item = super().__call__(video_id, stored, text_feature, rng)
        rows, columns = self.tokens.grid
        frames = int(item["vmasks"].sum())
        squares = np.zeros((self.num_frames, rows, columns), dtype=bool)
        squares[:frames] = mask_blocks(rng, frames, rows, columns)
        caps = item["caps"].numpy()
        words = (rng.random(caps.shape) < self.mask_probability) & maskable(caps, self.special_ids)
        positions = self.num_frames * (1 + rows * columns) + self.max_text_len
        return {
            **item,
            "masked_words": torch.from_numpy(words),
            "masked_squares": torch.from_numpy(squares),
            "attended": torch.tensor(bool(rng.random() < self.attended_share)),
            "selection_noise": torch.from_numpy(selection_noise(rng, positions)),
        }

    def video(self, video_id: Any, stored: StoredFrames, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return what an item holds of the video; frames and tokens are those of the same numbers."""
        numbers = self.choose_frames(video_id, stored, rng)
        item = self.video_item(video_id, *self.read_frames(video_id, stored, numbers, rng))
        codes = torch.zeros((self.num_frames, *self.tokens.grid), dtype=torch.long)
        codes[: len(numbers)] = torch.from_numpy(self._codes(video_id, stored, numbers).astype(np.int64))
        return {**item, "visual_codes": codes}

    def _codes(self, video_id: Any, stored: StoredFrames, numbers: list[int]) -> np.ndarray:
        name = video_name(video_id)
        if name not in self.tokens:
            raise UnusableItemError(f"video {name}: has no visual tokens in {self.vq_path} (dataset.vq_path)")
        codes = self.tokens[name]
        chosen = [stored.numbers[number] for number in numbers]
        whole = not isinstance(video_id, tuple | list)
        if max(chosen) >= len(codes) or (whole and len(codes) != len(stored)):
            raise DataError(
                f"video {name}: {self.vq_path} has visual tokens of {len(codes)} frames, and other frames are stored: "
                "make the tokens of this frame store (scripts/visual_tokens/extract_vq.py)"
            )
        return codes[chosen]
