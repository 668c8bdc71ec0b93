"""Video files cut into segments: times, frames and the sound that belongs to them."""

from fractions import Fraction

import numpy as np
import pytest

from mmpt.api.reserve_video_segments import (
    video_to_segments,
    video_to_segments_for_action_segmentation,
    video_to_segments_zero_shot,
)
from mmpt.store.audio import decode_audio
from mmpt.store.spectrogram import make_spectrogram
from mmpt.utils.errors import DataError

av = pytest.importorskip("av")

RATE, FPS = 16000, 8


def tone(seconds: np.ndarray) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * (200 + 100 * np.floor(seconds)) * seconds)).astype(np.float32)


@pytest.fixture(scope="module", params=["sound", "no sound"])
def video(request, tmp_path_factory):
    """12 seconds; the grey tells the time."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if request.param == "sound":
            audio = container.add_stream("aac", rate=RATE, layout="mono")
            wave = tone(np.arange(12 * RATE) / RATE)
            for begin in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, begin, Fraction(1, RATE)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        for number in range(12 * FPS):
            picture = np.full((48, 64, 3), 60 + 2 * number // 2, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path, request.param == "sound"


def second_of(frame: np.ndarray) -> float:
    return (float(frame.mean()) - 60) / FPS


def test_segments_of_five_seconds(video) -> None:
    path, has_sound = video
    segments = video_to_segments(path)
    assert [(one["start_time"], one["end_time"], one["mid_time"], one["idx"]) for one in segments] == [
        (0.0, 5.0, 2.5, 0),
        (5.0, 10.0, 7.5, 1),
    ]
    for one in segments:
        assert second_of(one["frame"]) == pytest.approx(one["mid_time"], abs=0.4)
        if has_sound:
            wanted = make_spectrogram(decode_audio(path, start=one["start_time"], end=one["end_time"]))
            np.testing.assert_allclose(one["spectrogram"], wanted, atol=1e-5)
            assert one["spectrogram"].shape == (3, 60, 65)
        else:
            assert one["spectrogram"] is None
    late = video_to_segments(path, segment_start_time=3.0, num_segments_max=1)
    assert [one["start_time"] for one in late] == [3.0]
    assert len(video_to_segments(path, time_interval=2.0)) == 5


def test_given_stretches(video) -> None:
    path, has_sound = video
    times = [(6.0, 8.0), {"start_time": 0.0, "end_time": 10.0}]
    short, long = video_to_segments_zero_shot(path, times=times)
    assert (short["mid_time"], long["mid_time"]) == (7.0, 5.0)
    assert second_of(short["frame"]) == pytest.approx(7, abs=0.4)
    if has_sound:
        wave = np.zeros(110250, np.float32)
        wave[33075 : 33075 + 44100] = decode_audio(path, start=6.0, end=8.0)
        np.testing.assert_allclose(short["spectrogram"], make_spectrogram(wave), atol=1e-4)
        middle = make_spectrogram(decode_audio(path, start=2.5, end=7.5))
        np.testing.assert_allclose(long["spectrogram"], middle, atol=1e-4)
    assert len(video_to_segments_zero_shot(path)) == 12


def test_looks_for_action_segmentation(video) -> None:
    path, has_sound = video
    segments = video_to_segments_for_action_segmentation(path)
    assert [one["mid_time"] for one in segments] == [0.5 + k for k in range(12)]
    assert all(second_of(one["frame"]) == pytest.approx(one["mid_time"], abs=0.4) for one in segments)
    if has_sound:
        wave = decode_audio(path, start=5.5 - 4.79 / 2, end=5.5 + 4.79 / 2)[: int(22050 * 4.79)]
        np.testing.assert_allclose(segments[5]["spectrogram"], make_spectrogram(wave, pad_size=0), atol=1e-3)
        first = segments[0]["spectrogram"]
        assert not first[0, :30, :64].any() and first[1, :, :64].any()  # nothing is heard before the video begins


def test_too_short_or_empty_is_named(video, tmp_path) -> None:
    path, _ = video
    with pytest.raises(DataError, match="a.mp4: too short"):
        video_to_segments(path, segment_start_time=7.0)
    with pytest.raises(DataError, match="nothing from second 3.0 to 3.0"):
        video_to_segments_zero_shot(path, times=[(3.0, 3.0)])
    with pytest.raises(DataError, match="shows nothing at second 30"):
        video_to_segments_zero_shot(path, times=[(29.0, 31.0)])
    with pytest.raises(DataError, match="ends before second 20"):
        video_to_segments_for_action_segmentation(path, segment_start_time=20.0)
    with pytest.raises(DataError, match="absent"):
        video_to_segments(tmp_path / "absent.mp4")
