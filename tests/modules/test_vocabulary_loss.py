"""Scores that are put off, and their cross entropy in chunks, against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.losses.generic import CrossEntropy, NLGLoss, accuracy, summed_cross_entropy
from mmpt.modules.bert import BertConfig
from mmpt.modules.lm_head import LMHead
from mmpt.modules.masking import IGNORED
from mmpt.modules.vocabulary_loss import VocabularyScores


class Largest(TorchDispatchMode):
    """Records how many numbers the largest tensor has that an operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else (made,):
            if isinstance(value, Tensor):
                self.numbers = max(self.numbers, value.numel())
        return made


def deferred(
    rows: int,
    bias: bool = True,
    others: int = 0,
    first: bool = False,
    seed: int = 0,
    words: int = 11,
    dtype=torch.float64,
) -> tuple[VocabularyScores, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    scores = VocabularyScores(
        leaf(rows, 5),
        leaf(words, 5),
        leaf(words) if bias else None,
        leaf(rows, others) if others else None,
        others_first=first,
    )
    targets = torch.randint(words + others, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < 0.2] = IGNORED
    return scores, targets


def leaves(scores: VocabularyScores) -> list[Tensor]:
    return [x for x in (scores.states, scores.weight, scores.bias, scores.others) if x is not None]


@given(
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 3),
    st.booleans(),
    st.integers(1, 99),
    st.integers(0, 99),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_loss_best_class_and_gradients_equal_the_plain_ones(
    rows: int, bias: bool, others: int, first: bool, chunk: int, seed: int, double: bool
) -> None:
    scores, targets = deferred(rows, bias, others, first, seed, dtype=torch.float64 if double else torch.float32)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if double else {"rtol": 1e-5, "atol": 1e-5}
    whole = scores.scores()
    plain = F.cross_entropy(whole, targets, ignore_index=IGNORED, reduction="sum")
    wanted = torch.autograd.grad(3 * plain, leaves(scores))
    total = scores.cross_entropy(targets, chunk_scores=chunk)
    torch.testing.assert_close(total, plain, **tolerance)
    assert torch.equal(scores.best(), whole.argmax(1))
    for mine, theirs in zip(torch.autograd.grad(3 * total, leaves(scores)), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.parametrize("chunk", [2000, 2**24])
@pytest.mark.parametrize("others", [0, 7])
def test_no_more_scores_exist_than_one_chunk(chunk: int, others: int) -> None:
    scores, targets = deferred(300, others=others, words=200)
    with Largest() as largest:
        scores.cross_entropy(targets, chunk_scores=chunk).backward()
    assert largest.numbers == min(chunk, 300 * 200) + (100 if others and chunk == 2000 else 0)


def test_the_accuracy_of_a_loss_scores_nothing_again() -> None:
    scores, targets = deferred(300, words=200)
    wanted = accuracy(scores.scores(), targets)
    assert torch.equal(accuracy(deferred(300, words=200)[0], targets), wanted)  # without a loss before it
    with Largest() as largest:
        loss = CrossEntropy()(scores, targets)
    assert largest.numbers == 60_000
    with Largest() as largest:
        got = CrossEntropy().measures(scores, targets)["accuracy"]
    assert torch.equal(got, wanted) and largest.numbers == 300
    torch.testing.assert_close(loss, F.cross_entropy(scores.scores(), targets))


@pytest.mark.parametrize("chunk", [11, 2**24])
def test_a_mean_over_nothing_gives_every_weight_a_gradient_of_zeros(chunk: int) -> None:
    none, _ = deferred(0, others=2)
    ignored, _ = deferred(3, others=2)
    for scores in (none, ignored):
        total = scores.cross_entropy(torch.full((len(scores),), IGNORED), chunk_scores=chunk)
        assert total == 0
        for value, gradient in zip(leaves(scores), torch.autograd.grad(total, leaves(scores)), strict=True):
            assert torch.equal(gradient, torch.zeros_like(value))


def test_shared_embeddings_get_the_gradients_of_both_uses() -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(13, 8)
    head = LMHead(BertConfig(vocab_size=13, hidden_size=8), embedding, bias=True)
    ids, label = torch.tensor([[3, 4, 5, 3]]), torch.tensor([[IGNORED, 7, 1, IGNORED]])
    found = []
    for training in (True, False):
        head.train(training).zero_grad()
        embedding.zero_grad()
        logits = head.tell(embedding(ids)[label != IGNORED])
        assert isinstance(logits, VocabularyScores if training else Tensor)
        loss = NLGLoss()(logits, label)
        loss.backward()
        found.append([loss, *(parameter.grad.clone() for parameter in head.parameters())])
    assert head.decoder.weight is embedding.weight
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("chunk", [11, 2**24])
def test_half_precision_and_autocast_are_computed_in_single_precision(chunk: int) -> None:
    scores, targets = deferred(6, others=2)
    half = VocabularyScores(
        *((60 * value.detach()).bfloat16().requires_grad_() for value in (scores.states, scores.weight, scores.bias)),
        scores.others.detach().float(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = half.cross_entropy(targets, chunk_scores=chunk)
        got = torch.autograd.grad(total, (half.states, half.weight, half.bias))
    assert total.dtype == torch.float32 and {value.dtype for value in got} == {torch.bfloat16}
    plain = F.cross_entropy(half.scores(), targets, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(total, plain)
    wanted = torch.autograd.grad(plain, (half.states, half.weight, half.bias))
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-4)  # rounded to bfloat16 at the end


def test_scores_of_hundreds_do_not_overflow() -> None:
    scores, targets = deferred(6)
    large = VocabularyScores(scores.states.detach() * 1000, scores.weight.detach())
    torch.testing.assert_close(
        large.cross_entropy(targets), F.cross_entropy(large.scores(), targets, ignore_index=IGNORED, reduction="sum")
    )


def test_a_second_backward_pass_is_right_or_refused() -> None:
    scores, targets = deferred(6)
    total = scores.cross_entropy(targets)
    first = torch.autograd.grad(2 * total, leaves(scores), retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(2 * total, leaves(scores)), strict=True):
        assert torch.equal(one, other)
    total = scores.cross_entropy(targets, chunk_scores=22)
    (2 * total).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        (2 * total).backward()


def test_nothing_is_kept_without_gradients_or_for_weights_that_are_frozen() -> None:
    scores, targets = deferred(4)
    with torch.no_grad():
        assert not scores.cross_entropy(targets).requires_grad
    frozen = VocabularyScores(scores.states, scores.weight.detach())
    for chunk in (11, 2**24):
        (of_states,) = torch.autograd.grad(frozen.cross_entropy(targets, chunk_scores=chunk), [frozen.states])
        assert of_states.abs().sum() > 0


def test_targets_must_be_as_many_as_rows() -> None:
    scores, targets = deferred(4)
    with pytest.raises(ValueError, match="4 rows do not fit 3 targets"):
        summed_cross_entropy(scores, targets[:3])


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("beyond", [0, -1, -99])
def test_a_target_that_is_no_class_is_refused(others: int, first: bool, beyond: int) -> None:
    told = VocabularyScores(
        torch.randn(2, 4), torch.randn(5, 4), others=torch.randn(2, others) if others else None, others_first=first
    )
    wrong = 5 + others if beyond == 0 else beyond
    with pytest.raises(ValueError, match=f"target {wrong} is none of {5 + others} classes"):
        told.cross_entropy(torch.tensor([0, wrong]))
