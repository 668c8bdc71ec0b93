"""MERLOT's objective of pre-training (arXiv:2106.02636, section 3.2): frames and transcripts, masked words, order.

Shapes: K chunks of this worker, R groups, n chunks of a group, H hidden, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.candidates import counts_of_all, single_or_double, symmetric_cross_entropy
from mmpt.losses.generic import accuracy, summed_cross_entropy
from mmpt.losses.matching import check_temperature
from mmpt.modules.masking import IGNORED
from mmpt.modules.merlot_tokens import PADDING
from mmpt.modules.vocabulary_loss import Scores
from mmpt.utils.errors import ConfigError

__all__ = ["MERLOTLoss", "MERLOTLossOptions"]

# Keeps the mean over no words at all finite (published).
_COUNT_EPS = 1e-5


@dataclass
class MERLOTLossOptions:
    """Keys of ``loss``.

    Attributes:
        temperature: divides the scores of frames with transcripts.
        contrast_coef: weight of matching frames with transcripts (0.25; 0.5 with groups of five).
        mask_coef: weight of telling masked words.
        temporal_coef: weight of telling which of two moments comes first.
        global_negatives: whether the chunks of all workers are compared, and the means taken over the words and pairs
            of all, not over those of each alone.
    """

    temperature: float = 0.05
    contrast_coef: float = 0.25
    mask_coef: float = 1.0
    temporal_coef: float = 1.0
    global_negatives: bool = True


class MERLOTLoss:
    """Weighted sum of three objectives.

    Raises:
        ConfigError: if the temperature is not positive, or a weight negative.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": MERLOTLossOptions}

    def __init__(
        self,
        temperature: float = 0.05,
        contrast_coef: float = 0.25,
        mask_coef: float = 1.0,
        temporal_coef: float = 1.0,
        global_negatives: bool = True,
    ) -> None:
        self.temperature = check_temperature(temperature)
        self.weights = {"contrastive": contrast_coef, "mlm": mask_coef, "temporal": temporal_coef}
        for key, value in (
            ("contrast_coef", contrast_coef),
            ("mask_coef", mask_coef),
            ("temporal_coef", temporal_coef),
        ):
            if value < 0:
                raise ConfigError(f"loss.{key}: must not be negative, but is {value}")
        self.global_negatives = global_negatives

    def parts(
        self,
        image_vectors: Tensor,
        text_vectors: Tensor,
        word_logits: Scores,
        word_targets: Tensor,
        text_image_logits: Tensor,
        order_targets: Tensor,
        order_weights: Tensor,
        image_image_logits: Tensor | None = None,
        padding_step: bool = False,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Return ``contrastive``, ``mlm`` and ``temporal``, float32 (or float64) scalars, not weighted.

        With ``global_negatives`` they are this worker's shares: their means over workers are the parts of one process
        with the whole batch.

        Args:
            image_vectors: unit vectors (K, H), of the frames; ``text_vectors`` (K, H) of their transcripts.
            word_logits: (masked positions, V), also put off, with ``word_targets`` int64, 0 where nothing is told.
            text_image_logits: (R, n, n, 4), with ``order_targets`` int64 and ``order_weights``, (R, n, n).
            image_image_logits: (R, n, n, 4); None: images are not compared with each other.
            padding_step: whether the batch does not count, and is computed for the other workers' sake alone.
        """
        contrastive = symmetric_cross_entropy(
            text_vectors, image_vectors, 1 / self.temperature, self.global_negatives, padding_step
        )
        mlm = summed_cross_entropy(word_logits, _ignored(word_targets))
        temporal = _sum_of_pairs(text_image_logits, order_targets, order_weights)
        if image_image_logits is not None:
            temporal = temporal + _sum_of_pairs(image_image_logits, order_targets, order_weights)
        words = (word_targets != PADDING).sum()
        counts, workers = counts_of_all(
            torch.stack([words, words.new_tensor(order_targets.numel())]), self.global_negatives, padding_step
        )
        return {
            "contrastive": contrastive,
            "mlm": mlm * workers / (counts[0] + _COUNT_EPS),
            "temporal": temporal * workers / counts[1].clamp(min=1),
        }

    def measures(self, **outputs: Any) -> dict[str, Tensor]:
        """Return what is logged beside the loss: how often each objective is right, in [0, 1].

        Frames and transcripts are looked for among those of this worker.
        """
        text, image = outputs["text_vectors"], outputs["image_vectors"]
        own = torch.arange(len(text), device=text.device)
        found = {
            "mlm_accuracy": accuracy(outputs["word_logits"], _ignored(outputs["word_targets"])),
            "text_to_image_accuracy": accuracy(text @ image.T, own),
            "image_to_text_accuracy": accuracy(image @ text.T, own),
            "text_image_order_accuracy": accuracy(outputs["text_image_logits"], outputs["order_targets"]),
        }
        if outputs.get("image_image_logits") is not None:
            found["image_image_order_accuracy"] = accuracy(outputs["image_image_logits"], outputs["order_targets"])
        return found

    def __call__(self, **outputs: Any) -> Tensor:
        """Return the scalar loss; arguments as :meth:`parts`, others are ignored."""
        parts = self.parts(**outputs)
        return torch.stack([weight * parts[name] for name, weight in self.weights.items()]).sum()


def _ignored(targets: Tensor) -> Tensor:
    return targets.masked_fill(targets == PADDING, IGNORED)


def _sum_of_pairs(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted cross entropy, to be divided by the number of pairs, not by their weight (published)."""
    with torch.autocast(logits.device.type, enabled=False):
        losses = F.cross_entropy(single_or_double(logits).flatten(0, -2), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum()
