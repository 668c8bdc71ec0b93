"""Tables in every format, and every way in which one can be damaged."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processors.corpus_files import Table, read_delimited
from mmpt.utils.errors import DataError
from mmpt.utils.extras import MissingExtraError

WANTED = ("video", "text", "start")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, wanted: tuple[str, ...] = WANTED) -> list[tuple[str, dict]]:
    return list(Table(path, wanted))


def places(path: Path) -> list[str]:
    return [place.removeprefix(f"{path}: ") for place, _ in rows(path)]


def write_parquet(path: Path, **columns: list) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_json_lines_keep_types_and_skip_blank_lines(tmp_path):
    lines = ['{"video": "-a", "start": 1, "other": [1, {"x": 2}]}', "", '{"text": " ", "video": null, "start": 2.5}']
    table = Table(write(tmp_path, "a.jsonl", "\n".join(lines)), WANTED)
    assert [values for _, values in table] == [{"video": "-a", "start": 1}, {"start": 2.5}]
    assert list(table.columns) == ["video", "start", "other", "text"] and table.typed
    assert places(table.path) == ["line 1", "line 3"]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_delimited_files_are_text(tmp_path, name, delimiter):
    lines = [["video", "text", "start", "more"], ["0012", '"a""b, c\nd\te"', " 1.5 ", "x"], ["-b", "", "  ", ""]]
    table = Table(write(tmp_path, name, "".join(delimiter.join(line) + "\r\n" for line in lines)), WANTED)
    assert [values for _, values in table] == [
        {"video": "0012", "text": 'a"b, c\nd\te', "start": " 1.5 "},
        {"video": "-b"},
    ]
    assert list(table.columns) == ["video", "text", "start", "more"] and not table.typed
    assert places(table.path) == ["line 2", "line 4"]  # the first row takes two lines


def test_parquet_keeps_types_and_reads_no_other_column(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet", video=["a", None], start=[0.5, float("nan")], text=["x", ""], more=[b"1", b"2"]
    )
    table = Table(path, WANTED)
    first, second = (values for _, values in table)
    assert first == {"video": "a", "start": 0.5, "text": "x"}
    assert list(second) == ["start"] and second["start"] != second["start"]
    assert places(path) == ["row 1", "row 2"] and "more" in table.columns


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "video,text\r\na,x\r\n"), ("a.jsonl", '{"video": "a", "text": "x"}\r\n')]
)
def test_byte_order_mark_and_carriage_returns(tmp_path, name, content):
    path = write(tmp_path, name, b"\xef\xbb\xbf" + content.encode())
    assert [values for _, values in rows(path)] == [{"video": "a", "text": "x"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"video": "a"}\n{"video"}\n', "a.jsonl: line 2: not a JSON object"),
        ("a.jsonl", '{"video": "a"}\n["a"]\n', "line 2: a JSON object was expected, found list"),
        ("a.jsonl", '{"video": "a", "video": "b"}\n', "line 1: .*column 'video' is there more than once"),
        ("a.jsonl", "[" * 100_000, "line 1: not a JSON object"),
        ("a.jsonl", b'{"video": "a"}\n\n{"video": "\xff"}\n', "line 3: not UTF-8"),
        ("a.csv", "video,text,video\na,b,c\n", "line 1: column 'video' is there more than once"),
        ("a.csv", "video,text\na,b\nc\n", "line 3: 1 cells, but the header names 2 columns"),
        ("a.csv", "video,text\na,b,c\n", "line 2: 3 cells.*double quotes"),
        ("a.csv", 'video,text\na,b\nc,"open\nd,e\n', "line 3: not a readable cell.*quote"),
        ("a.csv", b"video,text\na,\xe9\n", "line 2: not UTF-8"),
        ("a.csv", b"\xff\xfev\x00i\x00", "line 1: not UTF-8"),
        ("a.parquet", "not parquet", "a.parquet: not a readable Parquet file"),
        ("a.json", "[]", "a.json: a file ending in .jsonl, .csv, .tsv, .parquet was expected"),
        (
            "a.txt",
            "video\ttext\n",
            "a.txt: a file ending in .jsonl, .csv, .tsv, .parquet was expected; the ending says .*read$",
        ),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, name, content, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=message):
        rows(write(tmp_path, name, content))


def test_a_damaged_parquet_file_does_not_read_as_a_short_one(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", video=[f"v{i}" for i in range(5000)], text=["x" * 50] * 5000)
    content = bytearray(path.read_bytes())
    content[200:2000] = os.urandom(1800)
    with pytest.raises(DataError, match="not a readable Parquet file"):
        rows(write(tmp_path, "b.parquet", bytes(content)))


def test_repeated_parquet_columns(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["video", "video"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'video' is there more than once"):
        rows(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_an_empty_or_absent_file(tmp_path, name):
    assert rows(write(tmp_path, name, "")) == []
    with pytest.raises(DataError, match="cannot be read"):
        rows(tmp_path / f"absent_{name}")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"mmpt\[parquet\]"):
        rows(write(tmp_path, "a.parquet", "x"))


def test_json_lines_are_read_one_by_one(tmp_path):
    good = '{"video": "a"}\n'
    path = write(tmp_path, "a.jsonl", good * 3 + "broken\n" + good)
    read = []
    with pytest.raises(DataError, match="line 4"):
        for _, values in Table(path, WANTED):
            read.append(values)
    assert len(read) == 3


CELL = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=20)


@given(st.lists(st.tuples(CELL, CELL), max_size=8))
def test_whatever_the_csv_module_writes_is_read_back(tmp_path_factory, cells):
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *cells])
    # a carriage return alone is no end of a line; quoted ones come back as they are
    read = [(values["a"], values["b"]) for _, values in read_delimited(path, ",")]
    assert read == [row for row in cells if any(cell.strip() for cell in row)]


@given(st.lists(st.dictionaries(st.sampled_from(WANTED), CELL | st.floats(allow_nan=False) | st.none()), max_size=8))
def test_json_lines_are_read_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    expected = [
        {key: value for key, value in row.items() if value is not None and str(value).strip()} for row in values
    ]
    assert [row for _, row in rows(path)] == expected
