"""The keys of the models that fuse raw frames with text, and what they come to.

Shapes: T frames, S pixels of a side.
"""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.models.base import TINY_BERT
from mmpt.modules.frame_encoder import IMAGENET_MEAN, IMAGENET_STD
from mmpt.modules.video_swin import SwinOptions, swin_options
from mmpt.utils.errors import ConfigError

__all__ = [
    "AnswerOptions",
    "CrossModalOptions",
    "FrameSequenceOptions",
    "MatchingOptions",
    "check_cross_modal",
    "swin_sizes",
    "tiny_cross_modal_config",
]


@dataclasses.dataclass
class FrameSequenceOptions:
    """Keys of ``dataset`` that fix the model's sequences.

    Attributes:
        bert_name: folder or hub id of the BERT whose sizes, word pieces and weights are used.
        use_fast: whether its tokenizer is the fast one.
        split: train, valid or test.
        num_frames: T, frames of a video.
        image_size: S, pixels.
        max_text_len: word pieces of a text, ``[CLS]`` and ``[SEP]`` among them.
    """

    bert_name: str = "bert-base-uncased"
    use_fast: bool = True
    split: str | None = None
    num_frames: int = 4
    image_size: int = 224
    max_text_len: int = 32


@dataclasses.dataclass
class CrossModalOptions:
    """Keys of ``model``.

    Attributes:
        init: ``pretrained`` (BERT's weights from ``dataset.bert_name``, Swin's from ``swin_weights``) or ``random``.
        swin: tiny, small, base, large or large384; custom takes the sizes of the next four keys.
        swin_embed_dim: custom: width of the first stage.
        swin_depths: custom: blocks of each stage.
        swin_heads: custom: heads of each stage.
        swin_window: custom: frames, rows and columns of a window.
        swin_init_std: standard deviation of Swin's linear weights where none are loaded. The published 0.02 is for
            the published widths; a narrow Swin from scratch learns far sooner from about 1 / sqrt(width).
        swin_weights: file of published Swin weights, of videos or of images; without it Swin starts at random.
        drop_path: rate of stochastic depth of Swin's last block.
        max_frames: frames that there are embeddings of.
        max_patches: rows, and columns, of patches that there are embeddings of.
        gradient_checkpointing: trade about a third more time for the memory of the activations.
        compile: torch.compile for the layers of the fusing transformer: true, or the name of its mode.
        pixel_mean: taken from red, green and blue in [0, 1].
        pixel_std: what they are divided by.
    """

    init: str = "pretrained"
    swin: str = "base"
    swin_embed_dim: int = 32
    swin_depths: list[int] = dataclasses.field(default_factory=lambda: [2, 2, 2, 2])
    swin_heads: list[int] = dataclasses.field(default_factory=lambda: [1, 2, 4, 8])
    swin_window: list[int] = dataclasses.field(default_factory=lambda: [8, 7, 7])
    swin_init_std: float = 0.02
    swin_weights: str | None = None
    drop_path: float = 0.2
    max_frames: int = 6
    max_patches: int = 14
    gradient_checkpointing: bool = False
    compile: bool | str = False
    pixel_mean: list[float] = dataclasses.field(default_factory=lambda: list(IMAGENET_MEAN))
    pixel_std: list[float] = dataclasses.field(default_factory=lambda: list(IMAGENET_STD))


@dataclasses.dataclass
class AnswerOptions(CrossModalOptions):
    """Keys of ``model``: ``num_labels`` is the number of answers, by default that of the data's vocabulary."""

    num_labels: int | None = None


@dataclasses.dataclass
class MatchingOptions(CrossModalOptions):
    """Keys of ``model``: ``matching_texts`` is how many texts a video is compared with in pre-training, its own too."""

    matching_texts: int = 4

    def check(self) -> None:
        """Refuse less than the own text; ConfigError."""
        if self.matching_texts < 1:
            raise ConfigError(f"model.matching_texts: must be at least 1, not {self.matching_texts}")


def tiny_cross_modal_config(model_cls: str, **sections: dict[str, Any]) -> DictConfig:
    """Return a config of a 32-d encoder of two frames of 64 pixels, randomly initialised; ``sections`` add keys."""
    dataset = {"bert_name": TINY_BERT, "use_fast": False, "num_frames": 2, "image_size": 64, "max_text_len": 16}
    model = {
        "model_cls": model_cls,
        "init": "random",
        "swin": "custom",
        "swin_embed_dim": 8,
        "swin_depths": [2, 2],
        "swin_heads": [1, 2],
        "swin_window": [2, 4, 4],
        "drop_path": 0.0,
        "max_patches": 8,
    }
    return OmegaConf.merge({"dataset": dataset, "model": model}, sections)  # type: ignore[return-value]


def swin_sizes(options: CrossModalOptions) -> SwinOptions:
    """Return the sizes of Video Swin that the keys ask for.

    Raises:
        ConfigError: if they cannot be; names the key.
    """
    if options.swin != "custom":
        sizes = swin_options(options.swin)
    else:
        frames, rows, columns = _three(options.swin_window, "swin_window")
        sizes = SwinOptions(
            options.swin_embed_dim, tuple(options.swin_depths), tuple(options.swin_heads), (frames, rows, columns)
        )
    return dataclasses.replace(
        sizes,
        drop_path=options.drop_path,
        gradient_checkpointing=options.gradient_checkpointing,
        init_std=options.swin_init_std,
    )


def _three(values: list[int], key: str) -> list[int]:
    if len(values) != 3:
        raise ConfigError(f"model.{key}: {list(values)} must be three numbers")
    return values


def check_cross_modal(sequence: FrameSequenceOptions, options: CrossModalOptions) -> None:
    """Refuse values that no model can have."""
    if options.init not in ("pretrained", "random"):
        raise ConfigError(f"model.init: {options.init!r} is neither 'pretrained' nor 'random'")
    if not options.swin_init_std > 0:
        raise ConfigError(f"model.swin_init_std: must be positive, not {options.swin_init_std}")
    if not 0 <= options.drop_path < 1:
        raise ConfigError(f"model.drop_path: {options.drop_path} is not in [0, 1)")
    for section, given, key, least in (
        ("dataset", sequence, "num_frames", 1),
        ("dataset", sequence, "image_size", 1),
        ("dataset", sequence, "max_text_len", 3),
        ("model", options, "max_frames", 1),
        ("model", options, "max_patches", 1),
    ):
        if getattr(given, key) < least:
            raise ConfigError(f"{section}.{key}: must be at least {least}, not {getattr(given, key)}")
    if sequence.num_frames > options.max_frames:
        raise ConfigError(
            f"dataset.num_frames: {sequence.num_frames}, but the model has embeddings of model.max_frames: "
            f"{options.max_frames}"
        )
    for key in ("pixel_mean", "pixel_std"):
        _three(getattr(options, key), key)
