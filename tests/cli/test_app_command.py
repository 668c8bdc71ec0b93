"""``mmpt app``: what it refuses before it loads anything, what it tells, what it serves."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.api.page.sweeping import Room
from mmpt_cli import app
from tests.api.fake_page import FakePipeline, make_page

uvicorn = pytest.importorskip("uvicorn")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--model SOURCE"),
        (["--model", "m", "--max-seconds", "0"], "--max-seconds"),
        (["--model", "m", "--keep-minutes", "nan"], "--keep-minutes"),
        (["--model", "m", "--demo-videos", "/nowhere"], "--demo-videos /nowhere"),
        (["--model", "m", "--max-total-mb", "100"], "--max-total-mb 100"),
        (["--model", "m", "--index", "i", "--index-root", "/nowhere"], "--index-root /nowhere"),
        (["--model", "m", "--root-path", "mmpt"], "slash"),
        (["--model", "m", "--port", "99999"], "99999"),
        (["--model", "m", "--host", "203.0.113.7"], "203.0.113.7"),
        (["--port", "0", "--model", "/nowhere/m"], "nothing could be loaded: model m (/nowhere/m)"),
    ],
)
def test_mistakes_are_told_with_exit_code_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(words) == 2
    assert told in capsys.readouterr().err


def test_what_is_served_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio")
    made = make_page(tmp_path)
    index, videos = str(made.indexes["mine"].folder), str(tmp_path / "videos")
    (tmp_path / "videos/notes.txt").write_text("no video")
    served: list[Any] = []
    monkeypatch.setattr("mmpt.api.page.contents.VideoTextPipeline.from_pretrained", lambda *_, **__: FakePipeline())
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: served.append(self.config.app))
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    words = ["--model", "a=runs/x", "--index", index, "--index", f"gone={tmp_path}", "--demo-videos", videos]
    assert app.main([*words, "--port", "0", "--allow-host", "lab.example", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["address"].startswith("http://127.0.0.1:") and told["models"] == {"a": "VideoCLIP on cpu"}
    assert told["indexes"] == {"index": index} and set(told["folders"]) == {videos}
    assert "not loaded: index gone" in err and len(told["failures"]) == 1
    assert served[0].hosts == {"localhost", "127.0.0.1", "::1", "lab.example"}
    assert "warning" not in err
    assert not Path(served[0].uploads).exists()  # it is deleted when the page ends


@pytest.mark.parametrize(
    ("words", "warned"),
    [(["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--allow-host", "lab"], False), ([], False)],
)
def test_a_page_that_is_open_to_others_says_so(
    words: list[str], warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Guarded:
        room = Room(tmp_path, 1, 1, 1)

    monkeypatch.setattr("mmpt.api.page.contents.VideoTextPipeline.from_pretrained", lambda *_, **__: FakePipeline())
    monkeypatch.setattr("mmpt.api.page.app.build_app", lambda *_: Guarded())
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    assert app.main(["--model", "a=runs/x", "--port", "0", *words]) == 0
    assert ("without a password" in capsys.readouterr().err) == warned
