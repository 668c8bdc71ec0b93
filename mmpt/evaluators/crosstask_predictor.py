"""CrossTask: find the second of a video at which each step of its task happens."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.evaluators.base import EvalOptions, Predictor, batches_of, load_arrays, save_arrays
from mmpt.evaluators.step_localization import log_softmax, one_hot, ordered_frames
from mmpt.models.embedding import evaluating
from mmpt.processors.annotations import AnnotationOptions, SkipReport
from mmpt.processors.windows import WindowOptions, Windows, average_windows
from mmpt.utils.files import write_json
from mmpt.utils.options import read_options, section_of

__all__ = ["CrossTaskPredictor", "LocalizationOptions", "LocatedSteps"]

logger = logging.getLogger(__name__)


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


@dataclass
class LocalizationOptions(AnnotationOptions, WindowOptions):
    """Windows of the aligner; ``max_missing`` is the fraction of videos that may have fewer seconds than steps."""


class CrossTaskPredictor(Predictor):
    """Place each step of a task at one second of the video, in the order of the steps.

    What the model says of a second in several windows is averaged; a softmax over the steps makes it a probability;
    :func:`~mmpt.evaluators.step_localization.ordered_frames` finds the most probable places in order. Videos with
    fewer seconds than steps are left out and counted.

    Writes to ``eval.save_path``: ``predictions.json``, a list of ``{"task", "video_id", "steps": [{"step",
    "second"}, ..]}``; ``merged.npz``, with one row per video in ``tasks``, ``videos`` and ``sizes`` (seconds,
    steps), and of all videos one after another ``steps`` (names), ``seconds`` (of steps), ``scores`` (log
    probabilities float32) and ``targets`` (uint8), the last two seconds by steps; ``skipped``, the videos left out.
    """

    kind = "steps"
    config_options: ClassVar[dict[str, type]] = {"eval": EvalOptions, "dataset": LocalizationOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        dataset = section_of(config, "dataset")
        self.windows = Windows.of(dataset)
        self.max_missing = read_options(dataset, AnnotationOptions).max_missing

    def predict(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device, output_file: str
    ) -> dict[str, Any]:
        """Locate the steps in all videos.

        Returns:
            ``outputs`` and ``targets``: task -> video -> 0 or 1 ``(seconds, steps)``, float32 with one 1 per step,
            and bool where a step is annotated; ``skipped``: the videos left out.

        Raises:
            DataError: if windows do not fit their video, or more than ``dataset.max_missing`` videos are left out.
        """
        located: list[LocatedSteps] = []
        skipped: list[str] = []
        skips = SkipReport("the test set", self.max_missing, "videos")
        for item in _items(dataloader):
            seconds, steps = int(item["video_len"]), len(item["steps"])
            if seconds < steps:
                skips.add("with fewer seconds than steps", f"{item['video_id']}: {seconds} s, {steps} steps")
                skipped.append(str(item["video_id"]))
            else:
                with evaluating(model), torch.inference_mode():
                    located.append(self._locate(model, item, device))
        skips.close(len(located) + len(skipped))
        self._save(located, skipped, output_file)
        logger.info("steps of %d videos located", len(located))
        return _tables(located, skipped)

    def _locate(self, model: torch.nn.Module, item: Mapping[str, Any], device: torch.device) -> LocatedSteps:
        """Locate the steps of one video."""
        inputs = {name: item[name].to(device) for name in ("caps", "cmasks", "vfeats", "vmasks")}
        logits = model(**inputs)["logits"].float().cpu().numpy()
        seconds, lengths = int(item["video_len"]), item["vmasks"].sum(dim=1).numpy()
        starts = self.windows.starts(seconds)
        scores = log_softmax(average_windows(logits, starts, lengths, seconds))
        # copies of a second in several windows are equal
        targets = average_windows(item["targets"].numpy(), starts, lengths, seconds) > 0
        steps = [str(step) for step in item["steps"]]
        return LocatedSteps(str(item["task"]), str(item["video_id"]), steps, ordered_frames(-scores), scores, targets)

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
        names = ("tasks", "videos", "sizes", "steps", "seconds", "scores", "targets", "skipped")
        stored = load_arrays(self.save_path / f"{output_file}.npz", names)
        steps, cells = stored["sizes"][:, 1].cumsum()[:-1], stored["sizes"].prod(axis=1).cumsum()[:-1]
        rows = zip(
            stored["tasks"].tolist(),
            stored["videos"].tolist(),
            stored["sizes"].tolist(),
            np.split(stored["steps"], steps),
            np.split(stored["seconds"], steps),
            np.split(stored["scores"], cells),
            np.split(stored["targets"], cells),
            strict=True,
        )
        located = [
            LocatedSteps(task, video, names.tolist(), at, scores.reshape(size), targets.reshape(size) > 0)
            for task, video, size, names, at, scores, targets in rows
        ]
        return _tables(located, stored["skipped"].tolist())


def _items(dataloader: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the videos of the batches of a loader, each without its batch dimension."""
    for batch in batches_of(dataloader):
        for row in range(len(batch["video_id"])):
            yield {key: value[row] for key, value in batch.items()}


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
