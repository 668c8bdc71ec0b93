"""Visual tokens without trained weights: the nearest of K typical patches (vector quantisation by k-means).

A discrete VAE's weights may not be at hand. Lloyd's algorithm (1982) over the 8 x 8 patches of some frames gives a
codebook in seconds whose codes tell colours, edges and textures of these frames apart; each code is used, which a
random network's are not. The codes are as the discrete VAE's a function of an image of one cell per 8 x 8 pixels.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.dvae import CELL, check_images
from mmpt.utils.errors import CheckpointError, DataError

__all__ = ["PatchCodebook", "fit_codebook"]

_ROUNDS = 20


class PatchCodebook(nn.Module):
    """A codebook of patches: float32 ``codebook`` (K, 192), the pixels of 3 x 8 x 8 in [0, 1]."""

    codebook: Tensor

    def __init__(self, codebook: Tensor) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.float())
        self.num_codes = len(codebook)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], source: str = "state dict") -> "PatchCodebook":
        """Build the codebook that ``state`` holds.

        Raises:
            CheckpointError: if it holds none; names ``source``.
        """
        found = state.get("codebook")
        if set(state) != {"codebook"} or found is None or found.dim() != 2 or found.shape[1] != 3 * CELL**2:
            raise CheckpointError(f"{source}: not a codebook of patches (one tensor codebook, K x {3 * CELL**2})")
        return cls(found).eval()

    def codes(self, images: Tensor) -> Tensor:
        """Return the nearest patch of each cell, int64 (N, H / 8, W / 8), of images as the discrete VAE takes them.

        Raises:
            DataError: if the images are of another shape.
        """
        rows, columns = images.shape[-2] // CELL, images.shape[-1] // CELL
        return _nearest(patches_of(images), self.codebook).view(len(images), rows, columns)


def patches_of(images: Tensor) -> Tensor:
    """Cut images (N, 3, H, W), uint8 or float in [0, 1], into float32 patches (N * H / 8 * W / 8, 192).

    Raises:
        DataError: if the images are of another shape.
    """
    check_images(images)
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return F.unfold(scaled, CELL, stride=CELL).transpose(1, 2).flatten(0, 1)


def fit_codebook(images: Tensor, num_codes: int, seed: int = 0) -> PatchCodebook:
    """Fit a codebook to images (N, 3, H, W) by k-means from distinct patches drawn at random.

    Raises:
        DataError: if the images have fewer distinct patches than codes.
    """
    patches = patches_of(images)
    distinct = torch.unique(patches, dim=0)
    if len(distinct) < num_codes:
        raise DataError(f"{len(distinct)} distinct patches for {num_codes} codes: take fewer codes or more frames")
    chosen = np.random.default_rng(seed).choice(len(distinct), num_codes, replace=False)
    codebook = distinct[torch.from_numpy(chosen)]
    for _ in range(_ROUNDS):
        codes = _nearest(patches, codebook)
        counts = torch.bincount(codes, minlength=num_codes)
        sums = torch.zeros_like(codebook).index_add_(0, codes, patches)
        # A code that no patch is nearest to stays where it is.
        moved = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), codebook)
        if torch.equal(moved, codebook):
            break
        codebook = moved
    return PatchCodebook(codebook).eval()


def _nearest(patches: Tensor, codebook: Tensor) -> Tensor:
    # |p - c|^2 without its part |p|^2, which is the same for every code
    return torch.cat([(codebook.square().sum(1) - 2 * part @ codebook.T).argmin(1) for part in patches.split(1 << 14)])
