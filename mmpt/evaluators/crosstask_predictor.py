"""CrossTask: find the second of a video at which each step of its task happens."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.evaluators.base import EvalOptions, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor, items_of
from mmpt.evaluators.step_localization import log_softmax, one_hot, ordered_frames
from mmpt.processors.annotations import AnnotationOptions, SkipReport
from mmpt.processors.windows import average_windows
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json
from mmpt.utils.options import read_section

__all__ = ["CrossTaskPredictor", "LocatedSteps", "read_located_steps"]

logger = logging.getLogger(__name__)

_ARRAYS = ("tasks", "videos", "sizes", "steps", "seconds", "scores", "targets", "skipped")


class LocatedSteps(NamedTuple):
    """What is predicted of one video of T seconds, and what is annotated.

    ``seconds`` int64 (K,), increasing: where each of the ``steps`` (K names) is; ``scores`` float32 (T, K), log
    probabilities of the steps at each second; ``targets`` bool (T, K).
    """

    task: str
    video_id: str
    steps: list[str]
    seconds: np.ndarray
    scores: np.ndarray
    targets: np.ndarray


class _TooShort(NamedTuple):
    """A video with fewer seconds than its task has steps."""

    video_id: str
    seconds: int
    steps: int


class CrossTaskPredictor(BatchPredictor):
    """Place each step of a task at one second of the video, in the order of the steps.

    What the model says of a second in several windows is averaged; a softmax over the steps makes it a probability;
    :func:`~mmpt.evaluators.step_localization.ordered_frames` finds the most probable places in order. Videos with
    fewer seconds than steps are left out and counted, up to the fraction ``dataset.max_missing``.

    Writes to ``eval.save_path``: ``predictions.json``, a list of ``{"task", "video_id", "steps": [{"step",
    "second"}, ..]}``; ``merged.npz``, with one row per video in ``tasks``, ``videos`` and ``sizes`` (seconds,
    steps), and of all videos one after another ``steps`` (names), ``seconds`` (of steps), ``scores`` (log
    probabilities float32) and ``targets`` (uint8), the last two seconds by steps; ``skipped``, the videos left out.
    """

    kind = "steps"
    config_options: ClassVar[dict[str, type]] = {"eval": EvalOptions, "dataset": AnnotationOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.max_missing = read_section(config, "dataset", AnnotationOptions).max_missing

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], list[LocatedSteps | _TooShort]]:
        """Return what locates the steps in the videos of a batch; it raises DataError if windows do not fit theirs."""

        def located(item: Mapping[str, Any]) -> LocatedSteps | _TooShort:
            seconds, steps = int(item["video_len"]), len(item["steps"])
            if seconds < steps:
                return _TooShort(str(item["video_id"]), seconds, steps)
            return _locate(model, item, device)

        return lambda batch: [located(item) for item in items_of(batch)]

    def finish(
        self,
        parts: Sequence[Sequence[LocatedSteps | _TooShort]],
        dataloader: Iterable[Mapping[str, Any]],
        output_file: str,
    ) -> dict[str, Any]:
        """Save the steps of all videos and return what the metric needs.

        Returns:
            ``outputs`` and ``targets``: task -> video -> 0 or 1 ``(seconds, steps)``, float32 with one 1 per step,
            and bool where a step is annotated; ``skipped``: the videos left out.

        Raises:
            DataError: if more than ``dataset.max_missing`` videos are left out.
        """
        located: list[LocatedSteps] = []
        skipped: list[str] = []
        skips = SkipReport("the test set", self.max_missing, "videos")
        for one in (one for part in parts for one in part):
            if isinstance(one, LocatedSteps):
                located.append(one)
            else:
                skips.add("with fewer seconds than steps", f"{one.video_id}: {one.seconds} s, {one.steps} steps")
                skipped.append(one.video_id)
        skips.close(len(located) + len(skipped))
        self._save(located, skipped, output_file)
        logger.info("steps of %d videos located", len(located))
        return _tables(located, skipped)

    def _save(self, located: Sequence[LocatedSteps], skipped: Sequence[str], output_file: str) -> None:
        self.make_folder()
        save_arrays(
            self.save_path / f"{output_file}.npz",
            tasks=np.array([one.task for one in located], dtype=str),
            videos=np.array([one.video_id for one in located], dtype=str),
            sizes=np.array([one.scores.shape for one in located], dtype=np.int64),
            steps=np.array([step for one in located for step in one.steps], dtype=str),
            seconds=np.concatenate([one.seconds for one in located]),
            scores=np.concatenate([one.scores.ravel() for one in located]),
            targets=np.concatenate([one.targets.ravel() for one in located]).astype(np.uint8),
            skipped=np.array(skipped, dtype=str),
        )
        write_json(self.save_path / "predictions.json", [_record(one) for one in located])

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved file; DataError if it is missing or damaged."""
        return _tables(*read_located_steps(self.save_path / f"{output_file}.npz"))


def read_located_steps(path: str | Path) -> tuple[list[LocatedSteps], list[str]]:
    """Read what :class:`CrossTaskPredictor` wrote: the videos, and the ids of those left out.

    Raises:
        DataError: if the file is missing or damaged; names it.
    """
    stored = load_arrays(path, _ARRAYS)
    sizes = stored["sizes"]
    steps, cells = sizes[:, 1].cumsum(), sizes.prod(axis=1).cumsum()
    ends = {"steps": steps, "seconds": steps, "scores": cells, "targets": cells}
    whole = all(len(stored[name]) == len(sizes) for name in ("tasks", "videos"))
    if not whole or any(len(stored[name]) != end[-1] for name, end in ends.items()):
        raise DataError(f"{path}: its arrays do not belong together; run the test again")
    columns = [np.split(stored[name], end[:-1]) for name, end in ends.items()]
    located = [
        LocatedSteps(task, video, names.tolist(), seconds, scores.reshape(size), targets.reshape(size) > 0)
        for task, video, size, names, seconds, scores, targets in zip(
            stored["tasks"].tolist(), stored["videos"].tolist(), sizes.tolist(), *columns, strict=True
        )
    ]
    return located, stored["skipped"].tolist()


def _locate(model: torch.nn.Module, item: Mapping[str, Any], device: torch.device) -> LocatedSteps:
    """Locate the steps of one video.

    Raises:
        DataError: if windows do not fit the video or a logit is not finite; names the video.
    """
    inputs = {name: item[name].to(device) for name in ("caps", "cmasks", "vfeats", "vmasks")}
    logits = model(**inputs)["logits"].float().cpu().numpy()
    windows = item["video_start"].numpy(), item["vmasks"].sum(dim=1).numpy(), int(item["video_len"])
    task, video, steps = str(item["task"]), str(item["video_id"]), [str(step) for step in item["steps"]]
    try:
        scores = log_softmax(average_windows(logits, *windows))
        # copies of a second in several windows are equal
        targets = average_windows(item["targets"].numpy(), *windows) > 0
        return LocatedSteps(task, video, steps, ordered_frames(-scores), scores, targets)
    except DataError as error:
        raise DataError(f"task {task}, video {video}: {error}") from error


def _record(located: LocatedSteps) -> dict[str, Any]:
    steps = zip(located.steps, located.seconds.tolist(), strict=True)
    return {
        "task": located.task,
        "video_id": located.video_id,
        "steps": [{"step": step, "second": second} for step, second in steps],
    }


def _tables(located: Sequence[LocatedSteps], skipped: list[str]) -> dict[str, Any]:
    """Return what the metric needs."""
    outputs: dict[str, dict[str, np.ndarray]] = {}
    targets: dict[str, dict[str, np.ndarray]] = {}
    for one in located:
        outputs.setdefault(one.task, {})[one.video_id] = one_hot(one.seconds, len(one.scores))
        targets.setdefault(one.task, {})[one.video_id] = one.targets
    return {"outputs": outputs, "targets": targets, "skipped": skipped}
