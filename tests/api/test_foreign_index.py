"""An index from a stranger: what it says of models and folders is not believed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mmpt.api.page.contents import named_roots, open_indexes
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.search import ClipIndex
from mmpt.utils.errors import ConfigError, DataError
from tests.api.fake_page import FakePipeline, make_page


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_page(tmp_path_factory.mktemp("page")).indexes["mine"].folder)


def rewritten(index: Path, **settings: Any) -> None:
    path = index / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize("model", ["stranger/model", "here", "", "/no/such/model"])
def test_its_model_is_never_a_hub_id_nor_found_from_here(
    index: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(VideoTextPipeline, "from_pretrained", lambda *_, **__: pytest.fail("was asked for"))
    rewritten(index, model=model)
    with pytest.raises(DataError, match="--model SOURCE"):
        ClipIndex.open(index).search("part 1")
    opened, failures = open_indexes({"mine": str(index)}, {})
    assert not opened and "--model SOURCE" in str(failures[0])
    models: Any = {"one": FakePipeline()}
    assert list(open_indexes({"mine": str(index)}, models)[0]) == ["mine"]  # a loaded model of that fingerprint


def test_its_model_is_an_absolute_path_that_is_there(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        VideoTextPipeline, "from_pretrained", lambda source, **_: asked.append(source) or FakePipeline()
    )
    rewritten(index, model=str(tmp_path))
    assert ClipIndex.open(index).search("part 1") and asked == [str(tmp_path)]


def test_folders_that_are_too_wide_are_played_only_where_a_person_says_so(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "people" / "me"
    (home / "videos").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/")
    monkeypatch.setenv("HOME", str(home))
    models: Any = {"one": FakePipeline()}
    wide = ["/", str(home), str(home.parent), str(tmp_path / "link"), str(home / "videos" / "..")]
    for root in wide:
        rewritten(index, roots=[root])
        opened, failures = open_indexes({"mine": str(index)}, models)
        assert not opened and "--index-root mine=DIR" in str(failures[0]), root
    opened, failures = open_indexes({"mine": str(index)}, models, {"mine": [str(home / "videos")]})
    assert opened["mine"].roots == [home / "videos"] and not failures
    rewritten(index, roots=[str(home / "videos")])
    assert open_indexes({"mine": str(index)}, models)[0]["mine"].roots == [home / "videos"]


def test_names_of_roots(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    both = [str(tmp_path), str(tmp_path / "a=b")]
    assert named_roots(both, ["mine"]) == {"mine": both}
    assert named_roots([f"mine={tmp_path}"], ["mine", "other"]) == {"mine": [str(tmp_path)]}
    for wrong in (str(tmp_path), f"third={tmp_path}", f"mine={tmp_path}{os.sep}gone"):
        with pytest.raises(ConfigError, match="--index-root"):
            named_roots([wrong], ["mine", "other"])
