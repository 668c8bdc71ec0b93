"""Files about clips for the fuzz tests: task lists to be filtered, SwinBERT's captions, pickled visual tokens."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.held_out_videos import filter_data_set
from mmpt.store.visual_tokens import VisualTokenStore, import_tokens

__all__ = ["CLIP_RECORDS"]

TASK = {split: [{"video": video, "caption": "c"}] for split, video in (("train", "vid"), ("val", "v"), ("test", "w"))}
COCO = {"images": [{"id": "v"}], "annotations": [{"image_id": "v", "caption": "c"}]}
TABLE = "".join(f'{video}\t[{{"caption": "c"}}]\n' for video in ("vid", "v_0"))


def filtered(file: Path, _: Path) -> None:
    """Filter a data set of which one file was tampered with."""
    written = {"txt_d-t.json": json.dumps(TASK), "train.tsv": TABLE, "val.json": json.dumps(COCO)}
    written |= {"train.yaml": "caption: train.tsv\n", "val.yaml": "caption_coco_format: val.json\n"}
    for name, content in written.items():
        if name != file.name:
            file.with_name(name).write_text(content)
    filter_data_set(file.parent, "d", file.parent / "out", "{split}.yaml")


def tokens(file: Path, _: Path) -> None:
    folder = file.parent / "tokens"
    shutil.rmtree(folder, ignore_errors=True)
    import_tokens(file, folder)
    store = VisualTokenStore(folder)
    assert all(store[video_id].shape[1:] == store.grid for video_id in store)


CLIP_RECORDS: dict[str, tuple[str, Any, tuple[str, ...], Callable[[Path, Path], Any]]] = {
    "task list": ("txt_d-t.json", TASK, ("train", "val", "video"), filtered),
    "caption table": ("train.tsv", TABLE, (), filtered),
    "coco captions": ("val.json", COCO, ("images", "annotations", "caption"), filtered),
    "visual tokens": ("t.pkl", {"vid": [np.zeros((2, 2), np.uint16)] * 2}, ("vid",), tokens),
}
