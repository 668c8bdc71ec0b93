"""Aligner of VLM's pre-training: sampled pairs of which words and frames are to be predicted (VLM, section 3)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmpt.modules.attention_masks import joint_mask, text_generation_mask
from mmpt.modules.masking import TEXT_MODES, draw_modes, mask_frames, mask_text, mode_probabilities
from mmpt.processors.base import Aligner
from mmpt.processors.how2_aligners import ClipSamplingAligner, ClipSamplingOptions
from mmpt.utils.errors import ConfigError
from mmpt.utils.options import read_options

__all__ = ["MFMMLMAligner", "MFMMLMOptions"]


@dataclass
class MFMMLMOptions(ClipSamplingOptions):
    """What is masked: a word and a frame with these probabilities, one whole modality with ``mm_prob``.

    ``mm_type`` says how, in half of the latter samples, the text is masked (:mod:`mmpt.modules.masking`). With
    ``lazy_vfeat_mask`` the model empties the masked frames; else the aligner does, and items take twice the memory.
    """

    mlm_probability: float = 0.15
    mfm_probability: float = 0.15
    mm_prob: float = 0.0
    mm_type: str = "full"
    lazy_vfeat_mask: bool = True


class MFMMLMAligner(Aligner):
    """Sample K = ``clip_per_video`` (else ``subsampling``) pairs of a video and mask each.

    Texts are limited to uniformly ``sampled_min_len..sampled_max_len`` word pieces, and clips span them. With K of 1
    or none the item is one pair without the dimension of samples, and its text is as long as fits.

    Calling it gives what :class:`ClipSamplingAligner` gives, with ``caps`` as the model shall see them, and
    ``text_label`` int64 ``(K, max_len - max_video_len)``, -100 where no word is to be predicted; ``video_label`` bool
    ``(K, max_video_len)``, the frames that are to be predicted. ``vfeats`` stay whole, since they are the targets; with
    ``lazy_vfeat_mask: false`` the frames to be predicted are zeros in them, and ``target_vfeats`` are the whole ones.
    With an ``mm_type`` of text generation also ``attention_mask`` bool ``(K, max_len, max_len)``, true where a row may
    see a column.

    Raises:
        ConfigError: if a probability or ``mm_type`` cannot be used; names the key.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": MFMMLMOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        options = read_options(config, MFMMLMOptions)
        for key in ("mlm_probability", "mfm_probability", "mm_prob"):
            if not 0.0 <= getattr(options, key) <= 1.0:
                raise ConfigError(f"dataset.{key}: {getattr(options, key)} is not in [0, 1]")
        if options.mm_type not in TEXT_MODES:
            raise ConfigError(f"dataset.mm_type: {options.mm_type!r} is none of {', '.join(TEXT_MODES)}")
        self.options = options
        clips = options.clip_per_video or options.subsampling or 1
        self.stacked = clips > 1
        self.sampler = ClipSamplingAligner(
            {**config, "clip_per_video": clips}, text_length="varied" if self.stacked else "fixed"
        )

    def __call__(
        self, video_id: Any, video_feature: Any, text_feature: Any, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Return the masked pairs of a video; what cannot be sampled is refused as by :class:`ClipSamplingAligner`."""
        rng = np.random.default_rng() if rng is None else rng
        item = self.sampler(video_id, video_feature, text_feature, rng=rng)
        item |= self._mask(rng, item["caps"], item["cmasks"], item["vmasks"])
        if not self.options.lazy_vfeat_mask:
            item["target_vfeats"] = item["vfeats"]
            item["vfeats"] = item["vfeats"].masked_fill(item["video_label"][..., None], 0)
        if self.stacked:
            return item
        return {key: value[0] if isinstance(value, Tensor) else value for key, value in item.items()}

    def _mask(self, rng: np.random.Generator, caps: Tensor, cmasks: Tensor, vmasks: Tensor) -> dict[str, Tensor]:
        """Return the masked ``caps``, the labels, and the attention masks where ``mm_type`` needs them."""
        options = self.options
        text_modes, video_modes = draw_modes(rng, len(caps), options.mm_prob, options.mm_type)  # type: ignore[arg-type]
        shares = mode_probabilities(video_modes, options.mfm_probability)
        video_label = mask_frames(rng, vmasks.numpy(), shares)
        masked, text_label = mask_text(
            rng, caps.numpy(), text_modes, options.mlm_probability, self.special_ids, self.vocab_size
        )
        arrays = {"caps": masked, "text_label": text_label, "video_label": video_label}
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        if options.mm_type.startswith("textgen"):
            generated = torch.tensor([mode == options.mm_type for mode in text_modes])[:, None, None]
            tensors["attention_mask"] = torch.where(
                generated, text_generation_mask(vmasks, cmasks), joint_mask(vmasks, cmasks)[:, None, :]
            )
        return tensors
