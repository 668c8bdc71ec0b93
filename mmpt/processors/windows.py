"""Sliding windows over a video, for tasks that say something about every second of it.

Shapes: T seconds of the video, W windows, M seconds of a window, D feature width.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options
from mmpt.utils.tokenizers import SpecialIds

__all__ = ["CutWindows", "WindowOptions", "Windows", "average_windows", "video_only_text"]


@dataclass
class WindowOptions:
    """Windows of ``sliding_window_size`` seconds (``max_video_len`` where empty) every ``sliding_window`` seconds.

    Where ``sliding_window`` is empty, windows overlap by half.
    """

    sliding_window: int | None = None
    sliding_window_size: int | None = None
    max_video_len: int = 32


class CutWindows(NamedTuple):
    """``vfeats`` float32 (W, M, D), zero-padded; ``vmasks`` bool (W, M); ``starts`` and ``lengths`` int64 (W,).

    ``lengths`` are the seconds of video in each window: the first of its M positions.
    """

    vfeats: torch.Tensor
    vmasks: torch.Tensor
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` seconds every ``stride`` seconds."""

    size: int
    stride: int

    @classmethod
    def of(cls, config: Any) -> "Windows":
        """Read the windows of a ``dataset`` section.

        Raises:
            ConfigError: if windows are longer than the model takes, or leave seconds out; names the key.
        """
        options = read_options(config, WindowOptions)
        size = options.max_video_len if options.sliding_window_size is None else options.sliding_window_size
        stride = max(size // 2, 1) if options.sliding_window is None else options.sliding_window
        if not 1 <= size <= options.max_video_len:
            raise ConfigError(
                f"dataset.sliding_window_size: {size} is not in 1 .. dataset.max_video_len {options.max_video_len}"
            )
        if not 1 <= stride <= size:
            raise ConfigError(
                f"dataset.sliding_window: a window every {stride} s; with dataset.sliding_window_size {size} "
                f"it must be in 1 .. {size}, or seconds are left out"
            )
        return cls(size, stride)

    def starts(self, seconds: int) -> npt.NDArray[np.int64]:
        """Return the first second of each window, int64 (W,); the first window that reaches the end is the last.

        Raises:
            DataError: if the video has no second.
        """
        if seconds < 1:
            raise DataError("a video of no seconds has no windows")
        beyond = max(seconds - self.size, 0)
        return np.arange(-(-beyond // self.stride) + 1, dtype=np.int64) * self.stride

    def cut(self, feature: np.ndarray) -> CutWindows:
        """Cut the features of a video (T, D), of any float dtype, into windows.

        Raises:
            DataError: if the features are not two-dimensional or hold no second.
        """
        if np.ndim(feature) != 2:
            raise DataError(f"video features have shape {np.shape(feature)}; expected (seconds, dim)")
        starts = self.starts(len(feature))
        padded = np.zeros((starts[-1] + self.size, feature.shape[1]), dtype=np.float32)
        padded[: len(feature)] = feature
        seconds = starts[:, None] + np.arange(self.size)
        vmasks = seconds < len(feature)
        return CutWindows(torch.from_numpy(padded[seconds]), torch.from_numpy(vmasks), starts, vmasks.sum(axis=1))

    def cut_seconds(self, values: np.ndarray, fill: Any) -> np.ndarray:
        """Cut what is known of every second, (T,) or (T, ...), as :meth:`cut` does; (W, M, ...), padded with fill."""
        seconds = self.starts(len(values))[:, None] + np.arange(self.size)
        inside = seconds < len(values)
        cut = values[np.minimum(seconds, len(values) - 1)]
        cut[~inside] = fill
        return cut


def average_windows(
    rows: npt.NDArray[np.floating], starts: npt.ArrayLike, lengths: npt.ArrayLike, video_len: int
) -> npt.NDArray[np.floating]:
    """Average what several windows say of a second.

    Args:
        rows: the valid seconds of all windows, window after window, ``(sum of lengths, ...)``.
        starts: first second of each window (W,).
        lengths: valid seconds of each window (W,).
        video_len: T.

    Returns:
        ``(T, ...)`` of the dtype of ``rows``.

    Raises:
        DataError: if the windows do not hold as many rows, reach beyond the video, or leave out one of its seconds.
    """
    starts, lengths = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    if len(rows) != lengths.sum() or len(starts) != len(lengths):
        raise DataError(f"{len(rows)} rows for {len(lengths)} windows of {int(lengths.sum())} seconds")
    if np.any(starts < 0) or np.any(starts + lengths > video_len):
        raise DataError(f"a window reaches beyond a video of {video_len} seconds")
    total = np.zeros((video_len, *rows.shape[1:]), dtype=np.float64)
    count = np.zeros(video_len, dtype=np.int64)
    ends = np.cumsum(lengths)
    for start, length, end in zip(starts.tolist(), lengths.tolist(), ends.tolist(), strict=True):
        total[start : start + length] += rows[end - length : end]
        count[start : start + length] += 1
    if not count.all():
        raise DataError(f"no window holds second {int(np.argmin(count))} of a video of {video_len} seconds")
    return (total / count.reshape(-1, *[1] * (rows.ndim - 1))).astype(rows.dtype)


def video_only_text(special_ids: SpecialIds, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the text that stands beside a video encoded on its own.

    Returns:
        ``caps`` int64 (rows, 4), ``[CLS] [SEP] [PAD] [SEP]``, and ``cmasks`` bool (rows, 4), 0 1 0 1: the video does
        not see ``[CLS]``.
    """
    cls, sep, pad, _ = special_ids
    caps = torch.tensor([cls, sep, pad, sep]).repeat(rows, 1)
    return caps, torch.tensor([False, True, False, True]).repeat(rows, 1)
