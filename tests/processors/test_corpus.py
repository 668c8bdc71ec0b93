"""A corpus of one's own: every kind of item from every format, and what is said of wrong files."""

import csv
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt.processors.base import holdout
from mmpt.processors.coin import COINActionSegmentationAligner
from mmpt.processors.corpus import CorpusMetaProcessor, CorpusVideoProcessor
from mmpt.processors.msrvtt_qa import Choice
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

SECONDS = 20
ROWS = [
    {
        "video": "-a_1",
        "start": 1.5,
        "end": 4.2,
        "text": "A Dog runs.",
        "question": "who runs?",
        "options": ["dog", "cat", "man"],
        "answer": "cat",
        "label": "run",
    },
    {
        "video": "-a_1",
        "start": 8,
        "end": 9,
        "text": "It sits | there",
        "question": "where?",
        "options": ["a|b", "here"],
        "answer": 1,
        "label": "sit",
    },
    {"video": "b", "text": "whole", "question": "what?", "options": ["x", "y"], "answer": 0, "label": "eat"},
]
CHOICES = [
    Choice(1, ("dog", "cat", "man"), "who runs?", 3),
    Choice(1, ("a|b", "here"), "where?", 3),
    Choice(0, ("x", "y"), "what?", 3),
]
CLIPS = [("-a_1", 1, 5), ("-a_1", 8, 9), "b"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "feat").mkdir()
    for name in ("-a_1", "b", "c", "d", "e"):
        np.save(tmp_path / "feat" / f"{name}.npy", np.arange(SECONDS * 2, dtype=np.float16).reshape(SECONDS, 2))
    return tmp_path


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format that the name of the file ends in."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        columns = {name: [row.get(name) for row in rows] for name in names}
        columns = {n: [None if v is None else str(v) for v in c] if n == "answer" else c for n, c in columns.items()}
        parquet.write_table(arrow.table(columns), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return path


def config(folder: Path, rows: list[dict] | None = None, name: str = "corpus.jsonl", split: str = "test", **more):
    path = str(folder / name if rows is None else write(folder / name, rows))
    paths = {"test_path": path} if split == "test" else {"train_path": path, "val_path": path}
    return {**paths, "split": split, "vfeat_dir": str(folder / "feat"), **more}


def meta(items: str, *arguments, **more) -> CorpusMetaProcessor:
    return CorpusMetaProcessor(config(*arguments, **more), items=items)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
class TestEveryFormatGivesTheSameItems:
    def test_retrieval(self, folder, name):
        texts = ["A Dog runs.", "It sits | there", "whole"]
        assert meta("retrieval", folder, ROWS, name).data == list(zip(CLIPS, texts, strict=True))

    def test_qa(self, folder, name):
        rows = ROWS
        if name == "a.parquet":  # a column has one type: all answers as text
            rows = [{**row, "answer": answer} for row, answer in zip(ROWS, ("cat", "here", "x"), strict=True)]
        assert meta("qa", folder, rows, name).data == list(zip(CLIPS, CHOICES, strict=True))

    def test_classification(self, folder, name):
        found = meta("classification", folder, ROWS, name)
        assert found.labels == ["eat", "run", "sit"] and found.num_labels == 3
        labels = ("eat", "run", "sit")
        assert found.data == [
            (clip, Choice(answer, labels, row["question"]))
            for clip, answer, row in zip(CLIPS, (1, 2, 0), ROWS, strict=True)
        ]

    def test_segmentation(self, folder, name):
        rows = [{**row, "split": "test"} for row in ROWS[:2]] + [{"video": "b", "split": "test"}]
        found = meta("segmentation", folder, rows, name)
        assert found.labels == ["O", "run", "sit"] and found.num_labels == 3
        assert found.data == [
            ("-a_1", {"start": [1.5, 8.0], "end": [4.2, 9.0], "label": [1, 2]}),
            ("b", {"start": [], "end": [], "label": []}),
        ]


def test_names_of_the_registry(folder):
    for items in ("Retrieval", "QA", "Classification", "Captioning", "Segmentation"):
        rows = [{**row, "split": "test"} for row in ROWS[:2]]
        found = build("meta_processor", f"Corpus{items}MetaProcessor", config(folder, rows))
        assert found.items == items.lower() and len(found) in (1, 2)
        assert pickle.loads(pickle.dumps(found)).data == found.data
    assert found.num_labels == 3 and meta("retrieval", folder, rows).num_labels is None


def test_captions_of_one_clip_are_references_of_one_name(folder):
    """One item per row; the predictor of captions takes items of one name as one clip (NLGPredictor)."""
    rows = [
        {"video": "b", "start": 0, "end": 3, "text": "One."},
        {"video": "b", "text": "Other"},
        {"video": "b", "start": 0.4, "end": 2.6, "text": "Two"},
    ]
    found = meta("captioning", folder, rows)
    assert found.data == [(("b", 0, 3), "One."), ("b", "Other"), (("b", 0, 3), "Two")]
    settings = {"split": "test", "bert_name": "tests/data/tiny_bert", "use_fast": False}
    aligner, text = build("aligner", "DSNLGAligner", settings), build("text_processor", "NLGTextProcessor", settings)
    items = [aligner(clip, np.zeros((3, 2), np.float32), text(sentence)) for clip, sentence in found.data]
    assert [(item["video_id"], item["ref"]) for item in items] == [("b_0_3", "One."), ("b", "Other"), ("b_0_3", "Two")]


def test_features_of_clips_and_of_whole_videos(folder):
    video = CorpusVideoProcessor(config(folder, ROWS))
    assert video(("-a_1", 1, 5))[:, 0].tolist() == [2, 4, 6, 8]
    assert len(video(("b", 18, 25))) == 2 and len(video("b")) == SECONDS
    with pytest.raises(DataError, match="'b' cover 20 s, nothing of 30-31 s"):
        video(("b", 30, 31))


def test_segments_become_targets_of_the_coin_aligner(folder):
    found = meta("segmentation", folder, [{**row, "split": "test"} for row in ROWS[:2]])
    sizes = {"split": "test", "bert_name": "tests/data/tiny_bert", "use_fast": False, "max_video_len": 8, "max_len": 24}
    item = COINActionSegmentationAligner(sizes)("-a_1", np.zeros((10, 2), np.float32), found.data[0][1])
    assert item["video_targets"].tolist() == [0, 1, 1, 1, 1, 0, 0, 0, 2, 0]


class TestSplits:
    def rows(self, **splits: int) -> list[dict]:
        names = [name for name, count in splits.items() for _ in range(count)]
        return [{"video": f"v{number}", "text": "t", "split": name} for number, name in enumerate(names)]

    def names(self, folder, rows, split, **more):
        return {video for video, _ in meta("retrieval", folder, rows, split=split, vfeat_dir=None, **more).data}

    def test_a_column_says_which_row_is_in_which_split(self, folder):
        rows = self.rows(train=3, Validation=2, TEST=1)
        found = [self.names(folder, rows, split) for split in ("train", "valid", "test")]
        assert found == [{"v0", "v1", "v2"}, {"v3", "v4"}, {"v5"}]
        # what the launcher sets where a training validates on the file that a test tests on
        assert [self.names(folder, rows, split, val_holdout=0.05) for split in ("train", "valid", "test")] == found

    def test_rows_marked_for_training_are_held_out_where_none_is_for_validation(self, folder):
        rows = self.rows(train=300, test=50)
        train, valid, test = (self.names(folder, rows, s, val_holdout=0.2) for s in ("train", "valid", "test"))
        names = [f"v{i}" for i in range(300)]
        assert valid == {name for name, held in zip(names, holdout(names, 0.2), strict=True) if held}
        assert train == set(names) - valid and len(test) == 50
        message = r"no row is of split 'valid' \(there are 50 of test, 300 of train\).*val_holdout"
        with pytest.raises(DataError, match=message):
            self.names(folder, rows, "valid")

    def test_a_file_without_the_column_is_all_of_one_split(self, folder):
        rows = [{"video": f"v{i}", "text": "t"} for i in range(100)]
        assert len(self.names(folder, rows, "test", val_holdout=0.2)) == 100
        sides = [self.names(folder, rows, split, val_holdout=0.2) for split in ("train", "valid")]
        assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 100

    def test_a_file_of_its_own_for_validation_is_taken_whole(self, folder):
        rows = [{"video": f"v{i}", "text": "t"} for i in range(100)]
        other = str(write(folder / "valid.jsonl", [{"video": f"w{i}", "text": "t"} for i in range(10)]))
        more = {"val_path": other, "val_holdout": 0.2}
        assert len(self.names(folder, rows, "train", **more)) == 100
        assert self.names(folder, rows, "valid", **more) == {f"w{i}" for i in range(10)}

    def test_rows_that_train_and_test_alike_are_refused(self, folder):
        rows = [{"video": "b", "text": "t"}]
        for split in ("train", "test"):
            path = str(folder / "corpus.jsonl")
            with pytest.raises(ConfigError, match="is also train_path, and it has no column 'split'"):
                meta("retrieval", folder, rows, split=split, train_path=path, test_path=path)
        marked = [{**rows[0], "split": "test"}]
        assert len(meta("retrieval", folder, marked, train_path=path, test_path=path)) == 1

    def test_a_video_of_two_splits_is_warned_of(self, folder, caplog):
        rows = [{"video": name, "text": "t", "split": split} for name, split in (("b", "train"), ("b", "test"))]
        assert self.names(folder, rows, "test") == {"b"}
        assert "1 videos are in train and in another split: b" in caplog.text

    def test_a_row_without_a_split_among_others(self, folder):
        rows = [*self.rows(train=2), {"video": "x", "text": "t"}]
        with pytest.raises(DataError, match="line 3: column 'split': has no value"):
            self.names(folder, rows, "train")


class TestColumns:
    def test_renamed(self, folder):
        rows = [{"clip id": "b", "caption": "t", "from": 1, "to": 2, "text": 5}]
        columns = {"video": "clip id", "text": "caption", "start": "from", "end": "to"}
        assert meta("retrieval", folder, rows, columns=columns).data == [(("b", 1, 2), "t")]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"vidoe": "x"}, "dataset.columns: 'vidoe' is none of.*Did you mean 'video'"),
            ({"video": "clipid"}, r"no column for 'video' \(dataset.columns\), 'clipid' .*Did you mean 'clip'"),
            ({"start": "begin"}, "no column for 'start'"),
            ({"answer": "absent"}, None),  # retrieval does not read it
        ],
    )
    def test_renamed_wrongly(self, folder, columns, message):
        settings = config(folder, [{"clip": "b", "video": "b", "text": "t"}], columns=columns)
        if message is None:
            assert len(CorpusMetaProcessor(settings)) == 1
            return
        with pytest.raises((ConfigError, DataError), match=message):
            CorpusMetaProcessor(settings)

    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
    @pytest.mark.parametrize(
        ("items", "row", "message"),
        [
            ("retrieval", {"vidoe": "b", "text": "t"}, "no column 'video' .*Did you mean 'vidoe'"),
            ("retrieval", {"video": "b", "txt": "t"}, "no column 'text' .*Did you mean 'txt'"),
            (
                "qa",
                {"video": "b", "options": '["x", "y"]', "anwser": "x"},
                "no column 'answer' .*Did you mean 'anwser'",
            ),
            ("classification", {"video": "b", "labels": "x"}, "no column 'label' .*Did you mean 'labels'"),
        ],
    )
    def test_missing(self, folder, name, items, row, message):
        with pytest.raises(DataError, match=message):
            meta(items, folder, [row, row], name)

    def test_a_slip_in_an_optional_column_is_warned_of(self, folder, caplog):
        meta("retrieval", folder, [{"video": "b", "text": "t", "strat": 1, "end_time": 2, "other": 3}])
        assert "column 'strat' is not read; is it 'start'?" in caplog.text and "other" not in caplog.text


WRONG = [
    ("retrieval", {"video": "../b"}, "column 'video': '../b' is not a video id"),
    ("retrieval", {"video": "a/b"}, "column 'video': 'a/b' is not a video id"),
    ("retrieval", {"video": ".hidden"}, "column 'video': '.hidden' is not"),
    ("retrieval", {"video": 5}, "column 'video': expected text, found 5"),
    ("retrieval", {"video": None}, "column 'video': has no value, and retrieval needs one"),
    ("retrieval", {"text": ["t"]}, "column 'text': expected text"),
    ("retrieval", {"start": 1}, "column 'end': has no value; give both"),
    ("retrieval", {"end": 1}, "column 'start': has no value; give both"),
    ("retrieval", {"start": 2, "end": 2}, "column 'end': 2.0 is not after start 2.0"),
    ("retrieval", {"start": 3, "end": 2}, "column 'end': 2.0 is not after"),
    ("retrieval", {"start": float("nan"), "end": 2}, "column 'start': nan is not a time"),
    ("retrieval", {"start": 1, "end": float("inf")}, "column 'end': inf is not a time"),
    ("retrieval", {"start": -1, "end": 2}, "column 'start': -1 is not a time"),
    ("retrieval", {"start": "00:01", "end": 2}, "column 'start': expected a number of seconds, found '00:01'"),
    ("retrieval", {"start": True, "end": 2}, "column 'start': expected a number"),
    ("retrieval", {"start": [1], "end": 2}, "column 'start': expected a number"),
    ("retrieval", {"split": "tset"}, "column 'split': 'tset' is none of.*Did you mean 'test'"),
    ("qa", {"options": ["x"]}, "column 'options': expected two options or more"),
    ("qa", {"options": ["x", " "]}, "column 'options': expected two options or more, none of them empty"),
    ("qa", {"options": ["x", 2]}, "column 'options', option 1: expected text"),
    ("qa", {"options": "[x, y"}, "column 'options': begins as a JSON list"),
    ("qa", {"options": {"x": 1}}, "column 'options': expected a list"),
    ("qa", {"answer": 2}, "column 'answer': 2 is neither an index 0 .. 1 nor the text of an option"),
    ("qa", {"answer": -1}, "column 'answer': -1 is neither"),
    ("qa", {"answer": True}, "column 'answer': True is neither"),
    ("qa", {"answer": 0.5}, "column 'answer': 0.5 is neither"),
    ("qa", {"answer": 2.0}, "column 'answer': 2.0 is neither"),
    ("qa", {"answer": float("nan")}, "column 'answer': nan is neither"),
    ("qa", {"answer": "xx1"}, "column 'answer': 'xx1' is neither.*Did you mean 'xx'"),
    ("qa", {"answer": None}, "column 'answer': has no value, and qa needs one"),
    ("qa", {"options": ["x", "x", "y"], "answer": "x"}, "column 'answer': 'x' is the text of 2 options"),
    ("qa", {"question": 3}, "column 'question': expected text"),
    ("classification", {"label": 3.5}, "column 'label': expected text"),
    ("classification", {"label": True}, "column 'label': expected text"),
    ("classification", {"label": 1e300}, "column 'label': expected text"),
    ("classification", {"label": float("nan")}, "column 'label': expected text"),
    ("classification", {"label": [3]}, "column 'label': expected text"),
    ("segmentation", {"start": None, "end": None}, "column 'start': has no value, and segmentation needs one"),
    ("segmentation", {"label": "O"}, r"column 'label': 'O' is class 0 .*dataset.background"),
]
GOOD = {"video": "b", "text": "t", "options": ["xx", "y"], "answer": 0, "label": "run"}


@pytest.mark.parametrize(("items", "change", "message"), WRONG)
def test_wrong_values_are_named_with_line_and_column(folder, items, change, message):
    good = {**GOOD, "split": "test", **({"start": 1, "end": 2} if items == "segmentation" else {})}
    bad = {key: value for key, value in {**good, **change}.items() if value is not None}
    with pytest.raises(DataError, match=f"a.jsonl: line 2: {message}"):
        meta(items, folder, [good, bad], "a.jsonl")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"options": "x|y| z ", "answer": "z"}, (2, ("x", "y", "z"))),
        ({"options": "x|y", "answer": "1"}, (1, ("x", "y"))),
        ({"options": '["x|y", "z"]', "answer": "x|y"}, (0, ("x|y", "z"))),
        ({"options": "0|1|2", "answer": "2"}, (2, ("0", "1", "2"))),
        ({"options": "2|3|1", "answer": "3"}, (1, ("2", "3", "1"))),
        ({"options": "2|3|1", "answer": "1"}, "'1' is the text of one option and the index of another"),
        ({"options": "x|y", "answer": "1.0"}, (1, ("x", "y"))),
        ({"options": "x|1.0|y", "answer": "1.0"}, (1, ("x", "1.0", "y"))),
        ({"options": "1.0|x|y", "answer": "1.0"}, "'1.0' is the text of one option and the index of another"),
        ({"options": "x|y", "answer": "0.5"}, "'0.5' is neither an index"),
        ({"options": "x|y", "answer": "2"}, "'2' is neither an index"),
        ({"options": "x", "answer": "0"}, "two options or more"),
    ],
)
def test_options_and_answers_in_a_file_without_types(folder, cells, expected):
    row = {"video": "b", **cells}
    if isinstance(expected, str):
        with pytest.raises(DataError, match=f"a.csv: line 2: .*{expected}"):
            meta("qa", folder, [row], "a.csv")
    else:
        ((_, choice),) = meta("qa", folder, [row], "a.csv").data
        assert choice[:2] == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
@pytest.mark.parametrize("number", [3, 3.0, "3", "3.0", "3.000"])
@pytest.mark.parametrize("items", ["classification", "segmentation"])
def test_whole_numbers_are_the_same_class_in_every_format(folder, name, number, items):
    times = {"start": 1, "end": 2, "split": "test"}
    texts = isinstance(number, str)
    rows = [{"video": "b", "label": label, **times} for label in (number, type(number)(12), str(7) if texts else 7)]
    found = meta(items, folder, rows, name)
    assert found.labels == ["O", "12", "3", "7"][items == "classification" :]
    answers = [choice.answer for _, choice in found.data] if items == "classification" else found.data[0][1]["label"]
    assert [found.labels[number] for number in answers] == ["3", "12", "7"]


def test_numbers_as_pandas_writes_them_beside_gaps(folder):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    rows = [
        {"video": "b", "options": "x|y|z", "answer": 2, "label": 4, "text": "t"},
        {"video": "b", "options": "x|y|z", "answer": 0, "label": -1, "text": "t"},
        {"video": "b", "text": "t"},  # the gap that makes floats of answers and labels
    ]
    frame = pandas.DataFrame(rows)
    assert frame["answer"].dtype == float
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_json(folder / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        found = meta("qa", folder, None, name, max_missing=0.5)
        assert [choice.answer for _, choice in found.data] == [2, 0], name
        found = meta("classification", folder, None, name, max_missing=0.5)
        assert found.labels == ["-1", "4"] and [choice.answer for _, choice in found.data] == [1, 0], name


def test_a_text_that_is_a_number_is_a_text_where_there_are_types(folder):
    rows = [{"video": "b", "options": ["2", "3", "1"], "answer": answer} for answer in ("1", 1)]
    assert [choice.answer for _, choice in meta("qa", folder, rows).data] == [2, 1]


class TestWhatIsLeftOut:
    def test_rows_without_features_are_counted_up_to_a_limit(self, folder, caplog):
        rows = [{"video": "b", "text": "t"}] * 18 + [{"video": "absent", "text": "t"}]
        rows.append({"video": "c", "start": SECONDS, "end": SECONDS + 5, "text": "t"})
        assert len(meta("retrieval", folder, rows)) == 18
        assert "1 that begin after the features end (for example c, line 20)" in caplog.text
        assert "1 without features (for example absent, line 19)" in caplog.text
        with pytest.raises(DataError, match="2 of 20 rows are left out.*max_missing 0.05"):
            meta("retrieval", folder, rows, max_missing=0.05)

    def test_rows_of_other_kinds_are_counted(self, folder, caplog):
        rows = [{"video": "b", "text": "t"}] * 9 + [{"video": "b", "label": "x"}]
        assert len(meta("retrieval", folder, rows)) == 9
        assert "1 without a value in column 'text' (for example line 10)" in caplog.text
        assert len(meta("classification", folder, [*rows, {"video": "b", "label": "y"}], max_missing=1.0)) == 2
        with pytest.raises(DataError, match="9 of 10 rows are left out"):
            meta("classification", folder, rows)

    def test_a_right_option_that_is_there_twice_cannot_be_answered(self, folder, caplog):
        rows = [{"video": "b", "options": ["x", "x", "y"], "answer": 2}] * 9
        rows.append({"video": "b", "options": ["x", "x", "y"], "answer": 0})
        assert len(meta("qa", folder, rows)) == 9 and "whose right option is there twice" in caplog.text

    def test_a_video_keeps_its_place_when_a_segment_of_it_is_left_out(self, folder):
        rows = [{"video": "b", "start": i, "end": i + 1, "label": "x", "split": "test"} for i in range(10)]
        rows.append({"video": "c", "start": 50, "end": 51, "label": "x", "split": "test"})
        found = dict(meta("segmentation", folder, rows).data)
        assert len(found["b"]["start"]) == 10 and found["c"] == {"start": [], "end": [], "label": []}

    def test_empty_features(self, folder):
        np.save(folder / "feat" / "e.npy", np.zeros((0, 2), np.float16))
        rows = [{"video": "b", "text": "t"}] * 10 + [{"video": "e", "text": "t"}]
        assert len(meta("retrieval", folder, rows)) == 10

    @pytest.mark.parametrize("content", ["", "\n\n", "video,text\n"])
    def test_an_empty_file(self, folder, content):
        (folder / "a.csv").write_text(content)
        with pytest.raises(DataError, match="a.csv: holds no rows"):
            meta("retrieval", folder, None, "a.csv")


class TestLabels:
    def rows(self, *labels: str, **more) -> list[dict]:
        return [{"video": "b", "start": i, "end": i + 1, "label": label, **more} for i, label in enumerate(labels)]

    def test_a_file_of_classes_fixes_their_order(self, folder):
        (folder / "labels.txt").write_text("sit\nrun\n\nfly\n")
        path = str(folder / "labels.txt")
        found = meta("classification", folder, self.rows("run", "sit"), label_path=path)
        assert found.labels == ["sit", "run", "fly"] and [choice.answer for _, choice in found.data] == [1, 0]
        with pytest.raises(DataError, match=r"line 2: column 'label': 'runn' is not named in .*labels.txt.*'run'"):
            meta("classification", folder, self.rows("run", "runn"), label_path=path)

    def test_segmentation_with_a_file_of_classes(self, folder):
        (folder / "labels.json").write_text(json.dumps({"0": "nothing", "3": "run", "1": "sit"}))
        found = meta("segmentation", folder, self.rows("run", "sit"), label_path=str(folder / "labels.json"))
        assert found.labels == ["nothing", "sit", "", "run"] and found.num_labels == 4
        assert found.data[0][1]["label"] == [3, 1]
        with pytest.raises(DataError, match="'nothing' is class 0 .*background"):
            meta("segmentation", folder, self.rows("nothing"), label_path=str(folder / "labels.json"))

    def test_a_text_file_of_classes_without_a_background_says_how_to_name_it(self, folder):
        path = folder / "labels.txt"
        path.write_text("run\nsit\n")
        with pytest.raises(DataError, match="'run' is class 0 of .*: begin the file with a line O,"):
            meta("segmentation", folder, self.rows("sit", "run"), label_path=str(path))
        path.write_text("O\nrun\nsit\n")
        assert meta("segmentation", folder, self.rows("sit", "run"), label_path=str(path)).labels == ["O", "run", "sit"]
        with pytest.raises(DataError, match="'O' is class 0 .* and no rows"):
            meta("segmentation", folder, self.rows("sit", "O"), label_path=str(path))

    def test_another_background(self, folder):
        rows = self.rows("b", "a", "c", split="test")
        found = meta("segmentation", folder, rows, background=1)
        assert found.labels == ["a", "O", "b", "c"] and found.data[0][1]["label"] == [2, 0, 3]
        assert meta("segmentation", folder, rows, background=3).labels == ["a", "b", "c", "O"]
        assert meta("segmentation", folder, rows, background=5).labels == ["a", "b", "c", "", "", "O"]

    def test_labels_are_those_of_all_splits(self, folder):
        rows = self.rows("a", split="train") + self.rows("b", split="test")
        assert meta("segmentation", folder, rows, split="train").labels == ["O", "a", "b"]
        assert meta("classification", folder, rows, split="train").data[0][1][:2] == (0, ("a", "b"))

    def test_segmentation_of_files_per_split_needs_the_classes(self, folder):
        with pytest.raises(ConfigError, match="dataset.label_path: not set"):
            meta("segmentation", folder, self.rows("a", "b"))
        # Two files with a split column each: their labels need not be the same ones, so their ids would not be either.
        rows = self.rows("a", "b", split="test")
        with pytest.raises(ConfigError, match="dataset.label_path: not set"):
            meta("segmentation", folder, rows, train_path=str(folder / "others.jsonl"))

    @pytest.mark.parametrize(("content", "message"), [("run\nrun\n", "names 'run' 2 times"), ("run\n", "two labels")])
    def test_wrong_classes(self, folder, content, message):
        (folder / "labels.txt").write_text(content)
        with pytest.raises(DataError, match=message):
            meta("classification", folder, self.rows("run"), label_path=str(folder / "labels.txt"))

    def test_a_single_label_is_no_choice(self, folder):
        with pytest.raises(DataError, match="two labels or more"):
            meta("classification", folder, self.rows("run"))


def test_questions_with_equally_many_options_are_not_filled_up(folder):
    rows = [{"video": "b", "options": ["x", "y"], "answer": 0}] * 2
    assert [choice.slots for _, choice in meta("qa", folder, rows).data] == [0, 0]


def test_nothing_in_a_file_is_executed(folder, caplog):
    caplog.set_level(logging.INFO)
    row = {"video": "b", "text": "${oc.env:HOME} {{7*7}} !!python/object/apply:os.system [id]"}
    assert meta("retrieval", folder, [row]).data == [("b", row["text"])]
