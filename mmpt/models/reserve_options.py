"""The keys of MERLOT Reserve's models, and the published sizes.

Shapes: S segments, G groups of them.
"""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.utils.errors import ConfigError, nearest

__all__ = [
    "PRESETS",
    "ReserveOptions",
    "ReservePretrainingOptions",
    "ReservePretrainingSequence",
    "ReserveSequence",
    "check_reserve",
    "tiny_reserve_config",
]

#: The published sizes; ``model.preset`` takes one of them.
PRESETS: dict[str, dict[str, int]] = {
    "base": {
        "hidden_size": 768,
        "joint_layers": 12,
        "vision_layers": 12,
        "audio_layers": 12,
        "span_layers": 4,
        "size_per_head": 64,
        "vocab_size": 32768,
    },
    "large": {
        "hidden_size": 1024,
        "joint_layers": 24,
        "vision_layers": 24,
        "audio_layers": 12,
        "span_layers": 4,
        "size_per_head": 64,
        "vocab_size": 32768,
    },
}


@dataclasses.dataclass
class ReserveSequence:
    """Keys of ``dataset``: ``image_grid`` is the rows and columns of patches of 16 pixels that a frame has.

    No weight depends on it: a model takes frames of any grid of even sides.
    """

    image_grid: list[int] = dataclasses.field(default_factory=lambda: [12, 20])
    split: str | None = None


@dataclasses.dataclass
class ReservePretrainingSequence(ReserveSequence):
    """Keys of ``dataset`` that fix the sequences of pre-training.

    Attributes:
        num_segments: S of an example; each has a frame and three sounds.
        num_segment_groups: G; segments of different groups are in different sequences.
        seq_len: positions of a joint sequence: ``lang_seq_len`` of text and the frames of a group.
        mask_rate: share of the sounds that text tells of; their vectors are told from the others.
    """

    num_segments: int = 16
    num_segment_groups: int = 2
    seq_len: int = 640
    mask_rate: float = 0.25


@dataclasses.dataclass
class ReserveOptions:
    """Keys of ``model``.

    Attributes:
        preset: ``base`` or ``large``: the published sizes, instead of what the next seven keys say. None: these, whose
            defaults are those of base.
        hidden_size: H of all four transformers.
        joint_layers: of the transformer that reads words, sounds and frames together.
        vision_layers: of that of a frame.
        audio_layers: of that of a sound.
        span_layers: of that of a text span.
        size_per_head: at least 32; positions scale the first 32.
        vocab_size: of the word table.
        pooling: P; P x P patches are pooled to one token of a frame.
        audio_tokens: tokens that a sound is pooled to.
        initializer_range: standard deviation of the initial word table, and, over the root of 2, the greatest of
            other weights; narrow models learn sooner from wider ones.
        init: ``random``, or a file of weights to begin from: published, or one's own.
        gradient_checkpointing: trade about a third more time for the memory of the activations.
    """

    preset: str | None = None
    hidden_size: int = 768
    joint_layers: int = 12
    vision_layers: int = 12
    audio_layers: int = 12
    span_layers: int = 4
    size_per_head: int = 64
    vocab_size: int = 32768
    pooling: int = 2
    audio_tokens: int = 6
    initializer_range: float = 0.02
    init: str = "random"
    gradient_checkpointing: bool = False


@dataclasses.dataclass
class ReservePretrainingOptions(ReserveOptions):
    """Keys of ``model``: ``text_spans`` are told per example of a batch, on average over its examples."""

    text_spans: int = 48


def check_reserve(sequence: ReserveSequence, options: ReserveOptions) -> None:
    """Put the sizes of the preset in place, and refuse values that no model can have; ConfigError names the key."""
    if options.preset is not None:
        if options.preset not in PRESETS:
            raise ConfigError(
                f"model.preset: {options.preset!r} is none of {', '.join(PRESETS)}.{nearest(options.preset, PRESETS)}"
            )
        vars(options).update(PRESETS[options.preset])
    for key in ("hidden_size", "size_per_head", "vocab_size", "pooling", "audio_tokens"):
        if getattr(options, key) < 1:
            raise ConfigError(f"model.{key}: must be at least 1, not {getattr(options, key)}")
    if options.initializer_range <= 0:
        raise ConfigError(f"model.initializer_range: must be positive, not {options.initializer_range}")
    for key in ("joint_layers", "vision_layers", "audio_layers", "span_layers"):
        if getattr(options, key) < 0:
            raise ConfigError(f"model.{key}: must be at least 0, not {getattr(options, key)}")
    if len(sequence.image_grid) != 2 or any(side < 1 or side % options.pooling for side in sequence.image_grid):
        raise ConfigError(
            f"dataset.image_grid: {list(sequence.image_grid)} must be rows and columns, multiples of model.pooling: "
            f"{options.pooling}"
        )


def tiny_reserve_config(model_cls: str, **sections: dict[str, Any]) -> DictConfig:
    """Return a config of a 64-d model of two layers for frames of 32 x 64 pixels; ``sections`` add keys."""
    dataset = {"image_grid": [2, 4], "num_segments": 4, "num_segment_groups": 2, "seq_len": 36}
    model = {
        "model_cls": model_cls,
        "hidden_size": 64,
        "joint_layers": 2,
        "vision_layers": 1,
        "audio_layers": 1,
        "span_layers": 1,
        "size_per_head": 32,
        "vocab_size": 64,
    }
    return OmegaConf.merge({"dataset": dataset, "model": model}, sections)  # type: ignore[return-value]
