"""MERLOT (arXiv:2106.02636, section 4.2) that answers a question by one of a list of answers.

Shapes: B questions, each about one video, T frames, S pixels of a side, X text positions, C answers, H hidden.
"""

import dataclasses
from typing import Any, ClassVar

from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.models.cross_modal import States
from mmpt.models.cross_modal_options import AnswerOptions
from mmpt.models.merlot_answering import MERLOTAnswering
from mmpt.models.merlot_base import MERLOTBase
from mmpt.models.merlot_options import MERLOTOptions, tiny_merlot_config
from mmpt.modules.linear import Linear
from mmpt.modules.truncated_init import initialise_truncated
from mmpt.utils.errors import ConfigError

__all__ = ["MERLOTOpenEnded", "MERLOTOpenEndedOptions"]


@dataclasses.dataclass
class MERLOTOpenEndedOptions(MERLOTOptions, AnswerOptions):
    """Keys of ``model``, as :class:`~mmpt.models.cross_modal_options.AnswerOptions`."""


class MERLOTOpenEnded(MERLOTBase):
    """MERLOT with one score of each answer: an MLP on the state of the question's first token.

    Raises:
        ConfigError: if ``model.num_labels`` is not a number of answers.
    """

    capabilities = frozenset({"answering"})
    new_heads: ClassVar[tuple[str, ...]] = ("answer_dense.*", "answer_output.*")
    allow_unexpected: ClassVar[tuple[str, ...]] = (*MERLOTAnswering.allow_unexpected, "classifier.*")
    config_options: ClassVar[dict[str, type]] = {"model": MERLOTOpenEndedOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        number, hidden = self.options.num_labels, self.options.hidden_size
        if number is None or number < 1:
            raise ConfigError(f"model.num_labels: {number} is not a number of answers (1 or more)")
        self.dropout = nn.Dropout(self.options.dropout)
        self.answer_dense, self.answer_output = Linear(hidden, hidden), Linear(hidden, number)
        for module in (self.answer_dense, self.answer_output):
            initialise_truncated(module, self.options.initializer_range)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return a config of a 32-d model and 5 answers, for tests."""
        return tiny_merlot_config(cls.__name__, model={"num_labels": 5})

    def encode_video(self, vfeats: Tensor, vmasks: Tensor | None = None) -> States:
        """Embed frames for the joint encoder, as :meth:`embed_video`."""
        return self.embed_video(vfeats, vmasks)

    def encode_text(self, caps: Tensor, cmasks: Tensor) -> States:
        """Embed texts for the joint encoder, as :meth:`embed_text`."""
        return self.embed_text(caps, cmasks)

    def answer_scores(
        self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Score the answers to the question about each video, (B, C).

        Args:
            caps: int64 (B, X), START first, with ``cmasks``.
            vfeats: uint8 or floats in [0, 1], (B, T, 3, S, S).
            vmasks: (B, T), true where a frame is real; all are by default.
        """
        video, text = self.embed_video(vfeats, vmasks), self.embed_text(caps, cmasks)
        state: Tensor = self.fuse(video, text)[:, video.values.shape[1]]
        return self.answer_output(self.dropout(F.gelu(self.answer_dense(self.dropout(state)))))

    def forward(self, answers: Tensor | None = None, **batch: Any) -> dict[str, Tensor]:
        """Return ``logits`` (B, C), and ``answers``, int64 (B,), -100 if not listed, as their ``targets``."""
        logits = self.answer_scores(**batch)
        return {"logits": logits} if answers is None else {"logits": logits, "targets": answers.reshape(-1)}
