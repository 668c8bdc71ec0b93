"""De-duplication: worked examples, and what may never happen whatever the captions are."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.store.caption_files import deduplicate_file, write_caption_pickle
from mmpt.store.dedup import CaptionDedup, deduplicate, longest_overlap
from mmpt.store.transcripts import Transcript, TranscriptFile
from mmpt.utils.errors import DataError
from mmpt.utils.files import file_sha256


class Coin:
    """A generator whose draws are given."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self):
        return self.draws.pop(0)


def clips(*rows):
    return Transcript([float(r[0]) for r in rows], [float(r[1]) for r in rows], [r[2] for r in rows])


STAYS, GOES = 0.4, 0.6


@pytest.mark.parametrize(
    ("given_clips", "draws", "expected"),
    [
        # Letters in common are no overlap: "...t" + "t..." was eaten by comparing characters.
        ([(0, 2, "then you cut"), (2, 4, "the onion")], [], [(0, 2, "then you cut"), (2, 4, "the onion")]),
        ([(0, 2, "a pan"), (2, 4, "pancake")], [], [(0, 2, "a pan"), (2, 4, "pancake")]),
        # The end of the clip before, said again: its end grows, never shrinks.
        ([(0, 2, "we cut the onion"), (1, 4, "the onion")], [], [(0, 4, "we cut the onion")]),
        ([(0, 9, "we cut the onion"), (1, 4, "the onion")], [], [(0, 9, "we cut the onion")]),
        ([(0, 2, "same words"), (2, 4, "same words")], [], [(0, 4, "same words")]),
        # The clip before, said again and gone on.
        ([(0, 2, "we cut"), (1, 4, "we cut the onion")], [], [(0, 4, "we cut the onion")]),
        ([(0, 5, "we cut"), (1, 4, "we cut the onion")], [], [(0, 5, "we cut the onion")]),
        # An overlap stays with the earlier clip or goes to the later one.
        ([(0, 2, "now we cut"), (2, 4, "we cut it")], [STAYS], [(0, 2, "now we cut"), (2, 4, "it")]),
        ([(0, 2, "now we cut"), (2, 4, "we cut it")], [GOES], [(0, 2, "now"), (2, 4, "we cut it")]),
        # The longest overlap counts, not the shortest.
        ([(0, 2, "x a b a"), (2, 4, "a b a y")], [STAYS], [(0, 2, "x a b a"), (2, 4, "y")]),
        # Three lines of a rolling caption.
        (
            [(0, 2, "take a pan"), (1, 3, "a pan and heat"), (2, 4, "and heat the oil")],
            [STAYS],  # leaves "and heat", which the third line repeats and goes on
            [(0, 2, "take a pan"), (1, 4, "and heat the oil")],
        ),
        ([], [], []),
        ([(0, 1, "  \n ")], [], []),
    ],
)
def test_worked_examples(given_clips, draws, expected):
    coin = Coin(*draws)
    assert deduplicate(clips(*given_clips), coin) == clips(*expected)
    assert not coin.draws


words = st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(" ".join)
videos = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), words), max_size=12).map(
    lambda rows: clips(*((start, start + length, text) for start, length, text in sorted(rows)))
)


def subsequence(short, long):
    remaining = iter(long)
    return all(word in remaining for word in short)


@settings(max_examples=300, deadline=None)
@given(videos, st.integers(0, 3))
def test_no_single_word_is_lost_and_times_stay_in_order(video, seed):
    result = deduplicate(video, np.random.default_rng(seed))
    before, after = " ".join(video.text).split(), " ".join(result.text).split()
    assert subsequence(after, before)
    # Every word whose neighbourhood does not repeat is kept: no word disappears altogether.
    assert set(after) == set(before)
    # Between clips nothing is said twice any more, unless it was cut apart by the next overlap.
    assert all(text.split() for text in result.text)
    assert result.start == sorted(result.start) and set(result.start) <= set(video.start)
    assert all(end >= start for start, end in zip(result.start, result.end, strict=True))
    if len(video):
        assert result.start[0] == video.start[0] and max(result.end) == max(video.end)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=40),
    st.lists(st.integers(1, 5), min_size=8, max_size=8),
)
def test_text_without_repeats_is_untouched(numbers, sizes):
    rows, at = [], 0
    for second, size in enumerate(sizes):
        piece = numbers[at : at + size]
        at += size
        if piece:
            rows.append((second, second + 1, " ".join(map(str, piece))))
    assert deduplicate(clips(*rows), Coin()) == clips(*rows)


@settings(max_examples=200, deadline=None)
@given(words, words)
def test_longest_overlap_equals_trying_every_length(one, other):
    before, after = one.split(), other.split()
    lengths = [n for n in range(1, min(len(before), len(after)) + 1) if before[len(before) - n :] == after[:n]]
    assert longest_overlap(before, after) == max(lengths, default=0)


def test_both_sides_of_an_overlap_come_up_equally_often():
    video = clips((0, 2, "now we cut"), (2, 4, "we cut it"))
    dedup = CaptionDedup()
    stays = sum(dedup(f"video{i}", video).text[0] == "now we cut" for i in range(2000))
    assert 900 < stays < 1100  # 4.5 standard deviations


def test_a_video_does_not_depend_on_the_order_of_videos():
    video = clips((0, 2, "now we cut"), (2, 4, "we cut it"), (4, 6, "it fine"), (6, 8, "fine then"))
    names = [f"v{i}" for i in range(30)]
    forwards, backwards = CaptionDedup(), CaptionDedup()
    there = {name: forwards(name, video) for name in names}
    back = {name: backwards(name, video) for name in reversed(names)}
    assert there == back
    assert len({tuple(result.text) for result in there.values()}) > 1
    assert CaptionDedup(1)("v0", video) == CaptionDedup(1)("v0", video)
    assert forwards.counts["clips before"] == 120
    assert forwards.counts["words before"] - forwards.counts["words after"] == 30 * 4


CAPTIONS = {
    f"v{i}": {"start": [0, 1, 2], "end": [2, 3, 4], "text": ["now we cut", "we cut it", "done"]} for i in range(30)
}
CAPTIONS["bad"] = {"start": [0], "end": [], "text": []}
CAPTIONS["silent"] = {"start": [1], "end": [0], "text": ["backwards"]}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "raw_caption.json"
    path.write_text(json.dumps(CAPTIONS))
    return path


def test_a_file_is_written_once_and_again_only_when_something_changes(source, tmp_path):
    target = tmp_path / "out" / "dedup.json"
    report = deduplicate_file(source, target)
    assert (report.done, report.skipped, report.failed) == (31, 0, 1)
    assert report.counts["clips that end before they start"] == 1
    written = json.loads(target.read_text())
    assert list(written) == [name for name in CAPTIONS if name != "bad"]
    assert written["silent"] == {"start": [], "end": [], "text": []}
    assert {tuple(entry["text"]) for name, entry in written.items() if name != "silent"} == {
        ("now we cut", "it", "done"),
        ("now", "we cut it", "done"),
    }
    stamp = target.stat().st_mtime_ns
    again = deduplicate_file(source, target)
    assert (again.done, again.skipped, again.failed) == (0, 31, 1) and target.stat().st_mtime_ns == stamp

    target.write_text(target.read_text().replace("done", "gone"))
    assert deduplicate_file(source, target).done == 31
    assert "gone" not in target.read_text()
    assert deduplicate_file(source, target, seed=5).done == 31
    source.write_text(json.dumps({"v0": CAPTIONS["v0"]}))
    assert deduplicate_file(source, target, seed=5).done == 1
    assert list(json.loads(target.read_text())) == ["v0"]
    assert sorted(path.name for path in target.parent.iterdir()) == ["dedup.json", "dedup.json.manifest.json"]


def test_a_killed_run_goes_on_and_gives_the_same_bytes(source, tmp_path):
    whole, target = tmp_path / "whole.json", tmp_path / "dedup.json"
    expected = deduplicate_file(source, whole)

    def killed(videos):
        for number, video in enumerate(videos):
            if number == 20:
                raise KeyboardInterrupt
            yield video

    with pytest.raises(KeyboardInterrupt):
        deduplicate_file(source, target, progress=killed)
    assert not target.exists()
    partial = tmp_path / ".dedup.json.partial"
    partial.write_bytes(partial.read_bytes()[:-7])  # the last line was only half on disk
    report = deduplicate_file(source, target)
    assert (report.done, report.skipped) == (12, 19)
    assert report.counts == expected.counts
    assert target.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_the_rest_of_another_run_is_not_used(source, tmp_path):
    target = tmp_path / "dedup.json"

    def killed(videos):
        yield next(videos)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deduplicate_file(source, target, seed=1, progress=killed)
    assert deduplicate_file(source, target, seed=2).skipped == 0


def test_a_wrong_file_leaves_nothing_behind(tmp_path):
    source = tmp_path / "wrong.json"
    source.write_text(json.dumps(CAPTIONS)[:-30])
    with pytest.raises(DataError, match="wrong.json"):
        deduplicate_file(source, tmp_path / "dedup.json")
    with pytest.raises(DataError, match="same file"):
        deduplicate_file(source, source)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.json"]


def test_the_pickle_holds_one_json_string_per_video(source, tmp_path):
    target = tmp_path / "dedup.json"
    deduplicate_file(source, target)
    write_caption_pickle(target, tmp_path / "dedup.pkl")
    content = pickle.loads((tmp_path / "dedup.pkl").read_bytes())
    assert json.loads(content["v3"]) == json.loads(target.read_text())["v3"]
    assert TranscriptFile(tmp_path / "dedup.pkl")["v3"] == TranscriptFile(target)["v3"]


def test_counts_are_optional():
    assert deduplicate(clips((0, 1, "a")), Coin(), Counter()) == clips((0, 1, "a"))
    assert len(file_sha256(__file__)) == 64
