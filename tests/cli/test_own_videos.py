"""mmpt classify, segment, caption, answer: what they ask the pipeline, print, and do about videos they cannot read."""

import json

import numpy as np
import pytest

from mmpt.api.outputs import Answer, Label, Timeline, VideoClip
from mmpt.utils.errors import ConfigError, DataError, VideoError
from mmpt_cli import answer, caption, classify, models, own_videos, segment


class Pipeline:
    """Stands for the pipeline: notes what it was asked, cannot read what is called broken."""

    system = "VideoCLIP"

    def __init__(self):
        self.asked = []

    def _ask(self, video, *rest):
        self.asked.append((video, *rest))
        if "broken" in str(video):
            raise VideoError(f"{video}: not a video")

    def classify(self, video, labels, *, templates, top):
        self._ask(video, labels, templates, top)
        return [Label(label, 1.5, 0.75) for label in labels][:top]

    def segment(self, video, labels, *, templates, window_seconds, stride_seconds, background):
        self._ask(video, labels, window_seconds, stride_seconds)
        edges = np.array([0.0, 61.25])
        scores = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
        return Timeline(labels, edges, np.array([61.25, 70.0]), scores, background)

    def caption(self, video):
        self._ask(video)
        return "a cat – asleep"

    def answer(self, video, question, options, *, answers, top):
        self._ask(video, question, options, answers, top)
        return [Answer("cat", 2.0, 0.9)]


@pytest.fixture
def pipeline(monkeypatch):
    made = Pipeline()
    for module in (answer, caption, classify, segment):
        monkeypatch.setattr(module, "load", lambda options: made)
    return made


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "broken.mp4", "c.mp4", "notes.md"):
        (tmp_path / name).touch()
    return tmp_path


MODEL = ["--model", "my_model"]


def test_one_video(pipeline, folder, capsys):
    given = [str(folder / "a.mp4"), "--labels", "x", "y", "--template", "a video of {}", "--top", "1", *MODEL]
    assert classify.main(given) == 0
    assert capsys.readouterr().out == "   75.0 %     1.500  x\n"
    assert pipeline.asked == [(str(folder / "a.mp4"), ["x", "y"], ["a video of {}"], 1)]


def test_an_unreadable_video_does_not_keep_the_others(pipeline, folder, capsys):
    assert classify.main([str(folder), "--labels", "x", "--json", *MODEL]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["model"], document["system"]) == ("my_model", "VideoCLIP")
    assert [result["video"] for result in document["results"]] == [str(folder / "a.mp4"), str(folder / "c.mp4")]
    assert document["results"][0]["labels"] == [{"label": "x", "score": 1.5, "probability": 0.75}]
    (error,) = document["errors"]
    assert error["video"] == str(folder / "broken.mp4") and "not a video" in error["error"]
    assert "notes.md" in told.err and "broken.mp4" in told.err


def test_parts_of_videos(pipeline, folder, capsys):
    (folder / "parts.csv").write_text("video_id,path,start,end\np,a.mp4,2,4.5\n")
    assert caption.main([str(folder / "parts.csv"), "--json", *MODEL]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["start"], result["end"], result["caption"]) == (2.0, 4.5, "a cat – asleep")
    assert pipeline.asked == [(VideoClip(str(folder / "a.mp4"), 2.0, 4.5),)]


def test_spans_are_minutes_and_seconds(pipeline, folder, capsys):
    (folder / "labels.lst").write_text("pour\n\nstir it\n")
    assert segment.main([str(folder / "c.mp4"), "--labels-file", str(folder / "labels.lst"), *MODEL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  00:00.0 - 01:01.2  pour     0.900", "  01:01.2 - 01:10.0  stir it  0.800"]


def test_a_figure_of_the_spans(pipeline, folder, capsys):
    pytest.importorskip("matplotlib")
    given = [str(folder / "c.mp4"), "--labels", "pour", "stir", "--figure", str(folder / "t.svg"), "--json", *MODEL]
    assert segment.main(given) == 0
    assert (folder / "t.svg").read_bytes().startswith(b"<?xml")
    assert [span["label"] for span in json.loads(capsys.readouterr().out)["results"][0]["spans"]] == ["pour", "stir"]
    assert segment.main([str(folder), *given[1:]]) == 2


def test_answers(pipeline, folder, capsys):
    assert answer.main([str(folder / "c.mp4"), "who?", "--options", "cat", "dog", "--json", *MODEL]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["question"] == "who?" and result["answers"][0]["text"] == "cat"
    assert pipeline.asked == [(str(folder / "c.mp4"), "who?", ["cat", "dog"], None, None)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--labels", "x", "--template", "no place"], "no place"),
        (["--labels-file", "gone.txt"], "--labels-file: cannot read gone.txt"),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(monkeypatch, folder, capsys, more, said):
    monkeypatch.setattr(classify, "load", lambda options: pytest.fail("loaded"))
    assert classify.main([str(folder), *more, *MODEL]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VideoError("nothing to see"), 1),  # of the video, although it does not name it
        (DataError("a label of broken.mp4 is wrong"), 2),  # of what is asked, although it names the video
        (ConfigError("no such setting"), 2),
        (OSError(28, "No space left"), 2),
    ],
)
def test_the_kind_of_an_error_tells_whether_the_others_go_on(pipeline, folder, capsys, monkeypatch, error, code):
    (folder / "a.mp4").unlink()

    def classify_broken(video, *_, **__):
        if "broken" in video:
            raise error
        return [Label("x", 1.5, 0.75)]

    monkeypatch.setattr(pipeline, "classify", classify_broken)
    assert classify.main([str(folder), "--labels", "x", "--json", *MODEL]) == code
    document = json.loads(capsys.readouterr().out)
    assert ("results" in document, document.get("exit_code", 1)) == (code == 1, code)


def test_labels_are_needed_by_all_but_models_that_tell_classes(pipeline, folder, capsys):
    with pytest.raises(SystemExit):
        classify.main([str(folder / "a.mp4"), *MODEL])
    pipeline.segment = lambda video, labels, **_: (
        pipeline.asked.append(labels) or Timeline(["a"], np.array([0.0]), np.array([1.0]), np.ones((1, 1), np.float32))
    )
    assert segment.main([str(folder / "a.mp4"), *MODEL]) == 0
    assert pipeline.asked == [None]


def test_a_figure_goes_into_a_folder_that_is_there(monkeypatch, folder, capsys):
    monkeypatch.setattr(segment, "load", lambda options: pytest.fail("loaded"))
    given = [str(folder / "a.mp4"), "--labels", "x", "--figure", str(folder / "new" / "f.png"), *MODEL]
    assert segment.main(given) == 2
    assert "no such folder" in capsys.readouterr().err and not (folder / "new").exists()


def test_a_single_video_shows_how_much_of_it_is_read(pipeline, folder, capsys, monkeypatch):
    monkeypatch.setattr(own_videos, "progress_wanted", lambda options: not options.quiet)
    for more, shown in (([], True), (["--quiet"], False)):
        assert caption.main([str(folder / "a.mp4"), *more, *MODEL]) == 0
        ((video,),) = pipeline.asked
        assert getattr(video, "progress", False) is shown
        pipeline.asked.clear()


def test_the_model_arguments_reach_the_pipeline(monkeypatch):
    from mmpt.api.pipeline import VideoTextPipeline

    given = {}
    monkeypatch.setattr(
        VideoTextPipeline, "from_pretrained", classmethod(lambda cls, source, **rest: given.update(rest, source=source))
    )
    parser = caption.build_parser()
    models.load(parser.parse_args(["a.mp4", "--model", "m", "--device", "cpu", "-o", "a.b=1", "-o", "c=2"]))
    assert given == {
        "source": "m", "checkpoint": None, "device": "cpu", "s3d_weights": None, "overrides": ["a.b=1", "c=2"],
    }  # fmt: skip
