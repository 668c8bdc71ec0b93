"""Which words MERLOT (arXiv:2106.02636, section 3.2) must tell: those that the language-only encoder attends to.

A group of consecutive chunks has one text. Of its L positions a share of :data:`MASK_RATE` is masked: positions are
drawn by the attention they receive, each grows into a short span, and of what the spans cover the number that is wanted
is kept. All randomness comes in as noise, which is made with the item (:func:`masking_noise`), so that what an item is
depends neither on its batch nor on the device; the choice itself (:func:`choose_masked`) needs a forward pass.

Shapes: R rows (groups of chunks), L text positions of a group, n masked positions of a group.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmpt.modules.merlot_tokens import FIRST_WORD, MASK, PADDING

__all__ = [
    "MASK_RATE",
    "SPAN_PROBABILITIES",
    "TOP_PROBABILITY",
    "MaskedText",
    "attention_scores",
    "choose_masked",
    "corrupt",
    "mask_text_by_attention",
    "masked_count",
    "masking_noise",
    "selection_weights",
]

#: Share of a group's positions that is masked, and that counts as attended to most.
MASK_RATE = 0.2
#: Probability that a single draw is one of the positions attended to most.
TOP_PROBABILITY = 0.5
#: Of a span to grow by 0, 1 or 2 positions, to the left as to the right.
SPAN_PROBABILITIES = (0.625, 0.25, 0.125)

_LEAST_WEIGHT = 0.01
_NEVER = -1e8  # logarithm of the weight of what is no word
# Of the masked words, shares that become MASK and another word; the rest stays.
_MASK_SHARE, _RANDOM_SHARE = 0.8, 0.1


class MaskedText(NamedTuple):
    """A masked text: ``tokens`` int64 (R, L); ``positions`` int64 (R, n) in order; ``targets`` (R, n) are to be told.

    A target is :data:`~mmpt.modules.merlot_tokens.PADDING` where a group has fewer than n words: it does not count.
    """

    tokens: Tensor
    positions: Tensor
    targets: Tensor


def masked_count(length: int) -> int:
    """Return n, how many positions of a text of so many are masked."""
    return int(MASK_RATE * length)


def masking_noise(
    rng: np.random.Generator, groups: int, length: int, masked: int, low_id: int, vocab_size: int
) -> dict[str, Tensor]:
    """Draw all that is random about the masking of an item.

    Args:
        rng: of the item.
        groups: R, groups of chunks of the item.
        length: L, chunks of a group times positions of a chunk.
        masked: n, of :func:`masked_count`.
        low_id: the least id of a word.
        vocab_size: words that replace others are uniform over ``low_id .. vocab_size - 1``.

    Returns:
        ``mask_gumbel`` float32 (R, L), of the standard Gumbel law; ``mask_left`` and ``mask_right`` int64 (R, n), by
        how many positions a span grows; ``mask_choice`` float32 (R, n) in [0, 1), whether a word is hidden, replaced or
        kept; ``mask_words`` int64 (R, n), what replaces it.
    """
    spans = rng.choice(len(SPAN_PROBABILITIES), size=(2, groups, masked), p=SPAN_PROBABILITIES).astype(np.int64)
    drawn = {
        "mask_gumbel": rng.gumbel(size=(groups, length)).astype(np.float32),
        "mask_left": spans[0],
        "mask_right": spans[1],
        "mask_choice": rng.random((groups, masked), dtype=np.float32),
        "mask_words": rng.integers(low_id, vocab_size, size=(groups, masked)),
    }
    return {name: torch.from_numpy(value) for name, value in drawn.items()}


def attention_scores(attentions: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Return how much each position is attended to, (B, K): summed over layers and queries, the mean over heads.

    Only queries that are no padding count. In the published model a padding query sees no key, so that its scores are
    all equal and it attends to every key alike: it adds the same to all positions, and their order, which alone decides
    here, is the one of the valid queries.

    Args:
        attentions: of each layer (B, heads, K, K), a row per query.
        valid: bool (B, K).
    """
    queries = valid[:, :, None].to(attentions[0].dtype)
    return torch.stack([(maps.mean(1) * queries).float().sum(1) for maps in attentions]).sum(0)


def selection_weights(scores: Tensor, words: Tensor, top_probability: float = TOP_PROBABILITY) -> Tensor:
    """Return the weight by which each position is drawn, float32 (R, L).

    The ``masked_count(L)`` positions of the greatest scores get so much more than the others that a draw is one of them
    with ``top_probability`` (at 0.5: 0.04 instead of 0.01).

    Args:
        scores: (R, L), of :func:`attention_scores`.
        words: bool (R, L); what is no word counts as not attended to.
    """
    weights = torch.full(scores.shape, _LEAST_WEIGHT, dtype=torch.float32, device=scores.device)
    count, odds = masked_count(scores.shape[1]), top_probability / (1 - top_probability)
    top = scores.masked_fill(~words, 0).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return weights.scatter(1, top, _LEAST_WEIGHT * odds * (1 - MASK_RATE) / MASK_RATE)


def choose_masked(weights: Tensor, words: Tensor, gumbel: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Choose the n positions of each row to mask: int64 (R, n), in order.

    n positions are drawn without replacement, words before anything else, in proportion to the weights (Gumbel top-k).
    Each is the centre of a span. A position ranks by the weakest draw whose span covers it, the strongest draw ranking
    highest; positions that rank alike, as those that only the weakest draw or none covers, rank by weight. Other
    positions than words rank last, so that they are chosen only of a row with fewer than n words.

    Args:
        weights: (R, L), positive.
        words: bool (R, L).
        gumbel: (R, L), standard Gumbel noise.
        left: int64 (R, n), by how much the spans grow to the left; ``right`` to the right.
    """
    count, length = left.shape[1], weights.shape[1]
    logits = weights.log().masked_fill(~words, _NEVER)
    drawn = (logits + gumbel).sort(dim=1, descending=True, stable=True).indices[:, :count].flip(1)
    places = torch.arange(length, device=weights.device)
    covers = (places >= (drawn - left)[..., None]) & (places <= (drawn + right)[..., None])
    # The published order: argmax gives 0 both to what the first span covers and to what none does.
    rank = covers.int().argmax(1) if count else torch.zeros_like(words, dtype=torch.long)
    rank = rank + 0.5 * weights / weights.amax(1, keepdim=True)
    ranked = rank.masked_fill(~words, -1).sort(dim=1, descending=True, stable=True).indices
    return ranked[:, :count].sort(dim=1).values


def corrupt(tokens: Tensor, positions: Tensor, choice: Tensor, replacements: Tensor) -> Tensor:
    """Return a copy of tokens (R, L) of which 80 % of the positions are MASK, 10 % another word, 10 % as they were.

    Args:
        tokens: int64 (R, L).
        positions: int64 (R, n); one that holds no word stays as it is.
        choice: (R, n) in [0, 1).
        replacements: int64 (R, n).
    """
    given = tokens.gather(1, positions)
    hidden = torch.where(choice < _MASK_SHARE + _RANDOM_SHARE, replacements, given).masked_fill(
        choice < _MASK_SHARE, MASK
    )
    return tokens.scatter(1, positions, torch.where(given >= FIRST_WORD, hidden, given))


def mask_text_by_attention(
    tokens: Tensor,
    scores: Tensor,
    mask_gumbel: Tensor,
    mask_left: Tensor,
    mask_right: Tensor,
    mask_choice: Tensor,
    mask_words: Tensor,
) -> MaskedText:
    """Mask groups of chunks by the attention their words receive; the noise is that of :func:`masking_noise`.

    Unlike in the published code, of a group with fewer than n words none of the special ids is masked or told: its
    text states stand for the chunks, also of those in which nobody speaks.

    Args:
        tokens: int64 (R, L), nothing masked.
        scores: (R, L), of :func:`attention_scores`.

    Raises:
        ValueError: if the noise is not of these rows and positions.
    """
    if mask_gumbel.shape != tokens.shape or mask_left.shape[:1] != tokens.shape[:1]:
        raise ValueError(
            f"noise of {tuple(mask_gumbel.shape)} and {tuple(mask_left.shape)} does not fit texts {tuple(tokens.shape)}"
        )
    words = tokens >= FIRST_WORD
    positions = choose_masked(selection_weights(scores, words), words, mask_gumbel, mask_left, mask_right)
    targets = tokens.gather(1, positions)
    targets = targets.masked_fill(targets < FIRST_WORD, PADDING)
    return MaskedText(corrupt(tokens, positions, mask_choice, mask_words), positions, targets)
