"""No video that a task is tested on is left in the training of another task."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.processors.caption_tsv import CaptionTSVMetaProcessor
from scripts.multi_task import filter_test_videos

QA = {"train": ["v1", "v2", "v3", "v4"], "val": ["v5"], "test": ["v6", "v7"]}
RETRIEVAL = {"train": ["v1", "v5", "v6", "v8", "v8"], "val": ["v2"], "test": ["v9"]}


def write_task(root: Path, name: str, splits: dict[str, list[str]], **keys: Any) -> None:
    content = {split: [{"video": video, "text": f"{video} {name}"} for video in ids] for split, ids in splits.items()}
    (root / f"txt_{name}.json").write_text(json.dumps({**content, **keys}))


def write_captions(root: Path, split: str, ids: list[str]) -> None:
    folder = root / "V2"
    folder.mkdir(exist_ok=True)
    rows = "".join(f'videos/{name}.mp4\t[{{"caption": "{name} a"}}, {{"caption": "{name} b"}}]\n' for name in ids)
    (folder / f"{split}.tsv").write_text(rows)
    coco = {"annotations": [{"image_id": f"{name}.mp4", "caption": "x"} for name in ids]}
    (folder / f"{split}.json").write_text(json.dumps(coco))
    (folder / f"{split}_32frames.yaml").write_text(
        f"img: img.tsv\ncaption: {split}.tsv\ncaption_coco_format: {split}.json\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_task(tmp_path, "vtt-qa", QA, vocab=["yes", "no"])
    write_task(tmp_path, "vtt-retrieval", RETRIEVAL)
    write_task(tmp_path, "other-qa", {"train": ["v1"], "val": ["v1"], "test": []})
    return tmp_path


def videos(path: Path, split: str) -> list[str]:
    return [item["video"] for item in json.loads(path.read_text())[split]]


def test_without_captions(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert filter_test_videos.main(["--dataset", "vtt", "--data-root", str(root)]) == 0
    output = root / "multi_task"
    assert sorted(path.name for path in output.iterdir()) == ["txt_vtt-qa.json", "txt_vtt-retrieval.json"]
    assert videos(output / "txt_vtt-qa.json", "train") == ["v1", "v3", "v4"]
    assert videos(output / "txt_vtt-retrieval.json", "train") == ["v1", "v8", "v8"]
    assert videos(output / "txt_vtt-retrieval.json", "val") == ["v2"]
    before, after = (json.loads((folder / "txt_vtt-qa.json").read_text()) for folder in (root, output))
    assert {**before, "train": None} == {**after, "train": None}
    printed = capsys.readouterr().out
    assert "txt_vtt-qa.json: 3 of 4 training items kept, 3 of 4 videos" in printed
    assert "txt_vtt-retrieval.json: 3 of 5 training items kept, 2 of 4 videos" in printed


def test_captions_are_filtered_and_filter(root: Path, tmp_path: Path) -> None:
    for split, ids in (("train", ["v2", "v1", "v10"]), ("val", ["v3"]), ("test", ["v8"])):
        write_captions(root, split, ids)
    output = tmp_path / "out" / "deep"
    flags = ["--dataset", "vtt", "--data-root", str(root), "--output-folder", str(output)]
    assert filter_test_videos.main([*flags, "--caption-yaml", "V2/{split}_32frames.yaml"]) == 0
    assert videos(output / "txt_vtt-qa.json", "train") == ["v1", "v4"]
    assert videos(output / "txt_vtt-retrieval.json", "train") == ["v1"]
    path = output / "V2" / "train_32frames.yaml"
    meta = CaptionTSVMetaProcessor({"split": "train", "train_path": str(path)})
    assert meta.data == [(name, f"{name} {letter}") for name in ("v1", "v10") for letter in "ab"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "vttt"], "no file txt_vttt-<task>.json"),
        (["--dataset", "vtt", "--output-folder", "."], "the output folder is that of the input"),
        (["--dataset", "vtt", "--caption-yaml", "V2/train.yaml"], "with {split} in it"),
        (["--dataset", "vtt", "--caption-yaml", "V3/{split}.yaml"], "there is no V3/{split}.yaml"),
        (["--dataset", "other"], "every training item"),
    ],
)
def test_errors(root: Path, flags: list[str], message: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(root)
    assert filter_test_videos.main([*flags, "--data-root", str(root)]) == 2
    assert message in capsys.readouterr().err
    assert not (root / "multi_task").exists()


@pytest.mark.parametrize("value", ["5", '{"v1": ["a caption"]}', '"v1"'])
def test_a_split_that_is_no_list_is_named(root: Path, value: str, capsys: Any) -> None:
    (root / "txt_vtt-wrong.json").write_text(f'{{"train": [], "test": {value}}}')
    assert filter_test_videos.main(["--dataset", "vtt", "--data-root", str(root)]) == 2
    told = capsys.readouterr().err
    assert "txt_vtt-wrong.json: test: a " in told and "expected a list of items" in told


def test_caption_files_that_hold_nothing_out_are_told(root: Path, caplog: Any) -> None:
    write_captions(root, "train", ["v1", "v10"])
    write_captions(root, "val", ["v3"])
    flags = ["--dataset", "vtt", "--data-root", str(root), "--caption-yaml", "V2/{split}_32frames.yaml"]
    assert filter_test_videos.main(flags) == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "test_32frames.yaml: videos whose captions are tested there are not held out" in warning
    assert "val_32frames.yaml" not in warning
