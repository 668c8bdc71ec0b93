"""From TFRecords in the published layouts to a step of pre-training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.segment_meta import MERLOTMetaProcessor, ReserveMetaProcessor
from mmpt.store.segment_store import open_segments
from mmpt.store.tfrecord_pretraining import import_segments
from mmpt.tasks.task import Task
from mmpt.utils.registry import resolve_class
from scripts.tiny_data.subword_files import write_merlot_tokenizer, write_reserve_tokenizer
from scripts.tiny_data.tfrecord_files import write_layout

SHARED = {"video_processor": "SegmentVideoProcessor", "text_processor": "SegmentTextProcessor", "split": "train"}
KINDS: dict[str, dict[str, Any]] = {
    "MERLOT": {"num_chunks": 16, "chunks_in_group": 4, "max_text_len": 6, "image_size": [32, 64]},
    "Reserve": {"num_segments": 16, "num_segment_groups": 2, "image_grid": [2, 4], "lang_seq_len": 160, "seq_len": 192},
}


@pytest.mark.parametrize("layout", ["merlot", "reserve"])
def test_groups_of_a_video_are_held_out_together(tmp_path: Path, layout: str) -> None:
    changes = []
    for record in range(12):  # each of two groups, of six videos in all
        names = {f"c{k:02d}/youtube_id": f"v_{record % 6}" for k in range(16)}
        starts = {f"c{k:02d}/start_time": 80.0 * record + 5 * k for k in range(16)}
        ends = {f"c{k:02d}/end_time": 80.0 * record + 5 * k + 5 for k in range(16)}
        numbers = {f"c{k:02d}/chunk_num": 16 * record + k for k in range(16)}
        changes.append(names | (starts | ends if layout == "reserve" else numbers))
    write_layout(tmp_path / "a", layout, 12, changes=changes)
    import_segments([tmp_path / "a"] * 2, tmp_path / "s", layout, progress=False)
    assert len(open_segments(tmp_path / "s").ids) == 48
    config = {"segment_path": str(tmp_path / "s"), "val_holdout": 0.5}
    sides = []
    for split in ("train", "valid"):
        meta = MERLOTMetaProcessor if layout == "merlot" else ReserveMetaProcessor
        sides.append(meta({**config, "split": split}).video_ids)
    videos = [{name[:3] for name in ids} for ids in sides]
    assert videos[0] and videos[1] and not videos[0] & videos[1]
    assert sum(map(len, sides)) == 48


@pytest.mark.parametrize("system", KINDS)
def test_a_step(tmp_path: Path, system: str) -> None:
    write_layout(tmp_path / "a.tfrecord.gz", system.lower(), 2)
    text = {"random_text": tmp_path / "text"} if system == "Reserve" else {}
    import_segments([tmp_path / "a.tfrecord.gz"], tmp_path / "s", system.lower(), progress=False, **text)
    (tmp_path / "train.lst").write_text("\n".join(open_segments(tmp_path / "s").ids))
    write = write_merlot_tokenizer if system == "MERLOT" else write_reserve_tokenizer
    tokenizer = write(tmp_path / ("bpe" if system == "MERLOT" else "subwords.json"))
    own = {
        "meta_processor": f"{system}MetaProcessor",
        "aligner": f"{system}PretrainingAligner",
        **SHARED,
        **KINDS[system],
    }
    paths = {
        "train_path": str(tmp_path / "train.lst"),
        "segment_path": str(tmp_path / "s"),
        "tokenizer": str(tokenizer),
    }
    name = f"{system}Pretraining"
    tiny = resolve_class("model", name).tiny_config()
    config = OmegaConf.create(
        {"dataset": {**own, **paths}, "model": {**tiny.model, "model_cls": name, "vocab_size": 400}}
    )
    config.loss = {"loss_cls": f"{system}Loss"}
    task = Task(config)
    task.build_dataset()
    task.build_loss()
    assert task.train_data is not None and len(task.train_data) == 2
    torch.manual_seed(0)
    loss = task(task.build_model(), MMDataset.collater([task.train_data[0], task.train_data[1]]))["loss"]
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
