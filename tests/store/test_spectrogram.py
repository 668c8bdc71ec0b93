"""Spectrograms: against the published implementation, against a plain computation in numpy, and back to sound."""

from pathlib import Path

import numpy as np
import pytest

from mmpt.store.spectrogram import MelOptions, invert_spectrogram, log_mel, make_spectrogram, mel_blocks
from mmpt.utils.errors import DataError

GOLDEN = Path(__file__).parents[1] / "data" / "reserve_preproc.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def test_spectrograms_are_the_published_ones(golden: dict[str, np.ndarray]) -> None:
    wave = golden["spec/wave"]
    spec = log_mel(wave)
    assert spec.shape == (188, 64) and spec.dtype == np.float32
    np.testing.assert_allclose(spec, np.log(golden["spec/mel"].T + 0.1) - np.log(0.1), atol=1e-4)
    np.testing.assert_allclose(make_spectrogram(wave), golden["spec/out"], atol=1e-4)
    np.testing.assert_allclose(mel_blocks(spec, 1, (2, 64, 126)), golden["spec/out"], atol=1e-4)


@pytest.mark.parametrize(("name", "samples"), [("tvqa", int(22620 * 14 / 3)), ("as", int(22050 * 4.79))])
def test_shorter_sound_without_gaps(golden: dict[str, np.ndarray], name: str, samples: int) -> None:
    blocks = make_spectrogram(golden["spec/wave"][:samples], pad_size=0)
    np.testing.assert_allclose(blocks, golden[f"spec/out_{name}_pad0"], atol=1e-4)


def plain(wave: np.ndarray, speed: int, bank: np.ndarray) -> np.ndarray:
    """The definition, frame by frame."""
    window, hop = 1536 * speed, 588 * speed
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
    padded = np.pad(wave.astype(np.float64), window // 2, mode="reflect")
    frames = [padded[k * hop : k * hop + window] * hann for k in range(1 + len(wave) // hop)]
    return np.log(np.abs(np.fft.rfft(frames)) ** 2 @ bank.T + 0.1) - np.log(0.1)


def slaney(frequency: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1000 Hz, logarithmic above."""
    high = np.maximum(frequency, 1000)
    return np.where(frequency < 1000, frequency * 3 / 200, 15 + 27 * np.log(high / 1000) / np.log(6.4))


def mel_bank(bins: int, sr: int = 22050) -> np.ndarray:
    fine = np.linspace(0, 12000, 1_200_001)
    edges = np.interp(np.linspace(slaney(np.array(20.0)), slaney(np.array(11025.0)), 66), slaney(fine), fine)
    frequency = np.linspace(0, sr / 2, bins)
    rising = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None) * (2 / (edges[2:] - edges[:-2]))[:, None]


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_faster_playback_stretches_window_and_hop(speed: int) -> None:
    wave = 0.4 * np.random.default_rng(0).standard_normal(110250 * speed).clip(-2, 2).astype(np.float32)
    spec = log_mel(wave, speed)
    assert spec.shape == (188, 64)
    np.testing.assert_allclose(spec, plain(wave, speed, mel_bank(768 * speed + 1)), atol=1e-3)
    assert (make_spectrogram(wave, speed)[..., 64] == speed).all()


def test_the_mel_bank_is_the_published_one(golden: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(mel_bank(769), golden["spec/melbank"], atol=1e-6)


def test_a_batch_is_its_parts_and_silence_is_zero() -> None:
    waves = np.random.default_rng(1).uniform(-1, 1, (2, 3, 20000)).astype(np.float32)
    batch = log_mel(waves)
    assert batch.shape == (2, 3, 35, 64)
    np.testing.assert_allclose(batch[1, 2], log_mel(waves[1, 2]), atol=1e-6)
    assert np.abs(log_mel(np.zeros(110250, np.float32))).max() < 1e-6
    assert log_mel(np.zeros(0, np.float32)).shape == (1, 64)
    assert log_mel(np.full(100, 0.5, np.float32)).shape == (1, 64)
    np.testing.assert_allclose(log_mel(5 * waves[0, 0]), log_mel(waves[0, 0] / np.abs(waves[0, 0]).max()), atol=1e-4)


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="no finite numbers"):
        log_mel(np.full(2000, np.nan, np.float32))
    with pytest.raises(DataError, match="at least 1, not 0.5"):
        log_mel(np.zeros(2000, np.float32), 0.5)
    with pytest.raises(DataError, match=r"35 frames, 188 are needed: at least 109956 samples"):
        make_spectrogram(np.zeros(20000, np.float32))
    with pytest.raises(DataError, match="need 188 frames, not 180"):
        mel_blocks(np.zeros((180, 64)), 1, (2, 64, 128))
    with pytest.raises(DataError, match="64 mel bands"):
        invert_spectrogram(np.zeros((10, 32)))


@pytest.mark.parametrize("speed", [1, 2])
def test_the_sound_that_is_guessed_has_the_spectrogram_it_came_from(speed: int) -> None:
    seconds = np.arange(3 * 22050 * speed) / 22050
    wave = (0.5 * np.sin(2 * np.pi * (300 + 100 * seconds) * seconds)).astype(np.float32)
    spec = log_mel(wave, speed)
    again = log_mel(invert_spectrogram(spec, speed), speed)
    inside = slice(3, min(len(spec), len(again)) - 3)
    assert np.abs(again[inside] - spec[inside]).mean() < 0.35
    assert np.corrcoef(again[inside].ravel(), spec[inside].ravel())[0, 1] > 0.9
    blocks = mel_blocks(spec, speed, (0, 50))
    np.testing.assert_array_equal(
        invert_spectrogram(blocks, speed, iterations=2),
        invert_spectrogram(np.concatenate([spec[:60], spec[50:110]]), speed, iterations=2),
    )
    assert len(invert_spectrogram(spec[:1], options=MelOptions())) == 1
