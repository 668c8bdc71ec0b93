"""Sound: where it lies in time, mixed and resampled; tracks that are missing, late or damaged."""

from pathlib import Path

import numpy as np
import pytest

from mmpt.store.audio import audio_windows, decode_audio
from mmpt.store.decode import DecodeReport
from mmpt.utils.errors import DataError
from tests.store.sound_samples import beeps, first_beep, write_sound_video

pytest.importorskip("av")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound_video(tmp_path_factory.mktemp("sound") / "v.mp4", 24)


def beep_times(wave: np.ndarray, rate: int = 22050) -> np.ndarray:
    loud = np.flatnonzero(np.abs(wave) > 0.1) / rate
    return loud[np.concatenate([[True], np.diff(loud) > 0.5])]


def test_every_sample_is_where_it_belongs(video: Path) -> None:
    wave = decode_audio(video)
    assert wave.dtype == np.float32 and abs(len(wave) / 22050 - 24) < 0.1
    np.testing.assert_allclose(beep_times(wave), np.arange(24), atol=0.005)
    assert 0.29 < np.abs(wave).max() < 0.33
    expected = beeps(np.arange(len(wave)) / 22050)[: 23 * 22050]
    assert np.corrcoef(wave[: len(expected)], expected)[0, 1] > 0.99


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.5), (0.5, 3.0), (12.5, 14.0), (22.5, 30.0)])
def test_windows_are_exact_also_behind_a_seek_and_beyond_the_end(video: Path, start: float, end: float) -> None:
    wave = decode_audio(video, start=start, end=end)
    assert len(wave) == round((end - start) * 22050)
    whole = np.pad(decode_audio(video), (0, 10 * 22050))
    first = round(start * 22050)
    # behind a seek the resampler begins at another phase: less than a sample
    np.testing.assert_allclose(beep_times(wave), beep_times(whole[first : first + len(wave)]), atol=0.002)
    assert np.corrcoef(wave, whole[first : first + len(wave)])[0, 1] > 0.98


def test_windows_of_one_pass_equal_slices_of_the_whole(video: Path) -> None:
    whole = np.pad(decode_audio(video), (0, 5 * 22050))
    windows = [(0.0, 5.0), (1.0, 2.0), (4.5, 9.5), (20.0, 25.0), (23.0, None)]
    read = list(audio_windows(video, windows))
    for (start, end), wave in zip(windows, read, strict=True):
        first = round(start * 22050)
        np.testing.assert_array_equal(wave, whole[first : first + len(wave)])
        assert end is None or len(wave) == round((end - start) * 22050)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late_begins_with_silence(tmp_path: Path, suffix: str) -> None:
    path = write_sound_video(tmp_path / f"late.{suffix}", 8, sound_from=2.5, channels=2, rate=48000)
    wave = decode_audio(path)
    assert np.abs(wave[: 2 * 22050]).max() < 0.01
    np.testing.assert_allclose(beep_times(wave), np.arange(3, 8), atol=0.01)
    assert np.abs(wave).max() < 0.33  # the mean of the channels, not their sum


def test_a_file_without_sound_is_an_empty_array(tmp_path: Path) -> None:
    path = write_sound_video(tmp_path / "mute.mp4", 2, sound=None)
    assert decode_audio(path).shape == decode_audio(path, end=1.0).shape == (0,)
    assert list(audio_windows(path, [(0.0, 1.0)])) == []


def test_other_rates_and_files_of_sound_alone(tmp_path: Path, video: Path) -> None:
    import wave as waves

    np.testing.assert_allclose(beep_times(decode_audio(video, 8000), 8000), np.arange(24), atol=0.005)
    with waves.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes((beeps(np.arange(22050 * 3) / 22050) * 32767).astype("<i2").tobytes())
    assert np.abs(decode_audio(tmp_path / "a.wav") - beeps(np.arange(22050 * 3) / 22050)).max() < 1e-3


@pytest.mark.parametrize(
    ("codec", "layout"), [("pcm_s16le", "4.0"), ("pcm_s16le", "5.1"), ("pcm_f32le", "7.1"), ("wav", 8)]
)
def test_sound_is_the_mean_of_all_channels(tmp_path: Path, codec: str, layout: str | int) -> None:
    """Also of surround sound, whose layout a plain WAV file does not name."""
    av = pytest.importorskip("av")
    seconds = np.arange(22050) / 22050
    count = layout if isinstance(layout, int) else av.AudioLayout(layout).nb_channels
    channels = np.stack([0.5 * np.sin(2 * np.pi * 110 * (n + 1) * seconds) for n in range(count)])
    path = tmp_path / "a.mka"
    if isinstance(layout, int):
        import wave as waves

        path = tmp_path / "a.wav"
        with waves.open(str(path), "wb") as file:
            file.setparams((count, 2, 22050, 0, "NONE", ""))
            file.writeframes((channels.T * 32767).astype("<i2").tobytes())
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=22050, layout=layout)
            kind = {"pcm_f32le": "flt"}.get(codec, "s16")
            packed = np.ascontiguousarray(channels.T).reshape(1, -1)
            packed = packed.astype(np.float32) if kind == "flt" else (packed * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(packed, kind, layout)
            frame.sample_rate = 22050
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    np.testing.assert_allclose(decode_audio(path), channels.mean(0), atol=1e-3)


def test_damaged_packets_become_silence_and_the_rest_stays_in_time(tmp_path: Path) -> None:
    path = write_sound_video(tmp_path / "v.mkv", 12)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    report = DecodeReport()
    late = beep_times(decode_audio(path, report=report))
    assert {round(second) for second in late} >= {0, 1, 2, 10, 11}
    assert np.abs(late - np.round(late)).max() < 0.1


def test_what_cannot_be_read_is_named(tmp_path: Path, video: Path) -> None:
    with pytest.raises(DataError, match="no such sound file"):
        decode_audio(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"text\.mp4: not a sound that FFmpeg can read"):
        decode_audio(tmp_path / "text.mp4")
    for start, end in ((-1, 2), (3, 3), (float("nan"), 2)):
        with pytest.raises(DataError, match="from second"):
            decode_audio(video, start=start, end=end)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(write_sound_video(tmp_path / "v.mkv", 12).read_bytes()[:-8000])
    assert first_beep(decode_audio(cut)) < 0.01 and 22050 < len(decode_audio(cut)) < 11 * 22050


def test_sound_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    import av

    path = write_sound_video(tmp_path / "v.mp4", 3)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for place, size in places:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
    for end in (None, 2.0):
        with pytest.raises(DataError, match=r"v\.mp4: nothing of its sound can be decoded, \d+ packets are damaged"):
            decode_audio(path, end=end)
