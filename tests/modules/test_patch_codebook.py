"""Visual tokens by k-means: each code is the nearest patch, typical patches are found, the same seed gives the same."""

import numpy as np
import pytest
import torch

from mmpt.modules.patch_codebook import fit_codebook
from mmpt.modules.visual_tokenizer import load_visual_tokenizer
from mmpt.utils.errors import CheckpointError, DataError
from mmpt.utils.weight_files import save_safetensors

COLOURS = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220], [240, 240, 240]], dtype=torch.uint8)


def mosaics(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 3 x 4 cells of one of four colours with a little noise, and the colour of each cell."""
    rng = np.random.default_rng(seed)
    kinds = torch.from_numpy(rng.integers(4, size=(count, 3, 4)))
    images = COLOURS[kinds].permute(0, 3, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    noise = torch.from_numpy(rng.integers(-6, 7, size=images.shape))
    return (images.long() + noise).clamp(0, 255).to(torch.uint8), kinds


def test_cells_of_one_colour_get_one_code() -> None:
    images, kinds = mosaics(20)
    codes = fit_codebook(images, 8).codes(mosaics(6, seed=1)[0])
    kinds = mosaics(6, seed=1)[1]
    assert codes.shape == (6, 3, 4) and codes.dtype == torch.int64
    owners = {(int(code), int(kind)) for code, kind in zip(codes.flatten(), kinds.flatten(), strict=True)}
    assert len({code for code, _ in owners}) == len(owners)  # no code stands for two colours


def test_codes_are_the_nearest_patches() -> None:
    images, _ = mosaics(3)
    book = fit_codebook(images, 5)
    patch = images[1, :, 8:16, 16:24].double().flatten() / 255
    distances = (book.codebook.double() - patch).square().sum(1)
    assert book.codes(images)[1, 1, 2] == distances.argmin()
    assert torch.equal(book.codes(images / 255), book.codes(images))


def test_a_seed_gives_one_codebook_and_a_file_gives_it_back(tmp_path) -> None:
    images, _ = mosaics(4)
    one = fit_codebook(images, 6, seed=3)
    assert torch.equal(one.codebook, fit_codebook(images, 6, seed=3).codebook)
    save_safetensors(tmp_path / "book.safetensors", one.state_dict())
    read = load_visual_tokenizer(tmp_path / "book.safetensors")
    assert read.num_codes == 6 and torch.equal(read.codes(images), one.codes(images))
    save_safetensors(tmp_path / "bad.safetensors", {"codebook": torch.zeros(4, 5)})
    with pytest.raises(CheckpointError, match=r"bad\.safetensors: not a codebook"):
        load_visual_tokenizer(tmp_path / "bad.safetensors")


def test_more_codes_than_patches_are_refused() -> None:
    with pytest.raises(DataError, match="1 distinct patches for 2 codes"):
        fit_codebook(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), 2)
