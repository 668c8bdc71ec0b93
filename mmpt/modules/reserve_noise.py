"""The randomness of a training step of MERLOT Reserve, drawn with the item so that it depends on the item alone."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["SPLIT_PROBABILITY", "reserve_noise", "split_sources"]

#: How often a sequence is cut into two parts that do not see each other.
SPLIT_PROBABILITY = 0.1


def reserve_noise(
    rng: np.random.Generator, spans: int, sequences: int, split_probability: float = SPLIT_PROBABILITY
) -> dict[str, Tensor]:
    """Draw the noise of one item.

    Args:
        rng: of the item.
        spans: P, its text spans.
        sequences: n, those that read frames: text2audio's, then audio2text's.
        split_probability: how often a sequence is cut.

    Returns:
        ``noise_gumbel`` float32 (P,), by which the spans to tell are chosen at random; ``noise_split`` bool (n,),
        whether a sequence is cut; ``noise_cut`` float32 (n,) in [0, 1), where.
    """
    return {
        "noise_gumbel": torch.from_numpy(rng.gumbel(size=spans).astype(np.float32)),
        "noise_split": torch.from_numpy(rng.random(sequences) < split_probability),
        "noise_cut": torch.from_numpy(rng.random(sequences, dtype=np.float32)),
    }


def split_sources(sources: Tensor, split: Tensor, cut: Tensor) -> Tensor:
    """Make the segments from a cut on a video of their own, where ``split``.

    Args:
        sources: int64 (B, S), the video of each segment.
        split: bool (B,).
        cut: float (B,) in [0, 1): the first segment of the second part is one of 1 .. S - 1, evenly.
    """
    segments = sources.shape[1]
    first = 1 + (cut * (segments - 1)).long().clamp(max=max(segments - 2, 0))
    later = torch.arange(segments, device=sources.device) >= first[:, None]
    return sources + 4 * segments * (later & split.bool()[:, None])
