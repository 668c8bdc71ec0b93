"""From videos and transcripts to a segment store: what is in it, what fails and why, resuming, workers."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store.audio import decode_audio
from mmpt.store.images import decode_image
from mmpt.store.segment_extraction import SegmentExtractionOptions, extract_segments
from mmpt.store.segment_making import PictureSize, fitted
from mmpt.store.segment_store import SegmentStore, StoredSegments
from mmpt.store.spectrogram import log_mel
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.subword_training import train_subwords
from mmpt.utils.subwords import load_subwords
from tests.store.sound_samples import write_sound_video

pytest.importorskip("av")

SENTENCE = ["wir", "machen", "einen", "Käse-Kuchen", "with", "flour", "and", "eggs"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, their transcripts and tokenizers of both kinds."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "videos").mkdir()
    (folder / "texts").mkdir()
    write_sound_video(folder / "videos" / "a.mp4", 17, bars=6)
    write_sound_video(folder / "videos" / "ö b.mkv", 12.5, sound=None, size=(96, 64))
    words = [[SENTENCE[k % len(SENTENCE)], 0.4 * k, 0.4 * k + 0.3] for k in range(40)]
    (folder / "texts" / "a.json").write_text(json.dumps({"title": "Küche", "words": words}))
    (folder / "texts" / "ö b.json").write_text("[]")
    for kind in ("merlot", "reserve"):
        train_subwords(kind, [" ".join(SENTENCE)] * 3, 380, folder / kind)
    return folder


def options(corpus: Path, kind: str, **changes: Any) -> SegmentExtractionOptions:
    return SegmentExtractionOptions(**{"kind": kind, "tokenizer": str(corpus / kind), "workers": 0, **changes})


def extract(corpus: Path, out: Path, kind: str, **changes: Any) -> Any:
    items = find_videos([corpus / "videos"])
    return extract_segments(items, corpus / "texts", out, options(corpus, kind, **changes))


def content(segments: StoredSegments) -> list[bytes]:
    return [segments.times.tobytes()] + [
        part.tobytes() for k in range(len(segments)) for part in (segments.image(k), segments.tokens(k))
    ]


def test_windows_with_words_and_sound(corpus: Path, tmp_path: Path) -> None:
    summary = extract(corpus, tmp_path / "out", "reserve")
    assert (summary.done, summary.failed) == (2, 0)
    assert summary.warnings == [("ö b", "has no sound: its spectrograms are silent")]
    store = SegmentStore(tmp_path / "out")
    assert store.fields == {"images", "tokens", "token_times", "spectrograms"}
    assert sorted(store.producer()["tokenizer"]) == ["lowercase_encoder.json"]
    a, mute = store["a"], store["ö b"]
    assert a.times.tolist() == [[0, 5], [5, 10], [10, 15]] and a.mid.tolist() == [2.5, 7.5, 12.5]
    assert a.speed.tolist() == [1, 1, 1] and a.meta["title"] == "Küche"
    assert a.meta["duration"] == pytest.approx(17, abs=0.2)
    subwords = load_subwords(str(corpus / "reserve"))
    said = [SENTENCE[k % len(SENTENCE)] for k in range(40) if 5 <= 0.4 * k < 10]
    assert a.tokens(1).tolist() == [id for word in subwords.encode_words(said) for id in word]
    assert a.token_times(1)[0] == pytest.approx([0.2, 0.5], abs=1e-5)
    assert (a.token_times(1)[:, 0] >= 0).all() and (a.token_times(1)[:, 1] <= 5).all()
    wave = decode_audio(corpus / "videos" / "a.mp4", start=5, end=10)
    np.testing.assert_allclose(a.spectrogram(1), log_mel(wave), atol=0.05)
    assert a.spectrogram(1).max() > 1
    assert not mute.spectrogram(0).any() and len(mute.tokens(0)) == 0 and len(mute) == 2
    pictures = [decode_image(a.image(k)) for k in range(3)]
    assert pictures[0].shape == (36, 64, 3)  # without its bars
    assert [picture.mean() for picture in pictures] == pytest.approx([60, 120, 160], abs=6)
    assert decode_image(mute.image(0)).shape == (64, 96, 3)


def test_chunks_of_speech(corpus: Path, tmp_path: Path) -> None:
    summary = extract(corpus, tmp_path / "out", "merlot")
    assert (summary.done, summary.failed, summary.warnings) == (2, 0, [])
    store = SegmentStore(tmp_path / "out")
    assert store.fields == {"images", "tokens"}
    a = store["a"]
    assert all(0 < len(a.tokens(k)) <= 31 and a.tokens(k).min() >= 100 for k in range(len(a)))
    tokens = np.concatenate([a.tokens(k) for k in range(len(a))]).tolist()
    text = load_subwords(str(corpus / "merlot")).decode(tokens)
    assert text.split() == [SENTENCE[k % len(SENTENCE)] for k in range(40)][: len(text.split())]
    assert (a.mid >= a.times[:, 0]).all() and (a.mid <= a.times[:, 1]).all() and (a.mid < 16.1).all()
    assert [len(store["ö b"].tokens(k)) for k in range(2)] == [0, 0]  # nothing is said: every 5 seconds


def test_chunks_may_be_shorter(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "out", "merlot", most_tokens=7, short_side=24, quality=50)
    a = SegmentStore(tmp_path / "out")["a"]
    lengths = [len(a.tokens(k)) for k in range(len(a))]
    assert max(lengths) <= 7 and len(lengths) > 4
    assert decode_image(a.image(0)).shape == (24, 43, 3)  # 36 x 64 without its bars


def test_denoised_and_raw_transcripts_and_no_transcripts_at_all(corpus: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    words = [{"word": word, "time": number} for number, word in enumerate(["mashen", "eggs"])]
    line = {"info": {"id": "a"}, "subtitles": words, "denoised": [{"cleanasr": "machen eggs."}]}
    texts.write_text(json.dumps(line))
    items = find_videos([corpus / "videos"])
    summary = extract_segments(items, texts, tmp_path / "out", options(corpus, "merlot", raw_transcript=True))
    assert [video for video, _ in summary.failures] == ["ö b"] and "no transcript" in summary.failures[0][1]
    a = SegmentStore(tmp_path / "out")["a"]
    subwords = load_subwords(str(corpus / "merlot"))
    assert (subwords.decode(a.tokens(0)), subwords.decode(a.raw_tokens(0))) == (" machen eggs.", " mashen eggs")
    lenient = options(corpus, "merlot", raw_transcript=True, missing_as_speechless=True)
    summary = extract_segments(items, texts, tmp_path / "out", lenient)
    assert (summary.done, summary.skipped, summary.failed) == (1, 1, 0)
    summary = extract_segments(items, None, tmp_path / "mute", options(corpus, "reserve"))
    assert summary.done == 2 and not len(SegmentStore(tmp_path / "mute")["a"].tokens(0))


def test_few_words_are_played_faster(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_sound_video(tmp_path / "videos" / "slow.mp4", 33)
    (tmp_path / "slow.srt").write_text("1\n00:00:07,000 --> 00:00:08,000\nflour\n")
    items = find_videos([tmp_path / "videos"])
    chosen = options(corpus, "reserve", speed_up=True)
    assert extract_segments(items, tmp_path / "slow.srt", tmp_path / "out", chosen).done == 1
    slow = SegmentStore(tmp_path / "out")["slow"]
    assert slow.speed.max() == 3
    first = int(np.argmax(slow.times[:, 1] > 7))
    assert slow.token_times(first)[0, 0] == pytest.approx((7 - slow.times[first, 0]) / slow.speed[first], abs=1e-4)
    for k in range(len(slow)):
        assert np.diff(slow.times[k]) == pytest.approx(5 * slow.speed[k])
        wave = decode_audio(tmp_path / "videos" / "slow.mp4", start=slow.times[k, 0], end=slow.times[k, 1])
        np.testing.assert_allclose(slow.spectrogram(k), log_mel(wave, slow.speed[k]), atol=0.1)


def test_workers_and_order_do_not_matter(corpus: Path, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "one", "reserve")
    summary = extract(corpus, tmp_path / "two", "reserve", workers=2, videos_per_shard=1)
    assert (summary.done, summary.failed) == (2, 0)
    one, two = SegmentStore(tmp_path / "one"), SegmentStore(tmp_path / "two")
    assert len(two.shards) == 2
    assert {name: content(one[name]) for name in one} == {name: content(two[name]) for name in two}


def test_a_second_run_does_what_is_new_or_changed(corpus: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for file in (corpus / "texts").iterdir():
        (texts / file.name).write_bytes(file.read_bytes())
    items, out = find_videos([corpus / "videos"]), tmp_path / "out"
    extract_segments(items, texts, out, options(corpus, "reserve"))
    again = extract_segments(items, texts, out, options(corpus, "reserve"))
    assert (again.done, again.skipped) == (0, 2)
    (texts / "ö b.json").write_text('[["flour", 1, 2]]')
    again = extract_segments(items, texts, out, options(corpus, "reserve"))
    assert (again.done, again.skipped) == (1, 1) and len(SegmentStore(out)["ö b"].tokens(0))
    (texts / "ö b.json").write_text("{")
    again = extract_segments(items, texts, out, options(corpus, "reserve"))
    assert again.failed == 1 and "ö b.json: not JSON" in again.failures[0][1]
    assert SegmentStore(out).ids == ["a"]
    entries = json.loads((out / "manifest.json").read_text())["videos"]
    assert entries["ö b"]["status"] == "failed" and entries["a"]["segments"] == 3
    with pytest.raises(DataError, match="made with other settings .*end_margin"):
        extract_segments(items, texts, out, options(corpus, "reserve", end_margin=2))


def test_speech_is_a_setting_and_is_not_lost(corpus: Path, tmp_path: Path) -> None:
    """Neither a run that forgets --transcripts nor a transcript that vanishes takes the words away."""
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    for file in (corpus / "texts").iterdir():
        (texts / file.name).write_bytes(file.read_bytes())
    items, chosen = find_videos([corpus / "videos"]), options(corpus, "merlot")
    extract_segments(items, texts, out, chosen)
    words = SegmentStore(out)["a"].tokens(0).tolist()
    with pytest.raises(DataError, match="made with other settings .*speech True, now False"):
        extract_segments(items, None, out, chosen)
    (texts / "a.json").unlink()
    for more in ({}, {"missing_as_speechless": True}):
        again = extract_segments(items, texts, out, options(corpus, "merlot", **more))
        assert (again.done, again.skipped, again.failed) == (0, 2, 0)
        assert again.notes == [("a", "its transcript is no longer there; the segments of an earlier run stay")]
    assert SegmentStore(out)["a"].tokens(0).tolist() == words != []


@pytest.mark.parametrize(
    ("clip", "heard", "told"),
    [
        (",1,9", ["eggs"], "it has no times, and this is a part of the video"),
        (",,", [], "no word is heard that it could go with"),
        (",,", ["eggs"], ""),
    ],
)
def test_denoised_text_that_is_dropped_is_counted(
    corpus: Path, tmp_path: Path, clip: str, heard: list[str], told: str
) -> None:
    (tmp_path / "v.csv").write_text(f"video_id,path,start,end\na,{corpus / 'videos' / 'a.mp4'}{clip}\n")
    subtitles = [{"word": word, "time": 2} for word in heard]
    (tmp_path / "a.json").write_text(json.dumps({"subtitles": subtitles, "denoised": "Eggs!"}))
    items = find_videos([tmp_path / "v.csv"])
    summary = extract_segments(items, tmp_path, tmp_path / "out", options(corpus, "merlot"))
    expected = [("a", f"its denoised transcript is left out: {told}")] if told else []
    assert summary.done == 1 and summary.warnings == expected


@pytest.mark.parametrize(
    ("transcript", "told"),
    [
        ('{"video_id": "x", "words": []}', "its transcript is of video 'x', not 'a'"),
        ('[["a", 1], ["b", 500]]', "1 of the 2 words of its transcript are said after the video ends at 17.* 500"),
        ('[["a", 1], ["b", "soon"]]', "a.json: word 1: 'soon' is no time"),
    ],
)
def test_wrong_transcripts_are_counted_with_their_reason(
    corpus: Path, tmp_path: Path, transcript: str, told: str
) -> None:
    (tmp_path / "a.json").write_text(transcript)
    items = [item for item in find_videos([corpus / "videos"]) if item.video_id == "a"]
    summary = extract_segments(items, tmp_path, tmp_path / "out", options(corpus, "reserve"))
    ((video, reason),) = summary.failures
    assert video == "a" and re.search(told, reason)


def test_broken_and_short_videos_are_counted_with_their_reason(corpus: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    whole = (corpus / "videos" / "a.mp4").read_bytes()
    (videos / "empty.mp4").write_bytes(b"")
    (videos / "cut.mp4").write_bytes(whole[:3000])
    write_sound_video(videos / "short.mp4", 5)
    mkv = write_sound_video(videos / "torn.mkv", 20)
    mkv.write_bytes(mkv.read_bytes()[:-12000])
    summary = extract_segments(find_videos([videos]), None, tmp_path / "out", options(corpus, "reserve"))
    reasons = dict(summary.failures)
    assert sorted(reasons) == ["cut", "empty", "short"] and summary.truncated == ["torn"]
    assert "is empty" in reasons["empty"] and "too short for a segment" in reasons["short"]
    assert 1 <= len(SegmentStore(tmp_path / "out")["torn"]) < 3


def test_a_part_of_a_file(corpus: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f"video_id,path,start,end\nclip,{corpus / 'videos' / 'a.mp4'},4,15.5\n")
    texts = tmp_path / "clip.srt"
    texts.write_text("1\n00:00:05,000 --> 00:00:06,000\nflour\n")
    items = find_videos([table])
    extract_segments(items, texts, tmp_path / "out", options(corpus, "reserve", end_margin=0))
    clip = SegmentStore(tmp_path / "out")["clip"]
    assert clip.times.tolist() == [[0, 5], [5, 10]] and clip.token_times(0)[0].tolist() == [1, 2]
    assert decode_image(clip.image(0)).mean() == pytest.approx(40 + 60, abs=8)  # at 6.5 s of the file
    wave = decode_audio(corpus / "videos" / "a.mp4", start=9, end=14)
    np.testing.assert_allclose(clip.spectrogram(1), log_mel(wave), atol=0.1)


def test_options_that_do_not_go_together_are_named(corpus: Path, tmp_path: Path) -> None:
    for changes, told in (
        ({"kind": "violet"}, "--kind violet"),
        ({"speed_up": True}, "--speed-up True: not a usable value for --kind merlot"),
        ({"no_sound": True}, "--no-sound True: not a usable value for --kind merlot"),
        ({"quality": 100}, "--quality"),
        ({"seconds": 0}, "--seconds"),
        ({"videos_per_shard": 0}, "--videos-per-shard"),
    ):
        with pytest.raises(DataError, match=told):
            options(corpus, **{"kind": "merlot", **changes})
    for changes in ({"raw_transcript": True}, {"seconds": 3.0}, {"most_tokens": 7}):
        with pytest.raises(DataError, match="--kind reserve"):
            options(corpus, "reserve", **changes)
    items = find_videos([corpus / "videos"])
    other = dataclasses.replace(options(corpus, "merlot"), tokenizer=str(corpus / "reserve"))
    with pytest.raises(DataError, match="is of the kind reserve, not merlot"):
        extract_segments(items, None, tmp_path / "out", other)
    with pytest.raises(ConfigError, match=r"dataset\.tokenizer"):
        extract_segments(items, None, tmp_path / "out", dataclasses.replace(other, tokenizer="no"))
    with pytest.raises(DataError, match="--missing-as-speechless: of no effect without --transcripts"):
        extract_segments(items, None, tmp_path / "out", options(corpus, "merlot", missing_as_speechless=True))
    silent = options(corpus, "reserve", no_sound=True)
    assert extract_segments(items, None, tmp_path / "silent", silent).done == 2
    assert "spectrograms" not in SegmentStore(tmp_path / "silent").fields
    with pytest.raises(DataError, match="no such folder or file of transcripts"):
        extract_segments(items, tmp_path / "no", tmp_path / "out", options(corpus, "merlot"))


def test_pictures_are_only_scaled_down() -> None:
    size = PictureSize(36, 64, 75)
    assert fitted(np.zeros((20, 30, 3), np.uint8), size).shape == (20, 30, 3)
    assert fitted(np.zeros((100, 200, 3), np.uint8), size).shape == (32, 64, 3)
    assert fitted(np.zeros((200, 180, 3), np.uint8), size).shape == (40, 36, 3)
