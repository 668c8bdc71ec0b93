"""Which of the stored frames of a video a model sees (LAVENDER, section 4.1: sparse frames, evenly spread)."""

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["nearest_frame", "sample_frames"]


def sample_frames(stored: int, wanted: int, rng: np.random.Generator | None = None) -> list[int]:
    """Return the numbers of the frames to look at, in their order and without repetition.

    Evenly spread, rounded half to even. In a test they begin with the first frame and end with the last; in training
    they begin with one of the first ``ceil(stored / wanted)`` and stand that far apart, as far as there are frames.
    Where no more are stored than wanted, all are taken: what is missing is the caller's to fill up. (Published code
    takes one frame alone as it is, too, and stops with an error for two frames or more that are too few.)

    Args:
        stored: number of stored frames, 1 or more.
        wanted: number of frames that the model takes, 1 or more.
        rng: draws the beginning, in training; None is the choice of tests.

    Raises:
        ValueError: if a number is less than 1.
    """
    if stored < 1 or wanted < 1:
        raise ValueError(f"{wanted} of {stored} frames cannot be chosen")
    if stored <= wanted:
        return list(range(stored))
    first, last = 0, stored - 1
    if rng is not None:
        apart = -(-stored // wanted)
        first = int(rng.integers(apart))
        last = min(first + (wanted - 1) * apart, last)
    return np.rint(np.linspace(first, last, wanted)).astype(int).tolist()


def nearest_frame(seconds: np.ndarray, start: float, end: float) -> int:
    """Return the number of the frame that is shown nearest to a clip, the earlier one of two as near.

    Args:
        seconds: when each stored frame is shown, float (frames,); NaN where that is not known.
        start: beginning of the clip, in seconds.
        end: end of the clip, in seconds.

    Raises:
        DataError: if no time is known.
    """
    times = np.asarray(seconds, dtype=np.float64)
    distance = np.maximum(np.maximum(start - times, times - end), 0.0)
    if not np.isfinite(distance).any():
        raise DataError(
            "the times of its frames are not known, so no clip can be cut out of it. Store the frames of each clip "
            "under an id of its own, or extract the frames from the videos"
        )
    return int(np.nanargmin(distance))
