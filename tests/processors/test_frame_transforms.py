"""Frames as squares: worked examples, an independent resampling, and what is random about them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmpt.processors.frame_transforms import (
    TRANSFORMS,
    FrameTransform,
    crop_square,
    pad_resize,
    refuse_oblong,
    resize,
    resize_short_side,
)
from mmpt.utils.errors import ConfigError, DataError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height, width):
    """Red tells the row, green the column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)
    return image


def triangle(size, new):
    """Weights (new, size) of bilinear resampling that covers every pixel, from the definition of the triangle."""
    scale = size / new
    reach = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(1, keepdims=True)


@given(*(st.integers(1, 40) for _ in range(4)), st.integers(0, 99))
def test_resizing_covers_every_pixel(height, width, new_height, new_width, seed):
    image = noise(height, width, seed)
    expected = np.einsum("ih,jw,hwc->ijc", triangle(height, new_height), triangle(width, new_width), image)
    assert np.abs(resize(image, new_height, new_width) - expected).max() <= 1.5  # rounded once in each direction


def test_padding_rounds_down_at_both_ends():
    white = np.full((3, 8, 3), 255, np.uint8)
    # five lines are missing: two black ones at each end, and seven of eight are there
    padded = np.zeros((7, 8, 3), np.uint8)
    padded[2:5] = 255
    assert np.array_equal(pad_resize(white, 8), np.asarray(Image.fromarray(padded).resize((8, 8), 2)))
    even = np.full((4, 8, 3), 255, np.uint8)
    assert pad_resize(even, 8)[:, :, 0].tolist() == [[0] * 8] * 2 + [[255] * 8] * 4 + [[0] * 8] * 2
    assert np.array_equal(pad_resize(even.transpose(1, 0, 2), 8), pad_resize(even, 8).transpose(1, 0, 2))


def test_the_shorter_side_and_the_middle():
    assert resize_short_side(noise(240, 320), 224).shape == (224, 298, 3)  # 298.67
    assert resize_short_side(noise(320, 240), 224).shape == (298, 224, 3)
    image = ramp(10, 15)
    assert np.array_equal(crop_square(image, 10), image[:, 2:12])  # 2.5, half to even
    assert np.array_equal(crop_square(ramp(17, 10), 10), ramp(17, 10)[4:14])  # 3.5


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), st.integers(4, 30), st.integers(4, 30))
def test_crops_lie_within(row, column, height, width):
    size = min(height, width)
    image = ramp(height, width)
    square = crop_square(image, size, (row, column))
    top, left = int(square[0, 0, 0]), int(square[0, 0, 1])
    assert np.array_equal(square, image[top : top + size, left : left + size])
    assert top == int(row * (height - size + 1)) and left == int(column * (width - size + 1))


def crops(name, seed, frames=6, height=8, width=40):
    pixels = FrameTransform(name, 8)([ramp(height, width)] * frames, seed and np.random.default_rng(seed))
    assert pixels.shape == (frames, 3, 8, 8) and pixels.dtype == np.uint8
    if "crop" in name:  # red is the row, green the column
        assert (pixels[:, 0] == np.arange(8)[:, None]).all()
        assert (pixels[:, 1] == pixels[:, 1, :1, :1] + np.arange(8)).all() and not pixels[:, 2].any()
    return pixels[:, 1, 0, 0].tolist()


def test_what_is_random_of_a_clip():
    together = [crops("vid_rand_crop", seed) for seed in range(1, 200)]
    apart = [crops("img_rand_crop", seed) for seed in range(1, 200)]
    assert all(len(set(clip)) == 1 for clip in together)
    assert {clip[0] for clip in together} == set(range(33))  # every place, the last one too
    assert all(len(set(clip)) > 1 for clip in apart)
    assert crops("img_rand_crop", 5) == crops("img_rand_crop", 5)
    for name in TRANSFORMS:
        assert len(set(crops(name, None))) == 1, "nothing is random in a test"
        if "rand" not in name:
            assert crops(name, 7) == crops(name, None)
    for name in ("vid_rand_crop", "img_rand_crop", "vid_center_crop", "img_center_crop"):
        assert crops(name, None) == [16] * 6


def test_one_of_several_is_drawn_for_a_clip_and_tests_take_the_first():
    transform, images = FrameTransform(["vid_rand_crop", "pad_resize"], 8), [ramp(8, 40)] * 3
    padded = FrameTransform("pad_resize", 8)(images)
    is_padded = [np.array_equal(transform(images, np.random.default_rng(seed)), padded) for seed in range(60)]
    assert 15 < sum(is_padded) < 45
    assert np.array_equal(transform(images), FrameTransform("vid_center_crop", 8)(images))


def test_frames_of_several_sizes_share_a_place():
    pixels = FrameTransform(["vid_rand_crop"], 8)([ramp(8, 40), ramp(8, 24)], np.random.default_rng(3))
    left = pixels[:, 1, 0, 0].astype(int)
    assert abs(left[0] / 33 - left[1] / 17) < 1 / 17


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("vid_random_crop", "dataset.image_transform: 'vid_random_crop' is none of .*Did you mean 'vid_rand_crop'"),
        (["pad_resize", 3], "image_transform: 3 is none of"),
        ([], "image_transform: \\[\\] names none of"),
        (None, "image_transform: None names none of"),
    ],
)
def test_names_that_are_none(names, message):
    with pytest.raises(ConfigError, match=message):
        FrameTransform(names, 8)


def test_sizes_that_are_none():
    with pytest.raises(ConfigError, match="dataset.image_size: 0"):
        FrameTransform("pad_resize", 0)
    with pytest.raises(DataError, match="has 500 x 2 pixels, which no video has"):
        refuse_oblong(noise(2, 500))
    assert refuse_oblong(noise(2, 200)).shape == (2, 200, 3)
