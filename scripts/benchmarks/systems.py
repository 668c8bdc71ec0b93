"""The pre-training step of each of the six systems: model, loss and a random batch, "tiny" or of the published size."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmpt.losses.contrastive import MMContraLoss
from mmpt.losses.lavender import LAVENDERLoss
from mmpt.losses.masked import MTM
from mmpt.losses.merlot import MERLOTLoss
from mmpt.losses.reserve import ReserveLoss
from mmpt.losses.violet import VIOLETLoss
from scripts.benchmarks.frame_step import random_clips, random_prompts, violet
from scripts.benchmarks.published_step import Outputs, lavender_as_published, violet_as_published
from scripts.benchmarks.segment_step import merlot, random_chunks, random_segments, reserve
from scripts.benchmarks.videoclip_step import SIZES as WORKLOAD
from scripts.benchmarks.videoclip_step import random_pairs, videoclip
from scripts.benchmarks.vlm_step import masked_pairs, vlm

__all__ = ["SYSTEMS", "System"]

_BERT_BASE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
_BERT_TINY = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 128}
#: By size; "workload" is that of the published speed: 384-d, 6 layers of text and 3 of video.
_BERT = {"tiny": _BERT_TINY, "base": _BERT_BASE, "workload": WORKLOAD}
_VIDEO_LAYERS = {"tiny": 2, "base": 6, "workload": 3}


class System(NamedTuple):
    """How to train one system.

    Attributes:
        model: makes the model of a size, "tiny" or "base"; keywords are keys of its section.
        loss: of the model's outputs and the batch.
        batch: makes a batch of (size, samples).
        samples: of a batch of the base size, unless said otherwise.
        unit: what a sample is.
        published: the loss's inputs from model and batch, where the published code computes more than the model does.
    """

    model: Callable[..., nn.Module]
    loss: Callable[..., Tensor]
    batch: Callable[[str, int], dict[str, Any]]
    samples: int
    unit: str
    published: Outputs | None = None


def _videoclip(size: str, **model: Any) -> nn.Module:
    return videoclip(_VIDEO_LAYERS[size], **_BERT[size], **model)


def _vlm(size: str, **model: Any) -> nn.Module:
    return vlm(**_BERT[size], **model)


def _any_size(batch: Callable[[int], dict[str, Any]]) -> Callable[[str, int], dict[str, Any]]:
    return lambda size, count: batch(count)


SYSTEMS: dict[str, System] = {
    "videoclip": System(_videoclip, MMContraLoss(), _any_size(random_pairs), 512, "pairs"),
    "vlm": System(_vlm, MTM(), _any_size(masked_pairs), 256, "pairs"),
    "violet": System(violet, VIOLETLoss(), random_clips, 32, "clips", violet_as_published),
    "lavender": System(
        functools.partial(violet, name="LAVENDER"), LAVENDERLoss(), random_prompts, 32, "clips", lavender_as_published
    ),
    "merlot": System(merlot, MERLOTLoss(), random_chunks, 8, "records"),
    "reserve": System(reserve, ReserveLoss(), random_segments, 8, "records"),
}
