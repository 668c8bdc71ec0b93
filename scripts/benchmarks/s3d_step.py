"""S3D over seconds of video, our way and naively, on the same files: what the benchmarks of extraction run.

The naive way is the published one: the module as it stands, in eager mode, each video decoded whole and then encoded
second by second. Weights are random, with the statistics of batch norms taken from a pass over clips, so that feature
maps keep the scale that they have in a trained network.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmpt.modules.feature_encoders import S3DEncoder, frames_to_video
from mmpt.modules.s3d import S3D, load_s3d, random_s3d
from mmpt.store.decode import stream_frames
from mmpt.store.extraction import ExtractionOptions, extract_features, whole_seconds
from mmpt.store.video_list import find_videos
from scripts.benchmarks.videos import make_videos

__all__ = [
    "calibrated_s3d", "clips", "naive_extraction", "naive_network", "our_extraction", "our_network", "prepare",
]  # fmt: skip

WEIGHTS, VIDEOS = "s3d.pth", "videos"


def clips(count: int, size: int = 224, seed: int = 0) -> np.ndarray:
    """Return seconds of coloured shapes that move and a little noise: (count, 30, size, size, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, max(2, size // 16), max(2, size // 16), generator=generator)
    video = F.interpolate(coarse, (30, size, size), mode="trilinear")
    video += 0.05 * torch.randn(video.shape, generator=generator)
    return video.clamp(0, 1).mul(255).byte().permute(0, 2, 3, 4, 1).contiguous().numpy()


def calibrated_s3d(size: int = 224, seed: int = 0) -> S3D:
    """Return S3D of random weights whose batch norms have the statistics of two clips of ``size``."""
    model = random_s3d(seed)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = None  # their plain average
        norm.reset_running_stats()
    with torch.no_grad():
        model.train()(frames_to_video(torch.from_numpy(clips(2, size, seed))))
    return model.eval()


def prepare(folder: Path, videos: int = 2, seconds: float = 4, width: int = 640, height: int = 360) -> None:
    """Write weights and videos of 30 frames/s into a folder, for the others to read."""
    torch.save(calibrated_s3d().state_dict(), folder / WEIGHTS)
    (folder / VIDEOS).mkdir()
    make_videos(folder / VIDEOS, videos, seconds, width, height, 30)


def naive_network(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return the network that maps (seconds, 30, 224, 224, 3) uint8 to (seconds, 512), one second after the other."""
    model = load_s3d(folder / WEIGHTS)

    def encode(frames: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            features = [
                model(frames_to_video(torch.from_numpy(second[None])).contiguous())["video_embedding"]
                for second in frames
            ]
            return F.normalize(torch.cat(features), dim=1).numpy()

    return encode


def our_network(folder: Path, dtype: str = "fp32") -> Callable[[np.ndarray], np.ndarray]:
    """Return ours, with the same arguments and results."""
    return S3DEncoder(weights=folder / WEIGHTS, dtype=dtype)


def naive_extraction(folder: Path) -> Callable[[], np.ndarray]:
    """Return what extracts the features of all videos, in the order of their names, (seconds, 512) float32."""
    encode = naive_network(folder)

    def run() -> np.ndarray:
        features = []
        for path in sorted((folder / VIDEOS).iterdir()):
            frames = np.concatenate(list(stream_frames(path, 30, 224)))
            features.append(encode(whole_seconds(frames, 30, "zero")))
        return np.concatenate(features)

    return run


def our_extraction(folder: Path, workers: int = 1, dtype: str = "fp32") -> Callable[[], np.ndarray]:
    """Return ours: the command's, files of features included. Nothing is skipped in a second call."""
    encoder = S3DEncoder(weights=folder / WEIGHTS, dtype=dtype)
    options = ExtractionOptions(workers=workers, half_precision=False, force=True)
    target = folder / f"features_{dtype}_{workers}"

    def run() -> np.ndarray:
        extract_features(find_videos([folder / VIDEOS]), encoder, target, options)
        return np.concatenate([np.load(path) for path in sorted(target.glob("*.npy"))])

    return run
