"""What a report shows of tests other than retrieval: examples of answers and captions, timelines of videos.

Read are the files that the predictors write to the folder of a test, beside its ``metrics.json``.
"""

import functools
import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mmpt.evaluators import page
from mmpt.evaluators.classification_metrics import runs_of
from mmpt.evaluators.crosstask_predictor import LocatedSteps, read_located_steps
from mmpt.evaluators.gallery import Thumbnails, choose_queries, spread
from mmpt.evaluators.open_qa_predictor import read_open_answers
from mmpt.evaluators.qa_predictor import read_answers
from mmpt.evaluators.results import Result
from mmpt.evaluators.timelines import (
    LocalisedVideo,
    SegmentedVideo,
    Span,
    localisation_timelines,
    segmentation_timelines,
)
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json

__all__ = [
    "CaptionView",
    "LocalisationView",
    "OpenQAView",
    "QAView",
    "SegmentationView",
    "TaskView",
    "task_sections",
    "view_of",
]

_SHOWN_OPTIONS = 6
_SHOWN_CAPTIONS = 6
_SHOWN_VIDEOS = 4


class TaskView(ABC):
    """What the page shows of one test beyond its metrics. ``title`` and ``note`` head the section of its kind.

    Raises:
        DataError: if a file of the test is missing or is not what its predictor writes; names it.
    """

    title: ClassVar[str] = ""
    note: ClassVar[str] = ""
    #: Whether it shows frames, where there is a folder of videos.
    pictured: ClassVar[bool] = False

    def __init__(self, result: Result) -> None:
        self.name = result.name

    @abstractmethod
    def parts(self) -> list[str]:
        """Return the HTML of the test's part of the section."""

    def figures(self) -> dict[str, Any]:
        """Return figures for documents by name, where there are any."""
        return {}


class QAView(TaskView):
    """Questions answered right and wrong: the video, the options, which is right and which was chosen."""

    pictured = True
    title = "Example answers"
    note = (
        "Questions spread evenly over the test set, from those answered right and those answered wrong. "
        f"✓ is the right option, ✗ a wrong choice; of more than {_SHOWN_OPTIONS} options, those that scored highest. "
        "A right option that only ties with another (✗, too) is no right answer."
    )

    def __init__(self, result: Result, thumbnails: Thumbnails | None = None) -> None:
        super().__init__(result)
        answers = read_answers(result.run_dir / "predictions.json")
        wrong = np.array([not answer["correct"] for answer in answers], dtype=np.int64)
        self.right, self.wrong = (
            [_answer(answers[row], thumbnails) for row in rows] for rows in choose_queries(1 + wrong)
        )

    def parts(self) -> list[str]:
        """Return a card per question."""
        parts = []
        for heading, cards in (("answered right", self.right), ("answered wrong", self.wrong)):
            if cards:
                parts += [f"<h3>{html.escape(self.name)}: {heading}</h3>", *cards]
        return parts


def _answer(answer: Mapping[str, Any], thumbnails: Thumbnails | None) -> str:
    """Return the card of a question."""
    right, chosen, scores = answer["answer"], answer["prediction"], answer["scores"]
    shown = {right, *sorted(scores, key=lambda number: -scores[number])[: _SHOWN_OPTIONS - 1], chosen}
    tied = [number for number in shown if scores[number] == scores[right]] if chosen == right else []
    marks = {**dict.fromkeys([chosen, *tied], "wrong"), right: "right"}
    options = [(str(answer["options"][number]), marks.get(number, "")) for number in sorted(shown)]
    video = str(answer["video_id"])
    return page.options_card(video, _frames(video, thumbnails), str(answer["question"]), options)


class OpenQAView(QAView):
    """Open-ended questions answered right and wrong: the best answers, which is right and which was given."""

    title = "Example answers to open questions"
    note = (
        "Questions spread evenly over the test set, from those answered right and those answered wrong: the answers "
        "that scored highest. ✓ is the right one, ✗ a wrong one that was given; below them the right one with its "
        "rank, where it is not among the best, or what annotators wrote, where the model cannot say it."
    )

    def __init__(self, result: Result, thumbnails: Thumbnails | None = None) -> None:
        TaskView.__init__(self, result)
        answers = read_open_answers(result.run_dir / "predictions.json")
        # those that cannot be given come after the worst rank
        places = np.array([answer["rank"] or np.iinfo(np.int64).max for answer in answers], dtype=np.int64)
        self.right, self.wrong = (
            [_open_answer(answers[row], thumbnails) for row in rows] for rows in choose_queries(places)
        )


def _open_answer(answer: Mapping[str, Any], thumbnails: Thumbnails | None) -> str:
    """Return the card of an open-ended question."""
    rank, best = answer["rank"], [str(one["answer"]) for one in answer["best"]]
    options = [(text, "wrong" if place == 1 and rank != 1 else "") for place, text in enumerate(best, 1)]
    if rank is not None and rank <= len(best):
        place = best.index(str(answer["answer"])) if str(answer["answer"]) in best else rank - 1
        options[place] = (best[place], "right")
    else:
        where = f"rank {rank}" if rank else "not among the model's answers"
        options.append((f"{answer['answer']} ({where})", "right"))
    video = str(answer["video_id"])
    return page.options_card(video, _frames(video, thumbnails), str(answer["question"]), options)


class CaptionView(TaskView):
    """Generated captions beside what annotators wrote."""

    pictured = True
    title = "Example captions"
    note = "Clips spread evenly over the test set: the generated caption, and below it what annotators wrote."

    def __init__(self, result: Result, thumbnails: Thumbnails | None = None) -> None:
        super().__init__(result)
        path = result.run_dir / "merged.json"
        content = read_json(path)
        if not isinstance(content, dict) or not {"outputs", "targets", "ids"} <= set(content):
            raise DataError(f"{path}: does not hold outputs, targets and ids; run the test again")
        said, written, ids = content["outputs"], content["targets"], content["ids"]
        self.cards = [
            page.caption_card(str(ids[row]), _frames(str(ids[row]), thumbnails), str(said[row]), written[row])
            for row in spread(np.arange(len(ids)), _SHOWN_CAPTIONS)
        ]

    def parts(self) -> list[str]:
        """Return a card per clip."""
        return [f"<h3>{html.escape(self.name)}</h3>", *self.cards]


class _TimelineView(TaskView):
    """Some videos of a test, spread evenly from the one that is predicted best to the one that is predicted worst."""

    draw: ClassVar[Callable[..., Any]]

    def __init__(self, result: Result, thumbnails: Thumbnails | None = None) -> None:
        super().__init__(result)
        videos = self.read(result.run_dir)
        order = np.argsort([-quality for quality, _ in videos], kind="stable")
        self.videos = [videos[row][1] for row in spread(order, _SHOWN_VIDEOS)]

    @abstractmethod
    def read(self, folder: Path) -> list[tuple[float, Any]]:
        """Return the videos of a test, each after how well it is predicted."""

    def parts(self) -> list[str]:
        """Return the figure."""
        drawn = page.chart(functools.partial(type(self).draw, self.videos), f"timelines of {self.name}")
        return [f"<h3>{html.escape(self.name)}</h3>", drawn]

    def figures(self) -> dict[str, Any]:
        """Return the figure, with the name of the test as its title."""
        return {f"timelines_{self.name.replace('/', '_')}": type(self).draw(self.videos, title=self.name)}


class SegmentationView(_TimelineView):
    """The class of every second: annotated and predicted."""

    title = "Segmented videos"
    note = "Videos from the best to the worst share of seconds labelled right. Seconds of the background stay empty."
    draw = staticmethod(segmentation_timelines)

    def read(self, folder: Path) -> list[tuple[float, SegmentedVideo]]:
        """Return the videos with the share of their seconds that are labelled right."""
        path = folder / "predictions.json"
        keys = ("video_id", "seconds", "segments", "annotated")
        return [_segmented(video) for video in _records(read_json(path), path, keys)]


class LocalisationView(_TimelineView):
    """Where the steps of a task are: annotated and predicted."""

    title = "Located steps"
    note = (
        "Videos from the best to the worst share of steps found. Bars are annotated; a diamond is a step found inside "
        "its bar, a cross one that was placed elsewhere."
    )
    draw = staticmethod(localisation_timelines)

    def read(self, folder: Path) -> list[tuple[float, LocalisedVideo]]:
        """Return the videos with the share of their steps that are found."""
        located, _ = read_located_steps(folder / "merged.npz")
        return [_localised(video) for video in located]


def _segmented(video: Mapping[str, Any]) -> tuple[float, SegmentedVideo]:
    seconds = int(video["seconds"])
    spans, labels = [], []
    for key in ("segments", "annotated"):
        spans.append([Span(one["start"], one["end"], str(one["name"])) for one in video[key]])
        labels.append(np.full(seconds, -1))
        for one in video[key]:
            labels[-1][one["start"] : one["end"]] = one["label"]
    right = float((labels[0] == labels[1]).mean())
    return right, SegmentedVideo(str(video["video_id"]), seconds, spans[0], spans[1], right)


def _localised(video: LocatedSteps) -> tuple[float, LocalisedVideo]:
    spans = [[(start, end) for start, end, kind in runs_of(column) if kind] for column in video.targets.T]
    hits = video.targets[video.seconds, np.arange(len(video.seconds))].sum()
    shown = LocalisedVideo(video.video_id, len(video.targets), video.steps, spans, video.seconds.tolist())
    return float(hits / max(1, sum(map(bool, spans)))), shown


#: Kind of metric -> what is shown of its tests.
_VIEWS: dict[str, Callable[[Result, Thumbnails | None], TaskView]] = {
    "QAMetric": QAView,
    "OpenQAMetric": OpenQAView,
    "NLGMetric": CaptionView,
    "COINActionSegmentationMetric": SegmentationView,
    "CrossTaskMetric": LocalisationView,
}


def view_of(result: Result, thumbnails: Thumbnails | None = None) -> TaskView | None:
    """Return what a report shows of a test; None for kinds that have nothing to show here.

    Raises:
        DataError: if the files of the test are missing or damaged; names them.
    """
    kind = _VIEWS.get(result.metric)
    if kind is None:
        return None
    try:
        return kind(result, thumbnails)
    except DataError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # files that were edited or cut
        raise DataError(f"{result.run_dir}: its predictions cannot be read ({error!r}); run the test again") from error


def task_sections(views: Sequence[TaskView]) -> list[str]:
    """Return the HTML sections of some tests, one for each kind."""
    kinds = dict.fromkeys(type(view) for view in views)
    return [
        page.section(kind.title, kind.note, *(part for view in views if type(view) is kind for part in view.parts()))
        for kind in kinds
    ]


def _frames(video_id: str, thumbnails: Thumbnails | None) -> npt.NDArray[np.uint8] | None:
    return thumbnails(video_id) if thumbnails else None


def _records(content: Any, path: Path, keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return what is a list of records that have certain keys."""
    if not isinstance(content, list) or not all(isinstance(item, dict) and set(keys) <= set(item) for item in content):
        raise DataError(f"{path}: is not a list of records with {', '.join(keys)}; run the test again")
    return content
