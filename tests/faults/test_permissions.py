"""What may not be read or written, by a user without the powers of root: a named error or a counted failure."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from fault_samples import Levels, write_videos

from mmpt.evaluators.base import load_arrays
from mmpt.store.extraction import extract_features
from mmpt.store.feature_shards import shard_split
from mmpt.store.features import FeatureStore, read_id_list, read_shard_map
from mmpt.store.transcripts import TranscriptFile
from mmpt.store.video_list import find_videos
from mmpt.utils import safe_pickle
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import MMPTError, StorageError
from mmpt.utils.files import atomic_open, read_json, sole_writer, write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter
from mmpt.utils.weight_files import load_state_dict_file, save_safetensors

READERS = {
    "x.npy": lambda file: FeatureStore(file.parent)["x"],
    "x.json": read_json,
    "x.yaml": read_yaml,
    "x.pkl": safe_pickle.load,
    "x.pt": load_state_dict_file,
    "x.safetensors": load_state_dict_file,
    "x.npz": lambda file: load_arrays(file, ["text"]),
    "x.lst": lambda file: read_id_list(file, "list"),
    "captions.json": TranscriptFile,
    "train_meta.json": lambda file: read_shard_map(file.parent, "train"),
    "x.csv": lambda file: find_videos([file]),
    "s_data.npy": lambda file: ShardedTensor.load(file.parent / "s"),
    "s_starts.npy": lambda file: ShardedTensor.load(file.parent / "s"),
    "s_ids.json": lambda file: ShardedTensor.load(file.parent / "s"),
    "s_index.json": lambda file: ShardedTensor.load(file.parent / "s"),
}


def fill(folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros((2, 3), np.float16))
    for name in ("x.json", "train_meta.json"):
        (folder / name).write_text("{}")
    (folder / "captions.json").write_text('{"a": {"start": [0], "end": [1], "text": ["b"]}}')
    (folder / "x.yaml").write_text("a: 1\n")
    (folder / "x.pkl").write_bytes(b"\x80\x04}.")
    torch.save({"w": torch.zeros(2)}, folder / "x.pt")
    save_safetensors(folder / "x.safetensors", {"w": torch.zeros(2)})
    np.savez(folder / "x.npz", text=np.zeros(2))
    (folder / "x.lst").write_text("a\n")
    (folder / "x.csv").write_text("video_id,path\na,a.mp4\n")
    with ShardedTensorWriter(folder / "s", np.float16, (3,)) as writer:
        writer.append(np.zeros((2, 3), np.float16), "a")


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read(shared, name):
    fill(shared.folder)
    file = shared.folder / name
    READERS[name](file)
    os.utime(file, ns=(1, 1))  # a file that did not change may be served from memory
    file.chmod(0)
    with pytest.raises(MMPTError, match=rf"{re.escape(name)}.*[Pp]ermission denied"), shared.as_nobody():
        READERS[name](file)


WRITERS = {
    "json": lambda folder: write_json(folder / "x.json", {}),
    "weights": lambda folder: save_safetensors(folder / "x.safetensors", {"w": torch.zeros(2)}),
    "shard": lambda folder: ShardedTensorWriter(folder / "x", np.float16, (3,)),
    "lock": lambda folder: sole_writer(folder / ".lock").__enter__(),
    "below": lambda folder: write_json(folder / "new" / "x.json", {}),
    "lock below": lambda folder: sole_writer(folder / "new" / ".lock").__enter__(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written(shared, name):
    folder = shared.folder / "out"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(StorageError, match=r"/out.*permission denied"), shared.as_nobody():
        WRITERS[name](folder)
    assert list(folder.iterdir()) == []


def test_extraction_into_a_folder_that_may_not_be_written(shared):
    videos = write_videos(shared.folder / "videos", "ab")
    out = shared.folder / "out"
    assert extract_features(find_videos([videos / "a.mp4"]), Levels(), out).done == 1
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    out.chmod(0o555)
    with pytest.raises(StorageError, match=r"/out/\.lock.*permission denied"), shared.as_nobody():
        extract_features(find_videos([videos]), Levels(), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_video_that_may_not_be_read_is_counted(shared):
    videos = write_videos(shared.folder / "videos", "abc")
    (videos / "b.mp4").chmod(0)
    items = find_videos([videos])
    extract_features(items[:1], Levels(), shared.folder / "warm")
    (shared.folder / "out").mkdir()
    (shared.folder / "out").chmod(0o777)
    with shared.as_nobody():
        summary = extract_features(items, Levels(), shared.folder / "out")
    assert (summary.done, summary.failed) == (2, 1)
    assert "failed: b: " in summary.describe() and "Permission denied" in summary.describe()


def test_a_folder_of_videos_that_may_not_be_read_is_no_empty_folder(shared):
    videos = write_videos(shared.folder / "videos", "ab")
    (videos / "closed").mkdir()
    (videos / "closed").chmod(0)
    with (
        pytest.raises(StorageError, match=r"videos/closed: the folder cannot be read \(Permission denied\)"),
        shared.as_nobody(),
    ):
        find_videos([videos])


def test_features_that_may_not_be_read_are_counted(shared):
    (shared.folder / "feat").mkdir()
    for name in "abc":
        np.save(shared.folder / "feat" / f"{name}.npy", np.zeros((2, 3), np.float16))
    (shared.folder / "feat" / "b.npy").chmod(0)
    store, out = FeatureStore(shared.folder / "feat"), shared.folder / "out"
    shard_split(store, out, "valid", ["a"], progress=False)
    out.chmod(0o777)
    with shared.as_nobody():
        outcome = shard_split(store, out, "train", list("abc"), progress=False)
    assert outcome.shards == {0: ["a", "c"]} and "Permission denied" in outcome.failed["b"]


def test_a_read_only_file_system(tmpfs):
    out = tmpfs.folder / "out"
    write_json(out / "old.json", {"old": 1})
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(tmpfs.folder)], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("no file system may be mounted read-only here")
    for write in WRITERS.values():
        with pytest.raises(StorageError, match=r"/out.*the file system is read-only"):
            write(out)
    with pytest.raises(StorageError, match="the file system is read-only"):
        extract_features([], Levels(), out)
    assert read_json(out / "old.json") == {"old": 1} and os.listdir(out) == ["old.json"]


def test_an_error_about_another_file_keeps_its_name(shared):
    """A file that is read while another is written: the error is about the one that may not be read."""
    secret = shared.folder / "elsewhere" / "secret.json"
    secret.parent.mkdir()
    secret.write_text(json.dumps([]))
    secret.chmod(0)
    out = shared.folder / "out"
    out.mkdir()
    out.chmod(0o777)
    with pytest.raises(PermissionError, match=r"secret\.json"), shared.as_nobody(), atomic_open(out / "x.json") as file:
        file.write(secret.read_text())
    assert list(out.iterdir()) == []
