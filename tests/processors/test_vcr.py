"""VCR: the texts of both systems, which questions a split asks, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.datasets.mmdataset import MMDataset
from mmpt.modules import merlot_tokens, reserve_tokens
from mmpt.processors.subword_texts import SubwordTextProcessor
from mmpt.processors.vcr import VCRMetaProcessor, VCRVideoProcessor
from mmpt.processors.vcr_aligners import MERLOTVCRAligner, ReserveVCRAligner, _VCRAligner
from mmpt.utils.errors import ConfigError, DataError
from tests.processors.downstream_data import section


def dataset(config: dict[str, Any], joint: bool) -> MMDataset:
    aligner = (ReserveVCRAligner if joint else MERLOTVCRAligner)(config)
    return MMDataset(VCRMetaProcessor(config, joint), VCRVideoProcessor(config), SubwordTextProcessor(config), aligner)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "q.jsonl").read_text().splitlines()]


def with_all_contexts(folder: Path, label: int | None = 0) -> None:
    """Give every rationale a context for each answer."""
    lines = lines_of(folder)
    for line in lines:
        line["rationale"]["contexts"] = [[262 + number] for number in range(4)]
        line["answer"]["label"] = label
    (folder / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_merlot(tmp_path: Path) -> None:
    """An item is one question: START, what is asked for, context, choice, END."""
    questions = dataset(section(tmp_path, "merlot_vcr"), joint=False)
    assert len(questions) == 8
    encode, line = questions.aligner.subwords.encode, lines_of(tmp_path)[0]
    for row, kind, prefix in ((0, "answer", " answer question:"), (1, "rationale", " provide rationale:")):
        item, asked = questions[row], line[kind]
        context = asked["context"] if kind == "answer" else asked["contexts"][0]
        ids = [merlot_tokens.START, *encode(prefix), *context, *asked["choices"][2], merlot_tokens.END]
        assert item["caps"][2].tolist() == [*ids, *[0] * (40 - len(ids))]
        assert item["cmasks"].sum(1)[2] == len(ids)
        assert item["question_kind"] == row and item["given"] == -1
        assert item["answers"].tolist() == [asked["label"]]
    assert item["video_id"] == "val-0" and item["vfeats"].shape == (1, 3, 32, 64)


def test_a_long_context_of_merlot_gives_way(tmp_path: Path) -> None:
    questions = dataset(section(tmp_path, "merlot_vcr", 1, max_text_len=24), joint=False)
    prefix = questions.aligner.subwords.encode(" answer question:")
    asked = lines_of(tmp_path)[0]["answer"]
    row = questions[0]["caps"][1].tolist()
    room = 24 - 2 - len(prefix) - max(map(len, asked["choices"]))
    expected = [merlot_tokens.START, *prefix, *asked["context"][:room], *asked["choices"][1], merlot_tokens.END]
    assert row[: len(expected)] == expected


def test_reserve(tmp_path: Path) -> None:
    """An item is both questions: context, "answer: ", choice, MASK; no START."""
    questions = dataset(section(tmp_path, "reserve_vcr"), joint=True)
    assert len(questions) == 4
    item, line, encode = questions[0], lines_of(tmp_path)[0], questions.aligner.subwords.encode
    assert item["caps"].shape == (2, 4, 48) and item["cmasks"].equal(item["caps"] != 0)
    assert item["answers"].tolist() == [line["answer"]["label"], line["rationale"]["label"]]
    ids = [*line["answer"]["context"], *encode("answer: "), *line["answer"]["choices"][3], reserve_tokens.MASK]
    assert item["caps"][0, 3].tolist() == [*ids, *[0] * (48 - len(ids))]
    ids = [*line["rationale"]["contexts"][0], *encode("rationale: "), *line["rationale"]["choices"][0]]
    assert item["caps"][1, 0].tolist()[: len(ids) + 1] == [*ids, reserve_tokens.MASK]
    short = dataset(section(tmp_path, "reserve_vcr", lang_seq_len=8), joint=True)
    whole = [*line["answer"]["context"], *encode("answer: "), *line["answer"]["choices"][3]]
    assert short[0]["caps"][0, 3].tolist() == [*whole[:7], reserve_tokens.MASK]


def test_training_sees_the_mirror_image_too(tmp_path: Path) -> None:
    questions = dataset(section(tmp_path, "reserve_vcr", 1, split="train", image_scale=[1, 1]), joint=True)
    test = dataset(section(tmp_path, "reserve_vcr", 1), joint=True)
    shown = []
    for epoch in range(12):
        questions.set_epoch(epoch)
        shown.append(float((questions[0]["vfeats"].float() - test[0]["vfeats"].float()).abs().mean()))
    assert min(shown) < 20 < max(shown)


@pytest.mark.parametrize("joint", [False, True])
def test_a_test_asks_the_rationale_of_every_answer(tmp_path: Path, joint: bool) -> None:
    config = section(tmp_path, "reserve_vcr" if joint else "merlot_vcr", 2)
    with_all_contexts(tmp_path, label=None)
    questions = dataset(config, joint)
    given = [questions[row]["given"].reshape(-1).tolist() for row in range(len(questions))]
    assert given == ([[-1, 0, 1, 2, 3]] * 2 if joint else [[-1], [0], [1], [2], [3]] * 2)
    with_all_contexts(tmp_path, label=2)
    training = dataset({**config, "split": "train"}, joint)
    caps = training[0]["caps"][1] if joint else training[1]["caps"]
    assert 264 in caps[0] and not {262, 263, 265} & set(caps.flatten().tolist())


def test_one_kind_alone(tmp_path: Path) -> None:
    config = section(tmp_path, "merlot_vcr", kinds="rationale")
    assert all(dataset(config, False)[row]["question_kind"] == 1 for row in range(4))
    with pytest.raises(ConfigError, match="kinds"):
        VCRMetaProcessor({**config, "kinds": "reason"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer": {"context": "a", "choices": ["a"] * 3, "label": 0}}, "line 1: answer: choices: expected 4 texts"),
        ({"answer": {"context": "a", "choices": ["a"] * 4, "label": 4}}, "not the index of one of 4 choices"),
        ({"answer": {"choices": ["a"] * 4, "label": 0}}, "no key 'context'"),
        ({"rationale": {"contexts": ["a"] * 2, "choices": ["a"] * 4}}, "expected one, or one for each"),
        ({"rationale": {"contexts": ["a"] * 4, "choices": ["a"] * 4}}, "some rationales have a context for each"),
        ({"image": "val-0"}, "expected the id of the image of each kind"),
        ({"image": {"answer": "val-0"}}, "no key 'rationale'"),
        ({"image": {"answer": "absent", "rationale": "absent"}}, "1 without an image"),
        ({"id": ""}, "is no id"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    config = section(tmp_path, "reserve_vcr")
    lines = lines_of(tmp_path)
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [lines[0] | change, *lines[1:]]))
    with pytest.raises(DataError, match=told):
        VCRMetaProcessor(config, joint=True)


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    config = section(tmp_path, "reserve_vcr")
    lines = lines_of(tmp_path)
    lines[0]["answer"]["choices"][2] = [5, 266]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="ids 5 to 266 are not all of the 266 of dataset.tokenizer"):
        dataset(config, joint=True)[0]


def test_an_aligner_must_say_how_texts_are_laid_out() -> None:
    class Half(_VCRAligner):
        pass

    with pytest.raises(TypeError, match="lay_out"):
        Half({}, None, 40, "max_text_len", None)  # type: ignore[abstract]


def test_ids_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    config = section(tmp_path, "merlot_vcr")
    lines = lines_of(tmp_path)
    lines[0]["answer"]["choices"][2] = [6, 50, 200]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="id 50 is neither a word .from 100 on. nor a special id"):
        dataset(config, joint=False)[0]


def test_training_needs_labels(tmp_path: Path) -> None:
    config = section(tmp_path, "reserve_vcr", split="train")
    with_all_contexts(tmp_path, label=None)
    with pytest.raises(DataError, match="4 without a label"):
        VCRMetaProcessor(config, joint=True)
