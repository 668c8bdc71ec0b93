"""LAVENDER's matching (arXiv:2206.07160): the ``[MASK]`` that ends a text tells "true" or "false" of text and video.

Shapes: B batch, T frames, S pixels of a side, X text positions, O options, H hidden, V words.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmpt.models.cross_modal import States
from mmpt.models.cross_modal_options import MatchingOptions
from mmpt.models.lavender_batches import pretext_of, pretext_of_texts
from mmpt.models.lavender_captioning import LAVENDERCaptioning, LAVENDERCaptioningOptions
from mmpt.models.option_texts import pair_options
from mmpt.modules.masking import IGNORED
from mmpt.modules.pairing import in_batch_negatives, of_same_video
from mmpt.modules.vocabulary_loss import Scores
from mmpt.utils.errors import ConfigError, DataError, nearest
from mmpt.utils.tokenizers import load_tokenizer, special_ids

__all__ = ["LAVENDERMatching", "LAVENDERMatchingOptions"]

_TRUE_SCORES = ("difference", "ratio")


@dataclasses.dataclass
class LAVENDERMatchingOptions(LAVENDERCaptioningOptions, MatchingOptions):
    """Keys of ``model``.

    Attributes:
        true_word: the word piece that says that text and video belong together.
        false_word: the one that says that they do not.
        true_score: how a pair is scored. ``difference`` of the two words' logits is the logarithm of the odds of
            "true" where these two are the choice. ``ratio`` of the logits, true / (true + false), is the published
            score: it ranks wrongly where logits are negative, and is there to compare with published numbers.
    """

    true_word: str = "true"
    false_word: str = "false"
    true_score: str = "difference"


class LAVENDERMatching(LAVENDERCaptioning):
    """A model that tells words, and by two of them whether text and video belong together.

    Raises:
        ConfigError: if a key has a wrong value; names it.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if self.options.true_score not in _TRUE_SCORES:
            raise ConfigError(
                f"model.true_score: {self.options.true_score!r} is neither {' nor '.join(_TRUE_SCORES)}."
                f"{nearest(self.options.true_score, _TRUE_SCORES)}"
            )
        self.options.check()

    def check_texts(self, caps: Tensor) -> None:
        """Refuse token ids (.., X) that do not end in the ``[MASK]`` at which pairs are scored.

        Raises:
            ConfigError: names the aligners that lay texts out so.
        """
        mask = special_ids(self.sequence.bert_name, self.sequence.use_fast).mask
        if bool((caps[..., -1] != mask).any()):
            raise ConfigError(
                f"model.model_cls: {type(self).__name__} scores a pair at the [MASK] that ends its text, and these "
                "texts end in something else: set dataset.aligner: LAVENDERRetrievalAligner (or, for options, "
                "LAVENDEROptionsAligner)"
            )

    def score_aligned(self, text: States, video: States) -> Tensor:
        """Score row i of the texts, which end in a ``[MASK]``, with row i of the videos: float32 (N,).

        The greater, the rather they belong together; see ``model.true_score``.
        """
        states = self.fuse_at(video, text, -1)
        true, false = self.head.score(self.head.transform(states), self._truth(states.device)).unbind(-1)
        return true - false if self.options.true_score == "difference" else true / (true + false)

    def pretrain(
        self, video: States, text: States, labels: Tensor, negatives: Tensor | None, video_key: Tensor | None
    ) -> dict[str, Any]:
        """Fuse each video with its own text, the first of O, whose masked words are told, and with others.

        The words are told without the pretext, which speaks of the other task; without one, both take one fusion.
        """
        if negatives is None:
            negatives = in_batch_negatives(len(labels), self.options.matching_texts, labels.device)
        told, length = labels != IGNORED, labels.shape[1]
        plain = text.values.shape[1] == length
        words, matched = self.fuse_candidates(video, text, negatives, (told,) if plain else (), -1)
        if plain:
            logits = self.head.tell(words[0])
        else:
            logits = self.tell_words(video, States(text.values[:, -length:], text.mask[:, -length:]), labels)
        transformed = self.head.transform(matched)
        with torch.no_grad():
            true, false = self.head.score(transformed, self._truth(matched.device)).unbind(-1)
        same = of_same_video(negatives, video_key)
        right = same.clone()
        right[:, 0] = True
        return {
            "logits": logits,
            "match_logits": self.head.tell_transformed(transformed.flatten(0, 1)),
            "match_scores": (true - false).masked_fill(same, -torch.inf),
            "match_label": self._truth_label(right.flatten()),
        }

    def match_all(self, video: States, text: States, video_key: Tensor | None) -> tuple[Scores, Tensor]:
        """Return logits and labels of every video with every text, video by video."""
        rows = torch.arange(len(text.values), device=text.values.device)
        videos, texts = rows.repeat_interleave(len(rows)), rows.repeat(len(rows))
        same = videos == texts if video_key is None else video_key.view(-1)[videos] == video_key.view(-1)[texts]
        states = self.fuse_at(video.rows(videos), text.rows(texts), -1)
        return self.head.tell(states), self._truth_label(same)

    def match_options(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, batch: Mapping[str, Any]
    ) -> tuple[Scores, Tensor]:
        """Return logits and labels of every video with those of its options that there are."""
        answers, mask = batch.get("answers"), batch.get("option_mask")
        if answers is None:
            raise DataError("a batch of objective 'options' has no answers")
        video, text = self.pair_with_options(caps, cmasks, vfeats, vmasks, batch)
        options = torch.arange(len(text.values) // len(vfeats), device=answers.device)
        right = (options == answers.view(-1, 1)).flatten()
        rows = slice(None) if mask is None else mask.flatten().bool()
        states = self.fuse_at(video.rows(rows), text.rows(rows), -1)
        return self.head.tell(states), self._truth_label(right[rows])

    def pair_with_options(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, batch: Mapping[str, Any]
    ) -> tuple[States, States]:
        """Encode B videos, each once, and their B * O texts with the pretext of the batch; return them pair by pair."""
        pretext = pretext_of_texts(pretext_of(batch), len(caps.flatten(0, -2)))
        return pair_options(self, caps, cmasks, vfeats, vmasks, **pretext)

    def word_ids(self, words: Sequence[str], what: str) -> list[int]:
        """Return the ids of word pieces; ConfigError if the vocabulary lacks one."""
        tokenizer = load_tokenizer(self.sequence.bert_name, self.sequence.use_fast)
        ids = tokenizer.convert_tokens_to_ids(list(words))
        for word, token in zip(words, ids, strict=True):
            if token is None or token == tokenizer.unk_token_id:
                raise ConfigError(f"{what}: {word!r} is no word piece of dataset.bert_name: {self.sequence.bert_name}")
        return ids

    def _truth_label(self, true: Tensor) -> Tensor:
        """Return the ids of "true" and "false" for a bool tensor."""
        ids = self._truth(true.device)
        return torch.where(true, ids[0], ids[1])

    def _truth(self, device: torch.device) -> Tensor:
        """Return the ids of "true" and "false", int64 (2,)."""
        words = [self.options.true_word, self.options.false_word]
        return torch.tensor(self.word_ids(words, "model.true_word, model.false_word"), device=device)
