"""Zero-shot MERLOT Reserve: gaps filled in from a list of answers, and the actions that follow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.evaluators.cloze import ActionAnticipationMetric, ActionAnticipationPredictor, ClozePredictor
from mmpt.evaluators.open_qa_metrics import OpenQAMetric
from mmpt.modules.reserve_tokens import AUDIOSPAN, MASK
from mmpt.processors.open_questions import OpenQuestion
from mmpt.processors.reserve_cloze import ClozeAligner, ClozeMetaProcessor
from mmpt.processors.tvqa import WholeSegmentsVideoProcessor
from mmpt.utils.errors import ConfigError, DataError
from scripts.tiny_data.question_files import write_segments
from scripts.tiny_data.subword_files import write_reserve_tokenizer
from tests.evaluators.downstream_tests import build, evaluated

SIZES = {"image_grid": [2, 4], "lang_seq_len": 160, "split": "test"}
PARTS = {
    "video_processor": "WholeSegmentsVideoProcessor",
    "text_processor": "SubwordTextProcessor",
    "aligner": "ClozeAligner",
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    write_segments(tmp_path / "segments", {"short": 3, "long": 11})
    train = [("cat", 5), ("dog", 3), ("bird", 3), ("fish", 1)]
    training = [{"video": "short", "question": "x", "answer": answer} for answer, times in train for _ in range(times)]
    test = [
        {"video": "short", "question": "this is a<|MASK|>", "answer": "Cat"},
        {"video": "long", "question": "a<|MASK|> is seen", "answer": "fish"},
        {"video": "long", "question": "nothing to fill in", "answer": "cat"},
        {"video": "long", "question": "a<|MASK|> and a<|MASK|>", "answer": "dog"},
    ]
    (tmp_path / "txt.json").write_text(json.dumps({"train": training, "test": test}))
    paths = dict.fromkeys(("train_path", "test_path"), str(tmp_path / "txt.json"))
    tokenizer = write_reserve_tokenizer(tmp_path / "subwords.json")
    own = {"meta_processor": "ClozeMetaProcessor", "tokenizer": str(tokenizer), **PARTS, **SIZES}
    return {"segment_path": str(tmp_path / "segments"), **paths, **own}


def test_the_commonest_answers_are_chosen_from(config: dict[str, Any]) -> None:
    meta = ClozeMetaProcessor({**config, "num_answers": 3})
    assert meta.labels == ["cat", "bird", "dog"] and meta.num_labels == 3
    assert [meta[row][1].label for row in range(4)] == [0, -1, 0, 2]
    assert ClozeMetaProcessor(config).labels == ["cat", "bird", "dog", "fish"]
    for changes in ({"num_answers": 0}, {"train_path": None}, {"segment_path": None}):
        with pytest.raises(ConfigError):
            ClozeMetaProcessor({**config, **changes})


@pytest.mark.parametrize("gap", [0, 3, 9])
def test_a_sentence_that_is_cut_keeps_its_gap(config: dict[str, Any], gap: int) -> None:
    """Words are cut off at the farther end, so that the answer is never looked for at the first token."""
    aligner = ClozeAligner({**config, "lang_seq_len": 5})
    words = [100 + number for number in range(10)]
    words[gap] = MASK
    first = {0: 0, 3: 1, 9: 5}[gap]
    item = aligner("short", WholeSegmentsVideoProcessor(config)("short"), OpenQuestion(words, "cat", 2))
    assert item["caps"].tolist() == words[first : first + 5] and item["answers"] == 2


def test_an_item(config: dict[str, Any]) -> None:
    """The sentence stands in the last segment; before it the sounds of the others, three runs of six each."""
    task, _ = build("ReserveCloze", config)
    data = task.test_data
    assert data is not None
    item, words = data[0], data.text_processor.subwords.encode("this is a<|MASK|>")
    length = 36 + len(words)
    assert item["caps"].tolist() == [*[AUDIOSPAN] * 36, *words, *[0] * (160 - length)]
    assert item["segments"].tolist()[:length] == [*[0] * 18, *[1] * 18, *[2] * len(words)]
    assert item["audio_pointers"].tolist()[:36] == [number for number in range(6) for _ in range(6)]
    assert item["vmasks"].tolist() == [True] * 3 + [False] * 5
    assert item["audio_clips"].shape == (24, 60, 65) and not item["audio_clips"][9:].any()
    stored = data.video_processor("short").spectrogram(1).astype(np.float32)
    np.testing.assert_array_equal(item["audio_clips"][4, :, :64], stored[64:124])
    assert item["answers"] == 0
    long = data[1]  # of eleven segments, eight
    assert long["vmasks"].all() and long["segments"].max() == 7
    assert [data[row]["answers"].item() for row in (2, 3)] == [-100, -100]  # no gap, and two


def test_sounds_give_way_to_words(config: dict[str, Any]) -> None:
    task, _ = build("ReserveCloze", {**config, "lang_seq_len": 40})
    assert task.test_data is not None
    item, encode = task.test_data[0], task.test_data.text_processor.subwords.encode
    words = encode("this is a<|MASK|>")
    assert item["caps"].tolist()[: 18 + len(words)] == [*[AUDIOSPAN] * 18, *words]
    assert item["segments"][0] == 1 and item["audio_pointers"][0] == 3
    silent = build("ReserveCloze", {**config, "use_audio": False})[0].test_data
    assert silent is not None and "audio_clips" not in silent[0] and AUDIOSPAN not in silent[0]["caps"]
    with pytest.raises(ConfigError, match="text_segment"):
        ClozeAligner({**config, "text_segment": 8})


@pytest.mark.parametrize("audio", [True, False])
def test_from_segments_to_answers(config: dict[str, Any], tmp_path: Path, audio: bool) -> None:
    task, model = build("ReserveCloze", {**config, "use_audio": audio})
    metrics = evaluated(task, model, tmp_path / "eval", "ClozePredictor", "OpenQAMetric", 3, top=[1, 5, 10])
    assert {"acc", "acc5", "acc10"} <= metrics.keys()
    assert metrics["count"] == 4 and metrics["unreachable"] == 2 and metrics["acc10"] == 0.5
    told = json.loads((tmp_path / "eval/predictions.json").read_text())
    assert told[0]["answer"] == "Cat" and {one["answer"] for one in told[0]["best"]} == {"cat", "bird", "dog", "fish"}
    assert told[2]["rank"] is None and not told[2]["correct"]
    # the score is 100 times the cosine of the state at the gap and the answer's vector
    assert task.test_data is not None
    item = task.test_data[0]
    names = ("caps", "cmasks", "segments", "vfeats", "vmasks", "audio_pointers", "audio_clips")
    inputs = {name: item[name][None] for name in names if name in item}
    span = torch.tensor([task.test_data.text_processor.subwords.encode("bird")])
    with torch.no_grad():
        vector, answer = model.mask_vectors(**inputs)[0], model.encode_text(span, span != 0)[0]
    shown = {one["answer"]: one["score"] for one in told[0]["best"]}
    assert shown["bird"] == pytest.approx(100 * float(vector @ answer), abs=1e-3)
    assert (item["caps"] == MASK).sum() == 1


def test_what_is_missing_is_not_seen(config: dict[str, Any]) -> None:
    """Absent segments change nothing, whatever their frames and sounds hold."""
    task, model = build("ReserveCloze", config)
    assert task.test_data is not None
    item = {key: value[None] for key, value in task.test_data[0].items() if isinstance(value, torch.Tensor)}
    names = ("caps", "cmasks", "segments", "vfeats", "vmasks", "audio_pointers", "audio_clips")
    other = {name: item[name].clone() for name in names}
    other["vfeats"][:, 3:], other["audio_clips"][:, 6:] = 200, 5.0
    with torch.no_grad():
        torch.testing.assert_close(model.mask_vectors(**other), model.mask_vectors(**{n: item[n] for n in names}))


def test_more_numbers_of_answers() -> None:
    metric = OpenQAMetric({"eval": {"top": [1, 10]}})
    metrics = metric.compute_metrics(ranks=[1, 6, 10, 11])
    assert (metrics["acc"], metrics["acc10"]) == (0.25, 0.75) and "acc5" not in metrics
    assert metric.print_computed_metrics(metrics) == "acc: 0.2500 - top-10: 0.7500"
    with pytest.raises(ConfigError, match=r"eval\.top"):
        OpenQAMetric({"eval": {"top": [0]}})


def test_models_without_answers_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    task, model = build("ReserveCloze", config)
    predictor = ClozePredictor({**task.config, "eval": {"save_path": str(tmp_path)}})
    with pytest.raises(ConfigError, match="Linear does not"):
        predictor(torch.nn.Linear(1, 1), [])
    with pytest.raises(ConfigError, match="a data set with answers"):
        predictor(model, [])
    with pytest.raises(DataError, match="no answers to choose from"):
        model.answer_scores()


ACTIONS = "id,verb,noun,action\n0,0,1,take plate\n1,0,2,take board:chopping\n2,3,1,put-down plate\n"
VALIDATION = (
    "narration_id,start_timestamp,stop_timestamp,verb,verb_class,noun,noun_class\n"
    "P01_1,00:00:20.50,00:00:21.00,take,0,plate,1\n"
    "P01_2,00:01:20.50,00:01:21.00,put-down,3,plate,1\n"
    "P01_3,00:02:20.50,00:02:21.00,wash,9,pan,9\n"
)


@pytest.fixture
def kitchens(tmp_path: Path) -> dict[str, Any]:
    write_segments(tmp_path / "segments", {"P01_1": 8, "P01_2": 8, "P01_3": 6})
    (tmp_path / "actions.csv").write_text(ACTIONS)
    (tmp_path / "validation.csv").write_text(VALIDATION)
    tokenizer = write_reserve_tokenizer(tmp_path / "subwords.json")
    own = {"meta_processor": "AnticipationMetaProcessor", "tokenizer": str(tokenizer), **PARTS, **SIZES}
    paths = {"test_path": str(tmp_path / "validation.csv"), "actions_path": str(tmp_path / "actions.csv")}
    return {"segment_path": str(tmp_path / "segments"), "text_segment": 7, **paths, **own}


def test_actions_that_follow(kitchens: dict[str, Any], tmp_path: Path) -> None:
    task, model = build("ReserveCloze", kitchens)
    data = task.test_data
    assert data is not None
    assert data.meta_processor.labels == ["take plate", "take chopping board", "put-down plate"]
    assert [data[row]["answers"].item() for row in range(3)] == [0, 2, -100]
    assert data[2]["segments"].max() == 7 and data[2]["vmasks"].tolist() == [True] * 6 + [False] * 2
    metrics = evaluated(task, model, tmp_path / "eval", "ActionAnticipationPredictor", "ActionAnticipationMetric")
    assert metrics["count"] == 3 and metrics["unreachable"] == 1 and metrics["action_acc5"] == pytest.approx(2 / 3)
    told = json.loads((tmp_path / "eval/predictions.json").read_text())
    assert told[0]["action"] == "take plate" and len(told[0]["best"]) == 3
    # the rank of a verb is that of its best action among the best actions of the verbs
    for one, (verb, noun) in zip(told[:2], (("take", "plate"), ("put-down", "plate")), strict=True):
        order = [action["action"].split(" ", 1) for action in one["best"]]
        verbs, nouns = (list(dict.fromkeys(pair[part] for pair in order)) for part in (0, 1))
        assert one["ranks"]["verb"] == 1 + verbs.index(verb) and one["ranks"]["noun"] == 1 + nouns.index(noun)


def test_worked_example_of_ranks() -> None:
    metrics = ActionAnticipationMetric().compute_metrics(ranks=[[1, 1, 1], [6, 2, 1], [0, 0, 0], [3, 1, 6]])
    assert [metrics[f"{part}_acc"] for part in ("action", "verb", "noun")] == [0.25, 0.5, 0.5]
    assert [metrics[f"{part}_acc5"] for part in ("action", "verb", "noun")] == [0.5, 0.75, 0.5]
    for wrong in ([], [[1, 1]], [[1, 1, -1]]):
        with pytest.raises(DataError):
            ActionAnticipationMetric().compute_metrics(ranks=wrong)


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        ("id,verb,noun,action\n0,0,1,take\n", "is not a verb and a noun"),
        ("id,verb,noun,action\n0,0,1,take plate\n1,0,1,take cup\n", "come twice"),
        ("id,verb,action\n0,0,take plate\n", "no column 'noun'"),
        ("id,verb,noun,action\n", "lists no actions"),
    ],
)
def test_wrong_lists_of_actions(kitchens: dict[str, Any], tmp_path: Path, actions: str, told: str) -> None:
    (tmp_path / "actions.csv").write_text(actions)
    with pytest.raises(DataError, match=told):
        build("ReserveCloze", kitchens)
    predictor = ActionAnticipationPredictor({**kitchens, "eval": {"save_path": str(tmp_path)}})
    assert predictor.kind == "actions"
