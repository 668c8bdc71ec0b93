"""Masking that looks at no content: which words and frames a model must predict (VLM, Findings of ACL 2021, section 3).

Pure numpy functions of an explicit generator, over the N samples of an item at once. Shape suffixes: N samples,
L text positions, M video positions. A sample's mode says how one of its modalities is masked:

    normal         each position with the configured probability
    full           every position: the modality must be made up from the other one
    no             no position
    inverse        each position with one minus the configured probability
    mask           text only: as normal, but nothing is to be predicted
    textgen        text only: left to right, the input shifted by one position
    textgen_mask   text only: as textgen, and the input is corrupted as in normal
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from mmpt.utils.tokenizers import SpecialIds

__all__ = [
    "IGNORED",
    "TEXT_MODES",
    "TextMode",
    "VideoMode",
    "draw_modes",
    "hide_tokens",
    "maskable",
    "mask_frames",
    "mask_text",
    "mask_tokens",
    "mode_probabilities",
    "shift_for_generation",
]

#: Label of a position that is not to be predicted.
IGNORED = -100

VideoMode = Literal["normal", "full", "no", "inverse"]
TextMode = Literal["normal", "full", "no", "inverse", "mask", "textgen", "textgen_mask"]
TEXT_MODES: tuple[str, ...] = get_args(TextMode)

# Of the selected words, shares that become [MASK] and a random word; the rest stays (BERT, section 3.1).
_MASK_SHARE, _RANDOM_SHARE = 0.8, 0.1


def draw_modes(
    rng: np.random.Generator, count: int, mm_prob: float, mm_type: TextMode = "full"
) -> tuple[list[TextMode], list[VideoMode]]:
    """Draw how each sample is masked: with probability ``mm_prob`` one whole modality, else both in part.

    Half of the former have text mode ``mm_type`` and all frames visible, half no frame and all words visible.

    Returns:
        Text and video mode of each of ``count`` samples.
    """
    drawn = rng.random(count).tolist()
    text: list[TextMode] = [mm_type if u < mm_prob / 2 else "no" if u < mm_prob else "normal" for u in drawn]
    video: list[VideoMode] = ["no" if u < mm_prob / 2 else "full" if u < mm_prob else "normal" for u in drawn]
    return text, video


def mode_probabilities(modes: Sequence[str], probability: float) -> np.ndarray:
    """Return the probability, float64 ``(N,)``, with which a position of each sample is selected.

    Raises:
        ValueError: if a mode is none of ``TEXT_MODES``.
    """
    known = {"normal": probability, "mask": probability, "textgen_mask": probability, "full": 1.0}
    known |= {"inverse": 1.0 - probability, "no": 0.0, "textgen": 0.0}
    unknown = set(modes) - known.keys()
    if unknown:
        raise ValueError(f"masking mode {sorted(unknown)[0]!r} is none of {', '.join(TEXT_MODES)}")
    return np.array([known[mode] for mode in modes], dtype=np.float64)


def maskable(tokens: np.ndarray, special_ids: SpecialIds) -> np.ndarray:
    """Return which positions of ``(.., L)`` ids hold words: not ``[CLS]``, ``[SEP]`` or ``[PAD]``."""
    return (tokens != special_ids.cls) & (tokens != special_ids.sep) & (tokens != special_ids.pad)


def mask_tokens(
    rng: np.random.Generator,
    tokens: np.ndarray,
    eligible: np.ndarray,
    probability: float | np.ndarray,
    mask_id: int,
    vocab_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Select eligible tokens and corrupt them by BERT's rule: 80 % ``mask_id``, 10 % any id, 10 % as they are.

    Args:
        tokens: int64 ``(N, L)``; left as it is.
        eligible: bool ``(N, L)``.
        probability: of a token to be selected, for all samples or ``(N,)``.
        vocab_size: random ids are uniform over ``0..vocab_size - 1``.

    Returns:
        Corrupted ids int64 ``(N, L)`` and which tokens were selected, bool ``(N, L)``.
    """
    share = np.asarray(probability, dtype=np.float64)[..., None]
    # One number decides both: given that it selects a token, its fraction of the probability is uniform.
    drawn = rng.random(tokens.shape)
    selected = (drawn < share) & eligible
    corrupted = tokens.copy()
    hidden = drawn < share * _MASK_SHARE
    replaced = selected & ~hidden & (drawn < share * (_MASK_SHARE + _RANDOM_SHARE))
    corrupted[selected & hidden] = mask_id
    corrupted[replaced] = rng.integers(vocab_size, size=np.count_nonzero(replaced))
    return corrupted, selected


def mask_frames(rng: np.random.Generator, vmasks: np.ndarray, probability: float | np.ndarray) -> np.ndarray:
    """Select valid frames: bool ``(N, M)``, each of ``vmasks`` with ``probability`` (for all samples, or ``(N,)``)."""
    return (rng.random(vmasks.shape) < np.asarray(probability)[..., None]) & vmasks


def hide_tokens(
    rng: np.random.Generator, tokens: np.ndarray, eligible: np.ndarray, probability: float, mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Select eligible tokens, each with ``probability``, and make all of them ``mask_id`` (VIOLET, LAVENDER).

    Args:
        tokens: int64 ``(.., L)``; left as it is.
        eligible: bool, as tokens.

    Returns:
        The ids, and labels: what was selected, -100 elsewhere; both int64 ``(.., L)``.
    """
    selected = mask_frames(rng, eligible, probability)
    return np.where(selected, mask_id, tokens), np.where(selected, tokens, IGNORED)


def shift_for_generation(caps: np.ndarray, special_ids: SpecialIds) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels for generation from left to right, both int64 ``(.., L)``.

    Of ``[CLS] [SEP] w1..wn [SEP] [PAD]..`` the input is ``[CLS] [SEP] [CLS] w1..wn [PAD]..``, with the second
    ``[CLS]`` as the begin of the text, and the labels are w1..wn and the final ``[SEP]`` from position 2 on.
    """
    inputs, labels = caps.copy(), caps.copy()
    inputs[..., 3:] = caps[..., 2:-1]
    inputs[..., 2] = special_ids.cls
    padding = caps == special_ids.pad
    inputs[padding] = special_ids.pad
    labels[padding] = IGNORED
    labels[..., :2] = IGNORED
    return inputs, labels


def mask_text(
    rng: np.random.Generator,
    caps: np.ndarray,
    modes: Sequence[TextMode],
    probability: float,
    special_ids: SpecialIds,
    vocab_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask the text of N samples, each in its mode.

    Args:
        caps: int64 ``(N, L)``, laid out ``[CLS] [SEP] w1..wn [SEP] [PAD]..``; left as it is.
        modes: N of ``TEXT_MODES``.
        probability: of a word to be selected in mode normal.

    Returns:
        Input ids and labels (-100 where nothing is to be predicted), both int64 ``(N, L)``.
    """
    generated = np.array([mode in ("textgen", "textgen_mask") for mode in modes], dtype=bool)
    silent = np.array([mode == "mask" for mode in modes], dtype=bool)
    inputs, shifted = caps, None
    if generated.any():
        inputs = caps.copy()
        inputs[generated], shifted = shift_for_generation(caps[generated], special_ids)
    shares = mode_probabilities(modes, probability)
    masked, selected = mask_tokens(rng, inputs, maskable(inputs, special_ids), shares, special_ids.mask, vocab_size)
    labels = np.where(selected & ~silent[:, None], inputs, IGNORED)
    if shifted is not None:
        labels[generated] = shifted
    return masked, labels
