"""Frames from real small files: each carries its number as a colour, so that what was taken can be read back."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from test_decode import colour, coloured, indexes, write_video

from mmpt.store import frame_selection
from mmpt.store.decode import DecodeReport, Picture
from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.store.frame_selection import ChosenFrames, middle_frames, middle_numbers
from mmpt.store.frame_store import FrameStore
from mmpt.store.images import decode_image
from mmpt.store.video_frames import count_frames
from mmpt.store.video_info import open_video
from mmpt.store.video_list import VideoItem, find_videos
from mmpt.utils.errors import DataError

av = pytest.importorskip("av")


def taken(images) -> list[int]:
    return [indexes(decode_image(image)[None])[0] for image in images]


def choose(path, wanted, start=0.0, end=None) -> tuple[ChosenFrames, DecodeReport, list[int]]:
    """Choose frames by their pictures; also return the numbers of the frames that were encoded."""
    report, encoded = DecodeReport(), []

    def encode(frame) -> bytes:
        encoded.extend(indexes(Picture(None)(frame)[None]))
        return bytes(encoded[-1:])

    *_, (chosen, _) = middle_frames(path, wanted, encode, report, start, end)
    chosen.images = [image[0] for image in chosen.images]
    return chosen, report, encoded


def published(total: int, wanted: int) -> list[int]:
    return [int(total / (wanted + 1) * (i + 1)) for i in range(wanted)]


@pytest.mark.parametrize("wanted", [1, 4, 5])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")],
)
def test_frames_are_the_published_ones_of_one_pass(tmp_path, name, codec, wanted):
    path = write_video(tmp_path / name, coloured(60), codec=codec)
    assert count_frames(path) == 60
    chosen, report, encoded = choose(path, wanted)
    assert chosen.images == encoded == published(60, wanted)
    assert chosen.seconds == pytest.approx([number / 25 for number in published(60, wanted)], abs=0.03)
    assert (report.decoded, report.written, report.warnings, report.truncated) == (60, wanted, [], False)
    assert report.seconds == pytest.approx(2.4, abs=0.05)


def test_all_lengths(tmp_path):
    for total in (1, 2, 3, 7):
        path = write_video(tmp_path / f"{total}.mp4", coloured(total))
        assert choose(path, 5)[0].images == published(total, 5)
    assert choose(tmp_path / "1.mp4", 5)[0].images == [0] * 5


def test_numbers_are_those_of_floating_point():
    # 15 / 11 * 11 and the like: rounding decides, and the published tool rounds down what it computes
    for total in range(1, 400):
        for wanted in range(1, 33):
            assert middle_numbers(total, wanted) == published(total, wanted)


def damaged(path: Path, begin: float, end: float) -> Path:
    content = bytearray(path.read_bytes())
    part = slice(int(begin * len(content)), int(end * len(content)))
    content[part] = bytes(len(content[part]))
    path.write_bytes(content)
    return path


def decoded(path: Path) -> list[int]:
    """The numbers of all frames that come of a file, as FFmpeg shows them."""
    from mmpt.store.video_frames import decoded_frames

    with open_video(path) as (container, stream):
        return [indexes(Picture(None)(frame)[None])[0] for frame in decoded_frames(container, stream)]


def noisy(count: int) -> list[np.ndarray]:
    """Coloured frames that are hard to compress at the borders, so that their bytes spread evenly over the file."""
    rng = np.random.default_rng(0)
    frames = coloured(count)
    for frame in frames:
        frame[:8] = rng.integers(256, size=frame[:8].shape)
    return frames


@pytest.mark.parametrize(("begin", "end"), [(0.1, 0.2), (0.5, 0.7), (0.8, 0.95)])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_of_damaged_files_what_was_decoded_counts(tmp_path, name, codec, begin, end):
    path = damaged(write_video(tmp_path / name, noisy(60), codec=codec, movflags="faststart"), begin, end)
    everything = decoded(path)
    chosen, report, _ = choose(path, 4)
    assert chosen.images == [everything[number] for number in published(len(everything), 4)]
    assert report.decoded == len(everything)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_of_truncated_files_what_is_there_counts_and_is_decoded_once(tmp_path, name):
    path = write_video(tmp_path / name, noisy(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    everything = decoded(path)
    assert 20 < len(everything) < 55
    chosen, report, encoded = choose(path, 4)
    assert chosen.images == encoded == [everything[number] for number in published(len(everything), 4)]
    assert not any("twice" in warning for warning in report.warnings)


@pytest.mark.parametrize("off", [-20, -3, -2, -1, 1, 2, 3, 20])
def test_a_count_that_was_wrong_changes_nothing_but_the_work(tmp_path, monkeypatch, off):
    path = write_video(tmp_path / "a.mp4", coloured(60))
    monkeypatch.setattr(frame_selection, "count_frames", lambda *_: 60 + off)
    chosen, report, encoded = choose(path, 4)
    assert chosen.images == encoded == published(60, 4)
    moved = max(abs(a - b) for a, b in zip(published(60, 4), published(60 + off, 4), strict=True))
    assert any("decoded twice" in warning for warning in report.warnings) == (moved > 2)


def test_large_frames_are_not_all_held(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", coloured(60))
    monkeypatch.setattr(frame_selection, "_MOST_HELD_BYTES", 10_000)
    chosen, _, encoded = choose(path, 5)
    assert chosen.images == published(60, 5)
    assert len(encoded) > 15  # neighbours too


def test_clips_are_the_frames_shown_in_their_seconds(tmp_path):
    path = write_video(tmp_path / "a.mp4", coloured(60), fps=10, g="20")  # 6 s
    for start, end in ((1.0, 3.0), (2.5, 5.0), (4.0, None), (0.0, 1.0), (5.9, 6.0)):
        first, last = round(start * 10), 60 if end is None else round(end * 10)
        chosen, report, _ = choose(path, 4, start, end)
        numbers = published(last - first, 4)
        assert chosen.images == [first + number for number in numbers]
        assert chosen.seconds == pytest.approx([number / 10 for number in numbers])
        assert report.warnings == []
    with pytest.raises(DataError, match="starts at second 9.0, but the video ends at 6.00"):
        choose(path, 4, 9.0)
    assert "ends at 9.00 s, but the video at 6.00 s" in choose(path, 4, 5.0, 9.0)[1].warnings


def test_a_clip_inside_one_long_frame(tmp_path):
    path = write_video(tmp_path / "a.mkv", coloured(3), times=[0, 1000, 9000])
    assert choose(path, 2, 4.0, 6.0)[0].images == [1, 1]


def test_pixels_are_those_of_the_published_tool(tmp_path):
    rng = np.random.default_rng(0)
    smooth = [np.clip(np.add.outer(np.arange(96) + 9 * i, np.arange(128))[..., None] + rng.integers(0, 20, 3), 0, 255)
              for i in range(12)]  # fmt: skip
    path = write_video(tmp_path / "a.mp4", [frame.astype(np.uint8) for frame in smooth])
    extract_frames([VideoItem("a", str(path))], tmp_path / "out", FrameExtractionOptions(frames=4))
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    expected = []
    for number in published(12, 4):
        buffer = io.BytesIO()
        frames[number].save(buffer, format="JPEG")
        expected.append(buffer.getvalue())
    assert [image.tobytes() for image in FrameStore(tmp_path / "out")["a"]] == expected


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, name in enumerate("abcde"):
        write_video(folder / f"{name}.mp4", coloured(20 + number))
    return folder


def stored(folder: Path) -> dict[str, list[int]]:
    store = FrameStore(folder)
    return {video_id: taken(store[video_id]) for video_id in sorted(store.ids)}


EXPECTED = {name: published(20 + number, 4) for number, name in enumerate("abcde")}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_videos_becomes_a_store(videos, tmp_path, workers):
    (videos / "broken.mp4").write_bytes(b"no video")
    options = FrameExtractionOptions(frames=4, videos_per_shard=2, workers=workers)
    summary = extract_frames(find_videos([videos]), tmp_path / "out", options)
    assert (summary.done, summary.skipped, summary.failed, summary.frames) == (5, 0, 1, 20)
    assert stored(tmp_path / "out") == EXPECTED
    store = FrameStore(tmp_path / "out")
    assert len(store.shards) == 3
    assert store.producer()["frames"] == 4
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["videos"]
    assert entries["broken"]["status"] == "failed"
    assert entries["b"]["frames"] == 4 and entries["b"]["seconds"] == pytest.approx(0.84, abs=0.01)
    again = extract_frames(find_videos([videos]), tmp_path / "out", options)
    assert (again.done, again.skipped, again.failed) == (0, 5, 1)
    assert "5 whose frames are there" in again.describe()


def test_an_interrupted_run_goes_on_and_loses_only_the_unfinished_shard(videos, tmp_path, monkeypatch):
    from mmpt.store import frame_extraction

    options = FrameExtractionOptions(frames=4, videos_per_shard=2, workers=0)
    real, seen = frame_extraction.middle_frames, []

    def interrupted(path, *args):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(Path(path).stem)
        return real(path, *args)

    monkeypatch.setattr(frame_extraction, "middle_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_frames(find_videos([videos]), tmp_path / "out", options)
    assert stored(tmp_path / "out") == {name: EXPECTED[name] for name in "ab"}
    monkeypatch.setattr(frame_extraction, "middle_frames", real)
    summary = extract_frames(find_videos([videos]), tmp_path / "out", options)
    assert (summary.done, summary.skipped) == (3, 2)
    assert stored(tmp_path / "out") == EXPECTED


def test_what_changed_is_extracted_again_and_what_broke_is_removed(videos, tmp_path):
    options = FrameExtractionOptions(frames=4, videos_per_shard=2)
    extract_frames(find_videos([videos]), tmp_path / "out", options)
    write_video(videos / "a.mp4", coloured(40))
    (videos / "b.mp4").write_bytes(b"not a video any more")
    items = find_videos([videos])
    (videos / "c.mp4").unlink()
    summary = extract_frames(items, tmp_path / "out", options)
    assert (summary.done, summary.skipped, [video for video, _ in summary.failures]) == (1, 3, ["b"])
    assert summary.notes == [("c", "its file is no longer there; the frames of an earlier run stay")]
    expected = {**EXPECTED, "a": published(40, 4)}
    del expected["b"]
    assert stored(tmp_path / "out") == expected


def test_force_replaces_every_shard(videos, tmp_path):
    options = FrameExtractionOptions(frames=4, videos_per_shard=2, force=True)
    for _ in range(2):
        assert extract_frames(find_videos([videos]), tmp_path / "out", options).done == 5
    assert stored(tmp_path / "out") == EXPECTED
    assert len(FrameStore(tmp_path / "out").shards) == 3
    assert len(list((tmp_path / "out").glob("*.frames_data.npy"))) == 3


def test_other_settings_are_refused(videos, tmp_path):
    extract_frames(find_videos([videos]), tmp_path / "out", FrameExtractionOptions(frames=4))
    with pytest.raises(DataError, match="frames 4, now 5"):
        extract_frames(find_videos([videos]), tmp_path / "out", FrameExtractionOptions(frames=5))


def test_a_constant_rate_and_a_smaller_size(tmp_path):
    path = write_video(tmp_path / "a.mp4", coloured(60, width=96, height=64))  # 2.4 s
    small = write_video(tmp_path / "b.mp4", coloured(5))
    items = [VideoItem("a", str(path)), VideoItem("clip", str(path), 1.0, 2.0), VideoItem("b", str(small))]
    options = FrameExtractionOptions(fps=2, short_side=50, quality=90)
    assert extract_frames(items, tmp_path / "out", options).frames == 5 + 2 + 1
    store = FrameStore(tmp_path / "out")
    assert taken(store["a"]) == [6, 18, 31, 43, 56]
    assert store["a"].seconds.tolist() == [0.25, 0.75, 1.25, 1.75, 2.25]
    assert taken(store["clip"]) == [31, 43]
    assert store["clip"].seconds.tolist() == [0.25, 0.75]
    assert decode_image(store["a"][0]).shape == (50, 75, 3)
    assert decode_image(store["b"][0]).shape == (48, 64, 3)  # never enlarged


def test_rotated_videos_are_stored_upright(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24] = colour(63)
    path = write_video(tmp_path / "a.mp4", [picture] * 4, rotation=90)
    extract_frames([VideoItem("a", str(path))], tmp_path / "out", FrameExtractionOptions(frames=1))
    image = decode_image(FrameStore(tmp_path / "out")["a"][0])
    assert image.shape == (64, 48, 3)
    assert abs(int(image[:, :16].mean()) - int(image[:, -16:].mean())) > 100
