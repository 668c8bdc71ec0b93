"""LAVENDER's items: texts with their [MASK], what stands before them, answers that cannot be told."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frame_samples import grey, settings
from torch import Tensor

from mmpt.datasets.mmdataset import MMDataset
from mmpt.models.embedding import flatten_samples
from mmpt.processors.clip_text_processor import ClipTextProcessor
from mmpt.processors.cut_texts import CutTexts
from mmpt.processors.lavender_aligners import CONTEXTS
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.open_questions import OpenQuestion
from mmpt.store.frame_store import StoredFrames
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.registry import build
from mmpt.utils.tokenizers import load_tokenizer

STORED = StoredFrames.of([grey(40)] * 4)
with np.load(REPOSITORY / "tests/data/lavender_tiny.npz") as golden:
    VOCABULARY = golden["vocab"].tolist()
    PROMPTS = {name: value for name, value in json.loads(str(golden["recipes"]))["layouts"].items() if "prompt" in name}
    BERT = str(golden["bert_config"])


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("bert")
    (folder / "config.json").write_text(BERT)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return str(folder)


def aligned(name: str, bert: str, text: Any, split: str = "train", seed: int = 0, **more: Any) -> dict[str, Any]:
    section = settings(Path("/none"), split, bert_name=bert, **{"max_text_len": 10, **more})
    feature = ClipTextProcessor(section)(text)
    return build("aligner", name, section)("v", STORED, feature, rng=np.random.default_rng(seed))


def words(caps: Tensor) -> str:
    return " ".join(VOCABULARY[token] for token in caps.tolist() if token)


def test_retrieval_asks_after_the_caption(bert) -> None:
    item = aligned("LAVENDERRetrievalAligner", bert, "a man runs", "test")
    assert item["caps"].tolist()[5:] == [0, 0, 0, 0, 0, 103] and words(item["caps"]) == "[CLS] a man runs [SEP] [MASK]"
    assert item["cmasks"].tolist() == [True] * 5 + [False] * 5 + [True]
    assert (item["objective"], item["text"], item["vfeats"].shape) == ("retrieval", "a man runs", (4, 3, 16, 16))
    assert "text_label" not in item and "prompts" not in item and "task_ids" not in item
    other = aligned("LAVENDERRetrievalAligner", bert, "a cat", "test")
    assert item["video_key"] == other["video_key"]


@pytest.mark.parametrize("name", ["Retrieval", "Options", "Pretraining", "TaskSpecificPretraining"])
def test_a_text_without_a_clip_is_laid_out_as_in_an_item(name, bert) -> None:
    text = Choice(0, ("a man runs", "a cat")) if name == "Options" else "a man runs"
    item = aligned(f"LAVENDER{name}Aligner", bert, text, mask_probability=0.0)
    aligner = build("aligner", f"LAVENDER{name}Aligner", settings(Path("/none"), bert_name=bert, max_text_len=10))
    caps, cmasks = aligner._build_text_seq([VOCABULARY.index(one) for one in ("a", "man", "runs")])
    of_item = [item[key][0] if name == "Options" else item[key] for key in ("caps", "cmasks")]
    assert caps.tolist() == of_item[0].tolist() and cmasks.tolist() == of_item[1].tolist()


def test_pretraining_hides_words_and_nothing_else(bert) -> None:
    text = "a dog runs on the red ball"
    whole = aligned("LAVENDERRetrievalAligner", bert, text)["caps"]
    section = settings(Path("/none"), "train", bert_name=bert, max_text_len=10)
    aligner, feature = build("aligner", "LAVENDERPretrainingAligner", section), ClipTextProcessor(section)(text)
    hidden = 0
    for seed in range(200):
        item = aligner("v", STORED, feature, rng=np.random.default_rng(seed))
        told = item["text_label"] != -100
        assert torch.equal(torch.where(told, item["text_label"], item["caps"]), whole)
        assert (item["caps"][told] == 103).all() and not told[[0, 8, 9, 10]].any()
        hidden += int(told.sum())
    assert hidden / (200 * 7) == pytest.approx(0.15, abs=0.03)
    assert item["objective"] == "pretraining"
    every = aligned("LAVENDERPretrainingAligner", bert, text, mask_probability=1.0)
    assert words(every["caps"]) == "[CLS]" + " [MASK]" * 7 + " [SEP] [MASK]"
    baseline = aligned("LAVENDERTaskSpecificPretrainingAligner", bert, text, mask_probability=1.0)
    assert words(baseline["caps"]) == "[CLS]" + " [MASK]" * 7 + " [SEP]" and len(baseline["text_label"]) == 10


@pytest.mark.parametrize(
    ("name", "prompt", "text", "token"),
    [
        ("LAVENDERRetrievalAligner", "prompt_ret", "a man", 0),
        ("LAVENDERPretrainingAligner", "prompt_ret", "a man", 0),
        ("LAVENDEROptionsAligner", "prompt_retmc", Choice(0, ("a man", "a cat")), 0),
        ("LAVENDERChoiceAligner", "prompt_qamc", Choice(0, ("w1", "w2", "w3", "w4", "w5"), "what"), 1),
        ("LAVENDERQuestionAligner", "prompt_qaoe", OpenQuestion("what", "dog"), 2),
        ("LAVENDERBlankAligner", "prompt_fib", OpenQuestion("a [MASK]", "dog"), 2),
    ],
)
def test_prompts_and_task_tokens(name, prompt, text, token, bert) -> None:
    published = PROMPTS[prompt][1]
    prompts = aligned(name, bert, text, prompt=True)["prompts"]
    task_ids = aligned(name, bert, text, prompt=True, task_token=True)
    assert "prompts" not in task_ids
    if name == "LAVENDEROptionsAligner":
        assert prompts.tolist() == [published] * 2 and task_ids["task_ids"].tolist() == [token] * 2
    else:
        assert prompts.tolist() == published and task_ids["task_ids"].item() == token


def test_captioning_has_its_own() -> None:
    assert CONTEXTS["captioning"] == ("write a description about the video.", 3)


def test_choices_are_told_by_their_number(bert) -> None:
    choice = Choice(1, ("jump", "roll", "step"), "what does man do", slots=4)
    for where, position in (("append", 20), ("prepend", 0), ("insert", 10), ("replace", 0)):
        item = aligned("LAVENDERChoiceAligner", bert, choice, "test", mask_pos=where, max_text_len=26)
        assert item["answer_position"].item() == position and item["caps"][position] == 103
        assert item["text_label"][position].item() == VOCABULARY.index("1")
        assert (item["text_label"] != -100).sum() == 1
        assert item["answers"].tolist() == [1] and item["option_mask"].tolist() == [True, True, True, False]
        assert (item["question"], item["options"]) == ("what does man do", ["jump", "roll", "step"])
    item = aligned("LAVENDERTaskSpecificChoiceAligner", bert, choice, max_text_len=26)
    assert words(item["caps"]).endswith("option 2 : step [SEP]") and "[MASK]" not in words(item["caps"])
    assert "answer_position" not in item and "text_label" not in item and "options" not in item
    with pytest.raises(DataError, match="video v: 3 is no index of its 2 options"):
        aligned("LAVENDERChoiceAligner", bert, Choice(3, ("jump", "roll")))


def test_options_that_vanish_are_counted(bert, caplog) -> None:
    aligned("LAVENDERChoiceAligner", bert, Choice(1, ("jump", "roll"), "what does man do"))
    assert (
        "1 of 1 texts so far are cut at their end" in caplog.text and "video v, 5 word pieces too many" in caplog.text
    )


def test_every_option_is_a_text_of_its_own(bert) -> None:
    item = aligned(
        "LAVENDEROptionsAligner", bert, Choice(1, ("jump", "a man runs"), "what", slots=3), "test", prompt=True
    )
    assert [words(row) for row in item["caps"]] == [
        "[CLS] what jump [SEP] [MASK]",
        "[CLS] what a man runs [SEP] [MASK]",
        "[CLS] [SEP] [MASK]",
    ]
    assert item["objective"] == "options" and item["option_mask"].tolist() == [True, True, False]
    assert item["question"] == "what" and item["answers"].tolist() == [1]
    flat = flatten_samples(MMDataset.collater([item, item]))
    assert flat["caps"].shape == (6, 11) and flat["prompts"].shape == (6, 13) and flat["vfeats"].shape[0] == 2
    assert flat["objective"] == ["options"] * 2 and flat["answers"].tolist() == [[1], [1]]


def test_open_questions_are_told_by_a_word_piece(bert, caplog) -> None:
    item = aligned("LAVENDERQuestionAligner", bert, OpenQuestion("what does a man do?", "Dog", 7), "test")
    assert words(item["caps"]) == "[CLS] what does a man do ? answer : [MASK] [SEP]" and len(item["caps"]) == 15
    assert item["answers"].item() == VOCABULARY.index("dog") and item["answer_position"].item() == 9
    assert item["text_label"][9] == item["answers"]
    assert (item["question"], item["answer_text"]) == ("what does a man do?", "Dog")
    assert not caplog.records
    for answer in ("red dog", "zebra", ""):  # two word pieces, one unknown, none
        item = aligned("LAVENDERQuestionAligner", bert, OpenQuestion("what?", answer, 7))
        assert item["answers"].item() == -100 and (item["text_label"] == -100).all()
    assert "1 of 1 texts so far have an answer that is no single word piece" in caplog.text
    with pytest.raises(DataError, match="video v: WordPieces is no open-ended question"):
        aligned("LAVENDERQuestionAligner", bert, "what?")


def test_blanks_are_filled_in_where_they_are(bert) -> None:
    item = aligned("LAVENDERBlankAligner", bert, OpenQuestion("a man [MASK] the ball.", "roll"))
    assert words(item["caps"]) == "[CLS] a man [MASK] the ball . [SEP]" and item["answer_position"].item() == 3
    assert item["text_label"].tolist()[3] == item["answers"].item() == VOCABULARY.index("roll")
    cut = aligned("LAVENDERBlankAligner", bert, OpenQuestion("a man [MASK] the ball.", "roll"), max_text_len=4)
    assert cut["answer_position"].item() == -1 and cut["answers"].item() == -100 and (cut["text_label"] == -100).all()
    with pytest.raises(DataError, match=r"video v: its sentence has no \[MASK\]"):
        aligned("LAVENDERBlankAligner", bert, OpenQuestion("a man", "roll"))


def test_wrong_options_are_refused(bert) -> None:
    for more, match in (({"mask_pos": "apend"}, "Did you mean 'append'"), ({"mask_probability": 1.5}, "mask_probab")):
        with pytest.raises(ConfigError, match=match):
            aligned("LAVENDERChoiceAligner", bert, Choice(0, ("a", "b")), **more)
    with pytest.raises(ConfigError, match="number of option 5 is no word piece"):  # this vocabulary has 0 to 4
        aligned("LAVENDERChoiceAligner", bert, Choice(5, ("a",) * 6))
    assert load_tokenizer(bert, True).unk_token_id == 100


def test_losses_are_told_at_powers_of_ten(caplog) -> None:
    caplog.set_level(logging.WARNING)
    count = CutTexts("are cut")
    for number in range(120):
        count.add(number % 2 == 1, f"text {number}")
    assert [record.getMessage() for record in caplog.records] == [
        "1 of 2 texts so far are cut; the last: text 1",
        "10 of 20 texts so far are cut; the last: text 19",
    ]
    assert (count.texts, count.cut) == (120, 60)
