"""Models that say something about every second of a video: action segmentation and step localisation.

They are VideoCLIP's and VLM's encoders with another output. Inputs are the windows of one video, with or without a
leading batch dimension of 1, as the loader gives them; the video does not see ``[CLS]``.

Shapes: W windows, M seconds of a window, D feature width, L text positions, H hidden, C classes, K steps.
"""

import dataclasses
from typing import Any, ClassVar, cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmpt.models.fusion import FusionModel
from mmpt.models.videoclip import MMFusionSeparate, SequenceOptions, TowerOptions
from mmpt.models.vlm import IsolationOptions, MMFusionJoint, MMFusionShare, SingleEncoderOptions
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import section_of

__all__ = [
    "MMFusionActionLocalization",
    "MMFusionActionSegmentation",
    "MMFusionSeparateActionLocalization",
    "MMFusionSeparateActionSegmentation",
    "MMFusionShareActionLocalization",
    "SegmentationEncoderOptions",
    "SegmentationTowerOptions",
]


def _rows(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Merge the leading dimensions of ``caps``, ``cmasks``, ``vfeats`` and ``vmasks``, in this order, into one."""
    return tuple(
        value.reshape(-1, *value.shape[-1 - inner :]) for value, inner in zip(inputs, (0, 0, 1, 0), strict=True)
    )


def _check_classifier(config: Any, key: str, encoder: nn.Module) -> None:
    """Check that the encoder that ``key`` names classifies.

    Raises:
        ConfigError: if it does not, or the config does not say how many classes there are.
    """
    model = section_of(config, "model") or {}
    if model.get("num_labels") is None:
        raise ConfigError("model.num_labels: not set; it is the number of classes (a Task takes it from the data)")
    if not hasattr(encoder, "classify"):
        raise ConfigError(f"model.{key}: {model.get(key)} has no classifier; name MMBertForTokenClassification")


@dataclasses.dataclass
class SegmentationTowerOptions(TowerOptions):
    """Keys of ``model``. ``num_labels`` is the number of classes; where it is empty, the data say it."""

    video_encoder_cls: str = "MMBertForTokenClassification"
    num_labels: int | None = None


@dataclasses.dataclass
class SegmentationEncoderOptions(SingleEncoderOptions):
    """Keys of ``model``. ``num_labels`` is the number of classes; where it is empty, the data say it."""

    num_labels: int | None = None


class MMFusionSeparateActionSegmentation(MMFusionSeparate):
    """VideoCLIP's video tower with a class for every second. The text tower stays as it is, and is not used."""

    capabilities = frozenset({"segmentation", "frame_states"})
    new_heads = ("video_encoder.classifier.*",)
    config_options: ClassVar[dict[str, type]] = {"dataset": SequenceOptions, "model": SegmentationTowerOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        _check_classifier(config, "video_encoder_cls", self.video_encoder)

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return the config of :class:`MMFusionSeparate` with 5 classes."""
        config = super().tiny_config()
        config.model.num_labels = 5
        return config

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Classify the seconds of windows: caps and cmasks (W, 2 or more), vfeats (W, M, D), vmasks (W, M).

        Returns:
            ``logits`` (W, M, C); those of padded seconds mean nothing.
        """
        caps, cmasks, vfeats, vmasks = _rows(caps, cmasks, vfeats, vmasks)
        return {
            "logits": cast(Any, self.video_encoder).classify(self.encode_video_frames(vfeats, vmasks, caps, cmasks))
        }


class MMFusionActionSegmentation(MMFusionJoint):
    """VLM's encoder with a class for every second; beside the video stands a text of no words."""

    capabilities = frozenset({"segmentation"})
    encoder_cls = "MMBertForTokenClassification"
    new_heads = ("mm_encoder.classifier.*",)
    config_options: ClassVar[dict[str, type]] = {"dataset": IsolationOptions, "model": SegmentationEncoderOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        _check_classifier(config, "mm_encoder_cls", self.mm_encoder)
        self.capabilities = type(self).capabilities  # isolated or not: it does not pool

    @classmethod
    def tiny_config(cls) -> DictConfig:
        """Return the config of :class:`MMFusionJoint` with all 3 layers isolated and 5 classes."""
        config = super().tiny_config()
        config.dataset.num_iso_layer = 3
        config.model.num_labels = 5
        return config

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Classify the seconds of windows: caps and cmasks (W, L), vfeats (W, M, D), vmasks (W, M).

        All layers are used, those after ``dataset.num_iso_layer`` with the text in view.

        Returns:
            ``logits`` (W, M, C); those of padded seconds mean nothing.
        """
        caps, cmasks, vfeats, vmasks = _rows(caps, cmasks, vfeats, vmasks)
        states = self.joint_states(caps, cmasks, vfeats, vmasks)[:, 1 : 1 + vmasks.shape[1]]
        return {"logits": cast(Any, self.mm_encoder).classify(states)}


class _StepLocalization(FusionModel):
    """Compare every second of a video with every step of its task, in any model that encodes either alone."""

    capabilities = frozenset({"localization", "frame_states"})

    def forward(self, caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Score the seconds of a video's windows: caps and cmasks (K, L), vfeats (W, M, D), vmasks (W, M).

        Returns:
            ``logits`` float32 (valid seconds of all windows, K), window after window: dot products of the states of
            seconds and the pooled steps.

        Raises:
            DataError: if there are several videos, whose steps could not be told apart.
        """
        if vfeats.ndim > 3 and vfeats.shape[:-3].numel() != 1:
            raise DataError("step localisation takes one video at a time: set fairseq.dataset.batch_size to 1")
        caps, cmasks, vfeats, vmasks = _rows(caps, cmasks, vfeats, vmasks)
        hidden = torch.tensor([[False, True]], device=caps.device)  # the video does not see [CLS]
        seconds = self.encode_video_frames(vfeats, vmasks, caps[:1, :2], hidden)[vmasks.bool()]
        steps = self.encode_text(caps, cmasks)
        # Scores reach hundreds: half precision would round them by tenths.
        with torch.autocast(caps.device.type, enabled=False):
            return {"logits": seconds.float() @ steps.float().T}


class MMFusionSeparateActionLocalization(_StepLocalization, MMFusionSeparate):
    """VideoCLIP's towers for step localisation: it needs no weights that pre-training does not have."""


class MMFusionShareActionLocalization(_StepLocalization, MMFusionShare):
    """One encoder, used for videos and texts in turn, for step localisation."""


class MMFusionActionLocalization(_StepLocalization, MMFusionJoint):
    """VLM for step localisation, with ``dataset.num_iso_layer`` (published: all) layers that isolate video and text.

    Raises:
        ConfigError: if ``dataset.num_iso_layer`` is not set.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._check_isolated()
        self.capabilities = _StepLocalization.capabilities
