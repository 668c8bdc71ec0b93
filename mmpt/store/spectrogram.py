"""Log-mel spectrograms as MERLOT Reserve hears them (arXiv:2201.02639, appendix), and back to sound.

Five seconds at 22050 Hz become 188 frames of 64 mel bands, ``ln(mel + 0.1) - ln(0.1)``: silence is zero. The Hann
window is symmetric and the ends of the sound are reflected, as the published weights were trained. Faster playback by
``s`` stretches window and hop by ``s``, so that ``5 s`` seconds of sound fill the same 188 frames. Three blocks of 60
frames with the speed as 65th feature are what the audio encoder takes.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mmpt.utils.errors import DataError

__all__ = [
    "BLOCKS",
    "BLOCK_FRAMES",
    "INFERENCE_STARTS",
    "SEGMENT_SECONDS",
    "MelOptions",
    "invert_spectrogram",
    "log_mel",
    "make_spectrogram",
    "mel_blocks",
]

#: A segment is so long at speed 1, and its spectrogram is cut into so many blocks of so many frames.
SEGMENT_SECONDS = 5.0
BLOCKS, BLOCK_FRAMES = 3, 60
#: Where the blocks of 188 frames begin at inference.
INFERENCE_STARTS = (2, 64, 126)

_MOMENTUM = 0.99  # of Griffin-Lim, as Perraudin et al. (2013) recommend
_TINY = 1e-12


@dataclass(frozen=True)
class MelOptions:
    """What a spectrogram depends on; the defaults are the published ones.

    ``window`` and ``hop`` are in samples at playback speed 1, ``low`` and ``high`` in Hz.
    """

    window: int = 1536
    hop: int = 588
    bands: int = 64
    low: float = 20.0
    high: float = 11025.0
    offset: float = 0.1

    def at_speed(self, playback_speed: float) -> tuple[int, int]:
        """Return window and hop in samples at a playback speed.

        Raises:
            DataError: if the speed is not at least 1.
        """
        if not 1 <= playback_speed < math.inf:
            raise DataError(f"a playback speed is at least 1, not {playback_speed}")
        return int(self.window * playback_speed), int(self.hop * playback_speed)


PUBLISHED = MelOptions()


@functools.lru_cache(maxsize=32)
def _mel_bank(sr: int, window: int, options: MelOptions) -> torch.Tensor:
    """Return Slaney's triangular filters, float32 (bands, window // 2 + 1), each of unit area."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        window // 2 + 1,
        options.bands,
        options.low,
        min(options.high, sr / 2),
        sr,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(bank.T.astype(np.float32))


@functools.lru_cache(maxsize=32)
def _hann(window: int) -> torch.Tensor:
    return torch.hann_window(window, periodic=False, dtype=torch.float64).float()


def log_mel(
    wave: np.ndarray | torch.Tensor, playback_speed: float = 1, sr: int = 22050, options: MelOptions = PUBLISHED
) -> np.ndarray:
    """Compute the log-mel spectrogram of sound.

    Args:
        wave: float (..., samples), -1 to 1; one that goes beyond is scaled by its largest sample, as published.
        playback_speed: how much faster it is played, at least 1.
        sr: samples per second, which places the filters. TVQA's sound has 22620 Hz but the filters of 22050, so that
            4 2/3 seconds give 180 frames: leave ``sr`` for it.
        options: of the spectrogram.

    Returns:
        float32 (..., 1 + samples // hop, 64); nothing but zeros where there is no sound.

    Raises:
        DataError: if a sample is not a finite number, or the speed is below 1.
    """
    window, hop = options.at_speed(playback_speed)
    sound = torch.as_tensor(wave, dtype=torch.float32)
    leading, samples = sound.shape[:-1], sound.shape[-1]
    frames = 1 + samples // hop
    # real and imaginary part of a bin, squared, are weighed alike: their sum need not be formed
    bank = _mel_bank(sr, window, options).T.repeat_interleave(2, 0).contiguous()
    logs = torch.empty(math.prod(leading), frames, options.bands)
    for number, one in enumerate(sound.reshape(math.prod(leading), samples)):  # what one needs stays in the cache
        peak = float(one.abs().max()) if samples else 0.0
        if not math.isfinite(peak):
            raise DataError("a wave has samples that are no finite numbers")
        one = one / peak if peak > 1 else one
        if samples <= window // 2:  # too short to be reflected
            one = torch.nn.functional.pad(one, (0, window // 2 + 1 - samples))
        padded = torch.nn.functional.pad(one[None], (window // 2, window // 2), mode="reflect")[0]
        bins = torch.fft.rfft(padded.unfold(0, window, hop)[:frames] * _hann(window))
        torch.matmul(torch.view_as_real(bins).flatten(1).square_(), bank, out=logs[number])
    logs.add_(options.offset).log_().sub_(math.log(options.offset))
    return logs.reshape(*leading, frames, options.bands).numpy()


def mel_blocks(
    spec: np.ndarray,
    playback_speed: float,
    starts: Sequence[int] = INFERENCE_STARTS,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Cut a spectrogram into blocks of 60 frames and append the playback speed to each frame.

    Args:
        spec: (frames, 64).
        playback_speed: of the segment.
        starts: where each block begins.
        out: where to write, floats (blocks, 60, 65); None: into new memory.

    Returns:
        ``out``, or float32 (blocks, 60, 65).

    Raises:
        DataError: if a block leaves the spectrogram; says how long it is.
    """
    first, last = min(starts), max(starts) + BLOCK_FRAMES
    if first < 0 or last > len(spec):
        raise DataError(f"blocks of {BLOCK_FRAMES} frames from {list(starts)} on need {last} frames, not {len(spec)}")
    blocks = np.empty((len(starts), BLOCK_FRAMES, spec.shape[1] + 1), np.float32) if out is None else out
    for block, start in zip(blocks, starts, strict=True):
        block[:, :-1] = spec[start : start + BLOCK_FRAMES]
    blocks[..., -1] = np.float32(playback_speed)
    return blocks


def make_spectrogram(wave: np.ndarray, playback_speed: float = 1, sr: int = 22050, pad_size: int = 2) -> np.ndarray:
    """Turn the sound of a segment into what the audio encoder takes at inference.

    Args:
        wave: float (samples,): 5 seconds at 22050 Hz with ``pad_size`` 2; 4.79 seconds, or TVQA's 4 2/3 at 22620 Hz,
            with 0.
        playback_speed: how much faster it is played.
        sr: as in :func:`log_mel`.
        pad_size: frames left out before, between and after the blocks.

    Returns:
        float32 (3, 60, 65).

    Raises:
        DataError: if the sound does not fill the frames.
    """
    starts = [pad_size + number * (BLOCK_FRAMES + pad_size) for number in range(BLOCKS)]
    spec = log_mel(wave, playback_speed, sr)
    needed = BLOCKS * (BLOCK_FRAMES + pad_size) + pad_size
    if len(spec) < needed:
        hop = PUBLISHED.at_speed(playback_speed)[1]
        raise DataError(
            f"{len(wave)} samples give {len(spec)} frames, {needed} are needed: at least {(needed - 1) * hop} samples"
        )
    return mel_blocks(spec, playback_speed, starts)


def invert_spectrogram(
    spec: np.ndarray,
    playback_speed: float = 1,
    sr: int = 22050,
    iterations: int = 32,
    options: MelOptions = PUBLISHED,
    seed: int = 0,
) -> np.ndarray:
    """Guess the sound of a spectrogram, to listen to it: the phases that it lacks by Griffin and Lim's method (1984).

    Args:
        spec: (frames, 64), as :func:`log_mel` returns it; a 65th feature is left out, and blocks (blocks, frames, 65)
            are put one after the other.
        playback_speed: that it was made with; the sound comes at its own speed.
        sr: samples per second.
        iterations: of the estimate.
        options: of the spectrogram.
        seed: of the first phases.

    Returns:
        float32 (samples,), -1 to 1.

    Raises:
        DataError: if ``spec`` has fewer bands.
    """
    logs = torch.as_tensor(np.asarray(spec, np.float32))
    if logs.ndim not in (2, 3) or logs.shape[-1] < options.bands or not logs.numel():
        raise DataError(f"a spectrogram has {options.bands} mel bands a frame, not the shape {tuple(logs.shape)}")
    logs = logs.reshape(-1, logs.shape[-1])[:, : options.bands].T
    window, hop = options.at_speed(playback_speed)
    hann, samples = _hann(window), hop * (logs.shape[1] - 1)
    mel = (torch.exp(logs + math.log(options.offset)) - options.offset).clamp(min=0)
    magnitude = _linear(mel, _mel_bank(sr, window, options)).sqrt()
    generator = torch.Generator().manual_seed(seed)
    phases = torch.polar(torch.ones_like(magnitude), 2 * math.pi * torch.rand(magnitude.shape, generator=generator))
    before = torch.zeros_like(phases)
    wave = torch.zeros(max(1, samples))
    for _ in range(iterations if samples > window else 0):
        wave = torch.istft(magnitude * phases, window, hop, window, hann, length=samples)
        estimate = torch.stft(wave, window, hop, window, hann, pad_mode="reflect", return_complex=True)
        phases = estimate - before * (_MOMENTUM / (1 + _MOMENTUM))
        phases, before = phases / phases.abs().clamp(min=_TINY), estimate
    return np.asarray((wave / wave.abs().max().clamp(min=1)).numpy(), np.float32)


def _linear(mel: torch.Tensor, bank: torch.Tensor, steps: int = 60) -> torch.Tensor:
    """Return a power spectrum (bins, frames) of no negative value whose mel bands are nearly ``mel`` (bands, frames).

    By multiplicative updates (Lee and Seung, 2001), which keep the sign; bins that no filter looks at stay silent.
    """
    power = bank.T @ (mel / bank.sum(1, keepdim=True).clamp(min=_TINY))
    target = bank.T @ mel
    for _ in range(steps):
        power = power * target / (bank.T @ (bank @ power)).clamp(min=_TINY)
    return power
