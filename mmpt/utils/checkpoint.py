"""Weights in and out: files are read without executing code, and loading is strict with a report."""

import argparse
import fnmatch
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import atomic_open, resolve_path
from mmpt.utils.flax_checkpoint import is_flax_checkpoint, read_flax_checkpoint
from mmpt.utils.tf_checkpoint import OPTIMIZER_STATE, read_tf_checkpoint, tf_prefix

__all__ = [
    "WEIGHTS",
    "LoadReport",
    "allow_fairseq_checkpoints",
    "checkpoint_file",
    "load_checkpoint",
    "load_into",
    "load_state_dict_file",
    "matches",
    "read_torch",
    "read_training_checkpoint",
    "reconcile",
    "save_safetensors",
    "unwrap",
]

logger = logging.getLogger(__name__)

FAIRSEQ_PREFIX = "mmmodel."
#: Which weights of a training checkpoint are meant, as in ``eval.weights``.
WEIGHTS = ("model", "ema")
#: What fairseq resumes from, and its default --restore-file.
LAST_CHECKPOINT = "checkpoint_last.pt"
SHOWN_KEYS = 8
#: A tensor of no more elements may repeat what is stored (an expanded buffer); a larger one could fill the memory.
_SMALL = 1 << 20


def allow_fairseq_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` accept the argparse.Namespace inside fairseq's own checkpoints.

    The plugin calls this, because fairseq's resume code calls ``torch.load`` itself.
    """
    torch.serialization.add_safe_globals([argparse.Namespace])


def load_state_dict_file(path: str | os.PathLike[str], weights: str = "model") -> dict[str, Tensor]:
    """Read the weights of a .pt, .pth, .bin, .safetensors, Flax or TensorFlow checkpoint onto the CPU.

    A TensorFlow checkpoint is named by its prefix, as ``model.ckpt``, or by one of its files, as ``model.ckpt.index``;
    what its training kept beside the weights is not read. fairseq layouts are unwrapped (:func:`unwrap`), and half
    precision becomes float32. A pickle that asks for anything but tensors, plain containers and argparse.Namespace is
    refused, so nothing in it runs.

    Args:
        weights: which of a training checkpoint's, one of :data:`WEIGHTS`: the model's own, or their moving average.

    Raises:
        CheckpointError: if the file is missing, damaged, refused or holds no such weights; names the file.
    """
    content = _read(resolve_path(path), str(path))
    return unwrap(content if weights == "model" else _average(content, str(path)), source=str(path))


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """Return the file by which it is known that a checkpoint is there, and which it is: its index, of TensorFlow's."""
    prefix = tf_prefix(path)
    return Path(path) if prefix is None else Path(f"{prefix}.index")


def _read(file: Path, source: str) -> Any:
    """Return what a file holds, by what it is; ``source`` is its name in errors."""
    prefix = tf_prefix(file)
    if prefix is not None:
        return read_tf_checkpoint(prefix, without=OPTIMIZER_STATE)
    if not file.is_file():
        raise CheckpointError(f"{source}: no such checkpoint file")
    try:
        open(file, "rb").close()  # safetensors calls a file that may not be read missing
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror})") from error
    return _content(file)


def _content(file: Path) -> Any:
    """Return what a file of any known kind holds."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    if is_flax_checkpoint(file):
        return read_flax_checkpoint(file)
    return read_torch(file)


def _average(content: Any, source: str) -> Any:
    """Return the moving average of a fairseq checkpoint's weights, in float32 where it was kept so."""
    extra = content.get("extra_state") if isinstance(content, Mapping) else None
    found = (extra.get("ema_fp32_params") or extra.get("ema")) if isinstance(extra, Mapping) else None
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{source}: holds no moving average of its weights. It is kept by a training with "
            "fairseq.ema.store_ema: true; eval.weights: model takes the weights themselves"
        )
    return found


def read_training_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return all that fairseq's checkpoint holds, its tensors mapped from the file: they are read when they are used.

    Raises:
        CheckpointError: as :func:`load_state_dict_file`.
    """
    content = read_torch(Path(path))
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        raise CheckpointError(f"{path}: not a checkpoint of a training")
    return content


def unwrap(content: Any, source: str = "checkpoint") -> dict[str, Tensor]:
    """Return the tensors of a loaded checkpoint by name, half precision as float32.

    ``state_dict`` and ``model`` levels are opened and fairseq's ``mmmodel.`` prefix is taken off, in that order.

    Raises:
        CheckpointError: if there are no tensors where the weights should be.
    """
    for level in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(level), Mapping):
            content = content[level]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{source}: holds a {type(content).__name__}, not a state dict")
    state = {
        str(key).removeprefix(FAIRSEQ_PREFIX): _copied(value, f"{source}: {key}")
        for key, value in content.items()
        if isinstance(value, Tensor)
    }
    if not state:
        raise CheckpointError(f"{source}: holds no weights (top-level keys: {_listed(map(str, content))})")
    return state


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
            logger.info("%s: %d %s: %s", source, len(keys), what, _listed(keys))


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


def save_safetensors(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as a .safetensors file, atomically; tensors that share memory are written once each."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    content = save(tensors, metadata=dict(metadata or {}))
    with atomic_open(path, "wb") as file:
        file.write(content)


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
    found = [f"{len(keys)} {what}: {_listed(keys)}" for what, keys in problems.items() if keys]
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


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device="cpu")
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{file}: damaged or truncated safetensors file ({error})") from error


def read_torch(file: Path) -> Any:
    """Return what a .pt, .pth, .bin or .pkl file of PyTorch holds, without executing it; tensors may be mapped.

    Beside tensors and plain containers, the classes of the enclosing ``torch.serialization.safe_globals`` are made.

    Raises:
        CheckpointError: if the file is damaged or asks for anything else; names it.
    """
    try:
        # What is allowed already stays so: leaving the block takes away what it was entered with.
        allowed = {argparse.Namespace} - set(torch.serialization.get_safe_globals())
        with torch.serialization.safe_globals(list(allowed)):
            # Mapping the file leaves the optimizer state, two thirds of a training checkpoint, unread.
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        refused = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), "")
        if refused:
            raise CheckpointError(
                f"{file}: refused, because it would run code when loaded ({refused}). "
                "Only tensors and plain containers are read; ask its author for a file of weights alone."
            ) from error
        raise CheckpointError(f"{file}: damaged, or not a PyTorch checkpoint ({_fault(error)})") from error
    except Exception as error:  # what torch raises for cut or overwritten bytes depends on where they are
        raise CheckpointError(
            f"{file}: damaged or truncated ({_first_line(error)}). Fetch or save it again."
        ) from error


def _copied(tensor: Tensor, name: str) -> Tensor:
    """Return a copy as float32; CheckpointError if the tensor has no content, or claims more than the file holds."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or (
        tensor.numel() > _SMALL and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ):
        raise CheckpointError(
            f"{name} is not a plain tensor ({tensor.layout}, {tensor.device}, {tuple(tensor.shape)}): its values are "
            "not all in the file. Save it again, from contiguous tensors."
        )
    # A copy either way: the source may be a mapped file, which must not outlive its reader.
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.detach().to(torch.float32 if half else tensor.dtype, copy=True)


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Tell whether a key fits one of some shell-style patterns."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    rest = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _fault(error: BaseException) -> str:
    """Return what PyTorch's restricted reader has met, without its advice to read the file unrestricted."""
    found = re.search(r"WeightsUnpickler error: (.*)", str(error))
    return found[1].strip() if found else "its pickle cannot be read"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
