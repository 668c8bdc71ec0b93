"""VIOLET's questions as model inputs."""

import json

import pytest
import torch
from frame_samples import CLS, PAD, SEP, grey, settings, word, write_frames

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.clip_text_processor import ClipTextProcessor
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.open_questions import OpenQuestion
from mmpt.processors.violet_aligners import VIOLETMultipleChoiceAligner, VIOLETOpenEndedAligner
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import DataError
from mmpt.utils.registry import build

STORED = StoredFrames.of([grey(40)] * 4)


def aligned(aligner, folder, text, split="test", **more):
    section = settings(folder, split, **more)
    return aligner(section)("v", STORED, ClipTextProcessor(section)(text))


def words(*numbers):
    return [word(number) for number in numbers]


def test_question_and_option_are_one_segment(tmp_path):
    item = aligned(VIOLETMultipleChoiceAligner, tmp_path, Choice(1, ("w1", "w2 w3"), "w8 w9"))
    assert item["caps"].tolist() == [[CLS, *words(8, 9, 1), SEP, *[PAD] * 3], [CLS, *words(8, 9, 2, 3), SEP, PAD, PAD]]
    assert item["cmasks"].sum(1).tolist() == [5, 6] and item["answers"].tolist() == [1]
    assert item["vfeats"].shape == (4, 3, 16, 16) and "option_mask" not in item
    assert (item["question"], item["options"], item["video_id"]) == ("w8 w9", ["w1", "w2 w3"], "v")
    joined = ClipTextProcessor(settings(tmp_path))("w8 w9 w2 w3")
    assert item["caps"][1].tolist() == build("aligner", "FrameAligner", settings(tmp_path)).text(joined)[0].tolist()


def test_options_are_never_cut_for_a_question(tmp_path):
    item = aligned(VIOLETMultipleChoiceAligner, tmp_path, Choice(0, ("w1", "w2 w3"), "w8 w9 w10 w11 w12"))
    assert item["caps"].tolist() == [
        [CLS, *words(8, 9, 10, 11, 1), SEP, PAD],
        [CLS, *words(8, 9, 10, 11, 2, 3), SEP],
    ]


@pytest.mark.parametrize(
    ("name", "text", "over"),
    [
        ("FrameAligner", "w1 w2 w3 w4 w5 w6 w7 w8", 2),
        ("VIOLETOpenEndedAligner", OpenQuestion("w1 w2 w3 w4 w5 w6 w7", "w3", 7), 1),
        ("VIOLETMultipleChoiceAligner", Choice(0, ("w1", "w2 w3"), "w8 w9 w10 w11 w12"), 1),
    ],
)
def test_what_is_cut_off_is_told(tmp_path, caplog, name, text, over):
    aligned(lambda section: build("aligner", name, section), tmp_path, text)
    assert "1 of 1 texts so far are cut at their end: dataset.max_text_len" in caplog.text
    assert f"the last: video v, {over} word pieces too many" in caplog.text


def test_rows_that_fill_up_and_wrong_answers(tmp_path):
    item = aligned(VIOLETMultipleChoiceAligner, tmp_path, Choice(0, ("w1", "w2"), slots=3), "train")
    assert item["option_mask"].tolist() == [True, True, False]
    assert item["caps"][2].tolist() == [CLS, SEP, *[PAD] * 6] and "options" not in item
    with pytest.raises(DataError, match="video v: 2 is no index of its 2 options"):
        aligned(VIOLETMultipleChoiceAligner, tmp_path, Choice(2, ("w1", "w2")))


def test_open_questions(tmp_path):
    item = aligned(VIOLETOpenEndedAligner, tmp_path, OpenQuestion("w1 w2", "w3", 7))
    assert item["caps"].tolist() == [CLS, *words(1, 2), SEP, *[PAD] * 4]
    assert item["answers"].item() == 7 and item["answers"].dtype == torch.int64
    assert (item["question"], item["answer_text"]) == ("w1 w2", "w3")
    trained = aligned(VIOLETOpenEndedAligner, tmp_path, OpenQuestion("w1", "w3"), "train")
    assert trained["answers"].item() == -100 and "question" not in trained
    with pytest.raises(DataError, match="video v: Choice is no open-ended question"):
        aligned(VIOLETOpenEndedAligner, tmp_path, Choice(0, ("w1", "w2")))


@pytest.mark.parametrize(
    ("meta", "aligner", "record", "shape"),
    [
        (
            "ClipChoiceMetaProcessor",
            "VIOLETMultipleChoiceAligner",
            {"question": "w1", **{f"option_{number}": f"w{number}" for number in range(5)}, "answer": 4},
            (2, 5, 8),
        ),
        ("ClipQuestionMetaProcessor", "VIOLETOpenEndedAligner", {"question": "w1", "answer": 2}, (2, 8)),
        ("ClipRetrievalMetaProcessor", "FrameAligner", {"caption": ["w1", "w2"]}, (2, 8)),
        ("ClipPretrainingMetaProcessor", "FrameAligner", {"caption": "w1"}, (2, 8)),
    ],
)
def test_a_batch_of_each_task(tmp_path, meta, aligner, record, shape):
    write_frames(tmp_path / "frames", {"a": 6, "b": 4})
    content = {"train": [{"video": name, **record} for name in "ab"], "vocab": ["w1", "w2", "w3"]}
    (tmp_path / "txt.json").write_text(json.dumps(content))
    section = settings(tmp_path, "train", train_path=str(tmp_path / "txt.json"), num_frames=5)
    named = [("meta_processor", meta), ("video_processor", "FrameVideoProcessor")]
    named += [("text_processor", "ClipTextProcessor"), ("aligner", aligner)]
    data = MMDataset(*(build(kind, name, section) for kind, name in named))
    batch = data.collater([data[0], data[1]])
    assert batch["caps"].shape == batch["cmasks"].shape == shape
    assert batch["vfeats"].shape == (2, 5, 3, 16, 16) and batch["vmasks"].sum(1).tolist() == [5, 4]
