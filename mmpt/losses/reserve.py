"""Objectives of MERLOT Reserve (Zellers et al. 2022, arXiv:2201.02639, section 3.3), and of its answers to TVQA."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.candidates import single_or_double, symmetric_cross_entropy
from mmpt.losses.generic import CrossEntropy, accuracy
from mmpt.modules.reserve_tokens import SPAN_SOURCES

__all__ = ["OBJECTIVES", "ReserveLoss", "ReserveLossOptions", "ReserveTVQALoss"]

#: Frames from sound or text, sounds from text, text spans from anything; in the order of their scales.
OBJECTIVES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")


@dataclass
class ReserveLossOptions:
    """Keys of ``loss``: with ``global_negatives``, as published, the rows of all workers are the candidates."""

    global_negatives: bool = True


class ReserveLoss:
    """Sum of three symmetric cross entropies, of rows that the model has scaled: a dot product is a logit.

    Each is ``1/2 [mean(lse_j x_i.y_j - x_i.y_i) + mean(lse_j y_i.x_j - x_i.y_i)]``; the sounds that are not told are
    further candidates for the text that tells a sound.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": ReserveLossOptions}

    def __init__(self, global_negatives: bool = True) -> None:
        self.global_negatives = global_negatives

    def parts(self, padding_step: bool = False, **outputs: Any) -> dict[str, Tensor]:
        """Return the loss of each of :data:`OBJECTIVES`, scalars, float32 or float64.

        Args:
            padding_step: whether the rows do not count.
            outputs: ``<objective>_x`` and ``<objective>_y``, (rows, D) each, and ``text_to_audio_y_extra`` (M, D).
        """
        return {
            name: symmetric_cross_entropy(
                outputs[f"{name}_x"],
                outputs[f"{name}_y"],
                across_workers=self.global_negatives,
                padding_step=padding_step,
                y_extra=outputs.get(f"{name}_y_extra"),
            )
            for name in OBJECTIVES
        }

    def measures(self, span_sources: Tensor, **outputs: Any) -> dict[str, Tensor]:
        """Return what is logged beside the loss, of this worker's rows alone.

        Of each objective the accuracy of x in finding its y (in [0, 1]), and of the text spans the loss by what they
        were told from; NaN where none was.
        """
        found = {}
        for name in OBJECTIVES:
            x, y = (single_or_double(outputs[f"{name}_{side}"]) for side in ("x", "y"))
            extra = outputs.get(f"{name}_y_extra")
            candidates = y if extra is None else torch.cat([y, single_or_double(extra)])
            own = torch.arange(len(x), device=x.device)
            scores = x @ candidates.T
            found[f"{name}_accuracy"] = accuracy(scores, own) if len(x) else scores.new_tensor(torch.nan)
        losses = (F.cross_entropy(scores, own, reduction="none") + F.cross_entropy(scores.T, own, reduction="none")) / 2
        for number, source in enumerate(SPAN_SOURCES):
            found[f"stuff_to_span_from_{source}"] = losses[span_sources == number].mean()
        return found

    def __call__(self, **outputs: Any) -> Tensor:
        """Return the scalar loss; arguments as :meth:`parts`, others are ignored.

        With ``global_negatives`` it is this worker's share: the mean over workers is that of one process with the
        whole batch.
        """
        return torch.stack(list(self.parts(**outputs).values())).sum()


class ReserveTVQALoss(CrossEntropy):
    """Sum of the cross entropies of answering with the subtitles and with the sound."""

    def __call__(self, logits: Tensor, targets: Tensor, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Return the scalar float32 loss of logits (B, 2, O) and targets int64 (B, 2)."""
        return super().__call__(logits, targets) * logits.shape[1]

    def measures(  # type: ignore[override]
        self, logits: Tensor, targets: Tensor, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the accuracy of each kind of text and of both together (the sum of their probabilities)."""
        return {
            "accuracy": accuracy(logits.float().softmax(-1).sum(1), targets[:, 0]),
            "subtitles_accuracy": accuracy(logits[:, 0], targets[:, 0]),
            "sound_accuracy": accuracy(logits[:, 1], targets[:, 1]),
        }
