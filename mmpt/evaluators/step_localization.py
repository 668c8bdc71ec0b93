"""Where the steps of a task happen in a video, given their order: dynamic programming over (frames, steps) costs.

Zhukov et al., Cross-task weakly supervised learning from instructional videos, CVPR 2019, section 4: every step
happens at exactly one frame, and a step after the one before it.
"""

import numpy as np
import numpy.typing as npt

from mmpt.utils.errors import DataError

__all__ = ["log_softmax", "one_hot", "ordered_chance", "ordered_frames"]


def ordered_frames(cost: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Choose one frame per step, t1 < t2 < .. < tK, with the least sum of ``cost[t_k, k]``.

    Time and memory grow with frames times steps. Among choices of equal cost, the one with the earliest last step
    is taken, then the earliest step before it, and so on.

    Args:
        cost: real numbers ``(frames, steps)``.

    Returns:
        int64 ``(steps,)``, strictly increasing.

    Raises:
        DataError: if there are fewer frames than steps, a cost is not finite or ``cost`` has no two dimensions.
    """
    by_step = np.ascontiguousarray(np.asarray(cost, dtype=np.float64).T)
    if by_step.ndim != 2:
        raise DataError(f"costs have shape {np.shape(cost)}; expected (frames, steps)")
    steps, frames = by_step.shape
    if frames < steps:
        raise DataError(f"{frames} frames cannot hold {steps} steps, one frame each")
    if not np.isfinite(by_step).all():
        raise DataError(f"{int((~np.isfinite(by_step)).sum())} of {by_step.size} costs of steps are not finite")
    # totals[k, t]: the least cost of steps 0..k with step k at frame t; infinite where frames before t are too few
    totals = by_step.copy()
    for step in range(1, steps):
        totals[step, 0] = np.inf
        totals[step, 1:] += np.minimum.accumulate(totals[step - 1, :-1])
    chosen = np.empty(steps, dtype=np.int64)
    end = frames
    for step in reversed(range(steps)):
        end = chosen[step] = totals[step, :end].argmin()
    return chosen


def one_hot(chosen: npt.NDArray[np.integer], frames: int) -> npt.NDArray[np.float32]:
    """Return ``(frames, steps)`` float32, 1 at the frame ``chosen[k]`` of each step k and 0 elsewhere."""
    table = np.zeros((frames, len(chosen)), dtype=np.float32)
    table[chosen, np.arange(len(chosen))] = 1
    return table


def log_softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Normalise logits ``(frames, steps)`` over the steps to log probabilities, float32."""
    scores = np.asarray(logits, dtype=np.float32)
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ordered_chance(frames: int, steps: int) -> npt.NDArray[np.float64]:
    """Return the probability that step k is at frame t when an ordered choice is drawn uniformly, ``(frames, steps)``.

    Of the C(T, K) increasing choices of K among T frames, C(t, k) C(T-1-t, K-1-k) have step k (from 0) at frame t.

    Raises:
        DataError: if there are fewer frames than steps.
    """
    if frames < steps:
        raise DataError(f"{frames} frames cannot hold {steps} steps, one frame each")
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, frames + 1)).cumsum()])

    def log_choose(n: npt.NDArray[np.int64], k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        value = log_factorial[n] - log_factorial[k] - log_factorial[np.maximum(n - k, 0)]
        return np.where(k <= n, value, -np.inf)

    time, step = np.arange(frames)[:, None], np.arange(steps)[None]
    total = log_choose(np.array(frames), np.array(steps))
    return np.exp(log_choose(time, step) + log_choose(frames - 1 - time, steps - 1 - step) - total)
