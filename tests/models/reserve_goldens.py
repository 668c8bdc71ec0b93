"""Weights, inputs and numbers of the published MERLOT Reserve on a tiny size, for the parity tests."""

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmpt.models.reserve import ReservePretraining
from mmpt.utils.checkpoint import load_into
from tests.models.published_reserve import reserve_golden

#: Segments of an example; groups of them; sounds of an example; text spans of it; rows and columns of patches.
SEGMENTS, GROUPS, SOUNDS, SPANS, GRID = 4, 2, 12, 12, (4, 4)
KINDS = ("text2audio", "audio2text", "audio_text_matching", "random_text")


def tensor(name: str) -> Tensor:
    value = torch.from_numpy(reserve_golden()[name])
    return value if value.is_floating_point() or value.dtype == torch.bool else value.long()


def parameters() -> dict[str, Tensor]:
    """The weights under their published names."""
    return {key.removeprefix("params/"): tensor(key) for key in reserve_golden() if key.startswith("params/")}


def golden_config(model_cls: str = "ReservePretraining", **model: Any) -> DictConfig:
    sizes = {"hidden_size": 128, "joint_layers": 2, "vision_layers": 2, "audio_layers": 2, "span_layers": 2}
    return OmegaConf.create(
        {
            "dataset": {
                "image_grid": list(GRID),
                "num_segments": SEGMENTS,
                "num_segment_groups": GROUPS,
                "seq_len": 40,
            },
            "model": {"model_cls": model_cls, **sizes, "vocab_size": 512, "text_spans": 8, **model},
        }
    )


def golden_model(dtype: torch.dtype = torch.float32) -> ReservePretraining:
    model = ReservePretraining(golden_config()).eval()
    load_into(model, parameters())
    return model.to(dtype)


def golden_frames() -> Tensor:
    """Frames (3, S, 3, 64, 64) of the published patches."""
    rows, columns = GRID
    patches = tensor("inputs/images").view(3, SEGMENTS, rows, columns, 16, 16, 3)
    return patches.permute(0, 1, 6, 2, 4, 3, 5).reshape(3, SEGMENTS, 3, 16 * rows, 16 * columns)


def golden_noise(split_t2a: Tensor, split_a2t: Tensor, gumbel: Tensor) -> dict[str, Tensor]:
    """The published noise as ours: a split at 2 of the two segments of a sequence is none."""
    split = torch.cat([one.view(len(gumbel), GROUPS) for one in (split_t2a, split_a2t)], dim=1)
    return {"noise_gumbel": gumbel, "noise_split": split < 2, "noise_cut": torch.zeros(split.shape)}


def golden_batch() -> dict[str, Tensor]:
    batch = {name: tensor(f"inputs/{name}") for name in (*KINDS, "text_spans", "video_src_index")}
    batch |= {f"{name}_{end}": tensor(f"inputs/{name}/{end}") for name in KINDS for end in ("audio_ptr", "text_ptr")}
    noise = golden_noise(*(tensor(f"noise/{name}") for name in ("split_t2a", "split_a2t", "gumbel")))
    clips = tensor("inputs/audio_clips").view(3, SOUNDS, 60, 65)
    return {"vfeats": golden_frames(), "audio_clips": clips, **batch, **noise}
