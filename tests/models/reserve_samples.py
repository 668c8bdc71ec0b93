"""Batches of MERLOT Reserve's tiny config for the common tests."""

import numpy as np
import torch
from torch import Tensor

from mmpt.modules.reserve_noise import reserve_noise
from mmpt.modules.reserve_tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO

__all__ = ["reserve_images", "reserve_records", "reserve_videos"]

Batch = dict[str, Tensor]
SPANS, LENGTH, WHOLE = 8, 32, 36


def _draw(count: int, *shape: int, seed: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def _words(count: int, length: int, seed: int) -> list[list[int]]:
    return (10 + _draw(count, length, seed=seed) * 54).long().tolist()


def _sequence(parts: list[tuple[int, int, int]], length: int) -> tuple[list[int], list[int], list[int]]:
    """Return tokens, audio and text pointers of (token, sound, span), padded."""
    padded = parts + [(0, -1, -1)] * (length - len(parts))
    return tuple(list(one) for one in zip(*padded, strict=True))  # type: ignore[return-value]


def _record(number: int) -> dict[str, list]:
    """Four segments in two groups; three sounds and spans are told of text, three of sound, two of text alone."""
    words = _words(1, 40, seed=100 + number)[0]
    text2audio, audio2text = [], []
    for group in range(2):
        first = 6 * group
        told = [first + 1, first + 4] if group == 0 else [first + 2]
        heard = [first] if group == 0 else [first + 3, first + 5]
        parts: list[tuple[int, int, int]] = []
        for sound in range(first, first + 6):
            if sound in told:
                span = (0 if group == 0 else 2) + told.index(sound)
                parts += [(MASK, sound, span), (MASKAUDIO, sound, span)]
            else:
                parts += [(words[sound], sound, -1), (words[sound + 12], sound, -1)]
        text2audio.append(_sequence(parts, LENGTH))
        parts = [(AUDIOSPAN, first + 2, -1)] * 6
        parts += [(MASK, sound, 3 + (0 if group == 0 else 1) + heard.index(sound)) for sound in heard]
        parts += [(words[sound + 20], first + 5, -1) for sound in range(number % 3)]
        audio2text.append(_sequence(parts, LENGTH))
    matching = [(words[30], -1, -1)]
    for segment in range(4):
        matching += [(LTOVPOOL, 3 * segment, -1), *[(AUDIOSPAN, 3 * segment, -1)] * 6]
    text = [(words[31], 0, -1), (MASK, 1, 6), (words[32], 2, -1), (MASK, 3, 7)]
    found: dict[str, list] = {}
    for name, sequences in (
        ("text2audio", text2audio),
        ("audio2text", audio2text),
        ("audio_text_matching", [_sequence(matching, WHOLE)]),
        ("random_text", [_sequence(text, WHOLE)]),
    ):
        for end, values in zip(("", "_audio_ptr", "_text_ptr"), zip(*sequences, strict=True), strict=True):
            found[name + end] = list(values)
    return found


def reserve_records(count: int) -> Batch:
    """Examples of pre-training with their noise."""
    records = [_record(number) for number in range(count)]
    batch = {name: torch.tensor([record[name] for record in records]) for name in records[0]}
    lengths = 1 + torch.arange(count * SPANS).view(count, SPANS, 1) % 15
    spans = (10 + _draw(count, SPANS, 15, seed=5) * 54).long().where(torch.arange(15) < lengths, 0)
    noise = [reserve_noise(np.random.default_rng(number), SPANS, 4) for number in range(count)]
    return {
        "vfeats": _draw(count, 4, 3, 32, 64, seed=3),
        "audio_clips": _draw(count, 12, 60, 65, seed=4),
        **batch,
        "text_spans": spans,
        "video_src_index": torch.tensor([[0, 0, 0, 1]]).expand(count, -1),
        **{name: torch.stack([one[name] for one in noise]) for name in noise[0]},
    }


def _choices(count: int, *shape: int, length: int, seed: int) -> Tensor:
    """Words with a MASK behind them."""
    words = (10 + _draw(count, *shape, length, seed=seed) * 54).long()
    ends = (2 + _draw(count, *shape, 1, seed=seed + 1) * (length - 2)).long()
    place = torch.arange(length)
    return words.where(place < ends, 0).where(place != ends, MASK)


def reserve_images(count: int) -> Batch:
    """Images with two questions of four options."""
    caps = _choices(count, 2, 4, length=10, seed=6)
    return {
        "vfeats": _draw(count, 1, 3, 32, 64, seed=3),
        "vmasks": torch.ones(count, 1, dtype=torch.bool),
        "caps": caps,
        "cmasks": caps != 0,
        "answers": torch.arange(2 * count).view(count, 2) % 4,
    }


def reserve_videos(count: int) -> Batch:
    """Videos of one or two frames with a question of two options, each with subtitles and with sound."""
    question = _choices(count, 2, 2, length=6, seed=6).clamp(min=MASK)
    behind = (10 + _draw(count, 2, 2, 36, seed=8) * 54).long()
    behind[:, 1] = AUDIOSPAN
    caps = torch.cat([question, behind], dim=-1)
    segments = torch.cat([torch.zeros(6), torch.ones(18), torch.full((18,), 2)]).long()
    return {
        "vfeats": _draw(count, 2, 3, 32, 64, seed=3),
        "vmasks": torch.arange(2) < 1 + torch.arange(count)[:, None] % 2,
        "caps": caps,
        "cmasks": caps != 0,
        "segments": segments.expand_as(caps),
        "audio_clips": _draw(count, 6, 60, 65, seed=4),
        "answers": torch.arange(count) % 2,
    }
