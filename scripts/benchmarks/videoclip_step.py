"""A VideoCLIP of chosen size, random pairs for it, and its training step: MMPT's and the published code's.

Both steps are made of a model and return the loss; with dropout at 0 the losses are equal to rounding:

    step = our_step()           # or naive_step()
    step(random_pairs(128))
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmpt.losses.contrastive import MMContraLoss
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.modules.bert import BertModel
from mmpt.modules.mmbert import MMBertForEncoder
from scripts.benchmarks.naive_transformer import eager_encode, plain_adam

__all__ = ["fused_adam", "naive_step", "our_step", "random_pairs", "update", "videoclip", "videoclip_config"]

#: Sizes of the reference step: 3 video and 6 text layers of width 384.
SIZES = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 6, "intermediate_size": 1536}
SECONDS, WORDS, WIDTH = 32, 61, 512


def videoclip_config(folder: Path, video_layers: int, **model: Any) -> dict[str, Any]:
    """Return a config of BERT's sizes in ``folder``, written there, with ``video_layers`` for the video."""
    sizes = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512, **SIZES}
    sizes |= {key: model.pop(key) for key in SIZES if key in model}
    (folder / "config.json").write_text(json.dumps(sizes))
    dataset = {"bert_name": str(folder), "max_video_len": SECONDS, "max_len": SECONDS + WORDS + 3}
    own = {"init": "random", "input_dim": WIDTH, "num_hidden_video_layers": video_layers}
    return {"dataset": dataset, "model": own | model}


def videoclip(video_layers: int = 3, **model: Any) -> MMFusionSeparate:
    """Return a randomly initialised VideoCLIP; ``model`` are keys of the section, or sizes in place of ``SIZES``."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        return MMFusionSeparate(videoclip_config(Path(folder), video_layers, **model)).train()


def random_pairs(count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return pairs of 3 to 32 seconds and 8 to 61 tokens, uniformly."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.randint(3, SECONDS + 1, (count, 1), generator=generator)
    words = torch.randint(8, WORDS + 1, (count, 1), generator=generator)
    position = torch.arange(WORDS + 3)
    caps = torch.randint(1000, 30000, (count, WORDS + 3), generator=generator)
    caps[:, 0], caps[:, 1] = 101, 102
    caps = caps.where(position != words + 2, 102).where(position <= words + 2, 0)
    return {
        "caps": caps,
        "cmasks": position <= words + 2,
        "vfeats": torch.randn(count, SECONDS, WIDTH, generator=generator),
        "vmasks": torch.arange(SECONDS) < seconds,
    }


def our_step(model: MMFusionSeparate | None = None) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return MMPT's training step as it is by default; ``model`` None is that of :func:`videoclip`."""
    model = model or videoclip()
    optimizer, loss = fused_adam(model), MMContraLoss()

    def step(batch: dict[str, Tensor]) -> Tensor:
        return update(loss(**model(**batch)), optimizer)

    return step


def naive_step(model: MMFusionSeparate | None = None) -> Callable[[dict[str, Tensor]], Tensor]:
    """Return the step of the published code: eager attention, all padding computed, Adam tensor by tensor."""
    model = model or videoclip()
    optimizer, loss = plain_adam(model), MMContraLoss()

    def step(batch: dict[str, Tensor]) -> Tensor:
        return update(loss(_naive_video(model, **batch), _naive_text(model, **batch)), optimizer)

    return step


def fused_adam(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam whose step is one kernel for all weights."""
    return torch.optim.Adam(model.parameters(), lr=5e-5, betas=(0.9, 0.98), fused=True)


def update(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Do the backward pass and the optimizer's step; return the loss as a number without a graph."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def _naive_video(
    model: MMFusionSeparate, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **_: Tensor
) -> Tensor:
    encoder = cast(MMBertForEncoder, model.video_encoder)
    mask = torch.cat([cmasks[:, :1], vmasks, cmasks[:, 1:2]], dim=1)
    embedded = encoder.bert.embeddings(caps[:, :2], video_embeddings=encoder.videomlp(vfeats))
    return _mean(eager_encode(encoder.bert, embedded, mask), mask)


def _naive_text(model: MMFusionSeparate, caps: Tensor, cmasks: Tensor, **_: Tensor) -> Tensor:
    encoder = cast(BertModel, model.text_encoder)
    ids, mask = (torch.cat([given[:, :1], given[:, 2:]], dim=1) for given in (caps, cmasks))
    return _mean(eager_encode(encoder, encoder.embeddings(ids), mask), mask)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask[:, 1:, None].to(states.dtype)
    return (states[:, 1:] * weights).sum(1) / weights.sum(1)
