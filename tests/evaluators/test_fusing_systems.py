"""VIOLET and LAVENDER through the predictors: batches as their aligners make them, and the tests' numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from fusion_data import config_of

from mmpt.evaluators.caption_predictor import NLGPredictor
from mmpt.evaluators.fusion_retrieval_predictor import FusionRetrievalPredictor
from mmpt.evaluators.open_qa_predictor import OpenQAPredictor
from mmpt.evaluators.qa_predictor import QAPredictor
from mmpt.models import LAVENDER, VIOLETMultipleChoice, VIOLETOpenEnded, VIOLETRetrieval
from mmpt.models.cross_modal import CrossModalModel

ROWS, WORDS, OPTIONS = 3, 8, 4


def model_of(cls: type[CrossModalModel]) -> Any:
    torch.manual_seed(0)
    model = cls(cls.tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def batch_of(*leading: int, **more: Any) -> dict[str, Any]:
    """Return clips with texts (ROWS, *leading, WORDS), of which the last position is a ``[MASK]`` after padding."""
    generator = torch.Generator().manual_seed(0)
    caps = torch.randint(5, 60, (ROWS, *leading, WORDS), generator=generator)
    caps[..., 0], caps[..., 4], caps[..., 5:7], caps[..., 7] = 2, 3, 0, 4
    return {
        "caps": caps,
        "cmasks": caps != 0,
        "vfeats": torch.randint(0, 256, (ROWS, 2, 3, 64, 64), dtype=torch.uint8, generator=generator),
        "vmasks": torch.ones(ROWS, 2, dtype=torch.bool),
        "video_id": [f"v{row}" for row in range(ROWS)],
        "text": [f"text {row}" for row in range(ROWS)],
        "idx": torch.arange(ROWS),
        **more,
    }


def on(predictor: type, folder: Any, model: Any, batch: dict[str, Any], **sections: Any) -> dict[str, Any]:
    dataset = {"bert_name": "tests/data/tiny_bert", "use_fast": False}
    run = predictor({**config_of(folder), "dataset": dataset, **sections})
    run.make_folder()
    return run(model, [batch], device="cpu")


PRETEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompts": {"prompts": torch.tensor([[2, 9, 8, 3]]).expand(ROWS, -1)},
    "task_ids": {"task_ids": torch.zeros(ROWS, dtype=torch.long)},
}


@pytest.mark.parametrize(
    ("cls", "pretext"), [(VIOLETRetrieval, "plain"), *((LAVENDER, pretext) for pretext in PRETEXTS)]
)
@torch.no_grad()
def test_retrieval(tmp_path, cls, pretext) -> None:
    model, batch = model_of(cls), batch_of(**PRETEXTS[pretext])
    scores = on(FusionRetrievalPredictor, tmp_path, model, batch)["outputs"]
    given = {key: batch[key] for key in ("caps", "cmasks", *PRETEXTS[pretext])}
    states = model.encode_text(**given), model.encode_video(batch["vfeats"], batch["vmasks"])
    np.testing.assert_allclose(scores, model.score_pairs(*states).numpy(), atol=2e-5)
    assert np.ptp(scores) > 1e-3


@pytest.mark.parametrize("form", ["violet", "lavender, a text each", "lavender, all in one"])
@torch.no_grad()
def test_multiple_choice(tmp_path, form) -> None:
    mask = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 4])
    more = {"answers": torch.tensor([[0], [1], [3]]), "option_mask": mask, "options": [list("abcd")] * ROWS}
    if form == "lavender, all in one":
        model = model_of(LAVENDER)
        numbers = {str(number): 20 + number for number in range(OPTIONS)}
        model.word_ids = lambda words, what: [numbers.get(word, 5) for word in words]  # tiny_bert has no digits
        batch = batch_of(**more, answer_position=torch.full((ROWS,), WORDS - 1))
    else:
        model = model_of(VIOLETMultipleChoice if form == "violet" else LAVENDER)
        batch = batch_of(OPTIONS, **more, objective=["options"] * ROWS)
    scores = on(QAPredictor, tmp_path, model, batch)["scores"]
    assert np.isneginf(scores).sum() == 1 and np.isneginf(scores[1, 3])
    for row, option in ((0, 0), (1, 2), (2, 3)):
        video = model.encode_video(batch["vfeats"][row : row + 1], batch["vmasks"][row : row + 1])
        if form == "lavender, all in one":
            text = model.encode_text(batch["caps"][row : row + 1], batch["cmasks"][row : row + 1])
            wanted = model.head(model.fuse(video, text).last_hidden_state[:, -1])[0, 20 + option]
        else:
            own = (batch[key][row, option][None] for key in ("caps", "cmasks"))
            wanted = model.score_aligned(model.encode_text(*own), video)[0]
        assert scores[row, option] == pytest.approx(float(wanted), abs=2e-5)


@pytest.mark.parametrize("cls", [VIOLETOpenEnded, LAVENDER])
@torch.no_grad()
def test_open_questions(tmp_path, cls) -> None:
    model = model_of(cls)
    batch = batch_of(answers=torch.tensor([1, -100, 4]), answer_position=torch.full((ROWS,), WORDS - 1))
    found = on(OpenQAPredictor, tmp_path, model, batch)
    text, video = model.encode_text(batch["caps"], batch["cmasks"]), model.encode_video(batch["vfeats"])
    if cls is VIOLETOpenEnded:
        scores = model.classify(text, video)
    else:
        scores = model.head(model.fuse(video, text).last_hidden_state[:, -1])
    assert found["outputs"].tolist() == scores.argmax(1).tolist()
    ranks = [int((scores[row] >= scores[row, answer]).sum()) for row, answer in ((0, 1), (2, 4))]
    assert found["ranks"].tolist() == [ranks[0], 0, ranks[1]]


def test_captions(tmp_path) -> None:
    model = model_of(LAVENDER)
    prompts = torch.tensor([[2, 9, 8, 3], [2, 30, 31, 3], [2, 40, 41, 3]])
    batch = batch_of(prompts=prompts, ref=["a", "b", "c"])
    found = on(NLGPredictor, tmp_path, model, batch, gen_param={"num_beams": 1})
    ids = model.generate(batch["vfeats"], batch["vmasks"], None, None, prompts=prompts)
    assert found["outputs"] == [" ".join(f"w{word - 5}" for word in one if word > 4) or "none" for one in ids]
