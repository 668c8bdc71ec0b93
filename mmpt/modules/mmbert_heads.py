"""Heads over :class:`~mmpt.modules.mmbert.MMBertForEncoder`: the encoders of VLM (arXiv:2105.09996) and its tasks."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mmpt.modules.bert import BertConfig
from mmpt.modules.kv_cache import KeyValueCache, TextState
from mmpt.modules.linear import Linear
from mmpt.modules.lm_head import LMHead
from mmpt.modules.mmbert import MMBertForEncoder
from mmpt.modules.transformer import initialise
from mmpt.modules.vocabulary_loss import Scores, VocabularyScores
from mmpt.utils.checkpoint import load_into

__all__ = [
    "MMBertForLM",
    "MMBertForMFMMLM",
    "MMBertForMTM",
    "MMBertForNLG",
    "MMBertForTokenClassification",
    "MaskedScores",
]


class MaskedScores(NamedTuple):
    """Scores of masked frames, with the true frame in column 0, and of masked words; float32.

    Those over the vocabulary are put off in training, to be computed some rows at a time.
    """

    video: Scores
    text: Scores


class MMBertForLM(MMBertForEncoder):
    """Encoder with a vocabulary head; ``lm_bias`` says whether that has a bias per word."""

    lm_bias = True

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        words = cast(nn.Embedding, self.bert.embeddings.word_embeddings)
        self.cls = nn.ModuleDict({"predictions": LMHead(config, words, self.lm_bias)})

    @property
    def head(self) -> LMHead:
        """The vocabulary head."""
        return cast(LMHead, self.cls["predictions"])

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a BERT's weights, and those of its head where ``state`` has them (``cls.predictions.*``).

        Raises:
            CheckpointError: as :meth:`BertModel.load_pretrained`, or if the head is not whole.
        """
        super().load_pretrained({key: value for key, value in state.items() if not key.startswith("cls.")}, source)
        prefix = "cls.predictions."
        entries = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        wanted = {
            key: entries[key] for key in self.head.state_dict() if key in entries and not key.startswith("decoder.")
        }
        if wanted:
            # The decoder is the word embeddings and the bias once more.
            load_into(self.head, wanted, allow_missing=("decoder.*",), source=source)


class MMBertForMFMMLM(MMBertForLM):
    """Encoder with a head for masked frames and masked tokens (MFM + MLM).

    A masked frame is told from the other frames of the batch by its own projected features, a masked token from the
    rest of the vocabulary. ``forward`` is the encoder's; :meth:`masked_scores` is the head.
    """

    def masked_scores(self, frames: Tensor, words: Tensor, targets: Tensor, candidates: Tensor) -> MaskedScores:
        """Score what was masked; gradients flow through targets and candidates too.

        Args:
            frames: hidden states of the m masked frames, (m, H).
            words: hidden states of the t masked tokens, (t, H).
            targets: features of the masked frames before masking, (m, D).
            candidates: features of the n valid frames of the batch that are not masked, (n, D).

        Returns:
            ``video`` (m, 1 + n) and ``text`` (t, V).
        """
        head = self.head
        frames, words = head.transform(frames), head.transform(words)
        positives, negatives = self.videomlp(targets), self.videomlp(candidates)
        # Scores reach hundreds: half precision would round them by whole units.
        with torch.autocast(frames.device.type, enabled=False):
            return self._scores(head, frames.float(), words.float(), positives.float(), negatives.float())

    def _scores(
        self, head: LMHead, frames: Tensor, words: Tensor, positives: Tensor, negatives: Tensor
    ) -> MaskedScores:
        return MaskedScores(_among_frames(frames, positives, negatives), head.tell_transformed(words))


class MMBertForMTM(MMBertForMFMMLM):
    """Encoder of VLM: masked frames and tokens are told from frames and words alike (masked token modelling).

    :meth:`masked_scores` returns ``video`` (m, 1 + n + V) and ``text`` (t, V + n).
    """

    lm_bias = False

    def _scores(
        self, head: LMHead, frames: Tensor, words: Tensor, positives: Tensor, negatives: Tensor
    ) -> MaskedScores:
        weight = head.decoder.weight
        video = VocabularyScores(frames, weight, None, _among_frames(frames, positives, negatives), others_first=True)
        text = VocabularyScores(words, weight, None, words @ negatives.T)
        return MaskedScores(video.deferred(self.training), text.deferred(self.training))


class MMBertForTokenClassification(MMBertForEncoder):
    """Encoder with a linear classifier of positions into ``config.num_labels`` classes.

    ``forward`` is the encoder's; :meth:`classify` is the head. It has no dropout, as the published one.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.classifier = Linear(config.hidden_size, config.num_labels)
        initialise(self.classifier, config.initializer_range)

    def classify(self, states: Tensor) -> Tensor:
        """Score hidden states (..., H) against the classes: (..., C)."""
        return self.classifier(states)


class MMBertForNLG(MMBertForLM):
    """Encoder with a vocabulary head that writes text about a video from left to right (VLM's captioning).

    ``forward`` is the encoder's, with a mask that hides later words. :meth:`begin` and :meth:`next_word` compute the
    same one word at a time, each position once.
    """

    def next_words(self, hidden: Tensor) -> Scores:
        """Score the words that may follow positions with these states (n, H): float32 (n, V), put off in training."""
        return self.head.tell(hidden)

    def begin(self, input_ids: Tensor, video_features: Tensor, mask: Tensor) -> TextState:
        """Encode videos: ids of ``[CLS] [SEP]`` (N, 2), features (N, M, D), valid positions (N, M + 2)."""
        state = TextState(mask.bool(), KeyValueCache())
        self(input_ids, video_features, state.seen, cache=state.cache)
        return state

    def next_word(self, tokens: Tensor, state: TextState) -> Tensor:
        """Add a word, int64 (N,), to every row; return the scores of the one that follows, float32 (N, V)."""
        # As in the joint sequence: the first word stands after [SEP], which has position max_video_len + 1.
        position = torch.tensor([self.config.max_video_len + 2 + state.words], device=tokens.device)
        mask = torch.cat([state.seen, state.seen.new_ones(len(tokens), state.words + 1)], dim=1)
        types = torch.ones_like(tokens[:, None])
        states = self(tokens[:, None], None, mask, types, cache=state.cache, position_ids=position)
        return self.head(states.last_hidden_state[:, 0])


def _among_frames(frames: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """Score masked frames (m, H) with their own features (m, H), column 0, and with n others (n, H): (m, 1 + n)."""
    return torch.cat([(frames * positives).sum(-1, keepdim=True), frames @ negatives.T], dim=1)
