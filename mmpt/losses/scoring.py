"""Scores of texts against videos, with a temperature that is fixed or learned."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmpt.losses.candidates import single_or_double
from mmpt.utils.errors import ConfigError

__all__ = ["ScoringLoss", "ScoringOptions"]


@dataclass
class ScoringOptions:
    """Keys of ``loss``: ``temperature`` divides the scores, ``normalize`` makes them cosines.

    With ``learn_temperature`` the scale of the scores, 1 / temperature, is a parameter of the training: it starts at
    1 / ``temperature`` and never passes ``max_scale``.
    """

    temperature: float = 1.0
    normalize: bool = False
    learn_temperature: bool = False
    max_scale: float = 100.0


class ScoringLoss(nn.Module):
    """Base of the objectives that score videos against texts: what the scores are.

    Published behaviour is the default: raw dot products, no temperature. ``normalize`` takes cosines instead,
    ``temperature`` divides the scores. A learned temperature is CLIP's (Radford et al. 2021, arXiv:2103.00020, section
    2.5): the parameter ``log_scale`` (1,) is the logarithm of what multiplies the scores. It stays in float32 (or
    float64) when the module is made half precision, which knows the scale to 3 % (bfloat16) or 0.4 % (float16) alone.
    No score of inference depends on it.

    Raises:
        ConfigError: if a temperature or scale is not a positive number, or the start is beyond ``max_scale``.
    """

    config_options: ClassVar[dict[str, type]] = {"loss": ScoringOptions}
    log_scale: nn.Parameter | None

    def __init__(
        self,
        temperature: float = 1.0,
        normalize: bool = False,
        learn_temperature: bool = False,
        max_scale: float = 100.0,
    ) -> None:
        super().__init__()
        for key, value in (("temperature", temperature), ("max_scale", max_scale)):
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"loss.{key}: must be positive, not {value}")
        if learn_temperature and 1 / temperature > max_scale:
            raise ConfigError(
                f"loss.temperature: {temperature} makes a scale of {1 / temperature:g}, beyond loss.max_scale: "
                f"{max_scale:g}. Raise one of them"
            )
        self.temperature = temperature
        self.normalize = normalize
        self.max_scale = max_scale
        # One dimension: fairseq's legacy_ddp cannot reduce a parameter that has none.
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)])) if learn_temperature else None

    def scale(self) -> Tensor | float:
        """Return what the scores are multiplied by: a number, or where it is learned a scalar with gradient."""
        if self.log_scale is None:
            return 1 / self.temperature
        return _AtMost.apply(self.log_scale, math.log(self.max_scale)).exp()[0]

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return float32 scores (.., Q, K) of queries (.., Q, H) with keys (.., K, H); float64 stays float64.

        Scores reach hundreds: half precision would round them by whole units, so autocast is off.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries, keys = single_or_double(queries), single_or_double(keys)
            if self.normalize:
                queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
            if self.log_scale is not None or self.temperature != 1:
                queries = queries * self.scale()  # not the scores, which are many more
            return queries @ keys.transpose(-2, -1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert as any module, but let no parameter become half precision."""

        def wide(value: Tensor) -> Tensor:
            changed = fn(value)
            return value.to(changed.device) if single_or_double(changed).dtype != changed.dtype else changed

        return super()._apply(wide, recurse)


class _AtMost(torch.autograd.Function):
    """Clamp from above, whose gradient beyond the limit passes if a descent step along it leads back.

    A plain clamp has no gradient there: a parameter that an update carried past the limit would stay. Clamping the
    parameter itself would miss the float32 copies that fairseq's half-precision optimizers keep.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(value > limit)
        return value.clamp(max=limit)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (beyond,) = ctx.saved_tensors
        return gradient.masked_fill(beyond & (gradient < 0), 0), None
