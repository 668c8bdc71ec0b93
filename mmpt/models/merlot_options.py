"""The keys of MERLOT's models.

Shapes: N chunks of a record.
"""

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpt.modules.transformer import TransformerOptions
from mmpt.utils.errors import ConfigError

__all__ = ["MERLOTOptions", "MERLOTPretrainingOptions", "MERLOTSequenceOptions", "tiny_merlot_config"]

EPS = 1e-5


@dataclasses.dataclass
class MERLOTSequenceOptions:
    """Keys of ``dataset`` that the pre-training model reads too.

    Attributes:
        chunks_in_group: consecutive chunks that are one joint sequence.
        image_shuffle_prob: probability that a group has images whose places are hidden; 0: images are not compared
            with each other.
        shuffle_offset: least image index that says nothing about the place.
    """

    chunks_in_group: int = 4
    image_shuffle_prob: float = 0.4
    shuffle_offset: int = 64


@dataclasses.dataclass
class MERLOTOptions:
    """Keys of ``model``. The defaults are the published size, the only one.

    Attributes:
        init: random, the only way to begin without a checkpoint.
        hidden_size: width of all encoders.
        num_layers: of the joint encoder, which is the language-only one too.
        vision_layers: of the image encoder.
        num_heads: of all encoders.
        intermediate_size: of their feed-forward blocks.
        vocab_size: rows of the word embeddings.
        max_text_positions: positions that there are embeddings of, of a group's text as of a record's.
        max_image_positions: image indices that there are embeddings of.
        resnet_layers: blocks of the stages of convolutions; empty: there are none.
        dropout: of hidden states.
        initializer_range: standard deviation of initial weights; narrow models learn sooner from wider ones.
        gradient_checkpointing: trade about a third more time for the memory of the activations.
    """

    init: str = "random"
    hidden_size: int = 768
    num_layers: int = 12
    vision_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 50370
    max_text_positions: int = 1024
    max_image_positions: int = 1024
    resnet_layers: list[int] = dataclasses.field(default_factory=lambda: [3, 4, 9])
    dropout: float = 0.1
    initializer_range: float = 0.02
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Refuse values that no model can have; ConfigError names the key."""
        if self.init != "random":
            raise ConfigError(
                f"model.init: {self.init!r}; MERLOT begins at random. Weights come from a checkpoint: "
                "fairseq.checkpoint.restore_file"
            )
        sizes = ("hidden_size", "num_layers", "vision_layers", "num_heads", "intermediate_size", "vocab_size")
        for key in (*sizes, "max_text_positions", "max_image_positions"):
            if getattr(self, key) < 1:
                raise ConfigError(f"model.{key}: must be at least 1, not {getattr(self, key)}")
        if len(self.resnet_layers) not in (0, 3) or any(count < 1 for count in self.resnet_layers):
            raise ConfigError(f"model.resnet_layers: {self.resnet_layers} must be three numbers from 1 on, or none")
        if self.initializer_range <= 0:
            raise ConfigError(f"model.initializer_range: must be positive, not {self.initializer_range}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout: {self.dropout} is not in [0, 1)")

    def transformer(self, layers: int) -> TransformerOptions:
        """Return the options of an encoder of so many layers."""
        return TransformerOptions(
            hidden_size=self.hidden_size,
            num_layers=layers,
            num_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            norm="pre",
            layer_norm_eps=EPS,
            hidden_dropout=self.dropout,
            gradient_checkpointing=self.gradient_checkpointing,
        )


@dataclasses.dataclass
class MERLOTPretrainingOptions(MERLOTOptions):
    """Keys of ``model``, as :class:`MERLOTOptions`.

    Attributes:
        langonly_num_chunks_in_group: chunks that the language-only encoder reads at once; default: the whole record.
    """

    langonly_num_chunks_in_group: int | None = None


def tiny_merlot_config(model_cls: str, **sections: dict[str, Any]) -> DictConfig:
    """Return a config of a 32-d model of little depth, for tests; ``sections`` add keys."""
    model = {
        "model_cls": model_cls,
        "hidden_size": 32,
        "num_layers": 2,
        "vision_layers": 1,
        "num_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 160,
        "max_text_positions": 96,
        "max_image_positions": 72,
        "resnet_layers": [1, 1, 1],
    }
    config = {"dataset": {"chunks_in_group": 2, "image_size": [64, 64]}, "model": model}
    return OmegaConf.merge(config, sections)  # type: ignore[return-value]
