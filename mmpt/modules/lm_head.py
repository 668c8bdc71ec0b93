"""BERT's masked language model head (Devlin et al. 2019, arXiv:1810.04805) under Hugging Face's parameter names."""

import torch
from torch import Tensor, nn

from mmpt.modules.bert import BertConfig
from mmpt.modules.linear import Linear
from mmpt.modules.transformer import activation, initialise
from mmpt.modules.vocabulary_loss import Scores, VocabularyScores

__all__ = ["HeadTransform", "LMHead", "untied_lm_head"]


class HeadTransform(nn.Module):
    """Linear, activation and LayerNorm before the vocabulary."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform (..., H) to (..., H)."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class LMHead(nn.Module):
    """Scores over the vocabulary: :class:`HeadTransform` and the word embeddings, which it shares.

    Entries of the state dict: ``transform.{dense,LayerNorm}``, ``decoder.weight`` (the embeddings) and, with
    ``bias``, ``bias`` and its alias ``decoder.bias``. To be held as ``nn.ModuleDict({"predictions": LMHead(...)})``
    under the name ``cls``, as BERT does.

    Args:
        config: sizes.
        embedding: word embeddings (V, H) whose weight the head shares.
        bias: whether there is a bias per word.
    """

    def __init__(self, config: BertConfig, embedding: nn.Embedding, bias: bool) -> None:
        super().__init__()
        if bias:
            self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.transform = HeadTransform(config)
        self.decoder = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.decoder.weight = embedding.weight
        if bias:
            self.decoder.bias = self.bias
        initialise(self.transform, config.initializer_range)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score hidden states (..., H) against every word: float32 (float64 stays) (..., V)."""
        return self.score(self.transform(hidden))

    def tell(self, hidden: Tensor) -> Scores:
        """Score hidden states (n, H) for a loss: (n, V), in training put off, to be computed some rows at a time."""
        return self.tell_transformed(self.transform(hidden))

    def tell_transformed(self, transformed: Tensor) -> Scores:
        """Score states that have passed ``transform`` (n, H), as :meth:`tell`."""
        return VocabularyScores(transformed, self.decoder.weight, self.decoder.bias).deferred(self.training)

    def score(self, transformed: Tensor, words: Tensor | None = None) -> Tensor:
        """Score states that have passed ``transform`` (..., H), under autocast too.

        Args:
            words: ids int64 (n,), the only ones to score; None for all V.

        Returns:
            float32 (float64 stays) (..., V), or (..., n).
        """
        weight: Tensor = self.decoder.weight
        bias: Tensor | None = self.decoder.bias
        if words is not None:
            weight, bias = weight[words], None if bias is None else bias[words]
        return VocabularyScores(transformed, weight, bias).scores()


def untied_lm_head(config: BertConfig) -> nn.ModuleDict:
    """Return a head with a bias and word weights of its own, randomly initialised, under the name ``predictions``."""
    embedding = nn.Embedding(config.vocab_size, config.hidden_size)
    initialise(embedding, config.initializer_range)
    return nn.ModuleDict({"predictions": LMHead(config, embedding, bias=True)})
