"""What the buttons of the page answer, with a model of known scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.api.page import handlers, markup
from mmpt.api.page.contents import Contents, load_models, named_sources, open_indexes
from mmpt.api.page.intake import ChosenVideo
from mmpt.api.search import index_folder
from mmpt.store.images import encode_jpeg
from mmpt.utils.errors import ConfigError, DataError
from tests.api.fake_page import FakePipeline, make_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contents, ChosenVideo]:
    contents = make_page(tmp_path_factory.mktemp("page"), seconds=20)
    file = contents.demo["short.mp4"]
    token = contents.shelf.add(file, "holiday.mp4")
    return contents, ChosenVideo(str(file), "holiday.mp4", token, 4.0, "h264", token)


def test_timeline_has_a_seek_for_each_span(page: tuple[Contents, ChosenVideo]) -> None:
    html = handlers.timeline(*page, "one", "red\n\nblue\nred")
    assert html.count('data-seek="0.000"') == html.count('data-seek="2.000"') == 1
    assert "2.0 – 4.0 s" in html and 'data-from="0.000" data-to="4.000"' in html


def test_texts_are_escaped(page: tuple[Contents, ChosenVideo]) -> None:
    bad = '"><script>alert(1)</script>'
    for html in (handlers.timeline(*page, "one", bad), handlers.answer(*page, "one", "why?", bad)):
        assert "<script" not in html and "&lt;script" in html
    assert "<no>" not in markup.about(page[0])


def test_mistakes_are_messages_that_name_the_video_as_the_person_does(page: tuple[Contents, ChosenVideo]) -> None:
    contents, video = page
    assert "Choose a video" in handlers.timeline(contents, None, "one", "red")
    assert "at least one label" in handlers.timeline(*page, "one", " \n")
    assert "Type a question" in handlers.answer(*page, "one", "", "")
    assert "at most 20 s" in handlers.timeline(contents, replace(video, seconds=21), "one", "red")
    failed = handlers.timeline(*page, "one", "fail")
    assert "holiday.mp4: cannot be decoded" in failed and video.path not in failed
    crashed = handlers.timeline(*page, "one", "crash")
    assert "went wrong" in crashed and video.path not in crashed


def test_comparing_shows_each_model_once(page: tuple[Contents, ChosenVideo]) -> None:
    html = handlers.compare(*page, "one", "two", "red")
    assert html.index(">one</h3>") < html.index(">two</h3>")
    assert handlers.compare(*page, "one", "one", "red").count("</h3>") == 1


def test_a_model_that_only_chooses_is_listed_and_says_so_of_open_questions(page: tuple[Contents, ChosenVideo]) -> None:
    assert page[0].able("answer", "choose") == ["one", "two"] and page[0].able("answer") == ["one"]
    assert "open</td>" in handlers.answer(*page, "one", "what?", "") and page[0].able("caption") == []
    assert "75.0 %" in handlers.answer(*page, "two", "what?", "red\nblue")
    assert "does not answer open questions" in handlers.answer(*page, "two", "what?", "")
    assert "does not write captions" in page[0].why_not("caption") and "LAVENDER" in page[0].why_not("caption")


def test_a_hit_is_played_from_where_it_begins_as_a_copy_where_needed(page: tuple[Contents, ChosenVideo]) -> None:
    contents, copies = page[0], Path(page[0].shelf.roots[0]) / "copies"
    found, html = handlers.search(contents, "mine", " part 5 ", None)
    assert [(hit.name, hit.start, hit.end) for hit in found[:1]] == [("long.avi", 10.0, 12.0)]
    assert "00:10.0 – 00:12.0" in html and "data:image/jpeg;base64," in html and contents.demo["long.avi"].name in html
    assert str(contents.demo["long.avi"].parent) not in html
    shown = [video and markup.player(video, found[0].start) for video, _ in handlers.pick(contents, copies, found, 0)]
    assert len(shown) == 2 and "#t=10.000" in str(shown[1]) and "copy" in str(shown[1])
    (copy,) = copies.iterdir()
    again = list(handlers.pick(contents, copies, found, 0))
    assert list(copies.iterdir()) == [copy] and "autoplay" in again[-1][1]
    assert list(handlers.pick(contents, copies, found, len(found))) == []


def test_a_search_takes_a_text_or_a_picture(page: tuple[Contents, ChosenVideo], tmp_path: Path) -> None:
    picture = tmp_path / "star.jpg"
    picture.write_bytes(encode_jpeg(np.zeros((32, 32, 3), np.uint8)))
    found, _ = handlers.search(page[0], "mine", "", str(picture))
    assert (found[0].name, found[0].start) == ("long.avi", 12.0)
    for text, image in (("", None), ("part 1", str(picture))):
        assert handlers.search(page[0], "mine", text, image) == ([], markup.alert(
            "Type what to look for, or give a picture; one of them."))  # fmt: skip
    picture.write_bytes(b"no picture")
    assert "star.jpg: " in (told := handlers.search(page[0], "mine", None, str(picture))[1])
    assert str(tmp_path) not in told


def test_a_search_sees_what_was_indexed_while_the_page_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    contents = make_page(tmp_path)
    index, pipeline = contents.indexes["mine"], contents.models["one"]
    (tmp_path / "videos/long.avi").rename(tmp_path / "videos/long too.avi")
    index_folder(pipeline, [str(tmp_path / "videos")], index.folder, clip_seconds=2, stride_seconds=2)
    found, _ = handlers.search(contents, "mine", "part 5", None)
    assert found[0].name == "long too.avi"
    played, _ = list(handlers.pick(contents, tmp_path / "uploads/copies", found, 0))[-1]
    assert played is not None and played.name == "long too.avi"
    (index.folder / "index.json").write_text("{")
    assert handlers.search(contents, "mine", "part 5", None)[0][0].name == "long too.avi"
    assert "is searched as it was before" in caplog.text and "index.json" in caplog.text


def test_a_video_that_is_none_is_a_message(page: tuple[Contents, ChosenVideo]) -> None:
    file = Path(page[0].shelf.roots[0]) / "b2.mp4"
    file.write_bytes(b"no video" * 99)
    ((video, html),) = handlers.choose(page[0], file.parent / "copies", file, "mine.mp4", 20)
    assert video is None and "mine.mp4" in html and 'role="alert"' in html and str(file) not in html


def test_indexes_take_the_model_that_they_were_made_with(
    page: tuple[Contents, ChosenVideo], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, other = str(page[0].indexes["mine"].folder), FakePipeline()
    models: Any = {"one": page[0].models["one"]}
    opened, failures = open_indexes({"mine": folder, "none": str(tmp_path)}, models)
    assert opened["mine"].pipeline is models["one"] and list(models) == ["one"]
    assert len(failures) == 1 and "mmpt index" in str(failures[0])
    monkeypatch.setattr("mmpt.api.page.contents.VideoTextPipeline.from_pretrained", lambda source, **_: other)
    monkeypatch.setattr(FakePipeline, "fingerprint", lambda self: "fake" if self is other else "another")
    monkeypatch.setattr("mmpt.api.page.contents.recorded_model", lambda settings, folder: settings.model)
    opened, _ = open_indexes({"mine": folder}, models)
    assert opened["mine"].pipeline is other and models["mine"] is other


def test_names_of_models(tmp_path: Path) -> None:
    named = named_sources(["a=runs/x", "runs/demo", "runs/k=v"])
    assert named == {"a": "runs/x", "demo": "runs/demo", "k=v": "runs/k=v"}
    with pytest.raises(ConfigError, match="two are called 'demo'"):
        named_sources(["runs/demo", "other/demo"])
    loaded, failures = load_models({"gone": str(tmp_path / "gone")})
    assert not loaded and str(failures[0]).startswith("model gone (")


def test_labels_options_and_texts_are_few_and_short(page: tuple[Contents, ChosenVideo]) -> None:
    many, long = "\n".join(f"label {number}" for number in range(51)), "x" * 201
    for html in (handlers.timeline(*page, "one", many), handlers.compare(*page, "one", "two", many)):
        assert "51 labels: at most 50" in html and "<img" not in html
    assert "51 options: at most 50" in handlers.answer(*page, "one", "which?", many)
    assert "201 letters; labels have at most 200" in handlers.timeline(*page, "one", f"red\n{long}")
    assert "201 letters; options have" in handlers.answer(*page, "one", "which?", long)
    assert "1001 letters" in handlers.answer(*page, "one", "y" * 1001, "red")
    assert "1001 letters" in handlers.search(page[0], "mine", "y" * 1001, None)[1]
    assert "<img" in handlers.timeline(*page, "one", many.rpartition("\n")[0])


def test_visitors_are_shown_no_folder_of_the_server(
    page: tuple[Contents, ChosenVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = page[0]
    told = markup.about(contents) + markup.heading(contents)
    for secret in ("runs/fake", "/secret", str(contents.indexes["mine"].folder), "/tmp"):
        assert secret not in told
    assert "model three: &lt;no&gt; could not be loaded" in told and "<td>one</td></tr>" in told

    def failing(*_: Any, **__: Any) -> None:
        raise DataError("/data/private/index/data_00000/vectors.f16: no such file. See https://a.example/b/c")

    monkeypatch.setattr(contents.indexes["mine"], "search", failing)
    html = handlers.search(contents, "mine", "part 1", None)[1]
    assert "vectors.f16: no such file" in html and "/data" not in html and "https://a.example/b/c" in html
