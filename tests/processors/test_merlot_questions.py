"""Questions about videos with N answers: the layout, the frames, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.datasets.mmdataset import MMDataset
from mmpt.modules.merlot_tokens import END, START
from mmpt.processors.clip_texts import ClipTextMetaProcessor
from mmpt.processors.frame_base import FrameVideoProcessor
from mmpt.processors.merlot_questions import MERLOTChoiceAligner, MERLOTOpenEndedAligner
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.subword_texts import SubwordTextProcessor
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.utils.errors import ConfigError, DataError
from scripts.tiny_data.subword_files import write_merlot_tokenizer
from scripts.tiny_data.tfrecord_files import picture


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    with FrameStoreWriter(tmp_path / "frames") as store:
        for name, frames in (("long", 9), ("short", 2)):
            store.append(name, [picture(rng) for _ in range(frames)])
    records = [
        {"video": "long", "question": "who", "option_0": "the cat", "option_1": "a dog", "answer": 1},
        {"video": "short", "question": "why", "option_0": "a", "option_1": "b", "answer": 0},
    ]
    (tmp_path / "txt.json").write_text(json.dumps({"test": records, "train": records}))
    paths = dict.fromkeys(("train_path", "test_path"), str(tmp_path / "txt.json"))
    tokenizer = write_merlot_tokenizer(tmp_path / "bpe")
    sizes = {"image_size": [32, 64], "max_text_len": 16, "num_frames": 4, "split": "test"}
    return {"frame_path": str(tmp_path / "frames"), "tokenizer": str(tokenizer), **paths, **sizes}


def dataset(config: dict[str, Any]) -> MMDataset:
    meta = ClipTextMetaProcessor(config, items="multiple_choice")
    return MMDataset(meta, *(part(config) for part in (FrameVideoProcessor, SubwordTextProcessor, MERLOTChoiceAligner)))


def test_an_item(config: dict[str, Any]) -> None:
    questions = dataset(config)
    first, second = questions[0], questions[1]
    encode = questions.text_processor.subwords.encode
    expected = [START, *encode(" who"), *encode(" the cat"), END]
    assert first["caps"].shape == (2, 16) and first["caps"][0].tolist()[: len(expected)] == expected
    assert first["cmasks"][0].tolist() == [True] * len(expected) + [False] * (16 - len(expected))
    assert first["answers"].tolist() == [1]
    assert first["question"] == "who" and first["options"] == ["the cat", "a dog"]
    assert first["vfeats"].shape == (4, 3, 32, 64) and first["vmasks"].all()
    assert second["vmasks"].tolist() == [True, True, False, False] and not second["vfeats"][2:].any()


def test_a_long_question_gives_way_to_its_options(config: dict[str, Any]) -> None:
    questions = dataset({**config, "max_text_len": 10})
    encode, row = questions.text_processor.subwords.encode, questions[0]["caps"][0].tolist()
    assert row == [START, *encode(" who")[: 8 - len(encode(" the cat"))], *encode(" the cat"), END]


def test_training_draws_and_tests_do_not(config: dict[str, Any]) -> None:
    train, test = dataset({**config, "split": "train"}), dataset(config)
    assert test[0]["vfeats"].equal(test[0]["vfeats"]) and train[0]["vfeats"].equal(train[0]["vfeats"])
    before = train[0]["vfeats"]
    train.set_epoch(1)
    test.set_epoch(1)
    assert not train[0]["vfeats"].equal(before)
    assert "question" not in train[0]


def test_an_open_ended_question(config: dict[str, Any], tmp_path: Path) -> None:
    records = [{"video": "long", "question": "who", "answer": text} for text in ("cat", "cow")]
    (tmp_path / "txt.json").write_text(json.dumps({"test": records, "vocab": ["dog", "cat"]}))
    meta = ClipTextMetaProcessor(config, items="open_ended")
    parts = (FrameVideoProcessor, SubwordTextProcessor, MERLOTOpenEndedAligner)
    questions = MMDataset(meta, *(part(config) for part in parts))
    ids = [START, *questions.text_processor.subwords.encode(" who"), END]
    first, second = questions[0], questions[1]
    assert first["caps"].tolist() == [*ids, *[0] * (16 - len(ids))] and first["cmasks"].sum() == len(ids)
    assert (first["answers"], second["answers"]) == (1, -100)
    assert first["question"] == "who" and second["answer_text"] == "cow" and first["vfeats"].shape == (4, 3, 32, 64)
    with pytest.raises(DataError, match="Choice is no open-ended question"):
        questions.aligner("long", questions.video_processor("long"), Choice(0, ["a", "b"]))


def test_what_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="num_frames"):
        MERLOTChoiceAligner({**config, "num_frames": 0})
    with pytest.raises(ConfigError, match="max_text_len"):
        MERLOTChoiceAligner({**config, "max_text_len": 2})
    with pytest.raises(DataError, match="video long: str is no question"):
        MERLOTChoiceAligner(config)("long", dataset(config).video_processor("long"), "a caption")
