"""What pre-training reads, from a file of rows."""

import json
from pathlib import Path

import pytest

from mmpt.processors.corpus import CorpusMetaProcessor
from scripts.comparison.narration_files import main

ROWS = (
    {"video": "a", "start": 0, "end": 2.5, "text": "red star", "split": "train"},
    {"video": "a", "start": 3, "end": 5, "text": "blue star", "split": "train"},
    {"video": "b", "start": 1, "end": 2, "text": "green ring", "split": "valid"},
    {"video": "c", "start": 0, "end": 1, "text": "secret words", "split": "test"},
)


def _write(path: Path, rows: tuple[dict[str, object], ...]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_nothing_of_the_test_is_in_what_pre_training_reads(tmp_path: Path) -> None:
    _write(tmp_path / "rows.jsonl", ROWS)
    assert main(["--rows", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert (out / "train.lst").read_text() == "a\n"
    assert (out / "val.lst").read_text() == "b\n"
    spoken = json.loads((out / "raw_caption.json").read_text())
    assert spoken["a"] == {"start": [0.0, 3.0], "end": [2.5, 5.0], "text": ["red star", "blue star"]}
    assert set(spoken) == {"a", "b"}
    words = (out / "bert/vocab.txt").read_text().split("\n")
    assert {"red", "blue", "star", "true", "false"} <= set(words)
    assert not {"secret", "words", "green"} & set(words)
    assert json.loads((out / "bert/config.json").read_text())["hidden_size"] == 128
    file = str(out / "pretraining.jsonl")
    listed = CorpusMetaProcessor({"split": "train", "train_path": file, "val_path": file}).data
    assert listed == [(("a", 0, 3), "red star"), (("a", 3, 5), "blue star")]
    assert "secret" not in Path(file).read_text()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:2], "no row is of split 'valid'"),
        (({**ROWS[0], "start": None, "end": None}, ROWS[2]), "no start and end"),
    ],
)
def test_rows_that_do_not_serve_are_refused(
    tmp_path: Path, rows: tuple[dict[str, object], ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "rows.jsonl", tuple({k: v for k, v in row.items() if v is not None} for row in rows))
    assert main(["--rows", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
