"""Files of weights, in and out: nothing in them is executed, whatever their format.

Training checkpoints and weights of PyTorch, safetensors, and the checkpoints of TensorFlow and Flax. What is read is
brought into a model by :mod:`mmpt.utils.checkpoint`.
"""

import argparse
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import atomic_open, resolve_path
from mmpt.utils.flax_checkpoint import is_flax_checkpoint, read_flax_checkpoint
from mmpt.utils.tf_checkpoint import OPTIMIZER_STATE, read_tf_checkpoint, tf_prefix

__all__ = [
    "FAIRSEQ_PREFIX",
    "LAST_CHECKPOINT",
    "WEIGHTS",
    "allow_fairseq_checkpoints",
    "checkpoint_file",
    "listed_keys",
    "load_state_dict_file",
    "read_torch",
    "read_training_checkpoint",
    "save_safetensors",
    "unwrap",
]

logger = logging.getLogger(__name__)

FAIRSEQ_PREFIX = "mmmodel."
#: Which weights of a training checkpoint are meant, as in ``eval.weights``.
WEIGHTS = ("model", "ema")
#: What fairseq resumes from, and its default --restore-file.
LAST_CHECKPOINT = "checkpoint_last.pt"
_SHOWN_KEYS = 8
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
        raise CheckpointError(f"{source}: holds no weights (top-level keys: {listed_keys(map(str, content))})")
    return state


def save_safetensors(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as a .safetensors file, atomically; tensors that share memory are written once each."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    content = save(tensors, metadata=dict(metadata or {}))
    with atomic_open(path, "wb") as file:
        file.write(content)


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


def listed_keys(keys: Iterable[str]) -> str:
    """Return the first few of some keys for an error, and how many more there are."""
    keys = list(keys)
    rest = len(keys) - _SHOWN_KEYS
    return ", ".join(keys[:_SHOWN_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _fault(error: BaseException) -> str:
    """Return what PyTorch's restricted reader has met, without its advice to read the file unrestricted."""
    found = re.search(r"WeightsUnpickler error: (.*)", str(error))
    return found[1].strip() if found else "its pickle cannot be read"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
