"""VIOLET or LAVENDER of chosen size and random frames for them: what the benchmarks of raw frames run."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.models.cross_modal import CrossModalModel
from mmpt.modules.masking import IGNORED
from mmpt.utils.registry import resolve_class
from mmpt.utils.tokenizers import load_tokenizer

__all__ = ["SIZES", "random_clips", "random_prompts", "violet"]

WORDS, VOCABULARY, CODES, MASK = 32, 30522, 8192, 103
#: Name -> Swin of ``model.swin``, sizes of BERT, pixels of a side, frames.
SIZES: dict[str, tuple[str, dict[str, int], int, int]] = {
    "tiny": (
        "tiny",
        {"hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 4, "intermediate_size": 1024},
        *(96, 4),
    ),
    "base": (  # as published
        "small",
        {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072},
        *(224, 4),
    ),
}


def violet(size: str, name: str = "VIOLETPretraining", **model: Any) -> CrossModalModel:
    """Return a randomly initialised model of a size of :data:`SIZES`; ``model`` are keys of that section."""
    swin, bert, pixels, frames = SIZES[size]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"model_type": "bert", "vocab_size": VOCABULARY, "max_position_embeddings": 512, **bert}
        (Path(folder) / "config.json").write_text(json.dumps(sizes))
        words = [f"w{number}" for number in range(VOCABULARY)]
        words[0], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words[104:106] = "true", "false"  # LAVENDER's verdicts on a pair
        (Path(folder) / "vocab.txt").write_text("\n".join(words))
        dataset = {"bert_name": folder, "num_frames": frames, "image_size": pixels, "max_text_len": WORDS}
        load_tokenizer(folder)  # kept by the process: LAVENDER looks for words while it trains
        config = {"dataset": dataset, "model": {"init": "random", "swin": swin, **model}}
        return resolve_class("model", name)(config)


def random_clips(size: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return a batch of clips with texts of 8 to 32 word pieces, and what pre-training masks of them: about 15%."""
    _, _, pixels, frames = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(8, WORDS + 1, (count, 1), generator=generator)
    caps = torch.randint(1000, VOCABULARY, (count, WORDS), generator=generator)
    position, grid = torch.arange(WORDS), (count, frames, pixels // 32, pixels // 32)
    caps[:, 0] = 101
    caps = caps.where(position != lengths - 1, 102).where(position < lengths, 0)
    words = (torch.rand(count, WORDS, generator=generator) < 0.15) & (position > 0) & (position < lengths - 1)
    squares = torch.rand(grid, generator=generator) < 0.15
    words[:, 1] = squares[:, 0, 0, 0] = True  # a loss of nothing has no gradient
    return {
        "caps": caps,
        "cmasks": position < lengths,
        "vfeats": torch.randint(0, 256, (count, frames, 3, pixels, pixels), dtype=torch.uint8, generator=generator),
        "vmasks": torch.ones(count, frames, dtype=torch.bool),
        "visual_codes": torch.randint(0, CODES, grid, generator=generator),
        "masked_words": words,
        "masked_squares": squares,
    }


def random_prompts(size: str, count: int) -> dict[str, Any]:
    """Return clips and texts for LAVENDER's pre-training: about 15 % of the words masked, a ``[MASK]`` at the end."""
    clips = random_clips(size, count)
    caps, cmasks, words = clips["caps"], clips["cmasks"], clips["masked_words"]
    label = caps.where(words, IGNORED)
    caps = caps.masked_fill(words, MASK)
    caps[:, -1], cmasks[:, -1] = MASK, True
    label[:, -1] = IGNORED
    batch = {key: clips[key] for key in ("vfeats", "vmasks")}
    return {**batch, "caps": caps, "cmasks": cmasks, "text_label": label, "objective": "pretraining"}
