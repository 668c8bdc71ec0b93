"""An extraction of segments that is killed: whole shards stay, and the same command goes on."""

import pytest
from fault_samples import write_videos

from mmpt.store.images import decode_image
from mmpt.store.segment_extraction import SegmentExtractionOptions, extract_segments
from mmpt.store.segment_store import SegmentStore
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import DataError
from mmpt.utils.subword_training import train_subwords

SETTINGS = {"kind": "merlot", "seconds": 0.5, "end_margin": 0.0, "videos_per_shard": 2, "workers": 0}
EXTRACT = f"""
import sys, time
from mmpt.store import segment_extraction
from mmpt.store.video_list import find_videos
real = segment_extraction.make_record

def make_record(item, *arguments):
    if item.video_id == "d":
        print("fourth video", flush=True)
        time.sleep(600)
    return real(item, *arguments)

segment_extraction.make_record = make_record
options = segment_extraction.SegmentExtractionOptions(tokenizer=sys.argv[3], **{SETTINGS!r})
segment_extraction.extract_segments(find_videos([sys.argv[1]]), None, sys.argv[2], options)
"""


def levels(folder) -> dict[str, float]:
    store = SegmentStore(folder)
    return {name: round(float(decode_image(store[name].image(0)).mean()), -1) for name in store}


def test_a_killed_extraction_of_segments(tmp_path, child):
    videos, out, tokenizer = write_videos(tmp_path / "videos", "abcde"), tmp_path / "out", tmp_path / "tokenizer"
    train_subwords("merlot", ["some words"], 360, tokenizer)
    options = SegmentExtractionOptions(tokenizer=str(tokenizer), **SETTINGS)
    extraction = child(EXTRACT, videos, out, tokenizer)
    extraction.wait_for("fourth video")
    with pytest.raises(DataError, match="another run is writing there"):
        extract_segments(find_videos([videos]), None, out, options)
    extraction.kill()
    assert (out / ".shard_00001.images_data.npy.tmp").exists()  # it was in the middle of a shard
    assert levels(out) == {"a": 40, "b": 60}
    summary = extract_segments(find_videos([videos]), None, out, options)
    assert (summary.done, summary.skipped, summary.failed) == (3, 2, 0)
    assert levels(out) == {name: 40 + 20 * number for number, name in enumerate("abcde")}
    assert SegmentStore(out).verify() and not list(out.glob(".*"))
