"""MERLOT and MERLOT Reserve of chosen size and random records for them: what the benchmarks of segments run."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.modules.attention_masking import masked_count, masking_noise
from mmpt.modules.merlot_tokens import FIRST_WORD, START
from mmpt.modules.reserve_noise import reserve_noise
from mmpt.modules.reserve_tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO
from mmpt.utils.registry import resolve_class

__all__ = ["SIZES", "merlot", "random_chunks", "random_segments", "reserve"]

#: Name -> layers, hidden size, and pixels (height, width) of a frame of MERLOT and of Reserve.
SIZES: dict[str, tuple[int, int, tuple[int, int], tuple[int, int]]] = {
    "tiny": (4, 256, (64, 96), (64, 96)),
    "base": (12, 768, (192, 352), (192, 320)),  # as published
}
CHUNKS, GROUP, CHUNK_TEXT = 16, 4, 32
SEGMENTS, GROUPS, TEXT, SPANS, SPAN = 16, 2, 160, 24, 15
_WORDS = {"tiny": 8000, "base": 32768}


def merlot(size: str, **model: Any) -> nn.Module:
    """Return a randomly initialised MERLOT of a size of :data:`SIZES`; ``model`` are keys of that section."""
    layers, hidden, _, _ = SIZES[size]
    torch.manual_seed(0)
    sizes = {
        "hidden_size": hidden,
        "num_layers": layers,
        "vision_layers": layers,
        "num_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
        "vocab_size": 50370 if size == "base" else _WORDS[size],
        "resnet_layers": [3, 4, 9] if size == "base" else [1, 1, 1],
    }
    dataset = {"chunks_in_group": GROUP, "image_size": list(SIZES[size][2])}
    return resolve_class("model", "MERLOTPretraining")({"dataset": dataset, "model": {**sizes, **model}})


def random_chunks(size: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return a batch of records of 16 chunks, texts of 12 to 32 tokens, nothing masked yet."""
    height, width = SIZES[size][2]
    words = 50370 if size == "base" else _WORDS[size]
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    shape = (count, CHUNKS, CHUNK_TEXT)
    lengths = torch.randint(12, CHUNK_TEXT + 1, shape[:2], generator=generator)[..., None]
    tokens = torch.randint(FIRST_WORD, words, shape, generator=generator)
    tokens = tokens.where(torch.arange(CHUNK_TEXT) < lengths, 0)
    tokens[..., 0] = START
    length, groups = GROUP * CHUNK_TEXT, CHUNKS // GROUP
    noise = [masking_noise(rng, groups, length, masked_count(length), FIRST_WORD, words) for _ in range(count)]
    return {
        "vfeats": torch.randint(0, 256, (count, CHUNKS, 3, height, width), dtype=torch.uint8, generator=generator),
        "tokens": tokens,
        "video_src_ids": torch.zeros(count, CHUNKS, dtype=torch.long),
        "shuffled_idx_img": (torch.arange(CHUNKS) % GROUP + 64).expand(count, -1).clone(),
        **{name: torch.stack([one[name] for one in noise]) for name in noise[0]},
    }


def reserve(size: str, **model: Any) -> nn.Module:
    """Return a randomly initialised Reserve of a size of :data:`SIZES`; ``model`` are keys of that section."""
    layers, hidden, _, (height, width) = SIZES[size]
    torch.manual_seed(0)
    sizes = {
        "hidden_size": hidden,
        "joint_layers": layers,
        "vision_layers": layers,
        "audio_layers": layers,
        "span_layers": 4 if size == "base" else 2,
        "vocab_size": _WORDS[size],
        "text_spans": SPANS,
    }
    grid = [height // 16, width // 16]
    dataset = {
        "image_grid": grid,
        "num_segments": SEGMENTS,
        "num_segment_groups": GROUPS,
        "seq_len": TEXT + grid[0] * grid[1] // 4 * (SEGMENTS // GROUPS),
    }
    return resolve_class("model", "ReservePretraining")({"dataset": dataset, "model": {**sizes, **model}})


def random_segments(size: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Return a batch of records of 16 segments: 12 sounds told from text, 12 spans from sound, no random text."""
    height, width = SIZES[size][3]
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    sounds = 3 * SEGMENTS
    each, matched = sounds // GROUPS, TEXT + height * width // 1024 * (SEGMENTS // GROUPS)

    def words(*shape: int) -> Tensor:
        return torch.randint(10, _WORDS[size], shape, generator=generator)

    batch: dict[str, Tensor] = {
        "vfeats": torch.randint(0, 256, (count, SEGMENTS, 3, height, width), dtype=torch.uint8, generator=generator),
        "audio_clips": torch.rand(count, sounds, 60, 65, generator=generator),
        "text_spans": words(count, SPANS, SPAN),
        "video_src_index": torch.zeros(count, SEGMENTS, dtype=torch.long),
    }
    told, runs = SPANS // 2 // GROUPS, (each - SPANS // 2 // GROUPS) * 6
    for kind, length in (("text2audio", TEXT), ("audio2text", TEXT), ("audio_text_matching", matched)):
        sequences = 1 if kind == "audio_text_matching" else GROUPS
        tokens = words(count, sequences, length)
        audio = torch.full_like(tokens, -1)
        text = torch.full_like(tokens, -1)
        for group in range(sequences):
            if kind == "text2audio":
                places = torch.arange(told) * 8
                tokens[:, group, places], tokens[:, group, places + 1] = MASK, MASKAUDIO
                targets = group * each + torch.arange(told) * 2
                audio[:, group, places], audio[:, group, places + 1] = targets, targets
                text[:, group, places] = group * told + torch.arange(told)
            elif kind == "audio2text":
                end = min(runs, (length - told) // 6 * 6)
                tokens[:, group, :end] = AUDIOSPAN
                audio[:, group, :end] = group * each + torch.arange(end) // 6
                tokens[:, group, end : end + told] = MASK
                audio[:, group, end : end + told] = group * each + each - 1
                text[:, group, end : end + told] = SPANS // 2 + group * told + torch.arange(told)
            else:
                tokens[:, group, torch.arange(SEGMENTS) * (length // SEGMENTS)] = LTOVPOOL
        batch |= {kind: tokens, f"{kind}_audio_ptr": audio, f"{kind}_text_ptr": text}
    noise = [reserve_noise(rng, SPANS, 2 * GROUPS) for _ in range(count)]
    return batch | {name: torch.stack([one[name] for one in noise]) for name in noise[0]}
