"""From stored frames to visual tokens: resumable, counted.

A frame is padded with black to a square and shrunk to 8 pixels for each 32 of the model's image, as VIOLET's published
tokens were made: what training sees is the same square, larger. Frames that training crops have no such tokens.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from mmpt.modules.dvae import DVAEEncoder
from mmpt.modules.patch_codebook import PatchCodebook, fit_codebook
from mmpt.modules.visual_tokenizer import token_image_size
from mmpt.processors.frame_transforms import pad_resize, refuse_oblong
from mmpt.store.extraction_job import ExtractionSummary
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.frame_store import FrameStore
from mmpt.store.images import decode_image
from mmpt.store.visual_tokens import MOST_CODES, VisualTokenStore, new_shard, token_shards
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer
from mmpt.utils.shardedtensor import ShardedTensorWriter

__all__ = ["LOCK", "TokenOptions", "codebook_of_frames", "extract_tokens"]

#: Name of the file that whoever writes to a folder of tokens holds.
LOCK = ".lock"
# Videos whose frames are decoded together.
_GROUP = 64
_COMPARED = ("tool", "tokenizer", "image_size")


@dataclass(frozen=True)
class TokenOptions:
    """How to extract.

    Attributes:
        image_size: side of the model's frames, in pixels (``dataset.image_size``).
        batch_size: frames that go through the network at a time.
        videos_per_shard: a shard is closed after so many videos; a killed run loses the one it was writing.
        workers: threads that decode.
        device: where the network runs.
    """

    image_size: int = 224
    batch_size: int = 64
    videos_per_shard: int = 16384
    workers: int = 2
    device: str = "cpu"


def extract_tokens(
    frames: FrameStore,
    tokenizer: DVAEEncoder | PatchCodebook,
    folder: str | os.PathLike[str],
    options: TokenOptions | None = None,
    progress: bool = False,
) -> ExtractionSummary:
    """Write the visual tokens of every stored frame, going on where an earlier run stopped.

    A video that has as many tokens as frames is skipped. Frames that cannot be decoded make their video fail;
    ``manifest.json`` of the folder names all that failed in the last run.

    Raises:
        ConfigError: if the image size is no multiple of 32.
        DataError: if the folder was made with other weights or another image size, there are more codes than can be
            stored, or another run is writing there.
        StorageError: if the disk is full or the folder may not be written.
    """
    options, summary = options or TokenOptions(), ExtractionSummary("visual tokens", skipped_because="")
    size = token_image_size(options.image_size)
    if tokenizer.num_codes > MOST_CODES:
        raise DataError(f"{tokenizer.num_codes} codes, at most {MOST_CODES} can be stored")
    producer = {
        "tool": "extract_vq",
        "tokenizer": _fingerprint(tokenizer),
        "num_codes": tokenizer.num_codes,
        "image_size": options.image_size,
        "frames": frames.producer(),
    }
    tokenizer.to(options.device)
    with sole_writer(Path(folder) / LOCK):
        wanted = _wanted(frames, folder, producer, summary)
        manifest = Manifest(folder, {key: producer[key] for key in _COMPARED})
        grid = (size // 8, size // 8)
        with tqdm(total=len(wanted), unit="video", disable=not progress) as bar:
            for start in range(0, len(wanted), options.videos_per_shard):
                part = wanted[start : start + options.videos_per_shard]
                with ExitStack() as stack:
                    writer: ShardedTensorWriter | None = None
                    for video_id, codes in _encode(frames, part, tokenizer, size, options, summary, bar):
                        writer = writer or stack.enter_context(new_shard(folder, grid, producer))
                        writer.append(codes, video_id)
                        summary.done += 1
                        summary.frames += len(codes)
        manifest.entries = {}  # every run tries again what failed
        for video_id, reason in summary.failures:
            manifest.record(video_id, {"status": "failed", "reason": reason})
        manifest.save()
    return summary


def codebook_of_frames(frames: FrameStore, num_codes: int, options: TokenOptions, seed: int = 0) -> PatchCodebook:
    """Fit a codebook (:mod:`mmpt.modules.patch_codebook`) to frames of a store drawn at random.

    Raises:
        DataError: if none can be decoded, or they have too few distinct patches.
    """
    size = token_image_size(options.image_size)
    rng = np.random.default_rng(seed)
    wanted = max(_GROUP, 32 * num_codes // (size // 8) ** 2)
    images: list[np.ndarray] = []
    for number in rng.permutation(len(frames)).tolist():
        read, _ = _read(frames, frames.ids[number], size)
        images += [] if read is None else list(read[rng.permutation(len(read))[:4]])
        if len(images) >= wanted:
            break
    if not images:
        raise DataError(f"{frames.path}: no frame of any video can be decoded")
    return fit_codebook(torch.from_numpy(np.stack(images)), num_codes, seed)


def _fingerprint(tokenizer: nn.Module) -> str:
    """Return a checksum of the weights."""
    digest = hashlib.sha256()
    for key, value in sorted(tokenizer.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _wanted(
    frames: FrameStore, folder: str | os.PathLike[str], producer: dict[str, Any], summary: ExtractionSummary
) -> list[str]:
    """Return the videos that have no tokens yet."""
    if not token_shards(folder):
        return frames.ids
    tokens = VisualTokenStore(folder)
    for made in tokens.producers():
        if any(made.get(key) != producer[key] for key in _COMPARED):
            raise DataError(
                f"{folder}: holds visual tokens of other weights or another image size ({made.get('tool')}, "
                f"image size {made.get('image_size')}). Name another folder, or delete it."
            )
    wanted = [id for id in frames.ids if id not in tokens or len(tokens[id]) != len(frames[id])]
    summary.skipped = len(frames) - len(wanted)
    return wanted


def _encode(
    frames: FrameStore,
    video_ids: Sequence[str],
    tokenizer: DVAEEncoder | PatchCodebook,
    size: int,
    options: TokenOptions,
    summary: ExtractionSummary,
    bar: "tqdm[Any]",
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tokens of one video after another, uint16 (frames, h, w)."""
    with ThreadPoolExecutor(options.workers) as pool:
        for start in range(0, len(video_ids), _GROUP):
            group = video_ids[start : start + _GROUP]
            read: dict[str, np.ndarray] = {}
            for video_id, (images, problem) in zip(
                group, pool.map(lambda id: _read(frames, id, size), group), strict=True
            ):
                if images is None:
                    summary.failures.append((video_id, problem))
                else:
                    read[video_id] = images
            bar.update(len(group))
            if read:
                codes = _codes(np.concatenate(list(read.values())), tokenizer, options)
                ends = np.cumsum([len(images) for images in read.values()])
                yield from zip(read, np.split(codes, ends[:-1]), strict=True)


def _read(frames: FrameStore, video_id: str, size: int) -> tuple[np.ndarray | None, str]:
    """Return the frames of a video, uint8 (frames, 3, size, size), or None and what is wrong with one."""
    stored = frames[video_id]
    images = np.empty((len(stored), 3, size, size), np.uint8)
    for number in range(len(stored)):
        try:
            images[number] = pad_resize(refuse_oblong(decode_image(stored.read(number))), size).transpose(2, 0, 1)
        except DataError as error:
            return None, f"frame {number} of {len(stored)}: {error}"
    return images, ""


@torch.inference_mode()
def _codes(images: np.ndarray, tokenizer: DVAEEncoder | PatchCodebook, options: TokenOptions) -> np.ndarray:
    parts = torch.from_numpy(images).split(options.batch_size)
    return np.concatenate([tokenizer.codes(part.to(options.device)).cpu().numpy() for part in parts]).astype(np.uint16)
