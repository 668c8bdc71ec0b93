"""The section ``optim`` of a config."""

from dataclasses import dataclass, field

from mmpt.utils.errors import ConfigError

__all__ = ["OptimOptions"]


@dataclass
class OptimOptions:
    """Keys of the section ``optim``, which every training may have.

    A pattern is a shell-style one over the names of the model's parameters, ``text_encoder.encoder.layer.[0-3].*``;
    each must match at least one. Where several of a mapping match a parameter, the last one counts.

    ``freeze`` lists what is not trained; dropout inside stays on. ``lr_multipliers`` and ``weight_decay_multipliers``
    give factors of the learning rate and of the weight decay (0 for none; biases, norms and other vectors that no
    pattern matches have none). ``layer_decay`` is the factor of the learning rate from each transformer layer to the
    one below: the last of N layers has it once, the first N times, the embeddings below once more, all else stays.
    """

    freeze: list[str] = field(default_factory=list)
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    weight_decay_multipliers: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optim.layer_decay: must be above 0 and at most 1, not {self.layer_decay}")
        for pattern, factor in self.lr_multipliers.items():
            if not 0 < factor < float("inf"):
                raise ConfigError(
                    f"optim.lr_multipliers: {pattern!r}: must be above 0, not {factor}; optim.freeze is for none"
                )
        for pattern, factor in self.weight_decay_multipliers.items():
            if not 0 <= factor < float("inf"):
                raise ConfigError(f"optim.weight_decay_multipliers: {pattern!r}: must be 0 or more, not {factor}")

    def set_apart(self) -> list[str]:
        """Return the keys that only an optimizer with groups of parameters can follow."""
        named = {
            "lr_multipliers": self.lr_multipliers,
            "weight_decay_multipliers": self.weight_decay_multipliers,
            "layer_decay": self.layer_decay != 1,
        }
        return [f"optim.{key}" for key, given in named.items() if given]
