"""LAVENDER's captioning (arXiv:2206.07160): each next word is what stands at a ``[MASK]`` after those before it.

The published code encodes video and text anew for every word. Here the video, with the prompt, is encoded once, as
nothing of it ever sees the text. Neither does a word see those after it, so that its keys and values stay too; only the
``[MASK]``, which the next word replaces, is forgotten.

Shapes: B videos, N texts begun about them, T frames, S pixels of a side, P positions of video and prompt, V words.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mmpt.models.caption_writer import CaptionWriter
from mmpt.models.cross_modal import CrossModalModel, CrossModalOptions, States
from mmpt.modules.decoding import DecodingOptions, Hypothesis, decode
from mmpt.modules.kv_cache import KeyValueCache, TextState
from mmpt.modules.lm_head import LMHead
from mmpt.modules.masking import IGNORED
from mmpt.modules.valid_states import places_of
from mmpt.modules.vocabulary_loss import Scores
from mmpt.utils.errors import ConfigError
from mmpt.utils.tokenizers import special_ids

__all__ = ["LAVENDERCaptioning", "LAVENDERCaptioningOptions"]


@dataclasses.dataclass
class LAVENDERCaptioningOptions(CrossModalOptions):
    """Keys of ``model``. ``max_decode_length`` is the greatest length of a text, ``[CLS]`` and ``[SEP]`` included."""

    max_decode_length: int = 20


class LAVENDERCaptioning(CaptionWriter, CrossModalModel):
    """A fusing model that writes texts by the head that tells masked words.

    Raises:
        ConfigError: if ``max_decode_length`` leaves no room for a word, or is more than there are positions.
    """

    with_lm_head = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        length, positions = self.options.max_decode_length, self.bert.max_position_embeddings
        if not 3 <= length <= positions:
            raise ConfigError(
                f"model.max_decode_length: {length} must be at least 3 ([CLS], a word, [SEP]) and at most {positions}, "
                "the positions of dataset.bert_name"
            )

    @property
    def head(self) -> LMHead:
        """The head over the vocabulary."""
        return cast(LMHead, self.fc_mtm["predictions"])

    def tell_words(self, video: States, text: States, labels: Tensor, from_left: bool = False) -> Scores:
        """Score the words that ``labels`` (B, X) tell, -100 where none is to be, of the last X text positions: (n, V).

        In training they are put off.

        Args:
            video: of B videos.
            text: of B texts, with what stands before them.
            labels: int64.
            from_left: whether a word sees only what is before it in the text, as it is generated.
        """
        places = places_of(labels != IGNORED, video.values.shape[1] + text.values.shape[1])
        return self.head.tell(self.fuse(video, text, labels.shape[1] if from_left else None, places=places)[0])

    def write(
        self,
        vfeats: Tensor,
        vmasks: Tensor,
        options: DecodingOptions,
        rngs: Sequence[np.random.Generator],
        **pretext: Tensor | None,
    ) -> list[Hypothesis]:
        """Write a text about every video.

        The score of a text is the mean log-probability of its words and the final ``[SEP]``, with
        ``length_penalty: 1``. A text that reaches ``model.max_decode_length`` ends in place of its last word, whose
        probability counts, as published.

        Args:
            vfeats: frames (B, T, 3, S, S).
            vmasks: (B, T), true where a frame is real.
            options: how to decode.
            rngs: the randomness of each video.
            pretext: ``prompts`` (B, Lp) or ``task_ids`` (B,), as in training.
        """
        state = self.begin(vfeats, vmasks, **pretext)
        ids = special_ids(self.sequence.bert_name, self.sequence.use_fast)
        start = torch.full((len(state.seen),), ids.cls, device=state.seen.device)
        length = self.options.max_decode_length - 1
        texts = decode(self.next_word, state, start, options, end=ids.sep, max_tokens=length, rngs=rngs)
        return [text if text.finished else _ended(text, options.length_penalty) for text in texts]

    def begin(self, vfeats: Tensor, vmasks: Tensor, **pretext: Tensor | None) -> TextState:
        """Encode videos, and what stands before their texts."""
        video = self.encode_video(vfeats, vmasks)
        nothing = torch.zeros(len(vfeats), 0, dtype=torch.long, device=vfeats.device)
        before = self.encode_text(nothing, nothing, **pretext)
        values = torch.cat([video.values, before.values.to(video.values.dtype)], dim=1)
        state = TextState(torch.cat([video.mask, before.mask], dim=1), KeyValueCache())
        self.trsfr(values, state.seen, cache=state.cache)
        return state

    def next_word(self, tokens: Tensor, state: TextState) -> Tensor:
        """Add a word, int64 (N,), to every row; return the scores of the one that follows, float32 (N, V)."""
        mask_id = special_ids(self.sequence.bert_name, self.sequence.use_fast).mask
        pair = torch.stack([tokens, torch.full_like(tokens, mask_id)], dim=1)
        positions = torch.arange(state.words, state.words + 2, device=tokens.device)
        embedded = States(self.enc_txt.emb_txt(pair, position_ids=positions), pair >= 0)
        earlier = torch.cat([state.seen, state.seen.new_ones(len(tokens), state.words)], dim=1)
        own = state.seen.new_ones(2, 2).tril()  # the word does not see the [MASK] after it
        mask = torch.cat([earlier[:, None].expand(-1, 2, -1), own.expand(len(tokens), 2, 2)], dim=2)
        states = self.trsfr(embedded.values, mask, cache=state.cache).last_hidden_state
        state.cache.drop_last(1)
        return self.head(states[:, 1])


def _ended(text: Hypothesis, penalty: float) -> Hypothesis:
    """Put the end in place of the last word of a text that was cut: its length is that of its words then."""
    length = max(len(text.ids), 1)
    return text._replace(ids=text.ids[:-1], score=text.score * ((length + 1) / length) ** penalty)
