"""Caption files: every fault of an entry is counted, every wrong file is one clear error, big files stream."""

import json
import os
import pickle
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.store import json_scan
from mmpt.store.transcripts import Transcript, TranscriptFile, iter_transcripts, parse_transcript
from mmpt.utils.errors import DataError

GOOD = {"start": [0.0, 2.5], "end": [2.0, 4.0], "text": ["cut the onion", "then fry it"]}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_faulty_clips_are_dropped_and_counted_by_reason():
    nan = float("nan")
    entry = {
        "start": [5, 0, 1, 2, nan, 3, "4", True, -1, 6],
        "end": [4, 1, 2, 3, 5, float("inf"), 5, 2, 1, 6],
        "text": ["backwards", "kept", "  ", 17, "nan", "inf", "text time", "bool time", "before zero", "a\n  b"],
    }
    counts = Counter()
    assert parse_transcript(entry, counts) == Transcript([0.0, 6.0], [1.0, 6.0], ["kept", "a b"])
    assert counts == {
        "clips that end before they start": 1,
        "clips without text": 1,
        "clips whose text is not a string": 1,
        "clips whose time is not a number of seconds": 5,
    }


def test_clips_out_of_order_are_sorted_stably_and_counted():
    counts = Counter()
    entry = {"start": [3, 1, 1], "end": [4, 2, 9], "text": ["c", "a", "b"]}
    assert parse_transcript(entry, counts) == Transcript([1, 1, 3], [2, 9, 4], ["a", "b", "c"])
    assert counts == {"videos whose clips had to be sorted by start": 1}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"start": [0], "end": [1, 2], "text": ["a"]}, "differ in length: 1, 2, 1"),
        ({"start": [0], "end": [1]}, "expected"),
        ([1, 2], "expected"),
        ("{not json", "not JSON"),
    ],
)
def test_a_malformed_entry_is_an_error(entry, message):
    with pytest.raises(DataError, match=message):
        parse_transcript(entry)


def test_json_and_both_kinds_of_pickle_read_alike(tmp_path):
    captions = {"v1": GOOD, "v_2": {"start": [1], "end": [2], "text": ["ünïcode 漢字"]}}
    arrays = {
        k: {"start": np.array(v["start"]), "end": np.float32(v["end"]), "text": v["text"]} for k, v in captions.items()
    }
    contents = {"strings": {k: json.dumps(v) for k, v in captions.items()}, "dicts": captions, "arrays": arrays}
    expected = {k: parse_transcript(v) for k, v in captions.items()}
    assert dict(iter_transcripts(write(tmp_path / "c.json", captions))) == expected
    for name, content in contents.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(pickle.dumps(content))
        assert dict(iter_transcripts(path)) == expected
        opened = TranscriptFile(path)
        assert opened.ids() == ["v1", "v_2"] and opened["v_2"] == expected["v_2"]


keys = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.dictionaries(keys, values, max_size=6),
    block=st.integers(1, 40),
    ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_scanning_in_blocks_of_any_size_equals_loading(tmp_path, content, block, ascii, indent):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content, ensure_ascii=ascii, indent=indent), encoding="utf-8", errors="surrogatepass")
    try:
        whole = path.read_bytes()
        whole.decode("utf-8")
    except UnicodeDecodeError:
        return  # lone surrogates have no UTF-8
    before, json_scan._BLOCK = json_scan._BLOCK, block
    try:
        scanner = json_scan.JsonObjectScanner(path)
        pairs = {}
        for key, value in scanner.pairs():
            start, length = scanner.place
            assert json.loads(whole[start : start + length]) == value
            pairs[key] = value
        scanner.close()
    finally:
        json_scan._BLOCK = before
    assert pairs == content


def test_random_access_reads_any_video_of_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_scan, "_BLOCK", 1000)
    rng = random.Random(0)
    captions = {
        f"v{i}": {"start": [i], "end": [i + 1], "text": ["é" * rng.randrange(300) + f"clip {i}"]} for i in range(200)
    }
    path = tmp_path / "c.json"
    path.write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
    opened = TranscriptFile(path)
    assert len(opened) == 200 and "v7" in opened and "w7" not in opened
    for name in rng.sample(sorted(captions), 50):
        assert opened[name] == parse_transcript(captions[name])
    with pytest.raises(DataError, match="no captions for video 'w7'"):
        opened["w7"]


@pytest.mark.parametrize("cut", [0, 1, 5, 30, -1, -2])
def test_a_cut_file_is_one_clear_error(tmp_path, cut):
    path = write(tmp_path / "c.json", json.dumps({"v1": GOOD, "v2": GOOD})[:cut])
    with pytest.raises(DataError, match="c.json"):
        list(iter_transcripts(path))
    with pytest.raises(DataError, match="c.json"):
        TranscriptFile(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "not a whole JSON object"),
        ("{}", "holds no videos"),
        ('{"v": {}} more', "something follows"),
        ('{"v" {}}', "expected ':'"),
        ('{"v": {},}', "double quotes"),
        ('{"sentences": [{"video_id": "v", "caption": "c"}]}', "1 of the first 1 videos are malformed.*'sentences'"),
        ('{"v": ' + "[" * 100_000 + "}", "not a whole JSON object"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        list(iter_transcripts(write(tmp_path / "c.json", content)))


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(DataError, match="none.json.*cannot be read"):
        list(iter_transcripts(tmp_path / "none.json"))
    (tmp_path / "b.json").write_bytes(b'{"v": "\xff\xfe"}')
    with pytest.raises(DataError, match="b.json: not a UTF-8"):
        list(iter_transcripts(tmp_path / "b.json"))


def test_pickled_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"v": Evil()}))
    with pytest.raises(DataError, match="evil.pkl"):
        TranscriptFile(path)
    assert not (tmp_path / "ran").exists()


def test_few_malformed_videos_are_counted_and_many_are_an_error(tmp_path):
    captions = {f"v{i}": GOOD for i in range(20)} | {"bad": {"start": [1], "end": [], "text": []}}
    path, counts = write(tmp_path / "c.json", captions), Counter()
    assert len(dict(iter_transcripts(path, counts))) == 20 and counts["malformed videos"] == 1
    with pytest.raises(DataError, match="1 of the first 21 videos are malformed, for example video 'bad'"):
        list(iter_transcripts(path, limit=0.0))


def test_of_an_id_given_twice_the_first_counts(tmp_path):
    second = json.dumps({**GOOD, "text": ["other", "words"]})
    path = write(tmp_path / "c.json", f'{{"v": {json.dumps(GOOD)}, "v": {second}}}')
    counts = Counter()
    (only,) = iter_transcripts(path, counts)
    assert only[1].text == GOOD["text"] and counts["videos given twice"] == 1
    assert TranscriptFile(path)["v"].text == GOOD["text"]
