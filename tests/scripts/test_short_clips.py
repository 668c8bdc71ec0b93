"""The short clips of the demo corpus: what tests show is held out, and no question gives its answer away."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from mmpt.processors.caption_tsv import CaptionTSVMetaProcessor
from mmpt.processors.clip_texts import ClipTextMetaProcessor
from mmpt.processors.lavender_aligners import CONTEXTS
from mmpt.utils.tokenizers import load_tokenizer
from scripts.demo_corpus import generate_short
from scripts.demo_corpus.plan import VideoPlan, plan_corpus
from scripts.demo_corpus.short_clips import CAPTIONS_PER_CLIP, ShortCounts, plan_short_clips
from scripts.demo_corpus.splits import Triple

LISTS = {"retrieval": "retrieval", "action": "multiple_choice", "mc": "multiple_choice", "qa": "open_ended"}


@pytest.fixture(scope="module")
def plans() -> list[VideoPlan]:
    return plan_short_clips(1)


@pytest.fixture(scope="module")
def texts(plans: list[VideoPlan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    generate_short.write_texts(plans, folder, 1)
    return folder


def shown(plans: list[VideoPlan], *splits: str) -> list[Triple]:
    return [plan.segments[0].triple for plan in plans if plan.split in splits]


def read(texts: Path, name: str) -> dict:
    return json.loads((texts / f"txt_demo-{name}.json").read_text())


def test_what_is_tested_is_shown_nowhere_else_not_in_the_other_corpus_either(plans: list[VideoPlan]) -> None:
    test, val = shown(plans, "short_test"), shown(plans, "short_val")
    training = {*shown(plans, "short_pretrain", "short_train")}
    assert len(test) == len(set(test)) == ShortCounts().short_test
    assert not training & {*test, *val} and not {*test} & {*val}
    others = {
        s.triple for plan in plan_corpus(1) if plan.split.startswith(("narrated", "clips_train")) for s in plan.segments
    }
    assert not others & {*test, *val}
    for part in ("colour", "shape", "action"):
        assert {getattr(triple, part) for triple in test} <= {getattr(triple, part) for triple in training}
    assert max(Counter(shown(plans, "short_pretrain")).values()) == 4


def test_equal_seeds_alone_give_equal_plans(plans: list[VideoPlan]) -> None:
    assert plans == plan_short_clips(1)
    assert shown(plans, "short_test") != shown(plan_short_clips(2), "short_test")
    assert len({plan.name for plan in plans}) == len({plan.seed for plan in plans}) == len(plans)


@pytest.mark.parametrize(("name", "items"), LISTS.items())
def test_text_files_are_read_as_those_of_the_public_tasks(texts: Path, name: str, items: str) -> None:
    path = str(texts / f"txt_demo-{name}.json")
    sizes = {}
    for split, key in (("train", "train_path"), ("valid", "val_path"), ("test", "test_path")):
        if read(texts, name)["val" if split == "valid" else split]:
            sizes[split] = len(ClipTextMetaProcessor({"split": split, key: path}, items).data)
    each = {"retrieval": CAPTIONS_PER_CLIP, "qa": 3}.get(name, 1)
    tested = {"retrieval": 1}.get(name, each)
    whole = {"train": 300 * each, "valid": 36 * tested, "test": 104 * tested}
    assert sizes == ({"test": 104} if name == "mc" else whole)


def test_captions_are_read_as_those_of_swinbert(texts: Path) -> None:
    train = CaptionTSVMetaProcessor({"split": "train", "train_path": str(texts / "caption/train.yaml")})
    test = CaptionTSVMetaProcessor({"split": "test", "test_path": str(texts / "caption/test.yaml")})
    assert len(train.data) == 300 * CAPTIONS_PER_CLIP and len(test.data) == 104
    retrieval = read(texts, "retrieval")["train"]
    assert [tuple(item) for item in train.data] == [(item["video"], item["caption"]) for item in retrieval]


def test_a_question_is_asked_with_every_answer(plans: list[VideoPlan], texts: Path) -> None:
    """The same words ask for each of the colours, and so on: a question alone cannot be answered."""
    triples = dict(zip((plan.name for plan in plans), (plan.segments[0].triple for plan in plans), strict=True))
    asked: dict[str, set[str]] = defaultdict(set)
    content = read(texts, "qa")
    for item in content["train"] + content["test"]:
        triple = triples[item["video"]]
        kind = item["question"].split()[1]
        assert item["answer_text"] == content["vocab"][item["answer"]]
        assert item["answer_text"] not in item["question"].split()
        if kind == "colour":
            assert item["answer_text"] == triple.colour
        asked[item["question"]].add(item["answer_text"])
    colours = [answers for question, answers in asked.items() if "colour" in question]
    assert len(colours) == 6 and all(len(answers) == 8 for answers in colours)
    shapes = [answers for question, answers in asked.items() if "what shape" in question]
    assert len(shapes) == 8 and all(len(answers) == 6 for answers in shapes)


def test_the_options_of_captions_are_those_of_a_group(texts: Path) -> None:
    options = [frozenset(item[f"option_{number}"] for number in range(5)) for item in read(texts, "mc")["test"]]
    assert sum(size == 5 for size in Counter(options).values()) == 104 // 5
    assert len({item["answer"] for item in read(texts, "mc")["test"]}) == 5


def test_every_word_is_a_piece_of_the_vocabulary(plans: list[VideoPlan], texts: Path) -> None:
    tokenizer = load_tokenizer(str(texts / "bert"), True)
    said = [caption for plan in plans for caption in plan.captions]
    said += [context.prompt.replace("{numbers}", "0, 1, 2, 3, 4") for context in CONTEXTS.values()]
    said += ["option 0:", "answer:", "true", "false", *read(texts, "qa")["vocab"]]
    said += [item["question"] for name in ("qa", "action") for item in read(texts, name)["test"]]
    pieces = {piece for text in set(said) for piece in tokenizer.tokenize(text)}
    assert not [piece for piece in pieces if piece.startswith("##") or piece == "[UNK]"]
    assert all(len(tokenizer.tokenize(answer)) == 1 for answer in read(texts, "qa")["vocab"])
