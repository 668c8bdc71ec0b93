"""Files of segments for the fuzz tests: the list of a store's shards, transcripts and tokenizers."""

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutations import reads_or_refuses

from mmpt.store.segment_store import ALWAYS, SegmentStore
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.store.transcript_source import open_transcripts
from mmpt.utils.subword_training import train_subwords
from mmpt.utils.subwords import load_subwords

__all__ = ["SEGMENT_RECORDS"]

IMAGE = b"\xff\xd8\xff image"


def read_all(folder: Path) -> None:
    store = SegmentStore(folder)
    for video_id in store:
        segments = store[video_id]
        assert segments.image(0).tobytes() == IMAGE and segments.tokens(0).tolist() == [7] and segments.meta == {}


@functools.cache
def template() -> Path:
    """A store of two shards; to copy it is faster than to write one."""
    folder = Path(tempfile.mkdtemp(prefix="mmpt-segments-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with SegmentStoreWriter(folder, ALWAYS, None, 1) as writer:
        for video_id in ("vid", "v_0"):
            writer.add(video_id, SegmentRecord([IMAGE], [[0, 1]], [0.5], [1], [[7]]))
    return folder


def shards(file: Path, _: Path) -> None:
    """Read and write on a store whose list of shards was tampered with."""
    listed = file.read_bytes()
    shutil.copytree(template(), file.parent, dirs_exist_ok=True)
    file.write_bytes(listed)
    for use in (read_all, lambda folder: SegmentStoreWriter(folder, ALWAYS)):
        reads_or_refuses(lambda use=use: use(file.parent), file, Path("shard_"))


def transcripts(file: Path, _: Path) -> None:
    """Read the transcripts of a file of many videos, or of a folder with one."""
    source = open_transcripts(file.parent if file.name.startswith("one") else file)
    for video_id in source.ids():
        assert source.stamp(video_id)
        reads_or_refuses(lambda video_id=video_id: source[video_id], file)


@functools.cache
def tokenizer(kind: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = train_subwords(kind, ["a few words"] * 3, 370, folder)
        return {file.name: file.read_bytes() for file in files}


def subwords(file: Path, _: Path) -> None:
    """Encode and decode with a tokenizer of which one file was tampered with."""
    if file.name != "lowercase_encoder.json":
        for name, content in tokenizer("merlot").items():
            if name != file.name:
                (file.parent / name).write_bytes(content)
    loaded = load_subwords(str(file.parent if file.name != "lowercase_encoder.json" else file))
    loaded.decode(loaded.encode("a few wörds"))
    loaded.encode_words(["a", "few"])


LISTED = {
    "version": 1,
    "fields": ["images", "tokens"],
    "shards": [{"name": "shard_00000", "videos": 1}, {"name": "shard_00001", "videos": 1}],
}
MERLOT = {
    "info": {"id": "vid", "title": "t"},
    "subtitles": [{"word": "a", "time": 0.5}, {"word": "b", "time": 1}],
    "denoised": [{"cleanasr": "A b."}],
}
KEYS = ("info", "id", "subtitles", "words", "segments", "word", "time", "start", "end", "text", "denoised", "cleanasr")
VTT = "WEBVTT\n\n00:00.500 --> 00:02.000\nso<00:00:01.000><c> good</c>\n"
SRT = "1\n00:00:00,500 --> 00:00:02,000\nso <i>good</i>\n"
LINES = f"{json.dumps(MERLOT)}\n{json.dumps({'video_id': 'v_0', 'words': [['a', 1, 2]]})}\n"

SEGMENT_RECORDS: dict[str, tuple[str, Any, tuple[str, ...], Callable[[Path, Path], Any]]] = {
    "shards of segments": (
        "segments.json",
        LISTED,
        ("version", "fields", "shards", "name", "videos", "removed"),
        shards,
    ),
    "transcript": ("one.json", MERLOT, KEYS, transcripts),
    "transcripts": ("t.json", {"vid": MERLOT, "v_0": [["a", 1, 2]]}, ("vid", "v_0", *KEYS), transcripts),
    "lines of transcripts": ("t.jsonl", LINES, (), transcripts),
    "vtt": ("one.vtt", VTT, (), transcripts),
    "srt": ("one.srt", SRT, (), transcripts),
    "subwords of reserve": (
        "lowercase_encoder.json",
        json.loads(tokenizer("reserve")["lowercase_encoder.json"]),
        ("model", "vocab", "merges", "added_tokens", "id", "content", "normalizer", "type"),
        subwords,
    ),
    "subwords of merlot": ("encoder.json", json.loads(tokenizer("merlot")["encoder.json"]), ("a", "Ġf"), subwords),
    "merges of merlot": ("vocab.bpe", tokenizer("merlot")["vocab.bpe"].decode(), (), subwords),
}
