"""Adam as MERLOT (arXiv:2106.02636) and MERLOT Reserve (arXiv:2201.02639) train with, its moments in half the memory.

Both keep the moments in bfloat16. The second one is never negative, so that its sign is free to tell one more bit: a
negative number stands for its amount times 1 + 2^-8. Reserve stores the cube of the second moment: what bfloat16 loses
of it is a third as much, at the cost of moments below 1e-13, which become 0.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mmpt.utils.errors import ConfigError

__all__ = ["CORRECTIONS", "MOMENTS", "CompactAdam", "compact", "expanded"]

#: How the moments are kept.
MOMENTS = ("float32", "bfloat16", "bfloat16_cubed")
#: What corrects for moments that begin at 0.
CORRECTIONS = ("none", "rate", "moments")
_NEXT = 1 + 2**-8  # between a bfloat16 and the one above it lies 2^-7 of it
_BETWEEN = 1 + 2**-9  # from here on that is nearer; the product of it with a bfloat16 is exact in float32


def compact(values: Tensor) -> Tensor:
    """Store numbers from 0 on, float32, as bfloat16 whose sign is a bit of precision."""
    nearest = values.bfloat16()
    return torch.where(values > nearest.float().mul_(_BETWEEN), -nearest, nearest)


def expanded(stored: Tensor) -> Tensor:
    """Return what :func:`compact` has stored, float32."""
    values = stored.float()
    return torch.maximum(values, values * -_NEXT)


class CompactAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay.

    ``p -= lr * (m / (sqrt(v) + eps) + weight_decay * p)``.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: of the moments.
        eps: added to the root of the second moment, and 1e-30 to the square of a gradient.
        weight_decay: per unit of the learning rate.
        moments: how they are kept, one of :data:`MOMENTS`.
        correction: one of :data:`CORRECTIONS`: of nothing (Reserve's pre-training), of the learning rate, which decay
            follows (MERLOT), or of the moments (Reserve's fine-tuning, and AdamW).
        decay_to_start: whether weights decay towards those of the first step, of which a bfloat16 copy is kept
            (Reserve's fine-tuning), and not towards 0.

    Raises:
        ConfigError: if ``moments`` or ``correction`` is none of these; names the key.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        moments: str = "bfloat16",
        correction: str = "rate",
        decay_to_start: bool = False,
    ) -> None:
        for key, value, known in (("moments", moments, MOMENTS), ("correction", correction, CORRECTIONS)):
            if value not in known:
                raise ConfigError(f"fairseq.optimization.{key}: {value!r} is none of {', '.join(known)}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.moments, self.correction, self.decay_to_start = moments, correction, decay_to_start

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            self._begin(parameter, state)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        gradient = parameter.grad.float()  # type: ignore[union-attr]
        # every line is a pass over the weights, so that they are few, and write where they read
        first = state["exp_avg"].float().lerp_(gradient, 1 - beta1)
        second = self._second(state["exp_avg_sq"]).mul_(beta2)
        second.addcmul_(gradient, gradient, value=1 - beta2).add_(1e-30 * (1 - beta2))
        rate, step, wide = group["lr"], state["step"], parameter.float()
        one, other = 1 - beta1**step, 1 - beta2**step
        root = second.sqrt()
        if self.correction == "rate":
            rate *= other**0.5 / one
        if self.correction == "moments":
            root.div_(other**0.5)
        update = torch.div(first, root.add_(group["eps"]), out=root)
        if self.correction == "moments":
            update.div_(one)
        if group["weight_decay"]:
            update.add_(wide, alpha=group["weight_decay"])
        if group["weight_decay"] and self.decay_to_start:
            update.sub_(state["start"], alpha=group["weight_decay"])
        wide.sub_(update, alpha=rate)
        for kept, values in ((parameter, wide), (state["exp_avg"], first)):
            if kept is not values:  # float32 is changed where it is
                kept.copy_(values)
        self._keep_second(state["exp_avg_sq"], second)

    def _begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        kind = torch.float32 if self.moments == "float32" else torch.bfloat16
        state["step"] = 0
        for key in ("exp_avg", "exp_avg_sq"):
            state[key] = torch.zeros_like(parameter, dtype=kind)
        if self.decay_to_start:
            state["start"] = parameter.detach().to(torch.bfloat16, copy=True)

    def _second(self, stored: Tensor) -> Tensor:
        if self.moments == "float32":
            return stored
        values = expanded(stored)
        return values.pow(1 / 3) if self.moments == "bfloat16_cubed" else values

    def _keep_second(self, stored: Tensor, values: Tensor) -> None:
        if self.moments == "bfloat16_cubed":
            values = values**3
        if stored is not values:
            stored.copy_(compact(values))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; torch turns moments into the parameters' type, here they keep their own."""
        super().load_state_dict(state_dict)
        kind = torch.float32 if self.moments == "float32" else torch.bfloat16
        for state in self.state.values():
            for key in ("exp_avg", "exp_avg_sq", "start"):
                if key in state:
                    state[key] = state[key].to(torch.bfloat16 if key == "start" else kind)
            state["step"] = int(state["step"])
