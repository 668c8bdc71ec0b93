"""Tiny data of MERLOT and MERLOT Reserve, at the paths that their task files name.

Images and sounds are noise, so that there is nothing to learn.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mmpt.store.segment_store import open_segments
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.store.tfrecord_pretraining import import_segments
from mmpt.store.tfrecord_questions import import_questions
from mmpt.utils.files import write_json
from mmpt.utils.json_lines import read_lines
from scripts.tiny_data.retrieval_files import write_lines
from scripts.tiny_data.subword_files import write_merlot_tokenizer, write_reserve_tokenizer
from scripts.tiny_data.tfrecord_files import picture, write_layout

__all__ = ["write_downstream", "write_segments", "write_systems"]

#: Layout of the records, store, and the file of questions of a split.
_TASKS = (
    ("merlot_vcr", "vcr/merlot_frames", "vcr/merlot_{}.jsonl", ("train", "val")),
    ("reserve_vcr", "vcr/reserve_frames", "vcr/reserve_{}.jsonl", ("train", "val")),
    ("tvqa", "tvqa/segments", "tvqa/{}.jsonl", ("train", "val")),
    ("vist", "vist/frames", "vist/{}.jsonl", ("val",)),
)
_ANSWERS = ("cat", "dog", "bird")
_ACTIONS = (("0", "1", "take plate"), ("0", "2", "take board:chopping"), ("3", "1", "put-down plate"))
_CLOZE = "this is a<|MASK|>"


def write_systems(output: Path, seed: int = 0) -> None:
    """Write all data of the two systems below ``output / "data"``, and tokenizers in ``pretrained_models``."""
    data, models = output / "data", output / "pretrained_models"
    write_merlot_tokenizer(models / "merlot")
    write_reserve_tokenizer(models / "reserve/lowercase_encoder.json")
    with TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        for layout, store in (("merlot", "yttemporal180m/merlot_segments"), ("reserve", "yttemporal1b/segments")):
            write_layout(records, layout, 6, seed)
            import_segments([records], data / store, layout, progress=False)
            ids = open_segments(data / store).ids
            for split, listed in (("train", ids[4:]), ("test", ids[:4])):
                write_lines((data / store).with_name(f"{split}.lst"), listed)
    write_downstream(data, seed=seed)


def write_downstream(data: Path, questions: int = 4, seed: int = 0) -> None:
    """Write VCR, TVQA, VIST, MSRVTT-QA as sentences with a gap, and EPIC-KITCHENS-100 below ``data``.

    Ids are those of :mod:`scripts.tiny_data.tfrecord_files`.
    """
    with TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        for layout, store, lines, splits in _TASKS:
            for split in splits:
                write_layout(records, layout, questions, seed)
                import_questions([records], data / store, data / lines.format(split), layout, progress=False)
    for split in ("train", "val"):
        write_lines(data / f"tvqa/merlot_{split}.jsonl", _in_words(data / f"tvqa/{split}.jsonl"))
    clips = {f"cloze_{number}": 3 + number for number in range(questions)}
    write_segments(data / "msrvtt/segments_3s", clips, seed)
    asked = [{"video": name, "question": _CLOZE, "answer": _ANSWERS[row % 3]} for row, name in enumerate(clips)]
    write_json(data / "msrvtt/txt_msrvtt-qa_cloze.json", {"test": asked})
    _write_kitchens(data / "epic_kitchens", questions, seed)


def write_segments(folder: Path, lengths: Mapping[str, int], seed: int = 0) -> None:
    """Write segments of three seconds of noise, so many under each id, with their sound and without words."""
    rng = np.random.default_rng(seed)
    with SegmentStoreWriter(folder, frozenset({"images", "tokens", "spectrograms"})) as store:
        for name, count in lengths.items():
            starts = 3.0 * np.arange(count)
            record = SegmentRecord(
                images=[picture(rng) for _ in range(count)],
                times=np.stack([starts, starts + 3], axis=1),
                mid=starts + 1.5,
                speed=np.ones(count),
                tokens=[np.zeros(0, np.int32)] * count,
                spectrograms=[rng.random((188, 64)).astype(np.float16) for _ in range(count)],
            )
            store.add(name, record)


def _in_words(questions: Path) -> Iterator[str]:
    """Yield the lines of a file of TVQA with texts for token ids, as MERLOT needs them."""
    for _, record in read_lines(questions):
        texts = {"query": "who is it", "choices": [f"answer {n}" for n in range(5)], "subtitles": ["hello"] * 7}
        yield json.dumps({key: value for key, value in (record | texts).items() if key != "tokenizer"})


def _write_kitchens(folder: Path, actions: int, seed: int) -> None:
    names = [f"P01_{number}" for number in range(actions)]
    write_segments(folder / "segments_8x2s", dict.fromkeys(names, 8), seed)
    listed = [f"{number},{verb},{noun},{action}" for number, (verb, noun, action) in enumerate(_ACTIONS)]
    write_lines(folder / "actions.csv", ["id,verb,noun,action", *listed])
    rows = [
        f"{name},P01_v,00:0{number}:20.50,00:0{number}:21.00,{_ACTIONS[number % 3][0]},{_ACTIONS[number % 3][1]}"
        for number, name in enumerate(names)
    ]
    header = "narration_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class"
    write_lines(folder / "EPIC_100_validation.csv", [header, *rows])
