"""The pre-training step of each of the six systems: model, loss and a random batch, "tiny" or of the published size."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmpt.losses.contrastive import MMContraLoss
from mmpt.losses.lavender import LAVENDERLoss
from mmpt.losses.masked import MFMMLM
from mmpt.losses.merlot import MERLOTLoss
from mmpt.losses.reserve import ReserveLoss
from mmpt.losses.violet import VIOLETLoss
from mmpt.models.vlm import MMFusionMFMMLM
from scripts.benchmarks.frame_step import random_clips, violet
from scripts.benchmarks.segment_step import merlot, random_chunks, random_segments, reserve
from scripts.benchmarks.videoclip_step import SIZES as WORKLOAD
from scripts.benchmarks.videoclip_step import random_pairs, videoclip, videoclip_config

__all__ = ["SYSTEMS", "System", "random_masked_pairs", "random_prompts", "vlm"]

_BERT_BASE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
_BERT_TINY = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 128}
#: By size; "workload" is that of the published speed: 384-d, 6 layers of text and 3 of video.
_BERT = {"tiny": _BERT_TINY, "base": _BERT_BASE, "workload": WORKLOAD}
_VIDEO_LAYERS = {"tiny": 2, "base": 6, "workload": 3}
_IGNORED, _MASK = -100, 103


class System(NamedTuple):
    """How to train one system.

    Attributes:
        model: makes the model of a size, "tiny" or "base"; keywords are keys of its section.
        loss: of the model's outputs and the batch.
        batch: makes a batch of (size, samples).
        samples: of a batch of the base size, unless said otherwise.
        unit: what a sample is.
    """

    model: Callable[..., nn.Module]
    loss: Callable[..., Tensor]
    batch: Callable[[str, int], dict[str, Any]]
    samples: int
    unit: str


def _videoclip(size: str, **model: Any) -> nn.Module:
    return videoclip(_VIDEO_LAYERS[size], **_BERT[size], **model)


def vlm(size: str, **model: Any) -> nn.Module:
    """Return a randomly initialised VLM for its pre-training by masked frames and tokens."""
    import tempfile
    from pathlib import Path

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = videoclip_config(Path(folder), 0, **_BERT[size], **model)
        del config["model"]["num_hidden_video_layers"]
        return MMFusionMFMMLM(config).train()


def random_masked_pairs(count: int, seed: int = 0) -> dict[str, Any]:
    """Return pairs of seconds and words as VideoCLIP's, of which about 15 % are masked."""
    batch: dict[str, Any] = random_pairs(count, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    caps, cmasks, vmasks = batch["caps"], batch["cmasks"], batch["vmasks"]
    words = (torch.rand(caps.shape, generator=generator) < 0.15) & cmasks & (caps > 999)
    frames = (torch.rand(vmasks.shape, generator=generator) < 0.15) & vmasks
    words[:, 2] = frames[:, 0] = True  # something in each
    label = caps.where(words, _IGNORED)
    return {**batch, "caps": caps.masked_fill(words, _MASK), "text_label": label, "video_label": frames}


def random_prompts(size: str, count: int) -> dict[str, Any]:
    """Return clips and texts for LAVENDER's pre-training: about 15 % of the words masked, a ``[MASK]`` at the end."""
    clips = random_clips(size, count)
    caps, cmasks, words = clips["caps"], clips["cmasks"], clips["masked_words"]
    label = caps.where(words, _IGNORED)
    caps = caps.masked_fill(words, _MASK)
    caps[:, -1], cmasks[:, -1] = _MASK, True
    label[:, -1] = _IGNORED
    batch = {key: clips[key] for key in ("vfeats", "vmasks")}
    return {**batch, "caps": caps, "cmasks": cmasks, "text_label": label, "objective": "pretraining"}


def _any_size(batch: Callable[[int], dict[str, Any]]) -> Callable[[str, int], dict[str, Any]]:
    return lambda size, count: batch(count)


SYSTEMS: dict[str, System] = {
    "videoclip": System(_videoclip, MMContraLoss(), _any_size(random_pairs), 512, "pairs"),
    "vlm": System(vlm, MFMMLM(), _any_size(random_masked_pairs), 256, "pairs"),
    "violet": System(violet, VIOLETLoss(), random_clips, 32, "clips"),
    "lavender": System(functools.partial(violet, name="LAVENDER"), LAVENDERLoss(), random_prompts, 32, "clips"),
    "merlot": System(merlot, MERLOTLoss(), random_chunks, 8, "records"),
    "reserve": System(reserve, ReserveLoss(), random_segments, 8, "records"),
}
