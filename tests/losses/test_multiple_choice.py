"""Multiple choice: the right option among the options of its own question, nothing else."""

import math

import pytest
import torch

from mmpt.losses.multiple_choice import MultipleChoiceLoss
from mmpt.utils.registry import build


def questions(count: int = 3, options: int = 5, size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pooled_video": torch.randn(count, size, generator=generator),
        "pooled_text": torch.randn(count * options, size, generator=generator),
        "answers": torch.randint(options, (count, 1), generator=generator),
    }


def test_it_is_the_cross_entropy_of_each_question_by_itself() -> None:
    batch = questions()
    total = 0.0
    for i in range(3):
        scores = [float(batch["pooled_video"][i] @ batch["pooled_text"][i * 5 + o]) for o in range(5)]
        total += math.log(sum(map(math.exp, scores))) - scores[int(batch["answers"][i])]
    loss = build("loss", "MultipleChoiceLoss")(**batch, caps=None)
    assert loss.item() == pytest.approx(total / 3, abs=1e-5)
    torch.testing.assert_close(MultipleChoiceLoss()(**batch | {"answers": batch["answers"].squeeze(1)}), loss)


def test_a_batch_is_the_mean_of_its_questions() -> None:
    batch = questions()
    alone = [
        MultipleChoiceLoss()(
            batch["pooled_video"][i : i + 1], batch["pooled_text"][5 * i : 5 * i + 5], batch["answers"][i]
        )
        for i in range(3)
    ]
    torch.testing.assert_close(MultipleChoiceLoss()(**batch), torch.stack(alone).mean())


@pytest.mark.parametrize("options", [1, 2, 5])
def test_equal_options_give_ln_of_their_number(options: int) -> None:
    loss = MultipleChoiceLoss()(torch.ones(2, 3), torch.ones(2 * options, 3), torch.zeros(2, 1, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(options), abs=1e-6)


def test_the_answer_counts() -> None:
    video, text = torch.tensor([[10.0, 0.0]]), torch.eye(2)
    assert MultipleChoiceLoss()(video, text, torch.tensor([[0]])).item() == pytest.approx(0, abs=1e-3)
    assert MultipleChoiceLoss()(video, text, torch.tensor([[1]])).item() == pytest.approx(10, abs=1e-3)


def test_temperature_and_cosines() -> None:
    batch = questions()
    scaled = batch | {"pooled_video": 2 * batch["pooled_video"]}
    torch.testing.assert_close(MultipleChoiceLoss(temperature=0.5)(**batch), MultipleChoiceLoss()(**scaled))
    cosine = MultipleChoiceLoss(normalize=True)
    torch.testing.assert_close(cosine(**batch), cosine(**scaled))


def test_options_that_only_fill_up_a_question_do_not_compete() -> None:
    batch = questions(2, 4)
    batch["answers"] = torch.tensor([[1], [3]])
    mask = torch.tensor([True, True, False, False, True, True, True, True])
    filled = MultipleChoiceLoss()(**batch, option_mask=mask)
    text = batch["pooled_text"].requires_grad_()
    alone = [
        MultipleChoiceLoss()(batch["pooled_video"][:1], text[:2], batch["answers"][0]),
        MultipleChoiceLoss()(batch["pooled_video"][1:], text[4:], batch["answers"][1]),
    ]
    torch.testing.assert_close(filled, torch.stack(alone).mean())
    MultipleChoiceLoss()(**batch, option_mask=mask).backward()
    assert torch.isfinite(text.grad).all() and not text.grad[2:4].any()


def test_what_does_not_fit_is_refused() -> None:
    batch = questions()
    for key, value in (("pooled_text", batch["pooled_text"][:-1]), ("answers", batch["answers"][:2])):
        with pytest.raises(ValueError, match="3 videos with"):
            MultipleChoiceLoss()(**{**batch, key: value})
