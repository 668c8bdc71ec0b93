"""Text from a model, token by token: greedy, sampled, or by beam search, for batches.

Nothing here knows the model. It is a ``step``: called with the last token of every row and a state that it keeps
between calls, it returns the scores of the next token. The state holds what the model has computed for every row
(:class:`~mmpt.modules.kv_cache.KeyValueCache`) and can keep or repeat rows.

The score of a hypothesis is the sum of the log-probabilities of its tokens, the end included, divided by their number
to the power of ``length_penalty`` (Wu et al. 2016, arXiv:1609.08144, section 7, without its constants).

Shapes: N rows, V words, K beams, T tokens so far. Token ids are int64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from mmpt.modules.decoding_options import DecodingOptions, read_decoding_options
from mmpt.utils.seeds import item_generator

__all__ = ["DecoderState", "DecodingOptions", "Hypothesis", "decode", "read_decoding_options"]


class DecoderState(Protocol):
    """What a model keeps of every row between steps."""

    def select(self, rows: Tensor) -> None:
        """Keep the rows of these indices (int64), in that order; one may be named several times."""


State = TypeVar("State", bound=DecoderState)

#: Takes the last token of every row (N,) and the state; returns the scores of the next one (N, V) and advances the
#: state by that token.
Step = Callable[[Tensor, State], Tensor]


class Hypothesis(NamedTuple):
    """A text: ``ids`` without start and end; its length-normalised log-probability; whether it came to its end."""

    ids: list[int]
    score: float
    finished: bool


_NOTHING = Hypothesis([], -math.inf, False)


def decode(
    step: Step[State],
    state: State,
    start: Tensor,
    options: DecodingOptions,
    *,
    end: int,
    max_tokens: int,
    rngs: Sequence[np.random.Generator] | None = None,
) -> list[Hypothesis]:
    """Generate a text for every row.

    Args:
        start: the first token of every row (N,).
        end: id of the token that ends a text.
        max_tokens: most tokens of a text, the end included; a text may be cut there.
        rngs: the randomness of each row, for sampling; by default that of ``options.seed`` and the row's number.
    """
    if not len(start) or max_tokens < 1:
        return [_NOTHING] * len(start)
    if options.num_beams > 1:
        return _BeamSearch(step, state, options, end, max_tokens).run(start)
    if options.do_sample and rngs is None:
        rngs = [item_generator(options.seed, 0, row) for row in range(len(start))]
    return _one_by_one(step, state, start, options, end, max_tokens, rngs if options.do_sample else None)


def _one_by_one(
    step: Step[State],
    state: State,
    start: Tensor,
    options: DecodingOptions,
    end: int,
    max_tokens: int,
    rngs: Sequence[np.random.Generator] | None,
) -> list[Hypothesis]:
    """Take the likeliest token of each step or, with ``rngs``, a drawn one; finished rows leave the batch."""
    rules = _rules(options, end, warp=rngs is not None)
    done: list[Hypothesis] = [_NOTHING] * len(start)
    live = torch.arange(len(start), device=start.device)
    tokens = start.new_zeros(len(start), 0)
    totals = torch.zeros(len(start), device=start.device)
    last = start
    for length in range(1, max_tokens + 1):
        scores = step(last, state).float()
        allowed = rules(tokens, scores)
        if rngs is None:
            last = allowed.argmax(-1)
        else:
            last = _draw(allowed, [rngs[row] for row in live.tolist()])
        totals = totals + scores.log_softmax(-1).gather(1, last[:, None])[:, 0]
        tokens = torch.cat([tokens, last[:, None]], dim=1)
        ended = last == end
        if length == max_tokens:
            ended = torch.ones_like(ended)
        for row in ended.nonzero()[:, 0].tolist():
            ids = tokens[row].tolist()
            score = float(totals[row]) / length**options.length_penalty
            finished = ids[-1] == end
            done[int(live[row])] = Hypothesis(ids[:-1] if finished else ids, score, finished)
        kept = (~ended).nonzero()[:, 0]
        if not len(kept):
            break
        if len(kept) < len(live):
            live, tokens, totals, last = live[kept], tokens[kept], totals[kept], last[kept]
            state.select(kept)
    return done


def _draw(scores: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Draw a token per row (N,) from the softmax of scores (N, V), each with its own generator.

    On the CPU in double precision: a row's text does not depend on the device or on the rest of the batch.
    """
    cumulative = scores.double().cpu().softmax(-1).cumsum(-1)
    drawn = torch.tensor([[rng.random()] for rng in rngs], dtype=torch.float64) * cumulative[:, -1:]
    # The first word whose cumulative probability exceeds the number: one of probability zero is never drawn.
    tokens = torch.searchsorted(cumulative, drawn, right=True)[:, 0]
    return tokens.clamp(max=scores.shape[1] - 1).to(scores.device)


class _BeamSearch:
    """Keep, for every row that still can improve, the K likeliest unfinished texts and the best finished one.

    The K rows of an example stand beside each other in the state. Of the 2 K likeliest continuations, those that end
    and are among the first K are finished; the first K that do not end go on. Log-probabilities of a step are not
    renormalised over the words that the options leave.
    """

    def __init__(
        self, step: Step[Any], state: DecoderState, options: DecodingOptions, end: int, max_tokens: int
    ) -> None:
        self.step, self.state, self.options = step, state, options
        self.end, self.max_tokens = end, max_tokens
        self.rules = _rules(options, end, warp=False)

    def run(self, start: Tensor) -> list[Hypothesis]:
        """Search from the first tokens (N,)."""
        self.best: list[Hypothesis] = [_NOTHING] * len(start)
        self.closed = [0] * len(start)
        live = torch.arange(len(start), device=start.device)
        tokens = start.new_zeros(len(start), 1, 0)
        totals = torch.zeros(len(start), 1, device=start.device)
        last = start
        for length in range(1, self.max_tokens + 1):
            top, beam, token = self._candidates(last, tokens, totals)
            grown = torch.cat([tokens.gather(1, beam[..., None].expand(-1, -1, length - 1)), token[..., None]], dim=2)
            ended = token == self.end
            self._close(live, grown, top, ended & (torch.arange(top.shape[1], device=top.device) < self._beams))
            going = self._going(ended, totals.shape[1])
            totals, beam = top.gather(1, going), beam.gather(1, going)
            grown = grown.gather(1, going[..., None].expand(-1, -1, length))
            if length == self.max_tokens:
                self._close(live, grown, totals, torch.ones_like(totals, dtype=torch.bool), cut=True)
                break
            kept = self._hopeful(live, totals, length)
            if not len(kept):
                break
            width = tokens.shape[1]
            live, totals, tokens = live[kept], totals[kept], grown[kept]
            self.state.select((kept[:, None] * width + beam[kept]).flatten())
            last = tokens[..., -1].flatten()
        return self.best

    @property
    def _beams(self) -> int:
        return self.options.num_beams

    def _candidates(self, last: Tensor, tokens: Tensor, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return score, beam and token of the likeliest continuations of each example, best first: three (N, C)."""
        examples, width = totals.shape
        scores = self.step(last, self.state).float().log_softmax(-1)
        scores = self.rules(tokens.flatten(0, 1), scores)
        words = scores.shape[-1]
        together = (totals.flatten()[:, None] + scores).view(examples, width * words)
        top, index = together.topk(min(2 * self._beams, width * words), dim=1)
        return top, index // words, index % words

    def _going(self, ended: Tensor, width: int) -> Tensor:
        """Return the columns of the first K candidates that do not end (N, K); a beam has one that does."""
        number = min(self._beams, ended.shape[1] - min(width, ended.shape[1] - 1))
        return ended.long().argsort(dim=1, stable=True)[:, :number]

    def _close(self, live: Tensor, texts: Tensor, totals: Tensor, which: Tensor, cut: bool = False) -> None:
        """Let finished (or cut) texts (N, C, T) of score (N, C) compete for the best of their example."""
        scores = totals / texts.shape[2] ** self.options.length_penalty
        scores = scores.masked_fill(~which | totals.isinf(), -math.inf)
        value, column = scores.max(1)
        number = scores.isfinite().sum(1).tolist()
        for row, example in enumerate(live.tolist()):
            self.closed[example] += number[row]
            if float(value[row]) > self.best[example].score:
                ids = texts[row, int(column[row])].tolist()
                self.best[example] = Hypothesis(ids if cut else ids[:-1], float(value[row]), not cut)

    def _hopeful(self, live: Tensor, totals: Tensor, length: int) -> Tensor:
        """Return the examples, as rows, whose unfinished texts may still beat their best finished one."""
        penalty = self.options.length_penalty
        # A text gains no probability by going on; what the length can do for it is known.
        limit = self.max_tokens if penalty > 0 else length + 1
        reachable = (totals.amax(1) / limit**penalty).tolist()
        kept = []
        for row, example in enumerate(live.tolist()):
            enough = self.options.early_stopping and self.closed[example] >= self._beams
            if not enough and reachable[row] > self.best[example].score:
                kept.append(row)
        return torch.tensor(kept, dtype=torch.long, device=live.device)


def _rules(options: DecodingOptions, end: int, warp: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what takes the tokens so far (N, T) and scores (N, V) to scores with -inf where a word may not be.

    ``warp`` applies what shapes a distribution to draw from.
    """
    from_library: list[Any] = []
    wanted: Mapping[str, tuple[bool, Any]] = {
        "NoRepeatNGramLogitsProcessor": (options.no_repeat_ngram_size > 0, options.no_repeat_ngram_size),
        "TemperatureLogitsWarper": (warp and options.temperature != 1.0, options.temperature),
        "TopKLogitsWarper": (warp and options.top_k > 0, options.top_k),
        "TopPLogitsWarper": (warp and options.top_p < 1.0, options.top_p),
    }
    if any(used for used, _ in wanted.values()):
        from transformers.generation import logits_process

        from_library = [getattr(logits_process, name)(value) for name, (used, value) in wanted.items() if used]

    def apply(tokens: Tensor, scores: Tensor) -> Tensor:
        if tokens.shape[1] < options.min_length:
            scores = scores.clone()
            scores[:, end] = -math.inf
        for rule in from_library:
            scores = rule(tokens, scores)
        return scores

    return apply
