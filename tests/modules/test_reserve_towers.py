"""Reserve's encoders: published numbers, patches, and what is refused."""

from collections.abc import Callable

import pytest
import torch

from mmpt.models.reserve_weights import published_names
from mmpt.modules.reserve_towers import (
    AttentionPool,
    AudioEncoder,
    SpanEncoder,
    VisionEncoder,
    patches_of,
    tower_options,
)
from mmpt.utils.errors import ConfigError, DataError
from tests.models.published_reserve import reserve_golden

OPTIONS = tower_options(128, 2, 64)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in reserve_golden().items()}


def encoder(golden: dict[str, torch.Tensor], cls: Callable, name: str) -> torch.nn.Module:
    module = cls(OPTIONS).eval()
    state = published_names({key[7:]: value for key, value in golden.items() if key.startswith(f"params/{name}/")})
    module.load_state_dict({key.removeprefix(f"{name}."): value for key, value in state.items()})
    return module


def test_frames_are_encoded_as_published(golden) -> None:
    patches = golden["inputs/images"].view(12, 16, 768)
    with torch.no_grad():
        encoded = encoder(golden, VisionEncoder, "vision_encoder")(patches, (4, 4))
    for ours, name in zip(encoded, ("cls", "seq", "seq_attnpool"), strict=True):
        torch.testing.assert_close(ours, golden[f"outputs/vision/{name}"], atol=1e-4, rtol=0)


def test_sounds_are_encoded_as_published(golden) -> None:
    module, clips = encoder(golden, AudioEncoder, "audio_encoder"), golden["inputs/audio_clips"].view(36, 60, 65)
    with torch.no_grad():
        encoded, half = module(clips), module(clips.half())
    for ours, name in zip(encoded, ("cls", "seq", "seq_attnpool"), strict=True):
        torch.testing.assert_close(ours, golden[f"outputs/audio/{name}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(half.cls, encoded.cls, atol=5e-3, rtol=0)


def test_spans_are_encoded_as_published(golden) -> None:
    tokens = golden["inputs/text_spans"].view(36, 15).long()
    embedded = golden["params/token_encoder/Embed_0/embedding"][tokens]
    assert torch.equal(embedded, golden["outputs/span/token_embs"])
    module = encoder(golden, SpanEncoder, "span_encoder")
    with torch.no_grad():
        vectors = module(embedded, tokens != 0)
        torch.testing.assert_close(vectors, golden["outputs/span/out"], atol=1e-4, rtol=0)
        cut = module(embedded[:, :8], tokens[:, :8] != 0)
    short = (tokens[:, 8:] == 0).all(1)
    torch.testing.assert_close(cut[short], vectors[short], atol=1e-5, rtol=0)


def test_patches_are_in_raster_order_by_row_column_channel() -> None:
    pixels = torch.arange(2 * 3 * 32 * 48).view(2, 3, 32, 48) % 251
    patches = patches_of(pixels.to(torch.uint8))
    assert patches.shape == (2, 6, 768) and patches.dtype == torch.float32
    for row, column, y, x, channel in ((0, 0, 0, 0, 0), (1, 2, 15, 3, 2), (0, 1, 7, 15, 1)):
        value = patches[1, row * 3 + column, (y * 16 + x) * 3 + channel] * 255
        assert round(float(value)) == int(pixels[1, channel, row * 16 + y, column * 16 + x])
    with pytest.raises(DataError, match="multiples of 16"):
        patches_of(torch.zeros(3, 20, 32))
    with pytest.raises(DataError, match=r"\(3, height, width\)"):
        patches_of(torch.zeros(32, 32, 3))


def test_pooling_does_not_depend_on_the_order_of_a_group() -> None:
    pool, groups = AttentionPool(64, 2), torch.randn(2, 3, 4, 64)
    pooled = pool(groups)
    assert pooled.shape == (2, 3, 64)
    torch.testing.assert_close(pool(groups[:, :, [2, 0, 3, 1]]), pooled)
    assert not torch.allclose(pool(groups.flip(1)), pooled)


def test_what_does_not_fit_is_refused() -> None:
    vision, audio = VisionEncoder(tower_options(32, 0, 32)), AudioEncoder(tower_options(32, 0, 32))
    with pytest.raises(DataError, match="grid of 2 x 4"):
        vision(torch.zeros(1, 6, 768), (2, 4))
    with pytest.raises(ConfigError, match="3 x 2"):
        vision(torch.zeros(1, 6, 768), (3, 2))
    with pytest.raises(DataError, match="audio clips"):
        audio(torch.zeros(2, 59, 65))
    with pytest.raises(ConfigError, match="model.hidden_size: 30"):
        tower_options(30, 1, 32)
