"""Decoding: each source frame carries its number as a colour, so that what is shown when can be read back."""

import itertools
import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt.store.decode import DecodeReport, _exact_rate, probe, stream_frames
from mmpt.utils.errors import DataError
from mmpt.utils.extras import MissingExtraError

av = pytest.importorskip("av")


def colour(index):
    """A colour for each index below 64 that survives compression: two bits per channel."""
    return tuple(32 + 64 * ((index >> shift) & 3) for shift in (0, 2, 4))


def indexes(frames):
    """Read the numbers back from the middles of (n, height, width, 3)."""
    height, width = frames.shape[1:3]
    middle = frames[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2].mean((1, 2))
    digits = np.rint((middle - 32) / 64).astype(int)
    return (digits @ [1, 4, 16]).tolist()


def write_video(
    path, pictures, fps=25, codec="libx264", times=None, rotation=None, mirrored=False, audio_seconds=0, **options
):
    """Write RGB pictures; ``times`` are presentation times in milliseconds."""
    pictures = list(pictures)
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps, options={"bf": "2"} if codec == "libx264" else {})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 or codec != "libx264" else "yuv444p"
        stream.bit_rate = 4_000_000
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirrored)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if audio_seconds:
            sound = container.add_stream("aac", rate=16000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            for number in range(int(audio_seconds * 16000) // 1024):
                silence.sample_rate, silence.pts = 16000, number * 1024
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def coloured(count, width=64, height=48, first=0):
    return [np.full((height, width, 3), colour(index), np.uint8) for index in range(first, first + count)]


def decode(path, fps, size=32, **options):
    return np.concatenate(list(stream_frames(path, fps, size, **options)))


def shown_at(times, end, fps, slack=1 / 60):
    """Independent expectation: the last frame strictly before the middle of each interval."""
    result = []
    for k in itertools.count():
        if result and k / fps + min(slack, 0.5 / fps) >= end - 1e-9:
            return result
        middle = Fraction(2 * k + 1, 2) / fps
        before = [i for i, time in enumerate(times) if time < middle]
        result.append(before[-1] if before else 0)


@pytest.mark.parametrize("fps", [1, 5, 8, 12, 25, 30, 50])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("b.avi", "libx264")],
)
def test_each_output_frame_is_the_one_shown_in_the_middle_of_its_interval(tmp_path, name, codec, fps):
    path = write_video(tmp_path / name, coloured(60), codec=codec)
    report = DecodeReport()
    frames = decode(path, fps, report=report)
    assert indexes(frames) == shown_at([Fraction(i, 25) for i in range(60)], 2.4, fps)
    assert len(frames) == report.written == math.ceil(2.4 * fps - 0.5 if fps > 25 else 2.4 * fps)
    assert (report.decoded, report.errors, report.truncated) == (60, 0, False)
    assert report.seconds == pytest.approx(2.4, abs=0.05)


def test_same_rate_gives_every_frame_once_even_with_rounded_time_stamps(tmp_path):
    path = write_video(tmp_path / "a.mkv", coloured(60), fps=30)  # Matroska rounds 33.3 ms to 33
    assert indexes(decode(path, 30)) == list(range(60))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.integers(5, 700), min_size=1, max_size=12), fps=st.sampled_from([1, 7, 30]))
def test_variable_frame_rate(tmp_path, gaps, fps):
    times = [0, *itertools.accumulate(gaps)]
    path = write_video(tmp_path / "vfr.mkv", coloured(len(times)), times=times)
    frames = indexes(decode(path, fps))
    expected = shown_at([Fraction(time, 1000) for time in times], times[-1] / 1000, fps)
    assert frames[: len(expected) - 1] == expected[:-1]  # how long the last frame lasts is the file's word


def test_a_clock_that_does_not_start_at_zero(tmp_path):
    times = [5000 + 40 * index for index in range(50)]
    path = write_video(tmp_path / "late.mkv", coloured(50), times=times)
    assert indexes(decode(path, 25))[:50] == list(range(50))


def test_video_that_starts_after_the_sound_keeps_its_place(tmp_path):
    times = [2000 + 40 * index for index in range(50)]
    path = write_video(tmp_path / "sound.mkv", coloured(50, first=1), times=times, audio_seconds=4)
    assert indexes(decode(path, 5)) == [1] * 10 + [3 + 5 * k for k in range(10)]


def test_broken_clock_does_not_fill_memory_or_time(tmp_path):
    times = [*range(0, 400, 40), *range(10**9, 10**9 + 400, 40)]
    path = write_video(tmp_path / "jump.mkv", coloured(20), times=times)
    report = DecodeReport()
    frames = decode(path, 25, report=report)
    assert len(frames) < 60
    assert set(indexes(frames)) == set(range(20))
    assert any("clock jumps" in warning for warning in report.warnings)


def test_odd_sizes_scale_by_the_shorter_side(tmp_path):
    path = write_video(tmp_path / "odd.mp4", coloured(3, width=67, height=43))
    assert (probe(path).width, probe(path).height) == (67, 43)
    assert decode(path, 25, 32).shape == (3, 32, 32, 3)
    assert decode(path, 25, 32, center_crop=False).shape == (3, 32, 50, 3)
    assert decode(path, 25, 40, crop_size=32).shape == (3, 32, 32, 3)
    assert decode(path, 25, None, center_crop=False).shape == (3, 43, 67, 3)


def test_centre_is_cut(tmp_path):
    picture = np.zeros((64, 192, 3), np.uint8)
    picture[:, 64:128] = 255
    frames = decode(write_video(tmp_path / "wide.mp4", [picture] * 2), 25, 32)
    assert frames.min() > 200
    assert decode(tmp_path / "wide.mp4", 25, 32, center_crop=False)[:, :, :24].max() < 60


@pytest.mark.parametrize(("rotation", "mirrored"), [(0, False), (90, False), (180, False), (-90, False), (90, True)])
def test_display_matrix_is_applied(tmp_path, rotation, mirrored):
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :48], stored[:32, 48:], stored[32:, :48] = (224, 32, 32), (32, 224, 32), (32, 32, 224)
    path = write_video(tmp_path / "turned.mp4", [stored] * 2, rotation=rotation, mirrored=mirrored)
    upright = np.rot90(stored, rotation // 90)
    if mirrored:
        upright = upright[:, ::-1]
    frames = decode(path, 25, None, center_crop=False)
    assert frames.shape[1:] == upright.shape
    assert np.abs(frames[0].astype(int) - upright).mean() < 12
    info = probe(path)
    assert (info.height, info.width) == upright.shape[:2]
    assert info.rotation % 360 == rotation % 360
    flipped = decode(path, 25, None, center_crop=False, hflip=True)
    assert np.array_equal(flipped, frames[:, :, ::-1])


def test_truncated_file_yields_what_is_there_and_says_so(tmp_path):
    rng = np.random.default_rng(0)
    noisy = [np.clip(picture + rng.integers(-9, 9, picture.shape), 0, 255).astype(np.uint8) for picture in coloured(60)]
    path = write_video(tmp_path / "whole.mp4", noisy, movflags="faststart")
    content = path.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) // 2])
    report = DecodeReport()
    seen = indexes(decode(cut, 25, report=report))
    assert 10 < len(seen) < 50
    assert seen == list(range(len(seen)))
    assert report.truncated
    assert "before the length" in report.warnings[0]


@pytest.mark.parametrize("name", ["cut.mkv", "cut.avi"])
def test_truncation_is_seen_in_other_containers(tmp_path, name):
    rng = np.random.default_rng(0)
    path = write_video(tmp_path / name, rng.integers(0, 255, (60, 48, 64, 3), dtype=np.uint8), codec="mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    report = DecodeReport()
    assert 0 < len(decode(path, 25, report=report)) < 50
    assert report.truncated


def test_damage_in_the_middle_is_survived(tmp_path):
    rng = np.random.default_rng(0)
    path = write_video(tmp_path / "a.ts", rng.integers(0, 255, (60, 48, 64, 3), dtype=np.uint8), codec="mpeg4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = rng.bytes(2000)
    path.write_bytes(bytes(content))
    first, again = decode(path, 25), decode(path, 25)
    assert len(first) >= 55
    assert np.array_equal(first, again)


@pytest.mark.parametrize("fps", [1, 30])
def test_one_frame(tmp_path, fps):
    path = write_video(tmp_path / "one.mp4", coloured(1, first=7), fps=60)
    frames = decode(path, fps)
    assert frames.shape == (1, 32, 32, 3)
    assert indexes(frames) == [7]


def test_start_and_end_cut_the_whole_stream(tmp_path):
    path = write_video(tmp_path / "long.mp4", [picture for picture in coloured(60) for _ in range(4)], fps=20)  # 12 s
    whole = decode(path, 10)
    for start, end in [(0, 3), (1, None), (5, 8.5), (11, None)]:
        report = DecodeReport()
        part = decode(path, 10, start=start, end=end, report=report)
        assert np.array_equal(part, whole[int(start * 10) : None if end is None else int(end * 10)])
    assert report.decoded < 240  # a key frame near the start was sought
    with pytest.raises(DataError, match=r"long\.mp4.*ends at 12"):
        decode(path, 10, start=40)
    with pytest.raises(DataError, match="from second 3 to 2"):
        decode(path, 10, start=3, end=2)


def test_frames_are_streamed(tmp_path):
    path = write_video(tmp_path / "long.mp4", [picture for picture in coloured(60) for _ in range(5)])
    report = DecodeReport()
    blocks = stream_frames(path, 25, 32, report=report)
    first = next(blocks)
    assert first.shape == (25, 32, 32, 3)
    assert report.decoded < 60  # of 300
    kept = first.copy()
    sizes = [len(block) for block in blocks]
    assert sizes == [25] * 11
    assert np.array_equal(first, kept)  # blocks do not share memory
    assert [len(block) for block in stream_frames(path, 25, 32, block=70)] == [70, 70, 70, 70, 20]


def test_what_is_no_video_names_the_file(tmp_path):
    contents = {
        "garbage.mp4": np.random.default_rng(0).bytes(4000),
        "empty.mp4": b"",
        "text.mp4": b"hello world\n" * 99,
        "notes.txt": b"hello world\n" * 99,  # FFmpeg would render it as a terminal
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\na.ts\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        for read in (probe, lambda path: list(stream_frames(path, 25, 32))):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)
    av.VideoFrame.from_ndarray(coloured(1)[0], format="rgb24").save(str(tmp_path / "still.png"))
    with pytest.raises(DataError, match=r"still\.png"):
        probe(tmp_path / "still.png")
    with pytest.raises(DataError, match="no such video file"):
        probe(tmp_path)
    with pytest.raises(DataError, match="no such video file"):
        decode(tmp_path / "absent.mp4", 25)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(DataError, match="no video stream"):
        probe(tmp_path / "sound.mkv")


def test_name_with_a_colon_is_a_file(tmp_path):
    path = write_video(tmp_path / "http:x y.mp4", coloured(2))
    assert probe(path).frames == 2


def test_probe(tmp_path):
    info = probe(write_video(tmp_path / "a.mp4", coloured(50)))
    assert (info.width, info.height, info.fps, info.duration, info.frames) == (64, 48, 25.0, 2.0, 50)
    assert (info.rotation, info.codec) == (0, "h264")


def test_full_range_and_bt709_colours(tmp_path):
    frame = av.VideoFrame(64, 64, "yuv420p")
    for plane, value in zip(frame.planes, (200, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.color_range = 2
    with av.open(str(tmp_path / "full.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.color_range = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert abs(int(decode(tmp_path / "full.mkv", 25)[0, 16, 16, 0]) - 200) <= 1  # limited range would give 214


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"mmpt\[video\]"):
        probe(tmp_path / "a.mp4")


def test_bad_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="larger than size"):
        next(stream_frames(tmp_path / "a.mp4", 25, 32, crop_size=40))
    with pytest.raises(ValueError, match="center_crop"):
        next(stream_frames(tmp_path / "a.mp4", 25, None))


@pytest.mark.parametrize("fps", [1 / 2000, 1 / 3001, 1e-9])
def test_rates_far_below_one(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", coloured(10))
    report = DecodeReport()
    assert len(decode(path, fps, report=report)) == report.written == 1


def test_rates_are_kept_exactly():
    assert _exact_rate(30000 / 1001) == Fraction(30000, 1001)
    assert _exact_rate(29.97) == Fraction(2997, 100)
    assert float(_exact_rate(1 / 2000)) == 1 / 2000


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_impossible_rates_are_refused(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", coloured(2))
    with pytest.raises(DataError, match=r"a\.mp4: cannot take"):
        decode(path, fps)
