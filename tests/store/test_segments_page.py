"""docs/segments.md: its transcripts are read, and its Python runs."""

import re
from pathlib import Path

import pytest

from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.store.word_times import parse_spoken, read_spoken
from mmpt.utils.files import REPOSITORY
from scripts.tiny_data.tfrecord_files import picture

PAGE = (REPOSITORY / "docs/segments.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("content", blocks("json"))
def test_transcripts_in_json(content: str) -> None:
    spoken = parse_spoken(content, "docs/segments.md")
    assert spoken.words[0].text == "cut" and spoken.words[0].start == 0.5
    assert all(word.end > word.start for word in spoken.words)
    assert spoken.denoised == (["Cut", "the", "onion."] if "denoised" in content else None)


@pytest.mark.parametrize("ending", ["vtt", "srt"])
def test_transcripts_of_captions(ending: str, tmp_path: Path) -> None:
    [content] = blocks(ending)
    (tmp_path / f"vid.{ending}").write_text(content)
    assert [word.text for word in read_spoken(tmp_path / f"vid.{ending}").words] == ["cut", "the", "onion"]


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    fields = frozenset({"images", "tokens", "token_times", "spectrograms"})
    record = SegmentRecord(
        images=[picture(np.random.default_rng(0))],
        times=[[0, 5]],
        mid=[2.5],
        speed=[1],
        tokens=[[20]],
        token_times=[np.array([[0, 1]])],
        spectrograms=[np.zeros((188, 64))],
    )
    with SegmentStoreWriter("data/mine/segments", fields) as writer:
        writer.add("vid", record)
    [snippet] = blocks("python")
    names: dict[str, object] = {}
    exec(snippet, names)
    assert names["image"].ndim == 3
