"""Seeking gives the frames that decoding everything gives, or everything is decoded."""

import numpy as np
import pytest
from test_decode import colour, coloured, indexes, write_video

from mmpt.store.decode import DecodeReport, Picture
from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.store.frame_seeking import sought_frames
from mmpt.store.frame_selection import middle_frames
from mmpt.store.frame_store import FrameStore
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError

av = pytest.importorskip("av")


def encode(frame) -> bytes:
    return bytes(indexes(Picture(None)(frame)[None]))


def write_groups(path, count, codec="libx264", group=6, times=None):
    """Write coloured frames with a key frame every ``group``."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": str(group), "bf": "2"} if "264" in codec else {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", group
        stream.bit_rate = 1_000_000
        for number, picture in enumerate(coloured(count)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts = times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def both(path, wanted):
    found = []
    for choose in (middle_frames, sought_frames):
        report = DecodeReport()
        *_, (chosen, _) = choose(path, wanted, encode, report)
        found.append((chosen, report))
    return found


@pytest.mark.parametrize("wanted", [1, 3, 5])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mp4", "mpeg4")],
)
def test_the_same_frames_with_less_decoding(tmp_path, name, codec, wanted):
    path = write_groups(tmp_path / name, 60, codec)
    (all_frames, full), (sought, report) = both(path, wanted)
    assert sought.images == all_frames.images
    assert sought.seconds == pytest.approx(all_frames.seconds, abs=1e-6)
    assert report.seconds == pytest.approx(full.seconds, abs=1e-6)
    assert (report.truncated, report.warnings, report.written) == (False, [], wanted)
    assert full.decoded == 60
    assert (report.decoded == 60) if name.endswith(".ts") else (report.decoded < 40)


@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_videos_and_uneven_times(tmp_path, total):
    path = write_groups(tmp_path / "a.mkv", total, times=[number * number for number in range(total)])
    (all_frames, _), (sought, _) = both(path, 5)
    assert (sought.images, sought.seconds) == (all_frames.images, all_frames.seconds)


def test_what_cannot_be_relied_on_is_decoded_as_a_whole(tmp_path):
    avi = write_groups(tmp_path / "a.avi", 30, "mpeg4")
    (all_frames, full), (sought, report) = both(avi, 4)
    assert (sought.images, report.decoded) == (all_frames.images, full.decoded)
    damaged = write_groups(tmp_path / "a.mp4", 60)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    damaged.write_bytes(content)
    (all_frames, full), (sought, report) = both(damaged, 8)
    assert full.errors > 0
    assert (sought.images, report.errors) == (all_frames.images, full.errors)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"no\.mp4"):
        list(sought_frames(tmp_path / "no.mp4", 2, encode, DecodeReport()))


def test_extraction_with_and_without_gives_the_same_bytes(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24] = colour(63)
    turned = write_video(tmp_path / "turned.mp4", [picture] * 9, rotation=90)
    plain = write_groups(tmp_path / "plain.mp4", 40)
    items = [VideoItem("turned", str(turned)), VideoItem("plain", str(plain)), VideoItem("clip", str(plain), 0.4, 1.0)]
    for seek in (False, True):
        extract_frames(items, tmp_path / str(seek), FrameExtractionOptions(frames=4, seek=seek))
    one, other = (FrameStore(tmp_path / str(seek)) for seek in (False, True))
    for name in one:
        assert [frame.tobytes() for frame in one[name]] == [frame.tobytes() for frame in other[name]]
        assert one[name].seconds.tolist() == other[name].seconds.tolist()
