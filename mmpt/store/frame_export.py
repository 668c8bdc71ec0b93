"""A frame store into the published TSVs, which VIOLET's and LAVENDER's own code read.

============  =================================  ============================================
layout        row                                index
============  =================================  ============================================
``violet``    ``id \\t frame \\t frame ..``        ``<name>.lineidx``: offsets, one per line
``lavender``  ``id \\t id \\t frame \\t frame ..``  ``<name>.id2lineidx.pkl``: dict id -> offset
============  =================================  ============================================

Frames are base64 of the stored bytes; times are not kept. ``lavender`` writes the ``.lineidx`` too.
"""

import base64
import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmpt.store.frame_store import FrameStore, StoredFrames
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open

__all__ = ["LAYOUTS", "export_tsv"]

LAYOUTS = ("violet", "lavender")


def export_tsv(
    store: FrameStore,
    path: str | os.PathLike[str],
    layout: str = "violet",
    video_ids: Sequence[str] | None = None,
    progress: bool = False,
) -> int:
    """Write videos of a store as a TSV with its index; return how many.

    Args:
        store: to read from.
        path: of the TSV, ending in ``.tsv``; the index gets its name.
        layout: ``violet`` or ``lavender``.
        video_ids: which, in this order; None: all, in the store's order.
        progress: whether to show a bar.

    Raises:
        DataError: if a video is missing, an id holds a tab or line end, an id comes twice, or the path has another
            ending.
    """
    target = Path(path)
    if layout not in LAYOUTS or target.suffix != ".tsv":
        raise DataError(
            f"{path}: expected the name of a .tsv and one of the layouts {', '.join(LAYOUTS)}, not {layout}"
        )
    from tqdm import tqdm

    chosen = store.ids if video_ids is None else list(video_ids)
    if len(set(chosen)) < len(chosen):
        raise DataError(f"{path}: a video is listed twice, but its readers find rows by id")
    if missing := [video_id for video_id in chosen if video_id not in store]:
        store[missing[0]]  # raises: names the nearest
    indexes = (target.with_suffix(".lineidx"), target.with_suffix(".id2lineidx.pkl"))
    for index in indexes:
        index.unlink(missing_ok=True)  # an older one must not go with the new file
    offsets: list[int] = []
    with atomic_open(target, "wb") as file:
        for video_id in tqdm(chosen, unit="video", disable=not progress):
            offsets.append(file.tell())
            file.writelines(_row(video_id, store[video_id], layout))
    with atomic_open(indexes[0]) as file:
        file.writelines(f"{offset}\n" for offset in offsets)
    if layout == "lavender":
        with atomic_open(indexes[1], "wb") as file:
            pickle.dump(dict(zip(chosen, offsets, strict=True)), file, protocol=4)
    return len(chosen)


def _row(video_id: str, frames: StoredFrames, layout: str) -> Iterable[bytes]:
    name = video_id.encode(errors="replace")
    if not name or set(video_id) & set("\t\r\n") or name.decode() != video_id:
        raise DataError(f"{video_id!r}: an id with a tab or line end, or not of UTF-8, cannot stand in a TSV")
    yield name
    if layout == "lavender":
        yield b"\t" + name
    for frame in frames:
        yield b"\t" + base64.b64encode(frame.tobytes())
    yield b"\n"
