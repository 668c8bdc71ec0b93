"""Files that MMPT writes for itself, damaged or made up: records of extractions, indexes, results, logs.

And a check that no reader of annotations, features or transcripts is without a fuzz test.
"""

import ast
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_records import CLIP_RECORDS
from frame_records import FRAME_RECORDS
from hypothesis import given
from hypothesis import strategies as st
from mutations import examples, mutated, reads_or_refuses, structures
from question_records import QUESTION_RECORDS
from segment_records import SEGMENT_RECORDS
from test_fuzz_annotations import CAPTIONS, READERS, YOUCOOK, changed, encoded, feat, meta

from mmpt.evaluators.base import load_arrays
from mmpt.evaluators.results import collect_results
from mmpt.evaluators.training_log import read_training_log
from mmpt.modules.vectorpool import VectorIndex
from mmpt.processors.youcook_captioning import YoucookNLGMetaProcessor
from mmpt.store.caption_files import deduplicate_file
from mmpt.store.extraction import extract_features
from mmpt.store.extraction_manifest import Manifest, read_entries, read_provenance
from mmpt.store.feature_shards import shard_split, write_shard_map
from mmpt.store.features import FeatureStore, ShardedFeatureStore
from mmpt.store.video_list import VideoItem
from mmpt.utils.files import REPOSITORY

__all__ = ["feat"]  # a fixture

SETTINGS = {"encoder": "levels", "dtype": "float16"}
ENTRY = {"status": "done", "shape": [9, 2], "seconds": 9.0, "source_bytes": 3, "source_mtime": 1.5, "source": "/v.mp4"}
MANIFEST = {"version": 1, "provenance": SETTINGS, "videos": {"v": ENTRY, "w": {"status": "failed", "reason": "r"}}}
JOURNAL = "\n".join(map(json.dumps, [{"provenance": SETTINGS}, {"id": "v", **ENTRY}, {"id": "w", **ENTRY}])) + "\n"


class Never:
    """An encoder that is never asked; all its files are missing."""

    fps, size, resize, dim, pad = 4, 16, 20, 2, "zero"

    def provenance(self) -> dict[str, Any]:
        return SETTINGS

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        raise AssertionError


def manifest(file: Path, _: Path) -> None:
    content = file.read_bytes()
    read_provenance(file.parent)
    read_entries(file.parent)
    Manifest(file.parent, SETTINGS)
    for leftover in file.parent.glob("manifest.*"):
        leftover.unlink()
    file.write_bytes(content)
    np.save(file.parent / "v.npy", np.zeros((9, 2), np.float16))
    provenance = (json.loads(content).get("provenance") if file.suffix == ".json" else None) or {}
    decoder = {**Never().provenance(), "hflip": False, "dtype": "float16"}
    if provenance == SETTINGS:
        file.write_text(json.dumps({**json.loads(content), "provenance": decoder}))
    extract_features([VideoItem(name, str(file.parent / f"{name}.mp4")) for name in "vw"], Never(), file.parent)


def journal(file: Path, _: Path) -> None:
    (file.parent / "manifest.json").unlink(missing_ok=True)
    read_provenance(file.parent)
    read_entries(file.parent)
    Manifest(file.parent, SETTINGS)


def resumed(file: Path, _: Path) -> None:
    """De-duplicate once, and again with a record or a half-finished output that was tampered with."""
    folder = file.parent / "captions"
    folder.mkdir(exist_ok=True)
    source, target = folder / "raw.json", folder / "dedup.json"
    source.write_text(json.dumps(CAPTIONS))
    deduplicate_file(source, target)
    (folder / "dedup.json.manifest.json").write_bytes(file.read_bytes())
    deduplicate_file(source, target)
    target.unlink()
    inputs = json.loads((folder / "dedup.json.manifest.json").read_bytes())
    (folder / ".dedup.json.partial").write_bytes(file.read_bytes())
    keys = ("source_sha256", "seed", "algorithm")
    (folder / ".dedup.json.partial.inputs").write_text(json.dumps({key: inputs[key] for key in keys}))
    deduplicate_file(source, target)


def captioned_clips(file: Path, feat: Path) -> None:
    listed = file.with_name("clips.txt")
    listed.write_text("101/vid\n102/v_0\n")
    read = meta(YoucookNLGMetaProcessor, trainval_annotation=str(file))
    read(listed, feat)


def captioned_list(file: Path, feat: Path) -> None:
    annotation = file.with_name("database.json")
    annotation.write_text(json.dumps(YOUCOOK))
    meta(YoucookNLGMetaProcessor, trainval_annotation=str(annotation))(file, feat)


def shards(file: Path, feat: Path) -> None:
    """Gather features of a list, twice, and read them again."""
    for _ in range(2):
        outcome = shard_split(FeatureStore(feat), file.parent / "shards", "train", ["vid", "v_0"], progress=False)
        write_shard_map(file.parent / "shards", "train", outcome)
    (file.parent / "shards" / "train_meta.json").write_bytes(file.read_bytes())
    store = ShardedFeatureStore(file.parent / "shards", "train")
    for video_id in store.ids():
        reads_or_refuses(lambda name=video_id: store[name], file, file.parent / "shards" / "train_0")


def metrics(file: Path, _: Path) -> None:
    results, _missing = collect_results([file.parent])
    for result in results:
        assert result.metrics is not None and isinstance(result.metric, str)


def index_files(file: Path, _: Path) -> None:
    pytest.importorskip("faiss")
    kept = file.read_bytes()
    VectorIndex(np.eye(3, dtype=np.float32), ["a", "b", "c"]).save(file.parent / "i")
    file.write_bytes(kept)
    VectorIndex.load(file.parent / "i").search(np.ones((1, 3), np.float32), 2)


def faiss_index() -> bytes:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(3)
    index.add(np.eye(3, dtype=np.float32))
    return faiss.serialize_index(index).tobytes()


def arrays() -> bytes:
    sink = io.BytesIO()
    np.savez(sink, text=np.zeros((2, 3), np.float32), ids=np.array(["a", "b"]))
    return sink.getvalue()


LOG = '| INFO | train | {"epoch": 1, "train_loss": "2.5", "train_num_updates": "10", "train_bsz": "8"}\n' * 2
METRICS = {"metric": "RetrievalMetric", "metrics": {"R1": 0.5}, "config": {"eval": {"setting": "x"}}, "date": "2026"}

RECORDS: dict[str, tuple[str, Any, tuple[str, ...], Callable[[Path, Path], Any]]] = {
    "extraction": ("manifest.json", MANIFEST, ("version", "provenance", "videos", "status"), manifest),
    "extraction journal": ("manifest.journal", JOURNAL, (), journal),
    "deduplication": ("t.json", {"source_sha256": "0", "seed": 1, "algorithm": "a", "output_sha256": "0",
                                 "report": {"done": 1, "skipped": 0, "failed": 0, "counts": {}}},
                      ("report", "done"), resumed),
    "youcook captioning": ("t.json", YOUCOOK, ("database", "vid", "annotations", "segment"), captioned_clips),
    "youcook captioning list": ("t.txt", "101/vid\n102/v_0\n", (), captioned_list),
    "corpus tsv": ("t.tsv", "video\ttext\tlabel\tstart\tend\nvid\tt\tx\t0\t2\n", (), READERS["corpus csv"][3]),
    "map of shards": ("t.json", {"0": ["vid", "v_0"]}, ("0", "1"), shards),
    "metrics": ("metrics.json", METRICS, tuple(METRICS), metrics),
    "ids of an index": ("i.ids.json", {"kind": "exact", "ids": ["a", "b", "c"]}, ("kind", "ids"), index_files),
    "index": ("i.faiss", faiss_index, (), index_files),
    "arrays": ("t.npz", arrays, (), lambda file, _: load_arrays(file, ("text", "ids"))),
    "training log": ("t.txt", LOG, (), lambda file, _: read_training_log(file)),
    **FRAME_RECORDS,
    **CLIP_RECORDS,
    **SEGMENT_RECORDS,
    **QUESTION_RECORDS,
}  # fmt: skip
#: Besides the file itself, what an error may name.
BESIDE = ("clips.txt", "database.json", "i.faiss", "i.ids.json", "train_0", "manifest.json", "captions", "t.tsv")


def check(reader: str, tmp_path: Path, feat: Path, content: bytes) -> None:
    name, _, _, read = RECORDS[reader]
    file = tmp_path / name
    file.write_bytes(content)
    reads_or_refuses(lambda: read(file, feat), file, file.parent, *(file.with_name(other) for other in BESIDE))


@pytest.mark.parametrize("reader", RECORDS)
def test_whole_files_are_read(reader, tmp_path, feat):
    name, good, _, read = RECORDS[reader]
    (tmp_path / name).write_bytes(encoded(name, good))
    read(tmp_path / name, feat)


@pytest.mark.parametrize("reader", RECORDS)
@given(data=st.data())
@examples(20)
def test_damaged_files(reader, tmp_path, feat, data):
    name, good, _, _ = RECORDS[reader]
    check(reader, tmp_path, feat, data.draw(mutated(encoded(name, good))))


@pytest.mark.parametrize("reader", [name for name, (_, _, keys, _) in RECORDS.items() if keys])
@given(data=st.data())
@examples(25)
def test_arbitrary_structures(reader, tmp_path, feat, data):
    name, good, keys, _ = RECORDS[reader]
    check(reader, tmp_path, feat, encoded(name, data.draw(changed(good, structures(*keys)))))


def reads(call: ast.Call) -> bool:
    """Tell whether a call opens a file to read it."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if isinstance(function, ast.Name) and name == "open":
        mode = call.args[1] if len(call.args) > 1 else None
        return not (isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax"))
    return name in {"read_text", "read_bytes", "read_json", "read_csv", "ParquetFile", "read_npy", "load"}


def readers_of(folder: str) -> set[tuple[str, int]]:
    """Return (file, first line) of every function of a folder that reads a file."""
    found = set()
    for path in sorted((REPOSITORY / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(isinstance(n, ast.Call) and reads(n) for n in ast.walk(node)):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found.add((str(path), first))
    return found


#: What is not fuzzed here, and where it is.
ELSEWHERE = {"token_shards.py": "reads shards only: test_fuzz_shards.py"}


def test_no_reader_is_without_a_fuzz_test(tmp_path, feat):
    """Every function of the processors and the store that reads a file is run by one of the readers."""
    wanted = {
        (path, line)
        for folder in ("mmpt/processors", "mmpt/store")
        for path, line in readers_of(folder)
        if Path(path).name not in ELSEWHERE
    }
    assert len(wanted) > 20
    run: set[tuple[str, int]] = set()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            run.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    for name, (file_name, good, _, read) in {**READERS, **RECORDS}.items():
        file = tmp_path / name.replace(" ", "_") / file_name
        file.parent.mkdir()
        file.write_bytes(encoded(file_name, good))
        sys.setprofile(note)
        try:
            read(file, feat)
        finally:
            sys.setprofile(None)
    assert wanted <= run, sorted(wanted - run)
