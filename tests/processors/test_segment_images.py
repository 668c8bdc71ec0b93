"""Frames of MERLOT and MERLOT Reserve: the published pixels of evaluation, and what training makes of a frame."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.processors import segment_images
from mmpt.processors.resize_kernels import KERNELS, kernel_weights, resize_part
from mmpt.processors.segment_images import (
    MERLOTTransform,
    ReserveTransform,
    fit_antialiased,
    fit_corners,
    fitted_size,
    image_scale,
)
from mmpt.utils.errors import ConfigError

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "data" / "segment_images.npz")
RNG = np.random.default_rng(0)
PHOTO = np.clip(RNG.normal(0, 8, (90, 120, 3)) + np.linspace(20, 220, 120)[:, None], 0, 255).astype(np.uint8)
BOTH = [MERLOTTransform((48, 64)), ReserveTransform((48, 64))]


@pytest.mark.parametrize("name", ["wide", "tall", "up"])
def test_evaluation_of_merlot_is_the_published_one(name):
    image, wanted = GOLDEN[f"merlot/{name}/in"], GOLDEN[f"merlot/{name}/out"]
    pixels = fit_corners(image, *wanted.shape[:2])
    np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy(), wanted, atol=1e-5)
    rounded = MERLOTTransform(wanted.shape[:2])(image)
    assert rounded.dtype == np.uint8 and abs(rounded / 255 - pixels.numpy()).max() <= 1 / 255


@pytest.mark.parametrize(("name", "grid"), [("wide", (4, 6)), ("tall", (4, 6)), ("sq", (4, 4)), ("hd", (12, 20))])
def test_evaluation_of_reserve_is_the_published_one(name, grid):
    image, wanted = GOLDEN[f"reserve/{name}/in"], GOLDEN[f"reserve/{name}/patches"]
    pixels = fit_antialiased(image, 16 * grid[0], 16 * grid[1])
    patches = pixels.reshape(3, grid[0], 16, grid[1], 16).permute(1, 3, 2, 4, 0).reshape(wanted.shape)
    np.testing.assert_allclose(patches.numpy(), wanted, atol=1e-5)
    rounded = ReserveTransform((16 * grid[0], 16 * grid[1]))(image)
    assert rounded.dtype == np.uint8 and abs(rounded / 255 - pixels.numpy()).max() <= 1 / 255


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [((90, 160, 48, 96), (48, 85)), ((120, 70, 64, 64), (64, 37)), ((500, 2, 64, 64), (64, 1)), ((7, 7, 3, 9), (3, 3))],
)
def test_fitted_sizes(sizes, wanted):
    assert fitted_size(sizes[:2], sizes[2:]) == wanted


@pytest.mark.parametrize("transform", BOTH)
@pytest.mark.parametrize("shape", [(90, 120), (120, 90), (48, 64), (10, 12), (300, 20), (1, 1)])
def test_training_gives_oblongs_of_one_size(transform, shape):
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(12):
        pixels = transform(image, np.random.default_rng(seed))
        assert pixels.shape == (3, 48, 64) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, transform(image, np.random.default_rng(seed)))


@pytest.mark.parametrize("transform", BOTH)
def test_training_shows_most_of_a_frame_and_never_the_same_twice(transform):
    drawn = np.stack([transform(PHOTO, np.random.default_rng(seed)) for seed in range(300)])
    assert len({one.tobytes() for one in drawn}) > 200
    assert (drawn[:, :, :, :60] > 0).mean() > 0.95  # 4:3 on 4:3: no black
    assert abs(drawn.mean((0, 2, 3)) - PHOTO.mean((0, 1))).max() < 12


def test_every_kernel_keeps_what_is_even_and_where_things_are():
    image = torch.full((3, 40, 50), 77, dtype=torch.uint8)
    image[:, :20] = 177
    for kernel in segment_images._RESERVE_KERNELS:
        resized = segment_images._resize(image, (20, 25), (2, 3), (16, 20), kernel)
        assert resized.shape == (3, 16, 20) and (resized[:, 14] == 77).all() and (resized[:, 1] == 177).all(), kernel
    for kernel in segment_images._CORNER_KERNELS:
        resized = segment_images._resize_corners(image, (30, 25), kernel)
        assert resized.shape == (3, 30, 25) and (resized[:, -1] == 77).all() and (resized[:, 0] == 177).all(), kernel


def test_kernels_by_matrices_are_those_of_torch():
    image = torch.from_numpy(PHOTO).permute(2, 0, 1)
    wanted = torch.nn.functional.interpolate(image.float()[None], (31, 57), mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(
        resize_part(image, (31, 57), (3, 4), (20, 40), "triangle"), wanted[:, 3:23, 4:44], atol=0.51
    )
    for name in KERNELS:
        weights, begins, ends = kernel_weights(name, 90, 31)
        assert all(not row[:b].any() and not row[e:].any() for row, b, e in zip(weights, begins, ends, strict=True))
        assert weights.shape == (31, 90) and torch.allclose(weights.sum(1), torch.ones(31))
        assert torch.allclose(weights, weights.flip(0, 1), atol=1e-6)  # symmetric
        assert torch.allclose(kernel_weights(name, 20, 20).values.argmax(1), torch.arange(20))


def test_jitter_changes_brightness_or_contrast_by_no_more_than_a_third(monkeypatch):
    pixels = torch.from_numpy(PHOTO).permute(2, 0, 1) // 2 + 30
    brightness = contrast = 0
    for seed in range(400):
        changed = segment_images._jittered(pixels, np.random.default_rng(seed)).float()
        means, deviations = pixels.float().mean((1, 2)), pixels.float().std((1, 2))
        bright, spread = changed.mean((1, 2)) / means, changed.std((1, 2)) / deviations
        assert (abs(spread - 1) < 0.34).all() and (abs(bright - 1) < 0.34).all()
        brightness += bool((abs(bright - spread) < 0.02).all())
        contrast += bool((abs(bright - 1) < 0.02).all() and not (abs(bright - spread) < 0.02).all())
    assert brightness + contrast == 400 and abs(brightness - 200) < 40
    monkeypatch.setattr(segment_images, "_jittered", lambda pixels, rng: pixels * 0 + 255)
    white = [MERLOTTransform((48, 64))(PHOTO, np.random.default_rng(seed)).min() == 255 for seed in range(500)]
    assert abs(np.mean(white) - 0.8) < 0.06


def test_high_frames_are_turned_in_training_alone():
    image = np.zeros((80, 40, 3), np.uint8)
    image[:, 20:] = 200  # right becomes top
    turned = ReserveTransform((40, 80))(image, np.random.default_rng(0))
    assert turned[:, 5].mean() > 190 and turned[:, -5].mean() < 10 and (turned[:, 5, 70] > 190).all()
    for upright in (
        ReserveTransform((40, 80), rotate=False)(image, np.random.default_rng(0)),
        ReserveTransform((40, 80))(image),
        ReserveTransform((40, 80))(image[:52], np.random.default_rng(0)),
    ):
        assert not upright[:, :, 60:].any()


def test_scales():
    assert image_scale(None, (1.0, 2.0)) == (1, 2) and image_scale([1, 1.88], (1.0, 2.0)) == (1, 1.88)
    for given in (1.5, [1.5], [2, 1], [0.5, 1], "1, 2", ["a", "b"]):
        with pytest.raises(ConfigError, match=r"dataset\.image_scale"):
            image_scale(given, (1.0, 2.0))
    whole = ReserveTransform((45, 60), scale=(1.0, 1.0))
    assert abs(whole(PHOTO, np.random.default_rng(0)).astype(int) - whole(PHOTO)).mean() < 8


@pytest.mark.parametrize("transform", BOTH, ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_frames_are_written_where_they_are_wanted(transform, seed):
    for image in (PHOTO, PHOTO[:20], PHOTO[:, :20]):
        fresh, again = (seed if seed is None else np.random.default_rng(seed) for _ in range(2))
        out = np.full((3, *transform.size), 77, np.uint8)
        assert transform(image, again, out) is out
        np.testing.assert_array_equal(out, transform(image, fresh))
