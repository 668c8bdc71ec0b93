"""A search that finds nothing says why; a bound that none can meet is a mistake."""

import json

import pytest
from fake_clips import FakePipeline, write
from test_clip_index import run

from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.search import ClipIndex
from mmpt.utils.errors import DataError
from mmpt_cli import search as search_command


@pytest.mark.parametrize("bound", [float("nan"), float("inf"), 1.5, -1.01])
def test_a_minimum_that_is_no_cosine_is_a_mistake(tmp_path, bound):
    run(write(tmp_path / "v", a="red 3"), tmp_path / "index")
    index = ClipIndex.open(tmp_path / "index", FakePipeline())
    with pytest.raises(DataError, match="between -1 and 1"):
        index.search("red", min_score=bound)
    assert index.search("red", min_score=-1) and index.search("red", min_score=1) is not None


@pytest.mark.parametrize(
    ("content", "words", "why"),
    [("red 0", [], "the index has no clips"), ("red 3", ["--min-score", "0.999999"], "0.99")],
)
def test_why_nothing_is_found_is_said_everywhere(tmp_path, content, words, why, monkeypatch, capsys):
    monkeypatch.setattr(VideoTextPipeline, "from_pretrained", lambda source, **_: FakePipeline())
    run(write(tmp_path / "v", a=content), tmp_path / "index")
    page = tmp_path / "found.html"
    for more in ([], ["--json"]):
        given = [str(tmp_path / "index"), "violet", "--model", "fake", "--html", str(page), *words, *more]
        assert search_command.main(given) == 0
        said = capsys.readouterr()
        assert said.err.startswith("nothing found: ") and why in said.err and why in page.read_text()
        assert not more or json.loads(said.out)["results"] == []
