"""The small 3-D convolutional encoder: seeded, standardised, and sensitive to motion and colour."""

import pytest
import torch

from mmpt.modules import conv3d
from mmpt.modules.conv3d import SmallConv3d, synthetic_clips


@pytest.fixture(scope="module")
def encoder() -> SmallConv3d:
    return SmallConv3d()


@pytest.fixture
def quick(monkeypatch):
    """Encoders that calibrate themselves with fewer clips, where that is not what is tested."""
    monkeypatch.setattr(conv3d, "_CALIBRATION_CLIPS", 24)


def box(
    colour: tuple[float, float, float], step: int, first: int = 24, frames: int = 8, size: int = 64
) -> torch.Tensor:
    """Return (1, 3, frames, size, size): a square of 14 pixels that moves ``step`` pixels a frame before gray."""
    clip = torch.full((1, 3, frames, size, size), 0.3)
    for frame in range(frames):
        left = first + step * frame
        clip[0, :, frame, 25:39, left : left + 14] = torch.tensor(colour)[:, None, None]
    return clip


def distance(encoder: SmallConv3d, one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the distance of two clips' features, relative to their length."""
    first, second = encoder(one)[0], encoder(other)[0]
    return float((first - second).norm() / torch.stack([first, second]).norm(dim=1).mean())


def test_same_seed_same_features_whatever_the_global_generator(encoder):
    clips = synthetic_clips(3, 8, 64, torch.Generator().manual_seed(5))
    torch.manual_seed(99)
    again = SmallConv3d()
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert torch.equal(encoder(clips), again(clips))


def test_another_seed_is_another_encoder(quick):
    clips = synthetic_clips(3, 8, 64, torch.Generator().manual_seed(5))
    assert not torch.allclose(SmallConv3d()(clips), SmallConv3d(seed=1)(clips), atol=0.1)


@pytest.mark.parametrize("dim", [64, 512, 600])
def test_shape_and_scale(quick, dim):
    features = SmallConv3d(dim=dim)(synthetic_clips(6, 8, 64, torch.Generator().manual_seed(1)))
    assert (features.shape, features.dtype) == ((6, dim), torch.float32)
    assert torch.isfinite(features).all()
    assert features.norm(dim=1).min() > 0.5


def test_widths_agree_on_what_is_near(quick):
    """Another width is a projection of the same description: distances between clips keep their order."""
    clips = synthetic_clips(16, 8, 64, torch.Generator().manual_seed(3))
    near = torch.stack([torch.pdist(SmallConv3d(dim=dim)(clips)) for dim in (512, 600)])
    assert torch.corrcoef(near)[0, 1] > 0.75


def test_descriptors_are_standardised_on_the_synthetic_clips(monkeypatch):
    """Mean 0 and deviation 1 before projection, on the clips that the encoder calibrated itself with."""
    made = []

    def noted(*arguments):
        made.append(synthetic_clips(*arguments))
        return made[-1]

    monkeypatch.setattr(conv3d, "synthetic_clips", noted)
    monkeypatch.setattr(conv3d, "_STATISTICS", {})
    encoder = SmallConv3d()
    (clips,) = made
    assert len(clips) == conv3d._CALIBRATION_CLIPS
    described = torch.cat([encoder._describe(block) for block in clips.split(64)])
    standard = (described - encoder.mean) * encoder.scale
    assert standard.mean(0).abs().max() < 1e-3
    varied = described.std(0) > 1e-4  # a descriptor that no clip excites has nothing to be standardised
    assert varied.float().mean() > 0.95
    assert torch.allclose(standard.std(0)[varied], torch.ones(int(varied.sum())), atol=1e-2)


def test_fresh_clips_are_near_standard_too(encoder):
    clips = synthetic_clips(128, 8, 64, torch.Generator().manual_seed(77))
    standard = (encoder._describe(clips) - encoder.mean) * encoder.scale
    assert standard.mean().abs() < 0.15
    assert 0.8 < standard.std() < 1.25


def test_a_batch_is_its_clips(encoder):
    clips = synthetic_clips(5, 8, 64, torch.Generator().manual_seed(2))
    alone = torch.cat([encoder(clip[None]) for clip in clips])
    assert torch.allclose(encoder(clips), alone, atol=1e-4)


def test_left_and_right_differ_more_than_a_shift_of_place(encoder):
    """The two clips hold the same pictures in opposite order."""
    right = box((0.9, 0.1, 0.1), 4, first=10)
    left = right.flip(2)
    shifted = box((0.9, 0.1, 0.1), 4, first=11)
    assert distance(encoder, right, left) > max(0.5, distance(encoder, right, shifted))


def test_colours_differ(encoder):
    red, blue = box((0.85, 0.1, 0.15), 2), box((0.15, 0.3, 0.9), 2)
    reddish = box((0.88, 0.13, 0.15), 2)
    assert distance(encoder, red, blue) > 0.15
    assert distance(encoder, red, blue) > 2 * distance(encoder, red, reddish)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_still_clips_without_anything_in_them_are_finite(encoder, level):
    features = encoder(torch.full((2, 3, 8, 64, 64), level))
    assert torch.isfinite(features).all()
    assert torch.allclose(features[0], features[1])


def test_nothing_is_trained(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(torch.rand(1, 3, 8, 64, 64, requires_grad=True)).requires_grad
