"""What the buttons of the page answer, with a model of known scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.api.outputs import Answer, Timeline
from mmpt.api.page import handlers, markup
from mmpt.api.page.contents import Contents, load_models, named_sources
from mmpt.api.page.intake import ChosenVideo
from mmpt.api.page.shelf import Shelf
from mmpt.utils.errors import ConfigError, DataError, MMPTError


class FakePipeline:
    system, source, device, calls = "VideoCLIP", "runs/fake", "cpu", frozenset({"segment", "answer"})

    def segment(self, video: str, labels: list[str]) -> Timeline:
        if labels == ["fail"]:
            raise DataError(f"{video}: cannot be decoded")
        if labels == ["crash"]:
            raise RuntimeError(video)
        scores = np.eye(len(labels), dtype=np.float32)
        return Timeline(labels, np.arange(len(labels)) * 2.0, np.arange(1, len(labels) + 1) * 2.0, scores)

    def answer(self, video: str, question: str, options: Any) -> list[Answer]:
        return [Answer(option, 1.0, 0.75) for option in options or ["open"]]


@pytest.fixture
def page(tmp_path: Path) -> tuple[Contents, ChosenVideo]:
    file = tmp_path / "a1b2.mp4"
    file.write_bytes(b"x")
    shelf = Shelf(tmp_path)
    models: Any = {"one": FakePipeline(), "two": FakePipeline()}
    video = ChosenVideo(str(file), "holiday.mp4", shelf.add(file, "holiday.mp4"), 4.0, "h264", True)
    return Contents(models, shelf, failures=["model three: <no>"]), video


def test_timeline_has_a_seek_for_each_span(page: tuple[Contents, ChosenVideo]) -> None:
    html = handlers.timeline(*page, "one", "red\n\nblue\nred")
    assert html.count('data-seek="0.000"') == html.count('data-seek="2.000"') == 2  # strip and table
    assert "2.0 – 4.0 s" in html and "4.000" not in html


def test_texts_are_escaped(page: tuple[Contents, ChosenVideo]) -> None:
    bad = '<img src=x onerror="alert(1)">'
    for html in (handlers.timeline(*page, "one", bad), handlers.answer(*page, "one", "why?", bad)):
        assert "<img" not in html and "&lt;img" in html
    assert "<no>" not in markup.about(page[0])


def test_mistakes_are_messages_that_name_the_video_as_the_person_does(page: tuple[Contents, ChosenVideo]) -> None:
    contents, video = page
    assert "Choose a video" in handlers.timeline(contents, None, "one", "red")
    assert "at least one label" in handlers.timeline(*page, "one", " \n")
    assert "Type a question" in handlers.answer(*page, "one", "", "")
    failed = handlers.timeline(*page, "one", "fail")
    assert "holiday.mp4: cannot be decoded" in failed and video.path not in failed
    crashed = handlers.timeline(*page, "one", "crash")
    assert "went wrong" in crashed and video.path not in crashed


def test_compare_and_open_ended_answers(page: tuple[Contents, ChosenVideo]) -> None:
    html = handlers.compare(*page, "one", "two", "red")
    assert html.index("<h3>one") < html.index("<h3>two")
    assert "open</td><td>75.0 %" in handlers.answer(*page, "one", "what?", "")
    assert page[0].able("segment") == ["one", "two"] and page[0].able("caption") == []


def test_names_of_models() -> None:
    assert named_sources(["a=runs/x", "runs/demo", "runs/k=v"]) == {
        "a": "runs/x",
        "demo": "runs/demo",
        "k=v": "runs/k=v",
    }
    with pytest.raises(ConfigError, match="two models"):
        named_sources(["runs/demo", "other/demo"])
    with pytest.raises(MMPTError, match="--model"):
        load_models({})
