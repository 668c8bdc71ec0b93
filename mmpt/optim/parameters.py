"""What the section ``optim`` says, brought to the parameters of a model.

Factors are left on a parameter under the name ``optim_overrides``, ``{"optimizer": {"lr_scale": .., ..}}``. That is
fairseq's own convention (its ``composite`` optimizer reads it), and its float32 copies of half-precision weights keep
this attribute and no other.
"""

import difflib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping

from torch import nn

from mmpt.optim.options import OptimOptions
from mmpt.utils.checkpoint import matches
from mmpt.utils.errors import ConfigError

__all__ = ["GROUPED_OPTIMIZERS", "layer_depths", "prepare_parameters", "scales_of"]

logger = logging.getLogger(__name__)

#: fairseq optimizers that follow factors of single parameters.
GROUPED_OPTIMIZERS = ("mmadamw", "compact_adam")
_LAYER = re.compile(r"(?P<stack>(?:.*\.)?(?:layers?|blocks))\.(?P<number>\d+)\.")


def prepare_parameters(model: nn.Module, options: OptimOptions, optimizer: str | None = None) -> None:
    """Freeze parameters of ``model`` and note the factors of the others, as ``options`` say.

    A weight that two modules share goes by any of its names.

    Args:
        optimizer: fairseq's name of the one that will train; None does not check that it can follow.

    Raises:
        ConfigError: if a pattern matches nothing, nothing is left to train, or the optimizer has no groups.
    """
    apart = options.set_apart()
    if apart and optimizer is not None and optimizer not in GROUPED_OPTIMIZERS:
        raise ConfigError(
            f"{', '.join(apart)}: the optimizer {optimizer!r} trains all parameters alike; set "
            f"fairseq.optimization.optimizer: {GROUPED_OPTIMIZERS[0]}"
        )
    names = _names(model)
    _freeze(names, options.freeze)
    rates = _factors(names, options.lr_multipliers, "lr_multipliers")
    decays = _factors(names, options.weight_decay_multipliers, "weight_decay_multipliers")
    depths = layer_depths(name for known in names.values() for name in known) if options.layer_decay != 1 else {}
    for parameter, known in names.items():
        below = max((depths.get(name, 0) for name in known), default=0)
        decay = decays.get(parameter, 1.0 if parameter.dim() > 1 else 0.0)
        scales = {"lr_scale": rates.get(parameter, 1.0) * options.layer_decay**below, "weight_decay_scale": decay}
        parameter.optim_overrides = {"optimizer": scales}  # type: ignore[attr-defined]


def scales_of(parameter: nn.Parameter) -> tuple[float, float]:
    """Return the factors of a parameter's learning rate and weight decay; vectors do not decay unless told to."""
    noted = (getattr(parameter, "optim_overrides", None) or {}).get("optimizer", {})
    return float(noted.get("lr_scale", 1)), float(noted.get("weight_decay_scale", parameter.dim() > 1))


def layer_depths(names: Iterable[str]) -> dict[str, int]:
    """Return how many steps of ``layer_decay`` each of the names of parameters has; names without any are left out.

    Layers are what is numbered under ``layer``, ``layers`` or ``blocks``. Embeddings (a part of the name contains
    ``embed``) stand below the layers with which their name shares most.
    """
    names = list(names)
    found = {name: match for name in names if (match := _LAYER.match(name))}
    counts: dict[str, int] = {}
    for match in found.values():
        counts[match["stack"]] = max(counts.get(match["stack"], 0), int(match["number"]) + 1)
    depths = {name: counts[match["stack"]] - int(match["number"]) for name, match in found.items()}
    for name in names:
        if name not in found and counts and "embed" in name:
            nearest = max(counts, key=lambda stack: _shared(stack, name))
            if _shared(nearest, name) or len(counts) == 1:
                depths[name] = counts[nearest] + 1
    return depths


def _shared(one: str, other: str) -> int:
    """Return how many parts two dotted names have in common at their beginning."""
    pairs = list(zip(one.split("."), other.split("."), strict=False))
    return next((number for number, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def _freeze(names: Mapping[nn.Parameter, list[str]], patterns: list[str]) -> None:
    if not patterns:
        return
    frozen = {parameter for pattern in patterns for parameter in _matched(names, pattern, "freeze")}
    if len(frozen) == len(names):
        raise ConfigError("optim.freeze: matches every parameter of the model, which leaves nothing to train")
    for parameter in frozen:
        parameter.requires_grad_(False)
    values, total = (sum(parameter.numel() for parameter in group) for group in (frozen, names))
    logger.info(
        "optim.freeze: %d of %d tensors do not train, %.2f of %.2f million weights",
        len(frozen),
        len(names),
        values / 1e6,
        total / 1e6,
    )


def _factors(
    names: Mapping[nn.Parameter, list[str]], given: Mapping[str, float], key: str
) -> dict[nn.Parameter, float]:
    factors: dict[nn.Parameter, float] = {}
    for pattern, factor in given.items():
        matched = _matched(names, pattern, key)
        factors |= dict.fromkeys(matched, factor)
        logger.info(
            "optim.%s: %r matches %d tensors, which have %g times the value", key, pattern, len(matched), factor
        )
    return factors


def _matched(names: Mapping[nn.Parameter, list[str]], pattern: str, key: str) -> list[nn.Parameter]:
    found = [parameter for parameter, known in names.items() if any(matches(name, [pattern]) for name in known)]
    if not found:
        raise ConfigError(f"optim.{key}: {pattern!r} matches no parameter of the model.{_hint(pattern, names)}")
    return found


def _hint(pattern: str, names: Mapping[nn.Parameter, list[str]]) -> str:
    known = list(dict.fromkeys(_with_modules(name for group in names.values() for name in group)))
    close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
    return f" Near it: {', '.join(close)}" if close else f" It has names such as {', '.join(known[:3])}"


def _with_modules(names: Iterable[str]) -> Iterator[str]:
    """Yield names, and before each the patterns of the modules that it is in."""
    for name in names:
        parts = name.split(".")
        yield from (".".join([*parts[:count], "*"]) for count in range(1, len(parts)))
        yield name
