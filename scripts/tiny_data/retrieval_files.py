"""Tiny files of the corpora whose items are a video and its sentences: HowTo100M, MSR-VTT, YouCook2, DiDeMo."""

import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmpt.utils.files import atomic_open, write_json
from scripts.tiny_data.concepts import THINGS, VERBS, Segment, World, pick_ids

__all__ = [
    "save_feature",
    "vocabulary",
    "write_didemo",
    "write_how2",
    "write_lines",
    "write_msrvtt",
    "write_youcook",
]

_OPENINGS = ("now", "then", "next", "and", "after that", "here")
_SUBJECTS = ("a man", "a woman", "someone", "a person")


def save_feature(folder: Path, video_id: str, feature: npt.NDArray[np.float16]) -> None:
    """Write the features of a video, ``(seconds, dim)``, as ``<folder>/<id>.npy``."""
    with atomic_open(folder / f"{video_id}.npy", "wb") as file:
        np.save(file, feature, allow_pickle=False)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, one line each."""
    with atomic_open(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def write_how2(data: Path, world: World, train: int, val: int) -> None:
    """Write narrated videos: ``how2/raw_caption.json``, id lists and features; the shards are made from these."""
    captions: dict[str, dict[str, list[float] | list[str]]] = {}
    for number in range(train + val):
        segments = world.segments(12)
        name = f"how2_{number:03d}"
        save_feature(data / "feat" / "feat_how2_s3d", name, world.features(segments))
        captions[name] = {
            "start": [float(segment.start) for segment in segments],
            "end": [float(segment.end) for segment in segments],
            "text": [f"{world.rng.choice(_OPENINGS)} we {segment.text}" for segment in segments],
        }
    names = list(captions)
    write_json(data / "how2" / "raw_caption.json", captions, indent=None)
    write_lines(data / "how2" / "how2_s3d_train.lst", names[:train])
    write_lines(data / "how2" / "how2_s3d_val.lst", names[train:])


def write_msrvtt(data: Path, world: World, train: int, test: int) -> None:
    """Write MSR-VTT: training list, 1k-A and full test list, captions, and the five-choice questions."""
    train_ids = pick_ids("video", train, held_out=2)
    test_ids = [f"video{7000 + number}" for number in range(test)]
    spare_ids = [f"video{8000 + number}" for number in range(4)]  # in the full test list alone: 1k-A trains on them
    sentences: dict[str, list[str]] = {}
    for name in (*train_ids, *test_ids, *spare_ids):
        segments = world.segments(1, seconds=(8, 20))
        save_feature(data / "feat" / "feat_vtt_s3d", name, world.features(segments))
        sentences[name] = [_caption(world, segments[0]) for _ in range(3)]
    folder = data / "msrvtt"
    _write_table(folder / "MSRVTT_train.csv", {"video_id": train_ids})
    one = {name: texts[0] for name, texts in sentences.items()}
    for file, names in (("MSRVTT_JSFUSION_test.csv", test_ids), ("MSRVTT_FULL_test.csv", test_ids + spare_ids)):
        _write_table(folder / file, {"video_id": names, "sentence": [one[name] for name in names]})
    records = [{"video_id": name, "caption": text} for name, texts in sentences.items() for text in texts]
    write_json(folder / "MSRVTT_data.json", {"sentences": records}, indent=None)
    _write_questions(data / "msrvtt-qa" / "MSR_MC_test.csv", world, {name: one[name] for name in test_ids})


def _write_questions(path: Path, world: World, captions: dict[str, str]) -> None:
    """Write a tab-separated table: five captions per clip, of which number ``answer``, from 0, is its own."""
    columns: dict[str, list[str | int]] = {key: [] for key in ("vid_key", "a1", "a2", "a3", "a4", "a5", "answer")}
    for name, right in captions.items():
        others = [text for text in captions.values() if text != right]
        options = [str(text) for text in world.rng.choice(others, 4, replace=False)]
        answer = int(world.rng.integers(5))
        options.insert(answer, right)
        columns["vid_key"].append(name.replace("video", "msr"))
        columns["answer"].append(answer)
        for number, option in enumerate(options, 1):
            columns[f"a{number}"].append(option)
    _write_table(path, columns, separator="\t")


def write_youcook(data: Path, world: World, train: int, val: int) -> None:
    """Write YouCook2: the clips of both splits as pickled lists, the annotations, the lists of videos by recipe."""
    database: dict[str, dict[str, object]] = {}
    folder = data / "youcook"
    for split, names in (("train", pick_ids("yc2tr_", train, held_out=2)), ("val", pick_ids("yc2va_", val))):
        clips, lines = [], []
        for name in names:
            segments = world.segments(3, seconds=(6, 12), pause=4)
            save_feature(data / "feat" / "feat_youcook_s3d", name, world.features(segments))
            recipe = str(101 + int(world.rng.integers(5)))
            database[name] = {
                "recipe_type": recipe,
                "duration": segments[-1].end,
                "subset": "training" if split == "train" else "validation",
                "annotations": [
                    {"id": number, "segment": [segment.start, segment.end], "sentence": segment.text}
                    for number, segment in enumerate(segments)
                ],
            }
            clips += [{"id": f"{name}_{number}", "caption": segment.text} for number, segment in enumerate(segments)]
            lines.append(f"{recipe}/{name}")
        with atomic_open(folder / f"youcook_{split}.pkl", "wb") as file:
            pickle.dump(clips, file)
        write_lines(folder / f"{split}_list.txt", lines)
    write_json(folder / "youcookii_annotations_trainval.json", {"database": database}, indent=None)


def write_didemo(data: Path, world: World, test: int) -> None:
    """Write DiDeMo's test list: 30-second videos, two moments each, four annotators per moment."""
    records = []
    for number in range(test):
        name = f"didemo_{number:03d}"
        six = world.segments(6, seconds=(5, 5))
        save_feature(data / "feat" / "feat_didemo_s3d", name, world.features(six))
        for chunk in sorted(world.rng.choice(6, 2, replace=False).tolist()):
            times = [[chunk, chunk]] * 3 + [[max(chunk - 1, 0), chunk]]
            records.append({"video": f"{name}.avi", "description": _caption(world, six[chunk]), "times": times})
    write_json(data / "didemo" / "test_data.json", records, indent=None)


def _caption(world: World, segment: Segment) -> str:
    return f"{world.rng.choice(_SUBJECTS)} can {segment.text}"


def _write_table(
    path: Path, columns: dict[str, Sequence[str | int]] | dict[str, list[str]], separator: str = ","
) -> None:
    with atomic_open(path) as file:
        pd.DataFrame(columns).to_csv(file, index=False, sep=separator)


def vocabulary() -> set[str]:
    """Return every word of the tiny data."""
    words = {"the", "we", "can", *VERBS, *THINGS}
    return words | {word for phrase in (*_OPENINGS, *_SUBJECTS) for word in phrase.split()}
