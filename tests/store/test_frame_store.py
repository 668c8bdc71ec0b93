"""The frame store: what is written is read back, what is damaged, missing or half-written is refused by name."""

import json
import math
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.store.frame_store import STORE_FILE, FrameStore, StoredFrames, frames_prefix, open_frames, videos_prefix
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.utils.errors import DataError


def images(video_id: str, count: int) -> list[bytes]:
    rng = np.random.default_rng(sum(video_id.encode()))
    return [rng.bytes(20 + 7 * k) for k in range(count)]


VIDEOS = {"-dash": 3, "vidéo 1": 1, "a.b": 5, "last": 2, "z": 4}


def write(folder: Path, videos: dict[str, int] = VIDEOS, per_shard: int = 2) -> Path:
    with FrameStoreWriter(folder, {"decoder": "none"}, per_shard) as writer:
        for video_id, count in videos.items():
            writer.append(video_id, images(video_id, count), [0.5 * k for k in range(count)])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "store")


def read(frames: StoredFrames) -> list[bytes]:
    return [frame.tobytes() for frame in frames]


def test_every_video_of_every_shard_is_read_back(folder: Path) -> None:
    store = FrameStore(folder)
    assert (store.ids, len(store), len(store.shards)) == (list(VIDEOS), 5, 3)
    for video_id, count in VIDEOS.items():
        frames = store[video_id]
        assert read(frames) == images(video_id, count)
        assert frames.seconds.dtype == np.float64
        assert frames.seconds.tolist() == [0.5 * k for k in range(count)]
        assert all(frame.dtype == np.uint8 and frame.ndim == 1 for frame in frames)
        assert frames[-1].tobytes() == images(video_id, count)[-1]
        with pytest.raises(IndexError):
            frames[count]
    assert "a.b" in store and "b" not in store
    assert store.verify() > 0
    assert store.producer()["decoder"] == "none"


def test_parts_of_a_video(folder: Path) -> None:
    frames = FrameStore(folder)["a.b"]  # at 0, 0.5, 1, 1.5, 2 s
    assert read(frames[1:4:2]) == images("a.b", 5)[1:4:2]
    inside = frames.between(0.5, 1.5)
    assert (read(inside), inside.seconds.tolist()) == (images("a.b", 5)[1:3], [0.5, 1.0])
    assert len(frames.between(0.6, 0.9)) == 0
    in_memory = StoredFrames.of(images("x", 2))
    assert read(in_memory) == images("x", 2) and np.isnan(in_memory.seconds).all()
    assert len(in_memory.between(0, math.inf)) == 0


def test_a_missing_video_names_the_folder_and_the_nearest_id_or_the_number(folder: Path) -> None:
    with pytest.raises(DataError, match=r"'lost'.*5 videos of the frame store .*store\. Did you mean 'last'\?"):
        FrameStore(folder)["lost"]
    with pytest.raises(DataError, match="no frame store: no such folder .dataset.frame_path."):
        FrameStore(folder / "no")
    with pytest.raises(DataError, match="it has no frames.json"):
        FrameStore(folder.parent)


def test_no_frame_is_mapped_before_it_is_asked_for(folder: Path) -> None:
    for file in folder.glob("*.frames_*"):
        file.unlink()
    store = FrameStore(folder)
    assert store.ids == list(VIDEOS)
    with pytest.raises(DataError, match=r"shard_00001\.frames_data\.npy"):
        store["a.b"]


def in_worker(store: FrameStore) -> tuple[list[bytes], bool]:
    return read(store["last"]), open_frames(store.path) is store


def test_a_store_pickles_as_its_path_and_is_opened_once_per_process(folder: Path) -> None:
    store = open_frames(folder)
    assert open_frames(str(folder)) is store
    assert len(pickle.dumps(store)) < 300
    assert pickle.loads(pickle.dumps(store)) is store
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(in_worker, (store,)) == (images("last", 2), True)
    write(folder, {"new": 1})
    assert "new" not in store
    assert "new" in open_frames(folder)


def test_a_changed_byte_is_found_where_it_is_read(folder: Path) -> None:
    data = Path(f"{frames_prefix(folder, 'shard_00001')}_data.npy")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    store = FrameStore(folder)
    assert read(store["-dash"]) == images("-dash", 3)
    with pytest.raises(DataError, match=r"video 'last': frame 1: .*shard_00001.frames_data.npy: the bytes .* changed"):
        store["last"][1:][0]
    with pytest.raises(DataError, match="shard_00001"):
        store.verify()


@pytest.mark.parametrize("kind", ["frames", "videos"])
def test_frames_and_videos_of_different_writes_are_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    write(tmp_path / "other")
    for file in (tmp_path / "other").glob(f"shard_00000.{kind}_*"):
        file.replace(folder / file.name)
    store = FrameStore(folder)
    assert read(store["z"]) == images("z", 4)
    with pytest.raises(DataError, match="not written with the videos beside them"):
        store["-dash"]


@pytest.mark.parametrize("suffix", ["videos_index.json", "videos_ids.json", "videos_data.npy", "videos_starts.npy"])
def test_a_shard_that_is_named_must_be_there(folder: Path, suffix: str) -> None:
    (folder / f"shard_00001.{suffix}").unlink()
    with pytest.raises(DataError, match=r"shard_00001\.videos"):
        FrameStore(folder)


def test_what_is_unfinished_is_not_read_and_the_next_writer_goes_on(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FrameStoreWriter(folder, None, 2) as writer:
        for number in range(3):
            writer.append(f"new{number}", images("n", 1))
        raise KeyboardInterrupt
    store = FrameStore(folder)
    assert store.ids == [*VIDEOS, "new0", "new1"]
    # killed between the commit of the shard and that of the store
    listed = (folder / STORE_FILE).read_bytes()
    write(folder, {"x": 1, "y": 1})
    (folder / STORE_FILE).write_bytes(listed)
    (folder / ".shard_00004.frames_data.npy.tmp").write_bytes(b"half")
    assert FrameStore(folder).ids == store.ids
    with FrameStoreWriter(folder) as writer:
        assert set(writer.stored) == set(store.ids)
        assert not list(folder.glob("*shard_00004*"))
        writer.append("x", images("other", 2))
        assert "x" not in FrameStore(folder)
        assert writer.pending == ["x"]
    assert read(FrameStore(folder)["x"]) == images("other", 2)


def test_times_may_be_unknown_and_mistakes_name_the_video(tmp_path: Path) -> None:
    with FrameStoreWriter(tmp_path) as writer:
        writer.append("a", images("a", 2))
        for content, times in (([], None), ([b""], None), ([b"x"], [1.0, 2.0])):
            with pytest.raises(DataError, match="video 'b'"):
                writer.append("b", content, times)
        with pytest.raises(DataError, match="'a' comes twice"):
            writer.append("a", images("a", 2))
    store = FrameStore(tmp_path)
    assert store.ids == ["a"] and read(store["a"]) == images("a", 2)
    assert np.isnan(store["a"].seconds).all()


@pytest.mark.parametrize(
    "content",
    ["[]", '{"version": 2, "shards": []}', '{"version": 1, "shards": [{"name": "../x", "videos": 1}]}', "{"],
)
def test_a_damaged_list_of_shards_is_refused(folder: Path, content: str) -> None:
    (folder / STORE_FILE).write_text(content)
    with pytest.raises(DataError, match=STORE_FILE):
        FrameStore(folder)
    with pytest.raises(DataError, match=STORE_FILE):
        FrameStoreWriter(folder)


def test_a_list_that_does_not_fit_its_shards_is_refused(folder: Path) -> None:
    listed = json.loads((folder / STORE_FILE).read_text())
    listed["shards"][0]["videos"] = 1
    (folder / STORE_FILE).write_text(json.dumps(listed))
    with pytest.raises(DataError, match=r"shard_00000.videos: 2 videos, frames.json says 1"):
        FrameStore(folder)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcde"), st.integers(1, 3)),
        st.tuples(st.just("remove"), st.sampled_from("abcde")),
        st.tuples(st.just("close")),
        st.tuples(st.just("drop")),
        st.tuples(st.just("again")),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
def test_replacing_and_removing_leaves_what_a_dict_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    writer, model, unseen = FrameStoreWriter(folder), {}, {}
    for number, (step, *arguments) in enumerate(steps):
        if step == "add" and arguments[0] not in unseen:
            unseen[arguments[0]] = images(f"{number}", arguments[1])
            writer.append(arguments[0], unseen[arguments[0]])
        elif step == "remove":
            writer.remove(arguments)
            model.pop(arguments[0], None)
        elif step != "add":
            writer.close_shard()
            model.update(unseen)
            unseen = {}
            if step == "drop":
                writer.drop_useless_shards()
                assert len({*writer.stored.values()}) == len(writer.shards)
            elif step == "again":
                writer = FrameStoreWriter(folder)
    writer.close_shard()
    model.update(unseen)
    assert writer.stored.keys() == model.keys()
    if model:
        store = FrameStore(folder)
        assert {video_id: read(store[video_id]) for video_id in store} == model
    for name in {shard.name for shard in writer.shards}:
        assert videos_prefix(folder, name).with_name(f"{name}.videos_index.json").exists()
