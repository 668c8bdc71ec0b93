"""A data set of one's own for a training of MERLOT: records of noise, without files."""

from typing import Any

import numpy as np
import torch

from mmpt.modules.attention_masking import masked_count, masking_noise


class Records:
    """Eight records."""

    split, dup = "train", 1

    def __init__(self, config: Any) -> None:
        pass

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[str, int]:
        return f"v{index}", index


class Frames:
    """Two groups of two frames of 32 x 64 pixels."""

    def __init__(self, config: Any) -> None:
        pass

    def __call__(self, video_id: str) -> np.ndarray:
        return np.random.default_rng(int(video_id[1:])).integers(0, 256, (4, 3, 32, 64), dtype=np.uint8)


class Words:
    """Of each chunk eight positions."""

    def __init__(self, config: Any) -> None:
        pass

    def __call__(self, text_id: int, rng: np.random.Generator) -> np.ndarray:
        tokens = np.random.default_rng(text_id).integers(100, 400, (4, 8))
        tokens[:, 0], tokens[:, 6:] = 2, 0
        return tokens


class Items:
    """Items of pre-training."""

    def __init__(self, config: Any) -> None:
        pass

    def __call__(
        self, video_id: str, frames: np.ndarray, tokens: np.ndarray, rng: np.random.Generator
    ) -> dict[str, Any]:
        return {
            "vfeats": torch.from_numpy(frames),
            "tokens": torch.from_numpy(tokens),
            "shuffled_idx_img": torch.tensor([0, 1, 65, 64]),
            "video_src_ids": torch.zeros(4, dtype=torch.long),
            "video_id": video_id,
            **masking_noise(rng, 2, 16, masked_count(16), 100, 400),
        }
