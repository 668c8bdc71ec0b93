"""Annotation, corpus and caption files: damaged, arbitrary and hostile; video ids that would leave their folder."""

import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import EVIL_IDS, STRANGE_IDS, examples, mutated, reads_or_refuses, structures

from mmpt.processors.annotations import SkipReport
from mmpt.processors.class_names import read_class_names
from mmpt.processors.clip_texts import ClipTextMetaProcessor
from mmpt.processors.coin import COINActionSegmentationMetaProcessor
from mmpt.processors.corpus import CorpusMetaProcessor
from mmpt.processors.corpus_rows import KINDS, read_corpus
from mmpt.processors.crosstask_files import StepTask, read_segments, read_tasks, read_video_list
from mmpt.processors.didemo import DiDeMoMetaProcessor, DiDeMoParagraphMetaProcessor
from mmpt.processors.how2 import How2MetaProcessor
from mmpt.processors.how2_meta import open_caption_file
from mmpt.processors.msrvtt import MSRVTTMetaProcessor, read_captions
from mmpt.processors.msrvtt_qa import MSRVTTQAMetaProcessor
from mmpt.processors.youcook import YoucookMetaProcessor, read_database
from mmpt.store.features import read_shard_map
from mmpt.store.transcripts import TranscriptFile, iter_transcripts
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import DataError

NAMES = ("vid", "v_0", "video1")


@pytest.fixture(scope="module")
def feat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root") / "feat"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", np.zeros((9, 2), np.float16))
    for outside in ("passwd", "etc"):  # what an id with folders would reach
        np.save(folder.parent / f"{outside}.npy", np.zeros((9, 2), np.float16))
    return folder


def meta(processor: Any, **more: Any) -> Callable[[Path, Path], None]:
    """Return a reader that lists the items of a file, without and with a store of features."""

    def read(file: Path, feat: Path) -> None:
        for store in (None, str(feat)):
            config = {"split": "test", "test_path": str(file), "vfeat_dir": store, "max_missing": 1.0, **more}
            found = processor(config)
            for index in range(len(found.data)):
                found[index]

    return read


def clip_texts(items: str) -> Callable[[Path, Path], None]:
    return meta(functools.partial(ClipTextMetaProcessor, items=items))


def youcook_with_database(file: Path, feat: Path) -> None:
    records = file.with_name("list.json")
    records.write_text(json.dumps([{"id": "vid_0", "caption": "c"}, {"id": "v_0_1", "caption": "d"}]))
    read_database(str(file))
    meta(YoucookMetaProcessor, trainval_annotation=str(file), use_annotation_text=True)(records, feat)


def how2_with_captions(file: Path, feat: Path) -> None:
    open_caption_file.cache_clear()  # it knows files by their names
    listed = file.with_name("list.lst")
    listed.write_text("\n".join(NAMES))
    config = {"split": "test", "test_path": str(listed), "vfeat_dir": str(feat), "max_missing": 1.0}
    How2MetaProcessor({**config, "caption_pkl_path": str(file)})


def transcripts(file: Path, _: Path) -> None:
    for video_id in (opened := TranscriptFile(file)).ids():
        reads_or_refuses(lambda name=video_id: opened[name], file)
    list(iter_transcripts(file))


def segments(file: Path, _: Path) -> None:
    read_segments(file, StepTask("1", "t", ("a", "b")), SkipReport(file))


def corpora(file: Path, feat: Path) -> None:
    classes = file.with_name("classes.txt")
    classes.write_text("x\ny\n")
    base = {"split": "test", "test_path": str(file), "vfeat_dir": str(feat), "max_missing": 1.0, "background": 5}
    for kind, fields in KINDS.items():
        config = {**base, "label_path": str(classes)} if fields.key == "label" else base
        # Every kind is tried: what one cannot use, another may.
        reads_or_refuses(lambda kind=kind, config=config: CorpusMetaProcessor(config, items=kind), file, classes)


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"video": ["vid", "v_0"], "text": ["é a", "b"], "label": ["x", "y"], "start": [0, 1.5]})
    parquet.write_table(table, sink, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()


RECORDS = [{"id": "vid_0", "caption": "c", "start": 0, "end": 2}, {"id": "v_0_1", "caption": "d", "segment": [1, 3]}]
CLIPS = [
    {"video": "vid", "description": "d", "times": [[0, 1]]},
    {"video": "v_0.mp4", "description": "e", "times": [[1, 1]]},
]
SENTENCES = {"sentences": [{"video_id": "vid", "caption": "c"}, {"video_id": "v_0", "caption": "d"}]}
STEP = {"id": "1", "label": "cut", "segment": [0.5, 3]}
COIN = {
    "database": {"vid": {"subset": "testing", "annotation": [STEP]}, "v_0": {"subset": "training", "annotation": []}}
}
YOUCOOK = {"database": {"vid": {"annotations": [{"segment": [0, 3], "sentence": "s"}]}}}
ROW = {"video": "vid", "start": 0, "end": 2, "text": "t", "options": ["a", "b"], "answer": "a", "label": "x"}
CAPTIONS = {"vid": {"start": [0, 1], "end": [1, 2], "text": ["a", "b"]}, "v_0": {"start": [], "end": [], "text": []}}
ASKED = {"video": "vid", "question": "q", "answer": 1, "answer_text": "b"}
TOLD = {"test": [{"video": "vid", "caption": "c"}, {"video": "v_0", "caption": ["d", "e"]}]}
ANSWERED = {"test": [ASKED], "ans2label": {"a": 0, "b": 1}}
STRINGS = {name: json.dumps(entry) for name, entry in CAPTIONS.items()}

#: name -> (file, good content, keys of its structures, reader)
READERS: dict[str, tuple[str, Any, tuple[str, ...], Callable[[Path, Path], Any]]] = {
    "msrvtt": ("t.csv", 'key,video_id,sentence\n1,vid,a b\n2,video1,"c, d"\n', (), meta(MSRVTTMetaProcessor)),
    "msrvtt captions": ("t.json", SENTENCES, ("sentences", "video_id", "caption"), lambda file, _: read_captions(file)),
    "msrvtt_qa": ("t.csv", "vid_key\ta1\ta2\tanswer\nmsr1\ta\tb\t0\n", (), meta(MSRVTTQAMetaProcessor)),
    "youcook json": ("t.json", RECORDS, ("id", "caption", "segment", "start"), meta(YoucookMetaProcessor)),
    "youcook pickle": ("t.pkl", RECORDS, ("id", "caption", "segment", "start"), meta(YoucookMetaProcessor)),
    "youcook database": ("t.json", YOUCOOK, ("database", "vid", "annotations", "segment"), youcook_with_database),
    "didemo": ("t.json", CLIPS, ("video", "description", "times"), meta(DiDeMoMetaProcessor)),
    "didemo pickle": ("t.pkl", CLIPS, ("video", "description", "times"), meta(DiDeMoMetaProcessor)),
    "didemo paragraphs": ("t.json", CLIPS, ("video", "description"), meta(DiDeMoParagraphMetaProcessor)),
    "coin": (
        "t.json",
        COIN,
        ("database", "subset", "annotation", "id", "label"),
        meta(COINActionSegmentationMetaProcessor),
    ),
    "classes json": ("t.json", {"0": "a", "1": "b"}, ("0", "1"), lambda file, _: read_class_names(str(file))),
    "classes text": ("t.txt", "a\nb\n", (), lambda file, _: read_class_names(str(file))),
    "crosstask tasks": ("t.txt", "1\nt\nurl\n2\na,b\n\n2\nu\nurl\n1\nc\n", (), lambda file, _: read_tasks(file)),
    "crosstask videos": ("t.csv", "1,vid,url\n1,v_0,url,x\n", (), lambda file, _: read_video_list(file)),
    "crosstask segments": ("t.csv", "1,0.5,3\n2,3,4\n", (), segments),
    "corpus jsonl": ("t.jsonl", json.dumps(ROW) + "\n" + json.dumps({**ROW, "answer": 1}) + "\n", tuple(ROW), corpora),
    "corpus csv": ("t.csv", "video,text,options,answer,label,start,end\nvid,t,a|b,1,x,0,2\n", (), corpora),
    "clip captions": ("t.json", TOLD, ("test", "video", "caption"), clip_texts("retrieval")),
    "clip questions": ("t.json", ANSWERED, ("test", "ans2label", "vocab", *ASKED), clip_texts("open_ended")),
    "corpus parquet": ("t.parquet", parquet, (), corpora),
    "how2 list": (
        "t.lst",
        "vid\nv_0\n",
        (),
        lambda file, feat: meta(How2MetaProcessor, vfeat_dir=str(feat))(file, feat),
    ),
    "how2 captions": ("t.json", CAPTIONS, ("vid", "start", "end", "text"), how2_with_captions),
    "how2 caption pickle": ("t.pkl", STRINGS, ("vid", "start", "end", "text"), how2_with_captions),
    "shard map": ("val_meta.pkl", {0: ["vid"], 1: ["v_0"]}, ("0",), lambda file, _: read_shard_map(file.parent, "val")),
    "transcripts json": ("t.json", CAPTIONS, ("vid", "start", "end", "text"), transcripts),
    "transcripts pickle": ("t.pkl", CAPTIONS, ("vid", "start", "end", "text"), transcripts),
    "videos csv": ("t.csv", "video_id,path,start,end\nvid,a.mp4,0,2\n", (), lambda file, _: find_videos([file])),
    "videos list": ("t.txt", "a.mp4\nb/c.mp4\n", (), lambda file, _: find_videos([file])),
}
STRUCTURED = [name for name, (_, _, keys, _) in READERS.items() if keys and "jsonl" not in name]


def encoded(name: str, value: Any) -> bytes:
    if callable(value):
        return value()
    if isinstance(value, str):
        return value.encode()
    return pickle.dumps(value) if name.endswith(".pkl") else json.dumps(value).encode()


def check(reader: str, tmp_path: Path, feat: Path, content: bytes) -> None:
    name, _, _, read = READERS[reader]
    file = tmp_path / name
    file.write_bytes(content)
    reads_or_refuses(lambda: read(file, feat), file, file.with_name("list.lst"))  # also the list that goes with it


@pytest.mark.parametrize("reader", READERS)
def test_whole_files_are_read(reader, tmp_path, feat):
    name, good, _, read = READERS[reader]
    (tmp_path / name).write_bytes(encoded(name, good))
    read(tmp_path / name, feat)


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
@examples(20)
def test_damaged_files(reader, tmp_path, feat, data):
    name, good, _, _ = READERS[reader]
    check(reader, tmp_path, feat, data.draw(mutated(encoded(name, good))))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
@examples(60)
def test_damaged_files_at_length(reader, tmp_path, feat, data):
    name, good, _, _ = READERS[reader]
    check(reader, tmp_path, feat, data.draw(mutated(encoded(name, good))))


@st.composite
def changed(draw: st.DrawFn, value: Any, parts: st.SearchStrategy[Any]) -> Any:
    """Draw ``value`` with one of its parts, at any depth, replaced or removed."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(parts)
    copy = value.copy()
    key = draw(st.sampled_from(list(value))) if isinstance(value, dict) else draw(st.integers(0, len(value) - 1))
    if draw(st.integers(0, 7)) == 0:
        del copy[key]
    else:
        copy[key] = draw(changed(value[key], parts))
    return copy


@pytest.mark.parametrize("reader", STRUCTURED)
@given(data=st.data())
@examples(25)
def test_arbitrary_structures(reader, tmp_path, feat, data):
    name, good, keys, _ = READERS[reader]
    parts = structures(*keys, plain=not name.endswith(".pkl"))
    check(reader, tmp_path, feat, encoded(name, data.draw(changed(good, parts))))


@given(data=st.data())
@examples(40)
def test_rows_of_a_corpus(tmp_path, feat, data):
    row = data.draw(changed(ROW, structures(*ROW)))
    check("corpus jsonl", tmp_path, feat, json.dumps(row).encode())


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a\xf0", b"\xed\xa0\x80"])
def test_parquet_text_that_is_no_utf8(tmp_path, feat, text):
    file = tmp_path / "t.parquet"
    file.write_bytes(parquet().replace("é a".encode(), (text + b"    ")[:4]))
    with pytest.raises(DataError, match=r"t\.parquet"):
        read_corpus(file, "retrieval")


def renamed(name: str, video_id: str) -> dict[str, Any]:
    return {
        "didemo": [{**clip, "video": video_id} for clip in CLIPS],
        "youcook json": [{**RECORDS[0], "id": f"{video_id}_0"}],
        "coin": {"database": {video_id: COIN["database"]["vid"]}},
        "corpus jsonl": json.dumps({**ROW, "video": video_id}),
        "msrvtt": f'video_id,sentence\n"{video_id}",a\n',
        "msrvtt_qa": f"vid_key\ta1\ta2\tanswer\n{video_id}\ta\tb\t0\n",
        "crosstask videos": f"1,{video_id},url\n",
        "how2 list": f"{video_id}\n",
        "videos csv": f'video_id,path\n"{video_id}",a.mp4\n',
    }[name]


@pytest.mark.parametrize("video_id", [*EVIL_IDS, "../passwd", *STRANGE_IDS[:2]])
@pytest.mark.parametrize(
    "reader",
    [
        "didemo",
        "youcook json",
        "coin",
        "corpus jsonl",
        "msrvtt",
        "msrvtt_qa",
        "crosstask videos",
        "how2 list",
        "videos csv",
    ],
)
def test_video_ids_stay_in_their_folder(reader, tmp_path, feat, video_id):
    name, _, _, read = READERS[reader]
    if reader == "corpus jsonl":
        read = meta(CorpusMetaProcessor)
    content = renamed(reader, video_id)
    (tmp_path / name).write_bytes(
        content.encode(errors="surrogatepass") if isinstance(content, str) else json.dumps(content).encode()
    )
    too_long = video_id == STRANGE_IDS[0] and reader in ("crosstask videos", "videos csv")  # lists look for no features
    if too_long:
        reads_or_refuses(lambda: read(tmp_path / name, feat), tmp_path / name)
        return
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read(tmp_path / name, feat)
