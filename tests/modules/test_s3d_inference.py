"""S3D for inference against the plain module: folding, layouts, pooling, odd sizes, bf16."""

import pytest
import torch

from mmpt.modules.s3d import S3D, random_s3d
from mmpt.modules.s3d_inference import S3DInference, max_along
from mmpt.utils.errors import ConfigError


def video(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    """Random weights whose batch norms and gates do something: shifts, scales and statistics of their own."""
    built = random_s3d(0)
    generator = torch.Generator().manual_seed(1)
    for key, value in built.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.ndim == 1:
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return built


@pytest.fixture(scope="module")
def folded(model):
    return S3DInference(model)


def relative_error(ours, expected):
    return float((ours.double() - expected.double()).abs().max() / expected.double().abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(2, 3, 6, 32, 64), (1, 3, 10, 34, 50), (3, 3, 2, 32, 32), (1, 3, 30, 64, 64)])
def test_folded_equals_plain(model, folded, shape):
    frames = video(*shape)
    plain, ours = model(frames), folded(frames)
    assert ours.keys() == plain.keys()
    for name, expected in plain.items():
        assert ours[name].shape == expected.shape
        assert relative_error(ours[name], expected) < 1e-5
    expected = model.feature_map(frames)
    assert folded.feature_map(frames).shape == expected.shape
    assert relative_error(folded.feature_map(frames), expected) < 1e-5


@torch.inference_mode()
@pytest.mark.parametrize("options", [{"gating": False}, {"space_to_depth": False}])
def test_variants_are_folded_too(options):
    torch.manual_seed(0)
    plain = S3D(num_classes=8, **options).eval()
    frames = video(2, 3, 6, 32, 36)
    assert relative_error(S3DInference(plain)(frames)["mixed_5c"], plain(frames)["mixed_5c"]) < 1e-5


@torch.inference_mode()
def test_the_layout_of_the_input_does_not_matter(folded):
    frames = video(2, 3, 4, 32, 32)
    expected = folded(frames)["video_embedding"]
    assert torch.equal(folded(frames.to(memory_format=torch.channels_last_3d))["video_embedding"], expected)
    turned = frames.transpose(3, 4).contiguous().transpose(3, 4)
    assert torch.equal(folded(turned)["video_embedding"], expected)


def test_the_model_is_left_as_it_is(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ours = S3DInference(model).to(torch.float64)
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    with pytest.raises(ValueError, match="training mode"):
        S3DInference(S3D(num_classes=8))


@torch.inference_mode()
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (2, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
def test_maxima_are_those_of_padded_pooling(kernel, stride, size):
    values = video(2, 5, size, seed=size)
    total = max(kernel - stride, 0)
    padded = torch.nn.functional.pad(values, (total // 2, total - total // 2))
    expected = torch.nn.functional.max_pool1d(padded, kernel, stride, ceil_mode=True)
    assert torch.equal(max_along(values, 2, kernel, stride), expected)


@torch.inference_mode()
def test_not_a_number_is_not_hidden(folded):
    frames = video(1, 3, 4, 32, 32)
    frames[0, 1, 2, 3, 4] = torch.nan
    assert folded(frames)["video_embedding"].isnan().any()


@torch.inference_mode()
def test_bf16_is_near_and_features_stay_float32():
    plain = random_s3d(0)
    frames = video(2, 3, 6, 64, 64)
    ours, expected = S3DInference(plain, torch.bfloat16)(frames), plain(frames)
    for name in expected:
        assert ours[name].dtype == torch.float32
        assert 1e-5 < relative_error(ours[name], expected[name]) < 0.02


def test_the_encoder_takes_a_dtype_and_records_it():
    from mmpt.modules.feature_encoders import S3DEncoder

    encoder = S3DEncoder(random_init=0, dtype="bf16")
    assert encoder.provenance()["compute_dtype"] == "bf16"
    assert {value.dtype for name, value in encoder.model.named_parameters() if value.ndim == 4} == {torch.bfloat16}
    with pytest.raises(ConfigError, match="'fp16' is not one of fp32, bf16"):
        S3DEncoder(random_init=0, dtype="fp16")
