"""Text from a model, token by token: greedy, sampled, or by beam search, for batches.

Nothing here knows the model. It is a ``step``: called with the last token of every row and a state that it keeps
between calls, it returns the scores of the next token. The state holds what the model has computed for every row
(:class:`~mmpt.modules.kv_cache.KeyValueCache`) and can keep or repeat rows.

The score of a hypothesis is the sum of the log-probabilities of its tokens, the end included, divided by the number of
its ids, those of the prompt included and the end not, to the power of ``length_penalty``: that of the published
implementation. (Wu et al. 2016, arXiv:1609.08144, section 7, do so for the words alone, with other constants.)

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
    prompt: int = 1,
    rngs: Sequence[np.random.Generator] | None = None,
) -> list[Hypothesis]:
    """Generate a text for every row.

    Args:
        start: the first token of every row (N,).
        end: id of the token that ends a text.
        max_tokens: most tokens of a text, the end included; a text may be cut there.
        prompt: number of ids before the text, the first token among them; they count as length.
        rngs: the randomness of each row, for sampling; by default that of ``options.seed`` and the row's number.
    """
    if not len(start) or max_tokens < 1:
        return [_NOTHING] * len(start)
    bounds = _Bounds(end, max_tokens, prompt)
    if options.num_beams > 1:
        return _BeamSearch(step, state, options, bounds).run(start)
    if options.do_sample and rngs is None:
        rngs = [item_generator(options.seed, 0, row) for row in range(len(start))]
    return _one_by_one(step, state, start, options, bounds, rngs if options.do_sample else None)


class _Bounds(NamedTuple):
    """Where a text starts and ends; as the arguments of :func:`decode`."""

    end: int
    max_tokens: int
    prompt: int

    def hypothesis(self, tokens: list[int], total: float, penalty: float) -> Hypothesis:
        """Return the text of these tokens, which ends if the last one says so, of log-probability ``total``."""
        finished = tokens[-1] == self.end
        ids = tokens[:-1] if finished else tokens
        return Hypothesis(ids, total / (self.prompt + len(ids)) ** penalty, finished)


def _one_by_one(
    step: Step[State],
    state: State,
    start: Tensor,
    options: DecodingOptions,
    bounds: _Bounds,
    rngs: Sequence[np.random.Generator] | None,
) -> list[Hypothesis]:
    """Take the likeliest token of each step or, with ``rngs``, a drawn one; finished rows leave the batch."""
    rules = _rules(options, bounds.end, warp=rngs is not None)
    done: list[Hypothesis] = [_NOTHING] * len(start)
    live = torch.arange(len(start), device=start.device)
    tokens = start.new_zeros(len(start), 0)
    totals = torch.zeros(len(start), device=start.device)
    last = start
    for length in range(1, bounds.max_tokens + 1):
        scores = step(last, state).float()
        allowed = rules(tokens, scores)
        if rngs is None:
            last = allowed.argmax(-1)
        else:
            last = _draw(allowed, [rngs[row] for row in live.tolist()])
        totals = totals + scores.log_softmax(-1).gather(1, last[:, None])[:, 0]
        tokens = torch.cat([tokens, last[:, None]], dim=1)
        ended = last == bounds.end
        if length == bounds.max_tokens:
            ended = torch.ones_like(ended)
        for row in ended.nonzero()[:, 0].tolist():
            hypothesis = bounds.hypothesis(tokens[row].tolist(), float(totals[row]), options.length_penalty)
            done[int(live[row])] = hypothesis
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


class _Finished:
    """The best finished hypotheses of an example, at most ``size``, worst first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[Hypothesis] = []

    def add(self, hypothesis: Hypothesis) -> None:
        """Keep a hypothesis if there is room or it is better than the worst."""
        if len(self.kept) == self.size and hypothesis.score <= self.kept[0].score:
            return
        self.kept = sorted([*self.kept, hypothesis], key=lambda one: one.score)[-self.size :]

    @property
    def best(self) -> Hypothesis:
        """The best one; an empty text if there is none."""
        return self.kept[-1] if self.kept else _NOTHING


class _BeamSearch:
    """Keep, for every example whose search goes on, the K likeliest unfinished texts and the K best finished ones.

    The K rows of an example stand beside each other in the state. Of the 2 K likeliest continuations, those that end
    and are among the first K are finished; the first K that do not end go on. Log-probabilities of a step are not
    renormalised over the words that the options leave.
    """

    def __init__(self, step: Step[Any], state: DecoderState, options: DecodingOptions, bounds: _Bounds) -> None:
        self.step, self.state, self.options, self.bounds = step, state, options, bounds
        self.rules = _rules(options, bounds.end, warp=False)

    def run(self, start: Tensor) -> list[Hypothesis]:
        """Search from the first tokens (N,)."""
        self.finished = [_Finished(self._beams) for _ in range(len(start))]
        live = torch.arange(len(start), device=start.device)
        tokens = start.new_zeros(len(start), 1, 0)
        totals = torch.zeros(len(start), 1, device=start.device)
        last = start
        for length in range(1, self.bounds.max_tokens + 1):
            top, beam, token = self._candidates(last, tokens, totals)
            grown = torch.cat([tokens.gather(1, beam[..., None].expand(-1, -1, length - 1)), token[..., None]], dim=2)
            ended = token == self.bounds.end
            self._close(live, grown, top, ended & (torch.arange(top.shape[1], device=top.device) < self._beams))
            width, going = totals.shape[1], self._going(ended, totals.shape[1])
            totals, beam = top.gather(1, going), beam.gather(1, going)
            tokens = grown.gather(1, going[..., None].expand(-1, -1, length))
            kept = self._open(live, top, totals, length)
            live, totals, tokens = live[kept], totals[kept], tokens[kept]
            if not len(kept) or length == self.bounds.max_tokens:
                break
            self.state.select((kept[:, None] * width + beam[kept]).flatten())
            last = tokens[..., -1].flatten()
        self._close(live, tokens, totals, torch.ones_like(totals, dtype=torch.bool))
        return [finished.best for finished in self.finished]

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

    def _close(self, live: Tensor, texts: Tensor, totals: Tensor, which: Tensor) -> None:
        """Add chosen texts (N, C, T) of log-probability (N, C), which have ended or are cut, to the finished ones."""
        which = which & totals.isfinite()
        examples = live[which.nonzero()[:, 0]].tolist()
        for example, ids, total in zip(examples, texts[which].tolist(), totals[which].tolist(), strict=True):
            self.finished[example].add(self.bounds.hypothesis(ids, total, self.options.length_penalty))

    def _open(self, live: Tensor, top: Tensor, totals: Tensor, length: int) -> Tensor:
        """Return the examples, as rows, whose search goes on after ``length`` tokens.

        ``top`` is the log-probability of all continuations, best first, ``totals`` that of the unfinished texts.
        """
        likeliest, unfinished = top[:, 0].tolist(), totals.amax(1).tolist()
        kept = [
            row
            for row, example in enumerate(live.tolist())
            if not self._done(self.finished[example], likeliest[row], unfinished[row], length)
        ]
        return torch.tensor(kept, dtype=torch.long, device=live.device)

    def _done(self, finished: _Finished, likeliest: float, unfinished: float, length: int) -> bool:
        """Tell whether the search of an example ends, by ``early_stopping``."""
        penalty, prompt = self.options.length_penalty, self.bounds.prompt
        if self.options.early_stopping == "never":
            # A text gains no probability by going on; what the length can do for it is known.
            reached = prompt + (self.bounds.max_tokens if penalty > 0 else length)
            return unfinished / reached**penalty <= finished.best.score
        if len(finished.kept) < self.options.num_beams:
            return False
        if self.options.early_stopping:
            return True
        # As published: the length before this step, and continuations that end count too.
        return finished.kept[0].score >= likeliest / (prompt + length - 1) ** penalty


def _rules(options: DecodingOptions, end: int, warp: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what takes the tokens so far (N, T) and scores (N, V) to scores with -inf where a word may not be.

    ``warp`` applies what shapes a distribution to draw from.
    """
    from_library: list[Any] = []
    wanted: Mapping[str, tuple[bool, Any]] = {
        "RepetitionPenaltyLogitsProcessor": (options.repetition_penalty != 1.0, options.repetition_penalty),
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
