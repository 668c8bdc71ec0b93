"""VLM's pre-training step (masked frames and words told among both), MMPT's and the published code's.

step = our_step()           # or naive_step()
step(masked_pairs(128))
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mmpt.losses.masked import MTM
from mmpt.models.vlm import MMFusionMTM
from mmpt.modules.attention_masks import joint_mask, joint_token_types
from mmpt.modules.masking import IGNORED, mask_frames, mask_tokens
from mmpt.modules.mmbert_heads import MMBertForMTM
from scripts.benchmarks.naive_transformer import eager_encode, plain_adam
from scripts.benchmarks.videoclip_step import fused_adam, random_pairs, update, videoclip_config

__all__ = ["masked_pairs", "naive_step", "our_step", "vlm"]

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


def our_step(model: MMFusionMTM | None = None) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return MMPT's training step as it is by default; ``model`` None is that of :func:`vlm`."""
    model = model or vlm()
    optimizer, loss = fused_adam(model), MTM()

    def step(batch: dict[str, Tensor]) -> Tensor:
        return update(loss(text_label=batch["text_label"], **model(**batch)), optimizer)

    return step


def naive_step(model: MMFusionMTM | None = None) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return the step of the published code: eager attention, all padding computed, Adam tensor by tensor."""
    model = model or vlm()
    optimizer, loss = plain_adam(model), MTM()

    def step(batch: dict[str, Tensor]) -> Tensor:
        return update(loss(text_label=batch["text_label"], **_naive_scores(model, **batch)), optimizer)

    return step


def _naive_scores(
    model: MMFusionMTM,
    caps: Tensor,
    cmasks: Tensor,
    vfeats: Tensor,
    vmasks: Tensor,
    video_label: Tensor,
    text_label: Tensor,
) -> dict[str, Tensor]:
    encoder, seconds = cast(MMBertForMTM, model.mm_encoder), vmasks.shape[1]
    video = encoder.videomlp(vfeats.masked_fill(video_label[..., None], 0))
    types = joint_token_types(seconds, caps.shape[1])
    embedded = encoder.bert.embeddings(caps, types, video_embeddings=video)
    states = eager_encode(encoder.bert, embedded, joint_mask(vmasks, cmasks))
    of_caps = torch.cat([states[:, :1], states[:, 1 + seconds :]], dim=1)
    scores = encoder.masked_scores(
        states[:, 1 : 1 + seconds][video_label],
        of_caps[text_label != IGNORED],
        vfeats[video_label],
        vfeats[vmasks & ~video_label],
    )
    return {"video_logits": scores.video, "text_logits": scores.text}
