"""Masked modelling: the published loss, worked examples, and batches in which nothing is masked."""

import math

import numpy as np
import pytest
import torch

from mmpt.losses import MFMMLM, MTM
from mmpt.utils.files import REPOSITORY

LABELS = torch.tensor([[-100, 3, -100], [0, -100, -100]])


def scores(frames: int = 2, words: int = 2, candidates: int = 4, vocabulary: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = 3 * torch.randn(frames, 1 + candidates + vocabulary, generator=generator)
    text = 3 * torch.randn(words, vocabulary + candidates, generator=generator)
    return {"video_logits": video.requires_grad_(), "text_logits": text.requires_grad_()}


def surprise(row: torch.Tensor, target: int, extra: tuple[float, ...] = ()) -> float:
    """Minus the log probability of one column, in plain Python."""
    values = [*row.tolist(), *extra]
    return math.log(sum(math.exp(value) for value in values)) - values[target]


def test_mtm_equals_the_published_implementation() -> None:
    with np.load(REPOSITORY / "tests/data/mmpt_vlm.npz") as file:
        video, text, labels, wanted = (
            torch.from_numpy(file[name])
            for name in (
                "MMFusionMTM.train.video_logits",
                "MMFusionMTM.train.text_logits",
                "in.text_label",
                "MMFusionMTM.train.loss",
            )
        )
    got = MTM()(video, text, labels, caps=None)
    assert abs(got - wanted) <= 1e-5 * max(1, wanted.abs())
    assert MTM(pad_with_zero=False)(video, text, labels) < got


def test_mtm_is_the_mean_over_frames_and_tokens() -> None:
    given = scores()
    video, text = given["video_logits"], given["text_logits"]
    frames = surprise(video[0], 0) + surprise(video[1], 0)
    padded = surprise(text[0], 3, (0.0,)) + surprise(text[1], 0, (0.0,))
    plain = surprise(text[0], 3) + surprise(text[1], 0)
    assert MTM()(**given, text_label=LABELS).item() == pytest.approx((frames + padded) / 4, rel=1e-5)
    assert MTM(pad_with_zero=False)(**given, text_label=LABELS).item() == pytest.approx((frames + plain) / 4, rel=1e-5)


def test_mfmmlm_is_the_sum_of_two_means() -> None:
    given = scores(frames=3)
    video, text = given["video_logits"], given["text_logits"]
    frames = sum(surprise(row, 0) for row in video) / 3
    tokens = (surprise(text[0], 3) + surprise(text[1], 0)) / 2
    assert MFMMLM()(**given, text_label=LABELS).item() == pytest.approx(frames + tokens, rel=1e-5)


@pytest.mark.parametrize("loss", [MTM(), MTM(pad_with_zero=False), MFMMLM()])
@pytest.mark.parametrize(("frames", "words", "candidates"), [(0, 2, 4), (2, 0, 4), (0, 0, 4), (0, 0, 0)])
def test_batches_in_which_nothing_is_masked(loss, frames: int, words: int, candidates: int) -> None:
    given = scores(frames, words, candidates)
    labels = LABELS if words else torch.full((2, 3), -100)
    value = loss(**given, text_label=labels)
    assert value.shape == () and torch.isfinite(value) and (value > 0) == (frames + words > 0)
    value.backward()
    assert all(tensor.grad is not None and torch.isfinite(tensor.grad).all() for tensor in given.values())


@pytest.mark.parametrize("loss", [MTM(), MFMMLM()])
def test_half_precision_scores_are_computed_in_single_precision(loss) -> None:
    given = {name: (100 * tensor).detach() for name, tensor in scores().items()}
    half = {name: tensor.bfloat16() for name, tensor in given.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(**half, text_label=LABELS)
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(**{name: tensor.float() for name, tensor in half.items()}, text_label=LABELS))


@pytest.mark.parametrize("loss", [MTM(), MFMMLM()])
def test_labels_and_scores_must_agree(loss) -> None:
    with pytest.raises(ValueError, match="3 labelled tokens, but scores of 2"):
        loss(**scores(), text_label=torch.tensor([[1, 2, 3]]))
