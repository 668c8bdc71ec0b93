"""VIOLET of chosen size and random frames for it: what the benchmarks of raw frames run."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.models.cross_modal import CrossModalModel
from mmpt.models.violet import VIOLETPretraining
from mmpt.modules.masking import IGNORED
from mmpt.modules.masking_visual import hide_squares
from mmpt.modules.pairing import in_batch_negatives
from mmpt.utils.registry import resolve_class

__all__ = ["SIZES", "random_clips", "violet", "violet_as_published"]

WORDS, VOCABULARY, CODES = 32, 30522, 8192
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
    """Return a randomly initialised VIOLET of a size of :data:`SIZES`; ``model`` are keys of that section."""
    swin, bert, pixels, frames = SIZES[size]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"model_type": "bert", "vocab_size": VOCABULARY, "max_position_embeddings": 512, **bert}
        (Path(folder) / "config.json").write_text(json.dumps(sizes))
        words = [f"w{number}" for number in range(VOCABULARY)]
        words[0], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        (Path(folder) / "vocab.txt").write_text("\n".join(words))
        dataset = {"bert_name": folder, "num_frames": frames, "image_size": pixels, "max_text_len": WORDS}
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


def violet_as_published(
    model: VIOLETPretraining,
    caps: Tensor,
    cmasks: Tensor,
    vfeats: Tensor,
    vmasks: Tensor,
    visual_codes: Tensor,
    masked_words: Tensor,
    masked_squares: Tensor,
) -> dict[str, Tensor]:
    """Return what the loss needs, with scores over both vocabularies of all positions, masked or not."""
    masked_squares = masked_squares & vmasks[:, :, None, None]
    video = model.encode_video(hide_squares(vfeats, masked_squares), vmasks)
    text = model.encode_text(caps.masked_fill(masked_words, model.special_ids.mask), cmasks)
    negatives = in_batch_negatives(len(caps), model.options.matching_texts)
    texts = torch.cat([torch.arange(len(caps))[:, None], negatives], dim=1)
    videos = torch.arange(len(caps)).repeat_interleave(texts.shape[1])
    fused = model.fuse(video.rows(videos), text.rows(texts.flatten())).last_hidden_state.unflatten(0, texts.shape)
    length = video.values.shape[1]
    squares = fused[:, 0, :length].unflatten(1, (vfeats.shape[1], -1))[:, :, 1:]
    return {
        "text_logits": model.fc_mtm["predictions"](fused[:, 0, length:]).flatten(0, 1),
        "text_targets": caps.masked_fill(~masked_words, IGNORED).flatten(),
        "code_logits": model.fc_mvm(squares).flatten(0, 2),
        "code_targets": visual_codes.masked_fill(~masked_squares, IGNORED).flatten(),
        "matching_scores": model.fc(fused[:, :, length])[..., 0],
    }
