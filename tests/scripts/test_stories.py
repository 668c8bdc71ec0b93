"""The stories of the demo corpus: what is tested is shown nowhere else, and picture, word and sound say the same."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmpt.processors.clip_texts import ClipTextMetaProcessor
from mmpt.store.frame_store import open_frames
from mmpt.store.images import decode_image
from scripts.demo_corpus import generate_stories
from scripts.demo_corpus.rendering import render_video
from scripts.demo_corpus.scenes import RGB
from scripts.demo_corpus.splits import COLOURS, SHAPES
from scripts.demo_corpus.stories import RATE, STAGE_SECONDS, STAGES, StoryCounts, StoryPlan, plan_stories

COUNTS = StoryCounts(6, 2, 3, 12, 3, 6)


@pytest.fixture(scope="module")
def plans() -> list[StoryPlan]:
    return plan_stories(1, COUNTS)


@pytest.fixture(scope="module")
def texts(plans: list[StoryPlan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stories")
    generate_stories.write_texts(plans, folder, 1)
    return folder


def pairs(plans: list[StoryPlan], split: str) -> set[tuple[str, str]]:
    return {(stage.colour, stage.shape) for plan in plans if plan.split.endswith(split) for stage in plan.stages}


def test_pairs_of_the_test_are_shown_nowhere_else() -> None:
    plans = plan_stories(1)
    test, others = pairs(plans, "test"), pairs(plans, "train") | pairs(plans, "val")
    assert len(test) == 16 and len(others) == 32 and not test & others
    assert {colour for colour, _ in others} == {colour for colour, _ in test} == set(COLOURS)
    assert {shape for _, shape in others} == set(SHAPES)


def test_equal_seeds_alone_give_equal_plans(plans: list[StoryPlan]) -> None:
    assert plans == plan_stories(1, COUNTS) != plan_stories(2, COUNTS)
    assert len({plan.name for plan in plans}) == len({plan.seed for plan in plans}) == len(plans)


def test_every_word_is_said_while_its_stage_is_seen(plans: list[StoryPlan]) -> None:
    for plan in plans:
        ends = [word.end for word in plan.words if word.text.endswith(".")]
        assert len(ends) == len(plan.stages)
        for word in plan.words:
            stage = plan.stages[int(word.start / STAGE_SECONDS)]
            assert int(word.end / STAGE_SECONDS) == int(word.start / STAGE_SECONDS)
            text = word.text.strip(".")
            for known, shown in ((COLOURS, stage.colour), (SHAPES, stage.shape), (STAGES, STAGES[stage.number])):
                assert text not in known or text == shown


def test_pitch_trembling_and_loudness_tell_the_stage(plans: list[StoryPlan]) -> None:
    stage = replace(plans[0].stages[0], jitter=(0.0, 0.0, 0.0))
    loudest = {}
    for colour in COLOURS:
        for number in (0, 4):
            plan = replace(plans[0], stages=(replace(stage, colour=colour, number=number, shape="circle"),))
            wave = plan.sound(np.random.default_rng(0))
            assert wave.dtype == np.float32 and len(wave) == STAGE_SECONDS * RATE and np.abs(wave).max() < 1
            loudest[colour, number] = np.abs(wave).max()
            pitch = np.abs(np.fft.rfft(wave)).argmax() / STAGE_SECONDS
            assert pitch == pytest.approx(220 * 2 ** (3 * COLOURS.index(colour) / 7), rel=0.01)
        assert loudest[colour, 4] > 10 * loudest[colour, 0]
    steady, trembling = (
        replace(plans[0], stages=(replace(stage, shape=shape, number=4),)).sound(np.random.default_rng(0))
        for shape in ("circle", "cross")
    )
    envelopes = [np.abs(wave).reshape(-1, 441).max(1) for wave in (steady, trembling)]  # 20 ms
    assert envelopes[0].std() < 0.02 < 0.15 < envelopes[1].std()


def test_a_rendered_video_has_both_tracks(plans: list[StoryPlan], tmp_path: Path) -> None:
    import av

    plan = next(plan for plan in plans if plan.split == "asked_train")
    render_video(plan, tmp_path / plan.file_name)
    with av.open(str(tmp_path / plan.file_name)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        samples = sum(frame.samples for frame in container.decode(audio=0))
        assert abs(samples / RATE - STAGE_SECONDS) < 0.2


def test_questions_are_read_by_their_processor_and_do_not_give_their_answers_away(texts: Path) -> None:
    path = texts / "txt_asked-mc.json"
    questions = json.loads(path.read_text())
    assert {split: len(items) for split, items in questions.items()} == {"train": 36, "val": 9, "test": 18}
    for items in questions.values():
        for item in items:
            options = [item[f"option_{number}"] for number in range(5)]
            assert len(set(options)) == 5 and options[item["answer"]] not in item["question"].split()
    meta = ClipTextMetaProcessor({"split": "train", "train_path": str(path)}, items="multiple_choice")
    assert len(meta) == 36
    answers = Counter(item["answer"] for item in json.loads(path.read_text())["train"])
    assert len(answers) == 5


def test_stories_of_the_test_are_five_images_and_sentences(texts: Path, plans: list[StoryPlan]) -> None:
    lines = [json.loads(line) for line in (texts / "stories.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    store = open_frames(texts / "stories")
    for line in lines:
        assert len(store[line["images"]]) == len(line["sentences"]) == 5
        assert [STAGES[number] in line["sentences"][number] for number in range(5)] == [True] * 5
    # the shape goes from left to right and grows: its pixels say so
    plan = next(plan for plan in plans if plan.split == "story_test")
    colour = np.asarray(RGB[plan.stages[0].colour])
    found = []
    for data in store[lines[0]["images"]]:
        near = np.abs(decode_image(data).astype(int) - colour).sum(2) < 90
        found.append((near.mean(), np.nonzero(near)[1].mean() / near.shape[1]))
    assert sorted(found) == found and found[0][1] < 0.35 and found[-1][1] > 0.6


def test_rows_say_what_is_seen_and_a_query_of_the_test_has_one_right_clip(plans: list[StoryPlan], texts: Path) -> None:
    rows = [json.loads(line) for line in (texts / "corpus.jsonl").read_text().splitlines()]
    by_name = {plan.name: plan for plan in plans}
    triples: dict[str, list[tuple[str, str, str]]] = {"train": [], "valid": [], "test": []}
    for row in rows:
        stage = by_name[row["video"]].stages[round(row["start"] / STAGE_SECONDS)]
        assert row["end"] - row["start"] == STAGE_SECONDS
        assert {stage.colour, stage.shape, STAGES[stage.number]} <= set(row["text"].split())
        triples[row["split"]].append((stage.colour, stage.shape, STAGES[stage.number]))
    assert len(triples["train"]) == 6 * 15
    assert len(set(triples["test"])) == len(triples["test"])
    assert not {triple[:2] for triple in triples["test"]} & {triple[:2] for triple in triples["train"]}
    questions = [json.loads(line) for line in (texts / "corpus_questions.jsonl").read_text().splitlines()]
    assert len(questions) == len(triples["test"])
    for row in questions:
        said = [frozenset(option.split()) & {*COLOURS, *SHAPES, *STAGES} for option in row["options"]]
        assert row["options"][row["answer"]] == row["text"]
        assert len(said) == 5 and said.count(said[row["answer"]]) == 1
