"""MERLOT that answers questions."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.models.merlot_answering import MERLOTVCR, MERLOTAnswering
from mmpt.utils.errors import DataError


def questions(count: int = 3, options: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    caps = torch.randint(100, 160, (count, options, 7), generator=generator)
    caps[..., 0] = 2
    caps[:, 1, 5:] = 0
    return {
        "caps": caps,
        "cmasks": caps != 0,
        "vfeats": torch.rand(count, 2, 3, 32, 64, generator=generator),
        "vmasks": torch.tensor([[True, True], [True, False], [True, True]])[:count],
        "answers": torch.arange(count) % options,
    }


@pytest.fixture(scope="module")
def model() -> MERLOTAnswering:
    torch.manual_seed(0)
    built = MERLOTAnswering(MERLOTAnswering.tiny_config()).eval()
    for module in built.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.2)
    return built


def test_an_option_is_scored_from_the_state_of_its_first_token(model: MERLOTAnswering) -> None:
    batch = questions()
    with torch.no_grad():
        logits = model(**batch)["logits"]
        for row in range(3):
            frames = batch["vfeats"][row, batch["vmasks"][row]]
            index = torch.arange(len(frames))[None]
            images = model.embed_images(model.encode_images(frames), index)
            for option in range(4):
                text = batch["caps"][row, option]
                states = model.join(images, text[text != 0][None]).text
                hidden = F.gelu(model.classifier.dense(states[0, 0]))
                torch.testing.assert_close(logits[row, option], model.classifier.output(hidden)[0])


def test_options_may_come_in_one_dimension_and_be_absent(model: MERLOTAnswering) -> None:
    batch = questions()
    flat = {**batch, "caps": batch["caps"].flatten(0, 1), "cmasks": batch["cmasks"].flatten(0, 1)}
    there = torch.ones(3, 4, dtype=torch.bool)
    there[2, 3] = False
    with torch.no_grad():
        scores, hidden = model.option_scores(**batch), model.option_scores(**flat, option_mask=there.flatten())
        still = model.option_scores(**{key: value for key, value in batch.items() if key != "vmasks"})
    assert torch.equal(hidden[there], scores[there]) and hidden[2, 3] == -torch.inf
    torch.testing.assert_close(still[[0, 2]], scores[[0, 2]])
    assert not torch.allclose(still[1], scores[1], atol=1e-6)


def test_targets_are_the_answers(model: MERLOTAnswering) -> None:
    batch = questions()
    outputs = model(**{**batch, "answers": batch["answers"][:, None]}, video_id=["a", "b", "c"])
    assert torch.equal(outputs["targets"], batch["answers"])
    assert "targets" not in model(**{key: value for key, value in batch.items() if key != "answers"})


def test_an_option_is_right_one_time_in_four_before_training(model: MERLOTAnswering) -> None:
    assert model.classifier.output.bias.item() == pytest.approx(-math.log(3))
    assert model.classifier.dense.out_features == 16


def test_vcr_has_a_head_for_answers_and_one_for_rationales() -> None:
    torch.manual_seed(0)
    model = MERLOTVCR(MERLOTVCR.tiny_config()).eval()
    batch, kind = questions(), torch.tensor([0, 1, 0])
    scores = model.option_scores(**batch, question_kind=kind)
    states = model.option_states(*(batch[key] for key in ("caps", "cmasks", "vfeats", "vmasks")))
    torch.testing.assert_close(scores[0], model.answer_cls(states[0]))
    torch.testing.assert_close(scores[1], model.rationale_cls(states[1]))
    model(**batch, question_kind=torch.zeros(3, 1, dtype=torch.long))["logits"].sum().backward()
    assert not model.rationale_cls.dense.weight.grad.any() and model.answer_cls.dense.weight.grad.any()
    with pytest.raises(DataError, match="no question_kind"):
        model(**batch)


def test_unlike_numbers_of_options_are_refused(model: MERLOTAnswering) -> None:
    batch = questions()
    flat = {key: batch[key].flatten(0, 1)[:-1] for key in ("caps", "cmasks")}
    with pytest.raises(DataError, match="11 options for 3 questions"):
        model.option_scores(**batch | flat)
