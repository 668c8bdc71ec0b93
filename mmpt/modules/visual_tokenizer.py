"""The network that names what a square of a frame shows, from a local file of weights."""

import os
from pathlib import Path
from typing import Protocol

from torch import Tensor

from mmpt.modules.dvae import CELL, DVAEEncoder
from mmpt.modules.patch_codebook import PatchCodebook
from mmpt.utils.errors import ConfigError
from mmpt.utils.module_pickle import load_pickled_module
from mmpt.utils.weight_files import load_state_dict_file

__all__ = ["BLOCK", "VisualTokenizer", "load_visual_tokenizer", "token_image_size"]

#: Pixels along each side of the square of a frame that one visual token stands for (VIOLET, section 3.2).
BLOCK = 32
# What the published encoder.pkl, a pickled module, is made of.
_PUBLISHED_CLASSES = ("dall_e.encoder.Encoder", "dall_e.encoder.EncoderBlock", "dall_e.utils.Conv2d")


class VisualTokenizer(Protocol):
    """What makes visual tokens: ``num_codes`` and the codes of images (N, 3, H, W), int64 (N, H / 8, W / 8)."""

    num_codes: int

    def codes(self, images: Tensor) -> Tensor:
        """Return the code of each cell of 8 x 8 pixels."""


def load_visual_tokenizer(path: str | os.PathLike[str]) -> DVAEEncoder | PatchCodebook:
    """Read a discrete VAE's encoder or a codebook of patches, in evaluation mode.

    Args:
        path: state dict (.pt, .safetensors) or the published ``encoder.pkl``, a pickled module, of which the tensors
            alone are taken.

    Raises:
        CheckpointError: if the file is missing, damaged, holds something else, or would run code; names it.
    """
    if Path(path).suffix == ".safetensors":
        state = load_state_dict_file(path)
    else:
        state = load_pickled_module(path, _PUBLISHED_CLASSES)
    kind = PatchCodebook if "codebook" in state else DVAEEncoder
    return kind.from_state(state, str(path))


def token_image_size(frame_size: int) -> int:
    """Return the side of the image that gives one code per 32 x 32 pixels of a frame of ``frame_size`` pixels.

    Raises:
        ConfigError: if the frame is no whole number of such squares.
    """
    if frame_size < BLOCK or frame_size % BLOCK:
        raise ConfigError(f"dataset.image_size: {frame_size} is not a multiple of {BLOCK}, the side of a visual token")
    return frame_size // BLOCK * CELL
