"""A VLM of chosen size and random pairs for its pre-training: masked frames and words, told among both."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.models.vlm import MMFusionMTM
from mmpt.modules.masking import IGNORED, mask_frames, mask_tokens
from scripts.benchmarks.videoclip_step import random_pairs, videoclip_config

__all__ = ["masked_pairs", "vlm"]

_RATE, _MASK, _WORDS = 0.15, 103, 30522


def vlm(**model: Any) -> MMFusionMTM:
    """Return a randomly initialised VLM; ``model`` are keys of the section, or sizes in place of the shared ones."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = videoclip_config(Path(folder), 1, **model)
        del config["model"]["num_hidden_video_layers"]
        return MMFusionMTM(config).train()


def masked_pairs(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return the pairs of :func:`random_pairs`, masked: a quarter of the rows their whole video, a quarter their text,
    the others 15 % of both, as published.
    """
    batch, rng = random_pairs(count, seed), np.random.default_rng(seed)
    drawn = rng.random(count)
    of_text = np.where(drawn < 0.25, 1.0, np.where(drawn < 0.5, 0.0, _RATE))
    of_video = np.where(drawn < 0.25, 0.0, np.where(drawn < 0.5, 1.0, _RATE))
    caps = batch["caps"].numpy()
    words, selected = mask_tokens(rng, caps, caps >= 1000, of_text, _MASK, _WORDS)
    frames = mask_frames(rng, batch["vmasks"].numpy(), of_video)
    return batch | {
        "caps": torch.from_numpy(words),
        "text_label": torch.from_numpy(np.where(selected, caps, IGNORED)),
        "video_label": torch.from_numpy(frames),
    }
