"""Small data of the downstream tasks, from TFRecords in the published layouts to the section of a config."""

from pathlib import Path
from typing import Any

from mmpt.store.tfrecord_questions import import_questions
from scripts.tiny_data.subword_files import write_merlot_tokenizer, write_reserve_tokenizer
from scripts.tiny_data.tfrecord_files import write_layout

MERLOT = {"image_size": [32, 64], "max_text_len": 40}
RESERVE = {"image_grid": [2, 4], "lang_seq_len": 48}


def section(folder: Path, layout: str, records: int = 4, **keys: Any) -> dict[str, Any]:
    """Import records of a layout and return the ``dataset`` section of a test on them."""
    write_layout(folder / "a.tfrecord", layout, records)
    import_questions([folder / "a.tfrecord"], folder / "store", folder / "q.jsonl", layout, progress=False)
    merlot = layout in ("vist", "merlot_vcr")
    tokenizer = write_merlot_tokenizer(folder / "bpe") if merlot else write_reserve_tokenizer(folder / "subwords.json")
    store = "segment_path" if layout == "tvqa" else "frame_path"
    paths = dict.fromkeys(("train_path", "val_path", "test_path"), str(folder / "q.jsonl"))
    own = {"split": "test", store: str(folder / "store"), "tokenizer": str(tokenizer), **paths}
    return {**own, **(MERLOT if merlot else RESERVE), **keys}
