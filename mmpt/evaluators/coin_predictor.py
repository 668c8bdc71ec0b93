"""Action segmentation: a class for every second of a video, from windows that overlap.

Shapes: T seconds of the video, W windows, M seconds of a window, C classes, H hidden.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmpt.evaluators.base import EvalOptions, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor, items_of
from mmpt.evaluators.classification_metrics import runs_of
from mmpt.processors.base import Aligner, AlignerOptions, TextProcessor
from mmpt.processors.windows import average_windows
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import write_json
from mmpt.utils.options import read_section, section_of

__all__ = ["COINPredictor", "COINZSPredictor", "Rule", "ZeroShotOptions", "label_threshold"]

logger = logging.getLogger(__name__)

_LEFT_OUT = ("skipped", "skipped_segments", "cut_segments")
_ARRAYS = ("Y_pred", "Y_true", "lengths", "ids", "background", *_LEFT_OUT)
_AT_ONCE = 256


class Rule(NamedTuple):
    """How seconds get their class: ``score`` windows, (W, M, C), then ``decide`` on the averaged (T, C), int64 (T,)."""

    score: Callable[[Mapping[str, Tensor]], Tensor]
    decide: Callable[[npt.NDArray[np.floating]], npt.NDArray[np.int64]]


class _Labelled(NamedTuple):
    """A video, and the class of each of its seconds, predicted and annotated, int64 (T,)."""

    video_id: str
    predicted: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]


class COINPredictor(BatchPredictor):
    """Average the logits of the windows that hold a second, and take its best class, of those that have a name.

    Items are those of :class:`~mmpt.processors.coin.COINActionSegmentationAligner`; the meta processor says what the
    classes are (``labels``, ``background``), and how much of the data it left out (``left_out``). Writes to
    ``eval.save_path``: ``merged.npz`` with ``Y_pred`` and ``Y_true`` int64 (seconds of all videos, one video after
    another), ``lengths`` int64 and ``ids`` of the videos, ``background``, and the numbers ``skipped`` (videos without
    features), ``skipped_segments`` and ``cut_segments`` (those that end after the features); and
    ``predictions.json`` with the predicted and annotated segments of each video.
    """

    kind = "segmentation"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], list[_Labelled]]:
        """Return what labels every second of the videos of a batch.

        Raises:
            DataError: if the data do not say what the classes are, or (later) the model has fewer.
        """
        rule = self.rule(model, *_classes_of(dataloader), device)

        def labelled(video: Mapping[str, Any]) -> _Labelled:
            predicted = rule.decide(_merged(rule.score, video, device))
            return _Labelled(str(video["video_id"]), predicted, video["video_targets"].numpy().astype(np.int64))

        return lambda batch: [labelled(video) for video in items_of(batch)]

    def finish(
        self, parts: Sequence[Sequence[_Labelled]], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Save the labels and return what ``merged.npz`` holds."""
        labels, background = _classes_of(dataloader)
        videos = [video for part in parts for video in part]
        outputs = {
            "Y_pred": np.concatenate([video.predicted for video in videos]),
            "Y_true": np.concatenate([video.true for video in videos]),
            "lengths": np.array([len(video.true) for video in videos], dtype=np.int64),
            "ids": np.array([video.video_id for video in videos], dtype=str),
            "background": background,
            **_left_out(dataloader),
        }
        self._save(outputs, labels, output_file)
        return outputs

    def rule(self, model: Any, labels: Sequence[str], background: int, device: torch.device) -> Rule:
        """Return how seconds are scored and decided; called in eval mode, without gradients."""

        def score(windows: Mapping[str, Tensor]) -> Tensor:
            logits = model(**windows)["logits"]
            if logits.shape[-1] < len(labels):
                raise DataError(
                    f"the model has {logits.shape[-1]} classes, but the data have {len(labels)}: test with the "
                    "annotations (or dataset.label_path) that it was trained with"
                )
            return logits

        named = np.array([n for n, name in enumerate(labels) if name], dtype=np.int64)
        return Rule(score, lambda scores: named[scores[:, named].argmax(axis=1)])

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved classes."""
        stored = load_arrays(self.save_path / f"{output_file}.npz", _ARRAYS)
        return {**stored, **{name: int(stored[name]) for name in ("background", *_LEFT_OUT)}}

    def _save(self, outputs: Mapping[str, Any], labels: Sequence[str], output_file: str) -> None:
        arrays = {name: np.asarray(outputs[name]) for name in _ARRAYS}
        save_arrays(self.save_path / f"{output_file}.npz", **arrays)
        cuts = np.cumsum(outputs["lengths"])[:-1]
        videos = [
            {
                "video_id": name,
                "seconds": len(predicted),
                "segments": _segments(predicted, labels, outputs["background"]),
                "annotated": _segments(true, labels, outputs["background"]),
            }
            for name, predicted, true in zip(
                outputs["ids"].tolist(),
                np.split(outputs["Y_pred"], cuts),
                np.split(outputs["Y_true"], cuts),
                strict=True,
            )
        ]
        write_json(self.save_path / "predictions.json", videos)


@dataclass
class ZeroShotOptions(EvalOptions):
    """Keys of the ``eval`` section, for segmentation by label names.

    ``background_threshold`` is the score that a label must exceed, or else the second is background: ``auto`` takes
    the largest similarity of two different labels (as published), ``none`` never says background.
    """

    background_threshold: str = "auto"


class COINZSPredictor(COINPredictor):
    """Score each second against the names of the labels, without any training on them.

    The score is the dot product of the second's state in its window with the encoded name, averaged over windows; the
    best label wins if it exceeds ``eval.background_threshold``, else the second is background. Needs a model that
    encodes texts and the seconds of a video (``encode_text``, ``encode_video_frames``). Files as
    :class:`COINPredictor`.

    The labels are those of the whole list, of all its subsets, where the published list came from the testing subset;
    a label that is not tested can still be predicted, and sets the threshold like any other. In COIN itself the two
    are the same set, as far as we know; how many labels the tested videos lack is logged.
    """

    config_options: ClassVar[dict[str, type]] = {"eval": ZeroShotOptions, "dataset": AlignerOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        given = read_section(config, "eval", ZeroShotOptions).background_threshold
        self.threshold: float | None = None
        self.automatic = given == "auto"
        if given not in ("auto", "none"):
            self.threshold = _number(given)

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], list[_Labelled]]:
        """Return what labels every second, as :class:`COINPredictor`; log how many labels the tested videos lack."""
        labels, background = _classes_of(dataloader)
        tested = {number for _, segments in _meta_of(dataloader).data for number in segments["label"]}
        classes = [number for number, name in enumerate(labels) if name and number != background]
        outside = [number for number in classes if number not in tested]
        logger.info(
            "%d of %d labels are in no tested video%s; they count as the others do",
            len(outside),
            len(classes),
            f" (for example {labels[outside[0]]!r})" if outside else "",
        )
        return super().batch_function(model, dataloader, device)

    def rule(self, model: Any, labels: Sequence[str], background: int, device: torch.device) -> Rule:
        """Return scores against the labels' names, and the threshold of the background."""
        if not (hasattr(model, "encode_text") and hasattr(model, "encode_video_frames")):
            raise ConfigError(
                f"predictor: COINZSPredictor needs a model that encodes texts and seconds, not {type(model).__name__}"
            )
        classes = np.array([n for n, name in enumerate(labels) if name and n != background], dtype=np.int64)
        names = [labels[n] for n in classes]
        if not names:
            raise DataError("there is no label but the background: nothing to tell the seconds of a video by")
        vectors = self._encode_names(model, names, device)
        threshold = label_threshold(vectors.cpu().numpy(), names) if self.automatic else self.threshold
        logger.info("%d labels; a second is background up to a score of %s", len(names), threshold)

        def score(windows: Mapping[str, Tensor]) -> Tensor:
            states = model.encode_video_frames(windows["vfeats"], windows["vmasks"], windows["caps"], windows["cmasks"])
            return states.float() @ vectors.T

        def decide(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
            best = classes[scores.argmax(axis=1)]
            return best if threshold is None else np.where(scores.max(axis=1) > threshold, best, background)

        return Rule(score, decide)

    def _encode_names(self, model: Any, names: Sequence[str], device: torch.device) -> Tensor:
        """Encode the names of labels as texts of the data set, float32 (N, H)."""
        section = section_of(self.config, "dataset")
        tokenize, aligner = TextProcessor(section), Aligner(section)
        pairs = [aligner._build_text_seq(tokenize(name)) for name in names]
        caps, cmasks = (torch.stack(part) for part in zip(*pairs, strict=True))
        parts = [
            model.encode_text(ids.to(device), masks.to(device)).float()
            for ids, masks in zip(caps.split(_AT_ONCE), cmasks.split(_AT_ONCE), strict=True)
        ]
        return torch.cat(parts)


def label_threshold(vectors: npt.NDArray[np.floating], names: Sequence[str]) -> float:
    """Return the largest similarity (dot product) of two different labels, of their vectors (N, H).

    Labels of the same name are as similar as can be, and make almost everything background: they are reported.

    Raises:
        ConfigError: if there is only one label.
    """
    if len(vectors) < 2:
        raise ConfigError("eval.background_threshold: auto needs two labels; set a number or none")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        logger.warning(
            "%d label names stand for several classes (for example %r), which sets the threshold of the background "
            "very high; consider eval.background_threshold",
            len(twice),
            twice[0],
        )
    similarity = vectors @ vectors.T
    return float(similarity[~np.eye(len(vectors), dtype=bool)].max())


def _number(given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ConfigError(f"eval.background_threshold: {given!r} is neither auto, none nor a number")
    return value


def _meta_of(dataloader: Any) -> Any:
    return getattr(getattr(dataloader, "dataset", None), "meta_processor", None)


def _left_out(dataloader: Any) -> dict[str, int]:
    """Return how much of the test set could not be used; 0 where the data do not say."""
    numbers = getattr(_meta_of(dataloader), "left_out", {})
    return {name: int(numbers.get(name, 0)) for name in _LEFT_OUT}


def _classes_of(dataloader: Any) -> tuple[list[str], int]:
    meta = _meta_of(dataloader)
    labels = getattr(meta, "labels", None)
    if not labels:
        raise DataError(f"dataset.meta_processor: {type(meta).__name__} does not say what the classes are (labels)")
    return list(labels), int(getattr(meta, "background", 0))


def _merged(
    score: Callable[[Mapping[str, Tensor]], Tensor], video: Mapping[str, Any], device: torch.device
) -> npt.NDArray[np.floating]:
    """Return the scores of every second of a video, (T, C) float32, averaged over its windows."""
    windows = {key: video[key].split(_AT_ONCE) for key in ("caps", "cmasks", "vfeats", "vmasks")}
    parts = []
    for number, vmasks in enumerate(windows["vmasks"]):
        scores = score({key: value[number].to(device) for key, value in windows.items()}).float().cpu()
        parts.append(scores[vmasks.bool()].numpy())
    lengths = video["vmasks"].sum(1).numpy()
    return average_windows(np.concatenate(parts), video["video_start"].numpy(), lengths, int(video["video_len"]))


def _segments(classes: np.ndarray, labels: Sequence[str], background: int) -> list[dict[str, Any]]:
    """Return the runs of a class, background left out, in whole seconds."""
    return [
        {"start": start, "end": end, "label": label, "name": labels[label]}
        for start, end, label in runs_of(cast(npt.ArrayLike, classes))
        if label != background
    ]
