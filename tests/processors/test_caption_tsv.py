"""SwinBERT's caption files: which captions a training draws, and which are references."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processors.caption_tsv import CaptionTSVMetaProcessor
from mmpt.processors.captioning import NLGTextProcessor
from mmpt.store.swinbert_files import read_caption_yaml, video_id_of_key
from mmpt.utils.errors import ConfigError, DataError, UnsafePathError
from tests.fuzz.mutations import examples, mutated, reads_or_refuses

ROWS: list[tuple[str, list[str]]] = [
    ("videos/v0.mp4", ["a dog", "a brown dog"]),
    ("v1", ["a cat"]),
    ("v2.webm", ["one", "two", "three"]),
]


def write(folder: Path, rows: Any = ROWS, linelist: str | None = None, coco: Any = None, **keys: Any) -> Path:
    """Write the files of a split; return its YAML."""
    lines = [f"{key}\t{json.dumps([{'caption': text, 'start': 0} for text in texts])}" for key, texts in rows]
    (folder / "caption.tsv").write_text("\n".join(lines) + "\n")
    lines = ["img: frames.tsv", "label: label.tsv", "caption: caption.tsv"]
    if linelist is not None:
        (folder / "linelist.tsv").write_text(linelist)
        lines.append("caption_linelist: linelist.tsv")
    if coco is not None:
        (folder / "coco.json").write_text(json.dumps(coco))
        lines.append("caption_coco_format: coco.json")
    lines += [f"{key}: {value}" for key, value in keys.items()]
    (folder / "split.yaml").write_text("\n".join(lines) + "\n")
    return folder / "split.yaml"


def items(path: Path, split: str, **options: Any) -> list[Any]:
    key = {"train": "train_path", "valid": "val_path", "test": "test_path"}[split]
    return list(CaptionTSVMetaProcessor({key: str(path), "split": split, **options}).data)


def test_a_training_follows_the_linelist(tmp_path: Path) -> None:
    path = write(tmp_path, linelist="2\t1\n0\t0\n2\t1\n")
    assert items(path, "train") == [("v2", "two"), ("v0", "a dog"), ("v2", "two")]


def test_without_a_linelist_every_caption_is_an_item(tmp_path: Path) -> None:
    found = items(write(tmp_path), "train")
    assert found == [
        ("v0", "a dog"),
        ("v0", "a brown dog"),
        ("v1", "a cat"),
        *[("v2", one) for one in ROWS[2][1]],
    ]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_references_are_all_captions_and_coco_goes_first(tmp_path: Path, split: str) -> None:
    path = write(tmp_path, linelist="0\t0\n")
    assert items(path, split) == [("v0", ["a dog", "a brown dog"]), ("v1", ["a cat"]), ("v2", ROWS[2][1])]
    coco = {
        "images": [{"id": "videos/v0.mp4"}, {"id": "v3.mp4"}],
        "annotations": [{"image_id": "v3", "caption": "new"}, {"image_id": "v0.mp4", "caption": "dog!"}],
    }
    path = write(tmp_path, coco=coco)
    assert items(path, split) == [("v0", ["dog!"]), ("v1", ["a cat"]), ("v2", ROWS[2][1]), ("v3", ["new"])]


def test_videos_without_a_caption_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, rows=[*ROWS, ("v4", [])])
    with pytest.raises(DataError, match="1 of 4 items are left out: 1 without a caption .for example v4"):
        items(path, "test")
    assert len(items(path, "test", max_missing=0.3)) == 3
    assert "1 without a caption" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linelist": "3\t0\n"}, "no caption 0 of video 3"),
        ({"linelist": "1\t1\n"}, "no caption 1 of video 1"),
        ({"linelist": "1 1\n"}, "linelist.tsv: line 1: expected two cells"),
        ({"linelist": "1\t-1\n"}, "line 1: expected the numbers"),
        ({"composite": "true"}, "composite: true"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        items(write(tmp_path, **change), "train")


def test_a_caption_row_that_is_none_is_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "caption.tsv").write_text('v0\t[{"caption": "a"}]\nv1\t[{"text": "a"}]\n')
    with pytest.raises(DataError, match=r"caption.tsv: line 2: not a JSON list"):
        items(path, "train")
    path.write_text("caption: other.tsv\n")
    with pytest.raises(DataError, match="caption: no such file"):
        read_caption_yaml(path)
    path.write_text("img: frames.tsv\n")
    with pytest.raises(DataError, match="names neither"):
        read_caption_yaml(path)
    (tmp_path / "coco.json").write_text('{"annotations": [{"image_id": "v", "caption": "a"}]}')
    path.write_text("caption_coco_format: coco.json\n")
    assert items(path, "test") == [("v", ["a"])]
    with pytest.raises(ConfigError, match="names no caption file"):
        items(path, "train")


def test_keys_become_plain_names() -> None:
    assert [video_id_of_key(key, "f") for key in ("a/b.mp4", "b.mp4", "c.d", "e")] == ["b", "b", "c.d", "e"]
    with pytest.raises(UnsafePathError):
        video_id_of_key("a/..", "f")


def test_several_references_are_kept_and_the_first_is_tokenised() -> None:
    text = NLGTextProcessor({"bert_name": "tests/data/tiny_bert"})
    assert text(["w1 w2", "w3"]) == (text("w1 w2")[0], ["w1 w2", "w3"])


@pytest.mark.parametrize("name", ["split.yaml", "caption.tsv", "linelist.tsv", "coco.json"])
@examples(25)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str, data: Any) -> None:
    coco = {"images": [{"id": "v0"}], "annotations": [{"image_id": "v0.mp4", "caption": "dog!"}]}
    path = write(tmp_path, linelist="2\t1\n0\t0\n", coco=coco)
    damaged = tmp_path / name
    damaged.write_bytes(data.draw(mutated(damaged.read_bytes())))
    for split in ("train", "test"):
        reads_or_refuses(functools.partial(items, path, split, max_missing=1.0), path, *tmp_path.iterdir())
