"""Weights into a model: loading is strict, with a report. Files are read by :mod:`mmpt.utils.weight_files`."""

import fnmatch
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mmpt.utils.errors import CheckpointError
from mmpt.utils.weight_files import listed_keys, load_state_dict_file

__all__ = [
    "LoadReport",
    "load_checkpoint",
    "load_into",
    "matches",
    "reconcile",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_into` did: key names, sorted. ``missing`` and ``unexpected`` were declared as allowed."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_into(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
    source: str = "state dict",
) -> LoadReport:
    """Copy weights into a model; every difference that is not declared is an error, and then nothing is copied.

    Args:
        allow_missing: shell-style patterns of keys that may keep the model's own values, beside those of the
            model's ``allow_missing``.
        allow_unexpected: patterns of keys that may be ignored, beside those of the model's ``allow_unexpected``.
        source: the file to name in errors.

    Raises:
        CheckpointError: if keys are missing or unexpected or shapes differ; lists them with counts.
    """
    adapt = getattr(model, "published_state", None)
    if adapt is not None:
        state = adapt(dict(state))
    shared, missing, unexpected = _compare(
        state,
        model.state_dict(),
        (*allow_missing, *getattr(model, "allow_missing", ())),
        (*allow_unexpected, *getattr(model, "allow_unexpected", ())),
        f"{source}: does not fit {type(model).__name__}",
        getattr(model, "new_heads", ()),
    )
    model.load_state_dict({key: state[key] for key in shared}, strict=False)
    logger.info("%s: loaded %d tensors into %s", source, len(shared), type(model).__name__)
    _report(source, missing, unexpected)
    return LoadReport(tuple(shared), tuple(missing), tuple(unexpected))


def reconcile(
    state: dict[str, Tensor],
    own: Mapping[str, Tensor],
    *,
    prefix: str = "",
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
    new_heads: Iterable[str] = (),
) -> None:
    """Make ``state`` fit a model in place, as far as is declared: drop allowed extra keys, fill allowed gaps.

    Args:
        state: a checkpoint's weights.
        own: the model's state dict, which fills the gaps.
        prefix: what stands before the keys that the patterns speak of.
        allow_missing: patterns as in :func:`load_into`.
        allow_unexpected: patterns as in :func:`load_into`.
        new_heads: patterns of keys that may be missing, or of another shape: the model's own values then stay.

    Raises:
        CheckpointError: if any other key is missing or unexpected or shapes differ; ``state`` is then unchanged.
    """
    new_heads = [prefix + pattern for pattern in new_heads]
    refitted = {key for key in state if key in own and matches(key, new_heads) and state[key].shape != own[key].shape}
    _, missing, unexpected = _compare(
        {key: value for key, value in state.items() if key not in refitted},
        own,
        [*(prefix + pattern for pattern in allow_missing), *new_heads],
        [prefix + pattern for pattern in allow_unexpected],
        "the checkpoint does not fit the model",
    )
    _report("checkpoint", missing, unexpected)
    for key in unexpected:
        del state[key]
    for key in missing:
        state[key] = own[key].clone()


def _report(source: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    for what, keys in (("kept from the model, not in the file", missing), ("ignored", unexpected)):
        if keys:
            logger.info("%s: %d %s: %s", source, len(keys), what, listed_keys(keys))


def load_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
    weights: str = "model",
) -> LoadReport:
    """Read a weights file and load it strictly: :func:`load_state_dict_file`, then :func:`load_into`.

    Raises:
        CheckpointError: as these two.
    """
    state = load_state_dict_file(path, weights)
    return load_into(model, state, allow_missing=allow_missing, allow_unexpected=allow_unexpected, source=str(path))


def _compare(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    allow_missing: Iterable[str],
    allow_unexpected: Iterable[str],
    problem: str,
    new_heads: Iterable[str] = (),
) -> tuple[list[str], list[str], list[str]]:
    """Return the shared, missing and unexpected keys, sorted, or report what is not allowed."""
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shared = sorted(set(state) & set(own))
    problems = {
        "missing keys": [key for key in missing if not matches(key, allow_missing)],
        "unexpected keys": [key for key in unexpected if not matches(key, allow_unexpected)],
        "keys of another shape": [
            f"{key} {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            for key in shared
            if state[key].shape != own[key].shape
        ],
    }
    found = [f"{len(keys)} {what}: {listed_keys(keys)}" for what, keys in problems.items() if keys]
    if found:
        wrong = [key for keys in problems.values() for key in keys]
        remedy = "Check that the config's model section is that of the checkpoint."
        if all(matches(key, new_heads) for key in wrong):  # differences of shape do not match: they are sentences
            what = "classifier" if any(".classifier." in key for key in wrong) else "head for it"
            remedy = (
                f"This checkpoint has no {what}: it was not fine-tuned for this task. Name the checkpoint that "
                "fine-tuning wrote, or fine-tune this one first."
            )
        raise CheckpointError(f"{problem}; {'; '.join(found)}. {remedy}")
    return shared, missing, unexpected


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Tell whether a key fits one of some shell-style patterns."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
