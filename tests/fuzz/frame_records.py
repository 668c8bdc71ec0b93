"""Files of frames for the fuzz tests: the list of a store's shards, published TSVs, pickles and indexes."""

import atexit
import base64
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mutations import reads_or_refuses

from mmpt.store.frame_import import import_frames
from mmpt.store.frame_store import FrameStore
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import encode_jpeg

__all__ = ["FRAME_RECORDS"]

IMAGE = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
TEXT = base64.b64encode(IMAGE).decode()
TSV = f"vid\t{TEXT}\t{TEXT}\nv_0\t{TEXT}\n"


def read_all(folder: Path) -> None:
    store = FrameStore(folder)
    for video_id in store:
        assert all(frame.tobytes().startswith(IMAGE[:3]) for frame in store[video_id])


@functools.cache
def template() -> Path:
    """A store of two shards; to copy it is faster than to write one."""
    folder = Path(tempfile.mkdtemp(prefix="mmpt-frames-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with FrameStoreWriter(folder, None, 1) as writer:
        for video_id in ("vid", "v_0"):
            writer.append(video_id, [IMAGE])
    return folder


def shards(file: Path, _: Path) -> None:
    """Read and write on a store whose list of shards was tampered with."""
    listed = file.read_bytes()
    shutil.copytree(template(), file.parent, dirs_exist_ok=True)
    file.write_bytes(listed)
    for use in (read_all, FrameStoreWriter):
        reads_or_refuses(lambda use=use: use(file.parent), file, Path("shard_"))


def imported(file: Path, _: Path) -> None:
    store = file.parent / "store"
    shutil.rmtree(store, ignore_errors=True)
    import_frames([file], store)
    if (store / "frames.json").exists():
        read_all(store)


def indexed(file: Path, _: Path) -> None:
    """Import a TSV whose index was tampered with."""
    table = file.with_name("t.tsv")
    table.write_text(TSV)
    if file.suffix == ".pkl":
        table.with_suffix(".lineidx").unlink(missing_ok=True)
    imported(table, file.parent)


LISTED = {"version": 1, "shards": [{"name": "shard_00000", "videos": 1}, {"name": "shard_00001", "videos": 1}]}
FRAME_RECORDS: dict[str, tuple[str, Any, tuple[str, ...], Callable[[Path, Path], Any]]] = {
    "shards of frames": ("frames.json", LISTED, ("version", "shards", "name", "videos", "removed"), shards),
    "frame tsv": ("t.tsv", TSV, (), imported),
    "frame pickle": ("t.pkl", {"vid": [TEXT, TEXT], "v_0": [TEXT]}, ("vid",), imported),
    "frame lines": ("t.lineidx", f"0\n{TSV.index('v_0')}\n", (), indexed),
    "frame offsets": ("t.id2lineidx.pkl", {"vid": 0, "v_0": TSV.index("v_0")}, ("vid",), indexed),
}
