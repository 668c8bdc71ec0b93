"""torch.compile, layer by layer: each transformer layer is compiled where it stands, the rest runs as it is.

Layers of one shape share what is compiled, lengths of sequences are dynamic, and the names of the weights stay.
"""

import importlib.util
import logging
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch import nn

from mmpt.modules.transformer import TransformerLayer
from mmpt.utils.errors import ConfigError, nearest

__all__ = ["COMPILE_MODES", "compile_layers", "compile_mode"]

logger = logging.getLogger(__name__)

#: What ``model.compile`` may be, beside true (the mode ``default``) and false.
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def compile_mode(value: bool | str) -> str | None:
    """Return the mode that ``model.compile`` names, None for none.

    Raises:
        ConfigError: if there is no such mode; names the nearest.
    """
    if isinstance(value, bool):
        return "default" if value else None
    if value not in COMPILE_MODES:
        raise ConfigError(
            f"model.compile: {value!r} is neither true, false nor one of {', '.join(COMPILE_MODES)}."
            f"{nearest(value, COMPILE_MODES)}"
        )
    return value


def compile_layers(model: nn.Module, mode: str, device: torch.device | str = "cpu") -> int:
    """Let every transformer layer of ``model`` compile itself when it is first called; return how many there are.

    Args:
        mode: one of :data:`COMPILE_MODES`.
        device: where the model will run; it decides which compiler is needed.

    Raises:
        ConfigError: if there is no compiler, or the model has no such layer.
    """
    lacking = _lacking(torch.device(device).type)
    if lacking:
        raise ConfigError(f"model.compile: {lacking}; set model.compile: false")
    layers = [module for module in model.modules() if isinstance(module, TransformerLayer)]
    if not layers:
        raise ConfigError(f"model.compile: {type(model).__name__} has no layer of mmpt.modules.transformer")
    for layer in layers:
        layer.compile(dynamic=True, mode=mode)
    logger.info("model.compile: %d layers will be compiled when they are first called (mode %s)", len(layers), mode)
    return len(layers)


def _lacking(device: str) -> str:
    """Say what torch.compile lacks on a kind of device; empty if nothing."""
    if device == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "torch.compile needs triton on a GPU, which is not installed (it comes with torch's CUDA builds)"
        names = [os.environ.get("CC", ""), "gcc", "clang", "cc"]
    else:
        names = [os.environ.get("CXX") or "g++"]
    found = any(name and shutil.which(name.split()[0]) for name in names)
    if not found:
        return f"torch.compile needs a compiler, and {names[0] or 'gcc'} is not installed (Debian, Ubuntu: g++)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return "" if header.exists() else f"torch.compile needs Python's headers, and there is no {header}"
