"""The segment store: what is written is read back; what is damaged, missing or half-written is refused by name."""

import dataclasses
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.segment_store import ALWAYS, FIELDS, STORE_FILE, SegmentStore, open_segments
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.errors import DataError

VIDEOS = {"-dash": 3, "vidéo 1": 1, "a.b": 5, "last": 2, "z": 4}


def record(video_id: str, count: int) -> SegmentRecord:
    rng = np.random.default_rng(sum(video_id.encode()))
    words = [int(rng.integers(0, 4)) if k else 0 for k in range(count)]  # the first is speechless
    return SegmentRecord(
        images=[rng.bytes(20 + 7 * k) for k in range(count)],
        times=[[5.0 * k, 5.0 * k + 5] for k in range(count)],
        mid=[5.0 * k + 2.5 for k in range(count)],
        speed=[1.0 + k for k in range(count)],
        tokens=[rng.integers(10, 32768, n) for n in words],
        token_times=[np.sort(rng.random((n, 2)), axis=1) for n in words],
        raw_tokens=[rng.integers(100, 50370, n + 1) for n in words],
        spectrograms=[rng.random((188, 64)) for _ in words],
        meta={"title": f"ein Vidéo {video_id}", "tags_ids": [1, 2]},
    )


def write(folder: Path, videos: dict[str, int] = VIDEOS, fields: frozenset[str] = FIELDS, per_shard: int = 2) -> Path:
    with SegmentStoreWriter(folder, fields, {"tokenizer": "x"}, per_shard) as writer:
        for video_id, count in videos.items():
            writer.add(video_id, record(video_id, count))
    return folder


def content(segments: Any, fields: frozenset[str] = FIELDS) -> list[Any]:
    reads = {"images": "image", "spectrograms": "spectrogram"}
    return [
        [getattr(segments, reads.get(name, name))(k).tobytes() for k in range(len(segments))] for name in sorted(fields)
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("written") / "store")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "store")


def test_every_video_of_every_shard_is_read_back(folder: Path) -> None:
    store = SegmentStore(folder)
    assert (store.ids, len(store), len(store.shards), store.fields) == (list(VIDEOS), 5, 3, FIELDS)
    assert store.lengths().dtype == np.int64 and store.lengths().tolist() == list(VIDEOS.values())
    for video_id, count in VIDEOS.items():
        segments, expected = store[video_id], record(video_id, count)
        assert len(segments) == count and segments.meta == expected.meta
        assert (segments.times.dtype, segments.mid.dtype, segments.speed.dtype) == (float, float, np.float32)
        np.testing.assert_array_equal(segments.times, expected.times)
        np.testing.assert_array_equal(segments.mid, expected.mid)
        np.testing.assert_array_equal(segments.speed, expected.speed)
        for k in range(count):
            assert segments.image(k).tobytes() == expected.images[k]
            for name, dtype in (("tokens", np.int32), ("token_times", np.float32), ("raw_tokens", np.int32)):
                read = getattr(segments, name)(k)
                assert read.dtype == dtype
                np.testing.assert_array_equal(read, np.asarray(getattr(expected, name)[k], dtype))
            assert segments.spectrogram(k).dtype == np.float16 and segments.spectrogram(k).shape == (188, 64)
            np.testing.assert_allclose(segments.spectrogram(k), expected.spectrograms[k], atol=1e-3)
        assert segments.image(-1).tobytes() == expected.images[-1]
        with pytest.raises(IndexError, match=f"{count} segments"):
            segments.tokens(count)
    assert "a.b" in store and "b" not in store
    assert store.verify() > 0
    assert store.producer()["tokenizer"] == "x"


def test_a_field_that_the_store_lacks_is_named(tmp_path: Path) -> None:
    store = SegmentStore(write(tmp_path, fields=ALWAYS))
    assert store.fields == ALWAYS and not list(tmp_path.glob("*.spectrograms_*"))
    assert store["z"].token_times is not None
    for read in (store["z"].spectrogram, store["z"].token_times, store["z"].raw_tokens):
        with pytest.raises(DataError, match=r"holds no (spectrograms|token times|raw tokens), only images, tokens"):
            read(0)
    with pytest.raises(DataError, match="holds segments with images, tokens, these have images, raw_tokens, tokens"):
        SegmentStoreWriter(tmp_path, ALWAYS | {"raw_tokens"})
    with pytest.raises(DataError, match="are no fields"):
        SegmentStoreWriter(tmp_path / "new", frozenset({"images"}))


def in_worker(store: SegmentStore) -> tuple[list[Any], bool]:
    return content(store["last"]), open_segments(store.path) is store


def test_a_store_pickles_as_its_path_and_is_opened_once_per_process(folder: Path) -> None:
    store = open_segments(folder)
    assert open_segments(str(folder)) is store
    assert len(pickle.dumps(store)) < 300
    assert pickle.loads(pickle.dumps(store)) is store
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(in_worker, (store,)) == (content(store["last"]), True)
    write(folder, {"new": 1})
    assert "new" not in store
    assert "new" in open_segments(folder)


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"'lost'.*5 videos of the segment store .*store\. Did you mean 'last'\?"):
        SegmentStore(folder)["lost"]
    with pytest.raises(DataError, match="no segment store: no such folder .dataset.segment_path."):
        SegmentStore(folder / "no")
    (folder / "shard_00001.tokens_starts.npy").unlink()
    segments = SegmentStore(folder)["a.b"]
    assert len(segments.image(0))
    with pytest.raises(DataError, match=r"video 'a.b': segment 2: .*shard_00001\.tokens"):
        segments.tokens(2)


def test_a_changed_byte_is_found_where_it_is_read(folder: Path) -> None:
    data = folder / "shard_00001.spectrograms_data.npy"
    changed = bytearray(data.read_bytes())
    changed[-1] ^= 1
    data.write_bytes(changed)
    store = SegmentStore(folder)
    assert len(store["-dash"].spectrogram(0)) == 188
    with pytest.raises(DataError, match=r"video 'last': segment 1: .*the bytes .* changed"):
        store["last"].spectrogram(1)
    with pytest.raises(DataError, match="shard_00001"):
        store.verify()


@pytest.mark.parametrize("part", ["images", "tokens", "meta"])
def test_parts_of_different_writes_are_refused(folder: Path, tmp_path: Path, part: str) -> None:
    write(tmp_path / "other")
    for file in (tmp_path / "other").glob(f"shard_00000.{part}_*"):
        file.replace(folder / file.name)
    segments = SegmentStore(folder)["-dash"]
    with pytest.raises(DataError, match="not written with the videos beside them"):
        segments.image(0), segments.tokens(0), segments.meta


def test_what_is_unfinished_is_not_read_and_the_next_writer_goes_on(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), SegmentStoreWriter(folder, videos_per_shard=2) as writer:
        for number in range(3):
            writer.add(f"new{number}", record("n", 2))
        raise KeyboardInterrupt
    store = SegmentStore(folder)
    assert store.ids == [*VIDEOS, "new0", "new1"]
    listed = (folder / STORE_FILE).read_bytes()  # as if killed between the commit of a shard and that of the store
    write(folder, {"x": 1, "y": 1})
    (folder / STORE_FILE).write_bytes(listed)
    assert SegmentStore(folder).ids == store.ids
    with SegmentStoreWriter(folder) as writer:
        assert not list(folder.glob("*shard_00004*"))
        writer.add("z", record("other", 2))
    assert content(SegmentStore(folder)["z"]) == content_of_record(folder.parent, record("other", 2))


def content_of_record(folder: Path, only: SegmentRecord) -> list[Any]:
    with SegmentStoreWriter(folder / "alone") as writer:
        writer.add("v", only)
    return content(SegmentStore(folder / "alone")["v"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": []}, "0 segments"),
        ({"images": [b"", b"x"]}, "no empty image"),
        ({"times": [[0, 1]]}, "times"),
        ({"times": [[0, 1], [3, 2]]}, "ends before it starts"),
        ({"speed": [1, 0]}, "speed"),
        ({"mid": [1]}, "mid"),
        ({"tokens": [[1]]}, "but 1 of them with tokens"),
        ({"tokens": [[1.5], [1]]}, "segment 0: tokens are float64"),
        ({"raw_tokens": None}, "none of them with raw tokens"),
        ({"tokens": [[1], []], "token_times": [[[0, 1]], [[1, 2]]]}, "segment 1: not one pair of times"),
        ({"spectrograms": [np.zeros((188, 64)), np.zeros((180, 64))]}, r"segment 1: .*\(180, 64\)"),
        ({"meta": {"x": object()}}, "not JSON"),
    ],
)
def test_mistakes_name_the_video_and_leave_the_shard_whole(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with SegmentStoreWriter(tmp_path) as writer:
        writer.add("a", record("a", 2))
        with pytest.raises(DataError, match=f"video 'b': .*{told}"):
            writer.add("b", dataclasses.replace(record("b", 2), **change))
        writer.add("c", record("c", 1))
    assert SegmentStore(tmp_path).ids == ["a", "c"] and content(SegmentStore(tmp_path)["c"])


def test_damaged_lists_of_shards_and_other_stores_are_refused(folder: Path, tmp_path: Path) -> None:
    listed = json.loads((folder / STORE_FILE).read_text())
    (folder / STORE_FILE).write_text(json.dumps({**listed, "fields": ["images", "smell", "tokens"]}))
    with pytest.raises(DataError, match=rf"{STORE_FILE}: .*smell.* are no fields"):
        SegmentStore(folder)
    with FrameStoreWriter(tmp_path / "frames") as writer:
        writer.append("a", [b"x"])
    (tmp_path / "frames" / "frames.json").rename(tmp_path / "frames" / STORE_FILE)
    with pytest.raises(DataError, match="holds no videos of a segment store"):
        SegmentStore(tmp_path / "frames")


FEW_FILES = """
import os, resource, sys
from mmpt.store.segment_store import SegmentStore, open_segments
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, hard))
store = open_segments(sys.argv[1])
print(sum(len(store[name].spectrogram(0)) + len(store[name].image(0)) + len(store[name].tokens(0)) for name in store))
"""


def test_more_shards_than_a_process_may_hold_files_at_first(folder: Path) -> None:
    told = subprocess.run([sys.executable, "-c", FEW_FILES, folder], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) > 5 * 188
