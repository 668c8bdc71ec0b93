"""Transcripts with word times: every format that is read, worked by hand, and what is wrong named by file and line."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.store.merlot_chunks import merlot_chunks
from mmpt.store.subtitle_files import read_subtitles
from mmpt.store.transcript_source import open_transcripts
from mmpt.store.word_times import SpokenText, Word, clean_words, parse_spoken, read_spoken, spread_words
from mmpt.utils.errors import DataError


def parsed(value: Any) -> SpokenText:
    return parse_spoken(json.dumps(value), "f.json")


def approx(words: list[Word]) -> list[tuple[str, float, float]]:
    return [(word.text, pytest.approx(word.start), pytest.approx(word.end)) for word in words]


def test_merlots_json() -> None:
    spoken = parsed(
        {
            "info": {"id": "v", "title": "Käse", "duration": 9},
            "subtitles": [
                {"word": "so", "time": 0.5},
                {"word": "good", "time": 0.75},
                {"word": "bye", "time": 5},
            ],
            "denoised": [{"noisyasr": "so good", "cleanasr": "So, good."}, {"noisyasr": "bye", "cleanasr": "Bye!"}],
        }
    )
    assert spoken.words == [Word("so", 0.5, 0.75), Word("good", 0.75, 1.75), Word("bye", 5, 6)]
    assert spoken.denoised == ["So,", "good.", "Bye!"]
    assert (spoken.video_id, spoken.meta) == ("v", {"title": "Käse"})


@pytest.mark.parametrize(
    "value",
    [
        [{"word": "a", "start": 1, "end": 2}, {"text": "b", "start": 3, "end": 4}],
        [["a", 1, 2], ["b", 3, 4]],
        {"words": [{"word": " a ", "start": 1, "end": 2}, {"word": "b", "start": 3, "end": 4}]},
        {"segments": [{"words": [["b", 3, 4]]}, {"words": [["a", 1, 2]]}]},
        {"segments": [{"start": 1, "end": 2, "text": " a"}, {"start": 3, "end": 4, "text": "b"}]},
        {"start": [3, 1], "end": [4, 2], "text": ["b", "a"]},
    ],
)
def test_other_json(value: Any) -> None:
    assert parsed(value).words == [Word("a", 1, 2), Word("b", 3, 4)]
    assert parsed(value).denoised is None


def test_a_caption_is_shared_by_characters() -> None:
    assert spread_words("ab cdef", 1, 4) == [Word("ab", 1, 2), Word("cdef", 2, 4)]
    assert spread_words(" \n ", 1, 4) == []
    assert clean_words("it’s &amp; caf\u0065\u0301\x07 “x” a\u00a0b") == ["it's", "&", "café", '"x"', "a", "b"]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.floats(0, 1e4), st.floats(0, 1e3))
def test_words_of_a_caption_fill_its_time_in_order(text: str, start: float, length: float) -> None:
    words = spread_words(text, start, start + length)
    assert [word.text for word in words] == clean_words(text)
    assert not words or (words[0].start == start and words[-1].end == pytest.approx(start + length))
    assert all(a.end == b.start for a, b in itertools.pairwise(words))


SRT = """1
00:00:01,000 --> 00:00:02,000 X1:0
<i>Hello</i> {\\an8}you
- two

2
00:00:03,000 --> 00:00:04,500

3
00:01:00,000 --> 00:01:01,000
[Music]
>> naïve
4
01:00:00,000 --> 01:00:01,000
last
"""

YOUTUBE = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start position:0%
~
so<00:00:00.500><c> we</c><00:00:01.250><c> start</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
so we start
~

00:00:02.010 --> 00:00:04.000 align:start position:0%
so we start
now

00:00:04.000 --> 00:00:04.010
now
~

00:00:04.010 --> 00:00:06.000
now
again<00:00:05.000><c> now</c>
""".replace("~", " ")

ROLLING = """WEBVTT

NOTE nothing

intro
00:01.000 --> 00:02.000
one two

00:02.000 --> 00:03.000
one two
<v Anna>three four

00:09.000 --> 00:10.000
three four
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_srt(tmp_path: Path) -> None:
    words = read_spoken(write(tmp_path, "a.srt", SRT)).words
    assert [word.text for word in words] == ["Hello", "you", "two", "naïve", "last"]
    assert approx(words[:2]) == [("Hello", 1, 1 + 5 / 11), ("you", 1 + 5 / 11, 1 + 8 / 11)]
    assert (words[3].start, words[4].start) == (60, 3600)
    again = read_spoken(write(tmp_path, "b.srt", SRT.replace("\n", "\r\n").encode("utf-16")))
    assert again.words == words
    assert read_spoken(write(tmp_path, "empty.srt", "")).words == []


def test_rolling_captions_say_each_line_once(tmp_path: Path) -> None:
    words = read_spoken(write(tmp_path, "a.vtt", YOUTUBE)).words
    assert approx(words) == [
        ("so", 0, 0.5),
        ("we", 0.5, 1.25),
        ("start", 1.25, 2),
        ("now", 2.01, 4),
        ("again", 4.01, 5),
        ("now", 5, 6),
    ]
    words = read_spoken(write(tmp_path, "b.vtt", ROLLING)).words
    assert [word.text for word in words] == ["one", "two", "three", "four", "three", "four"]


@pytest.mark.parametrize("blank", [" ", ""])
def test_rolling_captions_without_stamps(tmp_path: Path, blank: str) -> None:
    """What ``yt-dlp --convert-subs srt`` makes of them: cues of 10 milliseconds between the others say nothing new."""
    plain = re.sub(r"<[^<>]*>", "", YOUTUBE.partition("\n\n")[2])
    plain = plain.replace(" align:start position:0%", "").replace("\n \n", "\n" + blank + "\n")
    numbered = itertools.count(1)
    srt = re.sub(r"(?m)^(?=.*-->)", lambda _: f"{next(numbered)}\n", plain).replace(".", ",")
    words = read_spoken(write(tmp_path, "a.srt", srt)).words
    assert [word.text for word in words] == ["so", "we", "start", "now", "again", "now"]
    assert (words[0].start, words[3].start, words[4].start) == (0, 2.01, 4.01)


def test_remains_of_entities_are_no_words_of_merlot() -> None:
    """They are looked for before entities are resolved."""
    heard = ["&gt;&gt;", "hello", "&quot;so", "rock&amp;", "it&#39;s", "&nbsp;", "there"]
    value = {"subtitles": [{"word": word, "time": number} for number, word in enumerate(heard)]}
    spoken = parsed({**value, "denoised": [{"cleanasr": "&gt;&gt; Hello it&#39;s"}, {"cleanasr": "&amp; there;"}]})
    assert [word.text for word in spoken.words] == ["hello", "it's", "there"]
    assert spoken.words[1].start == 4 and spoken.denoised == ["Hello", "it's"]


@pytest.mark.parametrize("denoised", [[], "", [{"cleanasr": " "}]])
def test_an_empty_denoised_transcript_is_none(denoised: Any) -> None:
    spoken = parsed({"subtitles": [{"word": "hello", "time": 1}], "denoised": denoised})
    assert spoken.denoised is None and "denoised transcript is empty" in spoken.notes[0]
    [chunk] = merlot_chunks(spoken.words, lambda words: [[101] for _ in words], 30.0, spoken.denoised)
    assert chunk.tokens == chunk.raw_tokens == [101]


def test_words_that_an_aligner_gave_no_times() -> None:
    """WhisperX does not time numbers: they fill the gap between their neighbours, or to the end of the segment."""
    timed = [{"word": "in", "start": 0.1, "end": 0.3}, {"word": "20"}, {"word": "14"}, {"word": "we", "start": 1.1}]
    untimed = [{"word": "7", "start": None, "end": None}]
    first = {"start": 0, "end": 3, "text": "", "words": [*timed, {"word": "5"}]}
    spoken = parsed({"segments": [first, {"start": 4, "end": 5, "text": "", "words": untimed}]})
    assert approx(spoken.words) == [
        ("in", 0.1, 0.3),
        ("20", 0.3, 0.7),
        ("14", 0.7, 1.1),
        ("we", 1.1, 1.1),
        ("5", 1.1, 3),
        ("7", 4, 5),
    ]
    assert "4 words without times" in spoken.notes[0]
    with pytest.raises(DataError, match="segments 0: None is no time"):
        parsed({"segments": [{"words": untimed}]})


def test_files_of_downloaders_are_no_transcripts(tmp_path: Path) -> None:
    for name in ("abc.info.json", "abc.live_chat.json", "talk.part1.json", "talk.final.vtt"):
        write(tmp_path, name, "{}")
    for language in ("en", "pt-BR", "en-orig", "zh-Hans", "en-j3PyPqV-e1s"):
        write(tmp_path, f"v {language}.{language}.vtt", ROLLING)
    write(tmp_path, "abc.en.vtt", ROLLING)
    source = open_transcripts(tmp_path)
    assert source["abc"].words[0].text == "one" and "talk" not in source and "abc.info" not in source
    assert all(f"v {language}" in source for language in ("en", "pt-BR", "en-orig", "zh-Hans", "en-j3PyPqV-e1s"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.srt", "1\n00:00:0x --> 00:00:02,000\nx", r"a\.srt, line 2: .* are no times"),
        ("a.srt", "1\n00:00:03,000 --> 00:00:02,000\nx", r"a\.srt, line 2: the cue ends at 2"),
        ("a.srt", b"1\n\xff\xe9x", r"a\.srt, line 2: not UTF-8"),
        ("a.vtt", "00:00:01.000 --> 00:00:02.000\nx", r"a\.vtt, line 1: a WebVTT file begins"),
        ("a.json", '{"words": [\n{"word": }', r"a\.json: not JSON .*line 2"),
        ("a.json", "3", r"a\.json: 3 is no transcript"),
        ("a.json", "{}", "none of the keys"),
        ("a.json", '{"words": [["a", 1], ["b", -1]]}', r"words: word 1: -1 is no time"),
        ("a.json", '{"words": [["a", 3, 2]]}', "ends at 2.0 s, before it starts"),
        ("a.json", '{"words": [{"wort": 1}]}', "word 0: .* has no word and time"),
        ("a.json", '{"segments": [{}]}', "segments 0: .* neither words nor text"),
        ("a.json", '{"words": [], "denoised": [1]}', "denoised: .* no list of texts"),
        ("a.json", '{"start": [1], "end": [], "text": []}', "differ in length"),
        ("a.json", b'["\xff"]', "not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_spoken(write(tmp_path, name, content))


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.text(max_size=80), st.lists(st.sampled_from([*SRT, "-->", "\n"]))))
def test_any_subtitle_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    content = "".join(content) if isinstance(content, list) else content
    encoded = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    path = write(folder, "a.srt", encoded)
    try:
        read_subtitles(path)
    except DataError as error:
        assert "a.srt" in str(error)


def test_a_folder_of_transcripts(tmp_path: Path) -> None:
    write(tmp_path, "v 1.srt", SRT)
    write(tmp_path, "v 1.json", '[["a", 1]]')
    write(tmp_path, "ü.de.vtt", ROLLING)
    write(tmp_path, "ü.en-orig.vtt", YOUTUBE)
    write(tmp_path, "other.txt", "x")
    source = open_transcripts(tmp_path)
    assert "v 1" in source and "ü" in source and "other" not in source
    assert [word.text for word in source["v 1"].words] == ["a"]
    assert source["ü"].words[0].text == "so"
    stamp = source.stamp("v 1")
    write(tmp_path, "v 1.json", '[["ab", 1]]')
    assert stamp and source.stamp("v 1") != stamp and source.stamp("no") is None
    with pytest.raises(DataError, match="no transcript of video 'no'"):
        source["no"]
    assert "v 1" in open_transcripts(tmp_path / "v 1.srt")


def test_one_file_of_many_videos(tmp_path: Path) -> None:
    captions = {"a": {"start": [1], "end": [2], "text": ["x y"]}, "b": [["z", 3]]}
    source = open_transcripts(write(tmp_path, "all.json", json.dumps(captions)))
    assert [word.text for word in source["a"].words] == ["x", "y"] and source["b"].words[0].start == 3
    assert source.stamp("a") != source.stamp("b")
    with pytest.raises(DataError, match=r"all\.json: no captions for video 'c'"):
        source["c"]
    lines = '{"info": {"id": "a"}, "subtitles": []}\n\n{"video_id": "ü", "words": [["x", 1]]}\n{"id": "bad"}\n'
    source = open_transcripts(write(tmp_path, "all.jsonl", lines))
    assert source["a"].words == [] and source["ü"].words == [Word("x", 1, 2)]
    assert source["ü"].video_id == "ü" and source.stamp("ü")
    with pytest.raises(DataError, match=r"all\.jsonl, line 4: no transcript"):
        source["bad"]
    with pytest.raises(DataError, match="line 1: does not say which video"):
        open_transcripts(write(tmp_path, "b.jsonl", '{"words": []}'))
    with pytest.raises(DataError, match="no such folder or file"):
        open_transcripts(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no transcripts"):
        open_transcripts(tmp_path / "empty")
