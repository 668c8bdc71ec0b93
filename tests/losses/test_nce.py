"""NCE and MIL-NCE: worked examples, the published equation term by term, and what may not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.losses.contrastive import V2TContraLoss
from mmpt.losses.nce import NCE, MILNCELoss
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build


def clips(count: int = 4, candidates: int = 3, size: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pooled_video": torch.randn(count, size, generator=generator),
        "pooled_text": torch.randn(count * candidates, size, generator=generator),
    }


def equation_one(video: np.ndarray, text: np.ndarray, candidates: int) -> float:
    """Equation 1 of arXiv:1912.06430, pair by pair."""
    total = 0.0
    for i in range(len(video)):
        positive = sum(math.exp(video[i] @ text[i * candidates + c]) for c in range(candidates))
        negative = 0.0
        for j in range(len(video)):
            if j != i:
                for c in range(candidates):
                    negative += math.exp(video[i] @ text[j * candidates + c])
                    negative += math.exp(video[j] @ text[i * candidates + c])
        total -= math.log(positive / (positive + negative))
    return total / len(video)


@pytest.mark.parametrize(("count", "candidates"), [(1, 1), (2, 1), (4, 3), (3, 5)])
def test_mil_nce_is_equation_one(count: int, candidates: int) -> None:
    batch = clips(count, candidates)
    video, text = (batch[key].double().numpy() for key in ("pooled_video", "pooled_text"))
    assert MILNCELoss()(**batch).item() == pytest.approx(equation_one(video, text, candidates), abs=1e-5)


@pytest.mark.parametrize(("count", "candidates"), [(1, 4), (2, 1), (8, 4)])
def test_a_uniform_batch_gives_ln_2b_minus_1(count: int, candidates: int) -> None:
    loss = MILNCELoss()(torch.ones(count, 3), torch.ones(count * candidates, 3))
    assert loss.item() == pytest.approx(math.log(2 * count - 1), abs=1e-5)


def test_one_fitting_candidate_is_enough() -> None:
    # Each clip's first candidate fits it alone; its second is orthogonal to everything.
    video = 20.0 * torch.eye(3)
    text = torch.zeros(6, 3)
    text[::2] = torch.eye(3)
    assert MILNCELoss()(video, text).item() == pytest.approx(0.0, abs=1e-5)
    swapped = text[[2, 3, 0, 1, 4, 5]]  # the candidates of the first two clips change places
    assert MILNCELoss()(video, swapped).item() > 10


def test_the_order_of_candidates_and_of_clips_does_not_matter() -> None:
    batch = clips(4, 3)
    loss = MILNCELoss()(**batch)
    text = batch["pooled_text"].unflatten(0, (4, 3))
    torch.testing.assert_close(MILNCELoss()(batch["pooled_video"], text[:, [2, 0, 1]].flatten(0, 1)), loss)
    order = [3, 1, 0, 2]
    torch.testing.assert_close(MILNCELoss()(batch["pooled_video"][order], text[order].flatten(0, 1)), loss)
    assert not torch.allclose(MILNCELoss()(batch["pooled_video"][order], batch["pooled_text"]), loss)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 5), candidates=st.integers(1, 4), scale=st.sampled_from([0.1, 1.0, 300.0]))
def test_it_is_finite_and_not_negative_and_every_input_has_a_gradient(
    count: int, candidates: int, scale: float
) -> None:
    batch = {key: (scale * value).requires_grad_() for key, value in clips(count, candidates).items()}
    loss = MILNCELoss()(**batch)
    assert torch.isfinite(loss) and loss >= -1e-4 * scale
    loss.backward()
    assert all(torch.isfinite(value.grad).all() for value in batch.values())


def test_temperature_and_cosines_as_in_the_contrastive_losses() -> None:
    batch = clips()
    scaled = {"pooled_video": 3 * batch["pooled_video"], "pooled_text": batch["pooled_text"]}
    torch.testing.assert_close(MILNCELoss(temperature=1 / 3)(**batch), MILNCELoss()(**scaled))
    torch.testing.assert_close(MILNCELoss(normalize=True)(**batch), MILNCELoss(normalize=True)(**scaled))
    with pytest.raises(ConfigError, match=r"loss\.temperature"):
        MILNCELoss(temperature=0)


def test_half_precision_is_computed_in_float32() -> None:
    batch = {key: (4 * value).bfloat16() for key, value in clips(size=64).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = MILNCELoss()(**batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, MILNCELoss()(**{key: value.float() for key, value in batch.items()}))


def test_texts_that_do_not_divide_among_the_videos_are_refused() -> None:
    for videos, texts in ((4, 6), (4, 0), (0, 0)):
        with pytest.raises(ValueError, match=f"{texts} texts cannot be the candidates of {videos} videos"):
            MILNCELoss()(torch.ones(videos, 3), torch.ones(texts, 3))


def test_nce_finds_each_positive_among_the_shared_negatives() -> None:
    scores = torch.tensor([[2.0, 9.0], [0.0, 9.0], [1.0, 9.0], [-1.0, 9.0]])  # the second column does not count
    negatives = math.exp(1) + math.exp(-1)
    expected = sum(math.log((math.exp(s) + negatives) / math.exp(s)) for s in (2.0, 0.0)) / 2
    loss = build("loss", "NCE")(align_scores=scores, caps=None, video_id=["a"])
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert NCE()(torch.zeros(10, 1)).item() == pytest.approx(math.log(6), abs=1e-6)


def test_nce_equals_video_to_text_where_the_negatives_are_the_other_texts() -> None:
    # Two pairs: the only negative of each is the other's text, which both share only if they are equal.
    video, text = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[0.5, 0.1], [0.5, 0.1]])
    scores = torch.cat(((video * text).sum(1), torch.full((2,), -1e9)))
    scores[2] = float(video[0] @ text[1])
    torch.testing.assert_close(NCE()(scores[:, None]), V2TContraLoss()(video, text))


@pytest.mark.parametrize("shape", [(3, 1), (4,), (0, 1), (2, 0)])
def test_scores_that_are_no_pairs_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="align_scores have shape"):
        NCE()(torch.zeros(shape))
