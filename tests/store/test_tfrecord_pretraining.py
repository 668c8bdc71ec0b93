"""The pre-training records of MERLOT and Reserve become entries of a segment store."""

from pathlib import Path

import numpy as np
import pytest

from mmpt.store.segment_store import open_segments
from mmpt.store.tfrecord_pretraining import import_segments
from mmpt.store.tfrecords import read_examples
from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor
from scripts.segment_importer.import_tfrecords import main
from scripts.tiny_data.tfrecord_files import write_layout

PUBLISHED = Path(__file__).parents[1] / "data/reserve/synthetic_train00000of00001.tfrecord"


def test_merlot(tmp_path: Path) -> None:
    """A chunk that ends a video parts the record; chunk numbers name the entries."""
    path = tmp_path / "a.tfrecord"
    written = write_layout(path, "merlot", 2)
    assert main(["--layout", "merlot", "--input", str(path), "--store", str(tmp_path / "s"), "--quiet"]) == 0
    store = open_segments(tmp_path / "s")
    assert store.ids == ["video0a_00000", "video0b_00000", "video1a_00000", "video1b_00000"]
    assert store.fields == {"images", "tokens", "raw_tokens"}
    assert store.lengths().tolist() == [10, 6, 10, 6]
    second = store["video1b_00000"]
    assert second.tokens(3).tolist() == written[1]["c13/tokenized_cleaned_asr"]
    assert second.raw_tokens(3).tolist() == written[1]["c13/tokenized_raw_asr"]
    assert second.image(5).tobytes() == written[1]["c15/image/encoded"]
    assert second.mid.tolist() == [0, 4, 8, 12, 16, 20]
    assert second.speed.tolist() == [1] * 6
    assert second.meta == {"youtube_id": "video1b"}


def test_reserve(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    written = write_layout(path, "reserve", 2)
    summary = import_segments([path], tmp_path / "s", "reserve", progress=False)
    assert (summary.done, summary.frames, summary.failed) == (4, 32, 0)
    store = open_segments(tmp_path / "s")
    assert store.ids == ["video0a_00000", "video0b_00000", "video1a_00000", "video1b_00000"]
    second = store["video0b_00000"]
    assert second.tokens(0).tolist() == []
    assert second.tokens(2).tolist() == written[0]["c10/tok_ids"]
    assert np.array_equal(second.token_times(2)[:, 0], written[0]["c10/tok_start_times"])
    assert second.speed.tolist() == [2] * 8
    assert second.times[3].tolist() == [15, 20] and second.mid[3] == 17.5
    assert second.meta["title_ids"] == [200, 201] and second.meta["duration"] == 40
    assert second.spectrogram(1).shape == (188, 64)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the record of the published layout")
def test_the_published_layout(tmp_path: Path) -> None:
    """A record that the published code wrote: its spectrogram is the JPEG over the magic number, time first."""
    from PIL import Image

    summary = import_segments([PUBLISHED], tmp_path / "s", "reserve", progress=False)
    store, examples = open_segments(tmp_path / "s"), list(read_examples([PUBLISHED]))
    assert summary.failed == 0 and store.lengths().sum() == 12
    first, segments = examples[0], store[store.ids[0]]
    import io

    pixels = np.asarray(Image.open(io.BytesIO(first.bytes_of("c00/spectrogram/encoded"))), np.float32)
    expected = (pixels.T / first.number("c00/spectrogram/magic_number")).astype(np.float16)
    assert np.array_equal(segments.spectrogram(0), expected)
    assert segments.tokens(0).tolist() == first.numbers("c00/tok_ids").tolist()
    assert segments.meta["description_ids"] == first.numbers("c00/description").tolist()


def test_text_that_belongs_to_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write_layout(
        path, "reserve", 3, changes=[{"c00/random_text": [5, 6, 7], "c01/random_text": [8]}, {"c00/random_text": []}]
    )
    arguments = ["--layout", "reserve", "--input", str(path), "--store", str(tmp_path / "s"), "--quiet"]
    for _ in range(2):  # written anew, so that nothing is in it twice
        assert main([*arguments, "--random-text", str(tmp_path / "text")]) == 0
    texts = ShardedTensor.load(tmp_path / "text")
    assert [texts[number].tolist() for number in range(len(texts))] == [[5, 6, 7], [8]]


@pytest.mark.parametrize("key", ["video_src_idx", "video_src_index", None])
def test_either_name_of_the_source(tmp_path: Path, key: str | None) -> None:
    """Groups of one video are told apart by the source's number, whatever it is called; without it they are not."""
    path = tmp_path / "a.tfrecord"
    change = {}
    for segment in range(16):
        change |= {f"c{segment:02d}/youtube_id": "same", f"c{segment:02d}/video_src_idx": None}
        if key:
            change[f"c{segment:02d}/{key}"] = segment // 4
    write_layout(path, "reserve", 1, changes=[change])
    import_segments([path], tmp_path / "s", "reserve", progress=False)
    assert open_segments(tmp_path / "s").lengths().tolist() == ([4] * 4 if key else [16])


def test_ids_stay_unique_and_a_second_run_adds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tfrecord"
    write_layout(path, "merlot", 1)
    files = [path, path]
    assert import_segments(files, tmp_path / "s", "merlot", progress=False).done == 4
    store = open_segments(tmp_path / "s")
    assert store.ids == ["video0a_00000", "video0b_00000", "video0a_00000_2", "video0b_00000_2"]
    monkeypatch.setattr("mmpt.store.tfrecord_pretraining.SegmentRecord", None)  # nothing is decoded again
    again = import_segments(files, tmp_path / "s", "merlot", progress=False)
    assert (again.done, again.skipped) == (0, 4)
    assert len(open_segments(tmp_path / "s")) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"c03/image/encoded": b"no image"}, "c03/image/encoded': neither JPEG nor PNG"),
        ({"c03/spectrogram/magic_number": 0.0}, "magic_number 0.0"),
        ({"c03/tok_end_times": [1.0] * 9}, "times"),
        ({"c03/start_time": None}, "no feature 'c03/start_time'"),
        ({"c00/image/encoded": None}, "holds no segment"),
    ],
)
def test_a_wrong_record_is_counted(tmp_path: Path, change: dict, told: str) -> None:
    path = tmp_path / "a.tfrecord"
    write_layout(path, "reserve", 2, changes=[change])
    summary = import_segments([path], tmp_path / "s", "reserve", progress=False)
    assert summary.done == (2 if "c00/image/encoded" in change else 3)  # the other videos of the record are kept
    [(place, reason)] = summary.failures
    assert place.endswith("record 0") and told in reason
    assert main(["--layout", "reserve", "--input", str(path), "--store", str(tmp_path / "t"), "--quiet"]) == 1


def test_a_damaged_file_stops_the_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tfrecord"
    write_layout(path, "merlot", 2)
    path.write_bytes(path.read_bytes()[:-100])
    arguments = ["--layout", "merlot", "--input", str(path), "--store", str(tmp_path / "s"), "--quiet"]
    assert main(arguments) == 2
    assert "record 1: cut short" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of merlot, reserve"):
        import_segments([path], tmp_path / "s", "merlott")
    assert main([*arguments, "--questions", "x"]) == 2
