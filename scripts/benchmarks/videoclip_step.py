"""A VideoCLIP of chosen size and random pairs for it: what the benchmarks of pairs run."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.models.videoclip import MMFusionSeparate

__all__ = ["SIZES", "random_pairs", "videoclip", "videoclip_config"]

#: Sizes of the reference step: 3 video and 6 text layers of width 384.
SIZES = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 6, "intermediate_size": 1536}
SECONDS, WORDS, WIDTH = 32, 61, 512


def videoclip_config(folder: Path, video_layers: int, words: int = WORDS, **model: Any) -> dict[str, Any]:
    """Return a config of BERT's sizes in ``folder``, written there, with ``video_layers`` for the video.

    ``words`` are the tokens of the longest text.
    """
    sizes = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512, **SIZES}
    sizes |= {key: model.pop(key) for key in SIZES if key in model}
    (folder / "config.json").write_text(json.dumps(sizes))
    dataset = {"bert_name": str(folder), "max_video_len": SECONDS, "max_len": SECONDS + words + 3}
    own = {"init": "random", "input_dim": WIDTH, "num_hidden_video_layers": video_layers}
    return {"dataset": dataset, "model": own | model}


def videoclip(video_layers: int = 3, **model: Any) -> MMFusionSeparate:
    """Return a randomly initialised VideoCLIP; ``model`` are keys of the section, or sizes in place of ``SIZES``."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        return MMFusionSeparate(videoclip_config(Path(folder), video_layers, **model)).train()


def random_pairs(count: int, seed: int = 0, longest: int = WORDS) -> dict[str, Tensor]:
    """Return pairs of 3 to 32 seconds and 8 to ``longest`` tokens, uniformly."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.randint(3, SECONDS + 1, (count, 1), generator=generator)
    words = torch.randint(8, longest + 1, (count, 1), generator=generator)
    position = torch.arange(longest + 3)
    caps = torch.randint(1000, 30000, (count, longest + 3), generator=generator)
    caps[:, 0], caps[:, 1] = 101, 102
    caps = caps.where(position != words + 2, 102).where(position <= words + 2, 0)
    return {
        "caps": caps,
        "cmasks": position <= words + 2,
        "vfeats": torch.randn(count, SECONDS, WIDTH, generator=generator),
        "vmasks": torch.arange(SECONDS) < seconds,
    }
