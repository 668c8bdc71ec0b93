"""Timelines: scores of labels over a video, by states of seconds, by a trained head, or by windows.

Shapes: T parts, L labels, W windows, M seconds of one, H hidden.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.api.averaging import filled, label_vectors
from mmpt.api.checks import check_names, check_seconds, check_texts
from mmpt.api.outputs import Timeline
from mmpt.api.video_input import spans_of
from mmpt.api.video_sources import Source
from mmpt.processors.base import TextOptions
from mmpt.processors.coin import SegmentationOptions
from mmpt.processors.windows import Windows, average_windows, video_only_text
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_section
from mmpt.utils.registry import build
from mmpt.utils.tokenizers import special_ids

__all__ = ["class_names", "timeline_of"]

logger = logging.getLogger(__name__)

_SECONDS_OF_A_WINDOW = 4.0
_WINDOWS_AT_ONCE = 64


def class_names(config: Any) -> list[str] | None:
    """Return the names of the classes of a trained head; None where neither settings nor data of the job say.

    A saved folder has them in ``dataset.class_names``; a run's are those of its annotations.
    """
    stored = OmegaConf.select(config, "dataset.class_names")
    if stored is not None:
        return [str(name) for name in stored]
    name = OmegaConf.select(config, "dataset.meta_processor")
    if not name:
        return None
    section = config.dataset.copy()
    for split, key in (("train", "train_path"), ("test", "test_path")):
        if section.get(key):
            section.split = split
            try:
                return list(build("meta_processor", str(name), section).labels)
            except (DataError, ConfigError, AttributeError):
                continue
    return None


def timeline_of(
    pipeline: Any,
    source: Source,
    labels: Sequence[str] | None,
    templates: Sequence[str],
    window_and_stride: tuple[float | None, float | None],
    background: float | None,
) -> Timeline:
    """Score labels over a video as its model does best; see :meth:`~mmpt.api.VideoTextPipeline.segment`.

    Raises:
        DataError: if a label or time is wrong, there is no label and the model has no classes of its own, or an
            argument is given that the model does not use; names it.
    """
    capabilities: frozenset[str] = getattr(pipeline.model, "capabilities", frozenset())
    given = dict(zip(("window_seconds", "stride_seconds"), window_and_stride, strict=True))
    times = {name: check_seconds(value, name) for name, value in given.items() if value is not None}
    templates = check_texts(templates, "template")[0]
    if "segmentation" in capabilities:
        _refuse({**times, **({} if templates == ["{}"] else {"templates": templates})}, "scores by its head")
        return _head_timeline(pipeline, source, None if labels is None else check_names(labels, "label"), background)
    if labels is None:
        raise DataError(
            "there is no label: this model has no classes of its own, so give labels, of the command --labels"
        )
    names = check_names(labels, "label")
    if "frame_states" in capabilities and "retrieval" not in capabilities:
        _refuse(times, "scores each second")
    if "frame_states" in capabilities and "window_seconds" not in times:
        _refuse(times, "scores each second unless window_seconds is given")
        return _states_timeline(pipeline, source, names, templates, background)
    return _window_timeline(pipeline, source, names, templates, times, background)


def _refuse(given: Mapping[str, Any], why: str) -> None:
    """Refuse arguments that have no effect.

    Raises:
        DataError: if there is one.
    """
    if given:
        raise DataError(f"{', '.join(given)}: of no effect, this model {why}. Leave it out")


def _head_timeline(pipeline: Any, source: Source, labels: Sequence[str] | None, background: float | None) -> Timeline:
    """Score seconds by a trained head; ``labels`` choose among its classes, beside the one of the background."""
    scores, duration = _scores_of_seconds(pipeline, source, None)
    number = read_section(pipeline.config, "dataset", SegmentationOptions).background
    names = _names_of_classes(class_names(pipeline.config), labels, scores.shape[1])
    chosen = _chosen_classes(names, labels, number)
    timeline = _seconds_timeline(scores[:, chosen], duration, [names[one] for one in chosen], background)
    return dataclasses.replace(timeline, nothing=names[number])


def _states_timeline(
    pipeline: Any, source: Source, labels: Sequence[str], templates: Sequence[str], background: float | None
) -> Timeline:
    """Score seconds by the dot products of their states with the labels."""
    texts = pipeline.comparer.text_vectors(filled(templates, labels), _WINDOWS_AT_ONCE)
    scores, duration = _scores_of_seconds(pipeline, source, label_vectors(texts, len(labels)))
    return _seconds_timeline(scores, duration, labels, background)


def _scores_of_seconds(pipeline: Any, source: Source, vectors: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Score every second in windows that overlap, as the tests of action segmentation do.

    Args:
        pipeline: its model has states of seconds, or a head of classes.
        source: the video.
        vectors: float32 (L, H), of the labels; None: the scores are those of the head.

    Returns:
        float32 (seconds, L), and how long the video is in seconds.
    """
    model, config, reader, device = pipeline.model, pipeline.config, pipeline.reader, pipeline.device
    opened, duration = reader.opened(source)
    features = reader.features(opened)
    cut = Windows.of(config.dataset).cut(features)
    text = read_section(config, "dataset", TextOptions)
    specials = special_ids(text.bert_name, text.use_fast)
    score = _by_head(model) if vectors is None else _by_states(model, torch.from_numpy(vectors).to(device))
    rows = []
    with torch.inference_mode():
        for vfeats, vmasks in zip(cut.vfeats.split(_WINDOWS_AT_ONCE), cut.vmasks.split(_WINDOWS_AT_ONCE), strict=True):
            caps, cmasks = (part.to(device) for part in video_only_text(specials, len(vfeats)))
            found = score(caps, cmasks, vfeats.to(device), vmasks.to(device)).float().cpu()
            rows.append(found[vmasks].numpy())
    return average_windows(np.concatenate(rows), cut.starts, cut.lengths, len(features)), duration


def _window_timeline(
    pipeline: Any,
    source: Source,
    labels: Sequence[str],
    templates: Sequence[str],
    times: Mapping[str, float],
    background: float | None,
) -> Timeline:
    """Score parts of ``stride`` seconds, each by a window around its middle (4 seconds) that lies within the video."""
    window, stride = times.get("window_seconds", _SECONDS_OF_A_WINDOW), times.get("stride_seconds", 1.0)
    reader = pipeline.reader
    _tell_rounding(times, reader.grain)
    opened, duration = reader.opened(source)
    parts = spans_of(duration, stride, None, reader.grain)
    length = min(window, duration)
    windows = []
    for start, end in parts:
        first = min(max((start + end - length) / 2, 0.0), duration - length)
        windows.append((first, first + length))
    scores = pipeline.comparer.label_scores(reader.parts(opened, windows), labels, templates)
    starts, ends = (np.array(side, np.float64) for side in zip(*parts, strict=True))
    return Timeline(list(labels), starts, ends, scores.astype(np.float32), background)


def _tell_rounding(times: Mapping[str, float], grain: float) -> None:
    """Warn of times that are rounded, as parts of features are whole seconds."""
    odd = [f"{name} {value:g}" for name, value in times.items() if grain and value % grain]
    if odd:
        logger.warning("%s: this model reads features of whole seconds, to which parts are rounded", ", ".join(odd))


def _seconds_timeline(scores: np.ndarray, duration: float, labels: Sequence[str], background: float | None) -> Timeline:
    """Return the timeline of scores of seconds (T, L); the last second may be a part of one."""
    starts = np.arange(len(scores), dtype=np.float64)
    return Timeline(list(labels), starts, np.minimum(starts + 1, duration), scores.astype(np.float32), background)


def _names_of_classes(known: Sequence[str] | None, labels: Sequence[str] | None, count: int) -> list[str]:
    """Return the names of a head's classes; "" where a class has none.

    Raises:
        DataError: if nothing says what the classes are.
    """
    if known is not None:
        return list(known)
    if labels is None or len(labels) != count:
        raise DataError(
            f"this model tells {count} classes that it was trained on, and nothing here says their names: give all "
            "of them as labels, in the order of training"
        )
    return list(labels)


def _chosen_classes(names: Sequence[str], labels: Sequence[str] | None, background: int) -> list[int]:
    """Return the numbers of the classes that labels ask for, and of the background.

    Raises:
        DataError: if a label is no class of the head.
    """
    if labels is None:
        return [number for number, name in enumerate(names) if name]
    places = {name.strip(): number for number, name in reversed(list(enumerate(names)))}
    unknown = [label for label in labels if label not in places]
    if unknown:
        raise DataError(
            f"the label {unknown[0]!r} is none of the {len(names)} classes that this model was trained on, such as "
            f"{', '.join(repr(name) for name in names[:4] if name)}. A model of retrieval takes any labels"
        )
    chosen = [places[label] for label in labels]
    return chosen if background in chosen else [*chosen, background]


def _by_head(model: Any) -> Callable[..., Tensor]:
    def score(caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor) -> Tensor:
        return model(caps=caps, cmasks=cmasks, vfeats=vfeats, vmasks=vmasks)["logits"]

    return score


def _by_states(model: Any, vectors: Tensor) -> Callable[..., Tensor]:
    def score(caps: Tensor, cmasks: Tensor, vfeats: Tensor, vmasks: Tensor) -> Tensor:
        return model.encode_video_frames(vfeats, vmasks, caps, cmasks).float() @ vectors.T

    return score
