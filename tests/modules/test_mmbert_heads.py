"""Heads of masked modelling: each score against a plain loop, gradients, precision, and the names of the entries."""

import math

import pytest
import torch
from torch import nn

from mmpt.modules.bert import BertConfig
from mmpt.modules.lm_head import LMHead
from mmpt.modules.mmbert_heads import MMBertForMFMMLM, MMBertForMTM
from mmpt.utils.errors import CheckpointError

CONFIG = BertConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=11,
    max_position_embeddings=20,
    input_dim=6,
    max_video_len=4,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


@pytest.fixture(params=[MMBertForMFMMLM, MMBertForMTM])
def encoder(request) -> MMBertForMFMMLM:
    torch.manual_seed(0)
    built = request.param(CONFIG)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built.double().eval()  # in training the scores are put off


def inputs(frames: int = 3, words: int = 4, candidates: int = 5, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((frames, 8), (words, 8), (frames, 6), (candidates, 6))
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def transformed(head, vector: list[float]) -> list[float]:
    """Linear, gelu and LayerNorm of one vector, number by number."""
    weight, bias = head.transform.dense.weight.tolist(), head.transform.dense.bias.tolist()
    hidden = [sum(w * x for w, x in zip(row, vector, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    hidden = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in hidden]
    mean = sum(hidden) / len(hidden)
    spread = math.sqrt(sum((x - mean) ** 2 for x in hidden) / len(hidden) + 1e-12)
    scale, shift = head.transform.LayerNorm.weight.tolist(), head.transform.LayerNorm.bias.tolist()
    return [(x - mean) / spread * s + b for x, s, b in zip(hidden, scale, shift, strict=True)]


def test_scores_equal_a_plain_loop(encoder) -> None:
    frames, words, targets, candidates = inputs()
    scores = encoder.masked_scores(frames, words, targets, candidates)
    assert scores.video.dtype == scores.text.dtype == torch.float32
    head = encoder.head
    projected = {"target": encoder.videomlp(targets).tolist(), "other": encoder.videomlp(candidates).tolist()}
    vocabulary = encoder.bert.embeddings.word_embeddings.weight.tolist()
    bias = head.bias.tolist() if encoder.lm_bias else [0.0] * 11
    joint = isinstance(encoder, MMBertForMTM)

    def dot(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    for row, vector in enumerate(frames.tolist()):
        hidden = transformed(head, vector)
        wanted = [dot(hidden, projected["target"][row])] + [dot(hidden, other) for other in projected["other"]]
        if joint:
            wanted += [dot(hidden, word) for word in vocabulary]
        torch.testing.assert_close(scores.video[row].double(), torch.tensor(wanted).double(), atol=1e-4, rtol=1e-5)
    for row, vector in enumerate(words.tolist()):
        hidden = transformed(head, vector)
        wanted = [dot(hidden, word) + b for word, b in zip(vocabulary, bias, strict=True)]
        if joint:
            wanted += [dot(hidden, other) for other in projected["other"]]
        torch.testing.assert_close(scores.text[row].double(), torch.tensor(wanted).double(), atol=1e-4, rtol=1e-5)


def test_gradients_flow_through_targets_and_candidates(encoder) -> None:
    frames, words, targets, candidates = (tensor.requires_grad_() for tensor in inputs())
    encoder.masked_scores(frames, words, targets, candidates).video[:, :6].exp().mean().backward()
    for tensor in (frames, targets, candidates):
        assert tensor.grad is not None and (tensor.grad.abs().sum(1) > 0).all()
    assert encoder.videomlp.linear1.weight.grad.abs().sum() > 0

    # d(h . e+)/d(target) is the transformed frame, through the projection
    targets.grad = None
    encoder.masked_scores(frames, words, targets, candidates).video[:, 0].sum().backward()
    got = targets.grad.clone()
    targets.grad = None
    hidden = encoder.head.transform(frames).detach()
    (encoder.videomlp(targets) * hidden).sum().backward()
    torch.testing.assert_close(got, targets.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("frames", "words", "candidates"), [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
def test_nothing_masked_gives_empty_scores_with_gradients(encoder, frames: int, words: int, candidates: int) -> None:
    scores = encoder.masked_scores(*inputs(frames, words, candidates))
    extra = 11 if isinstance(encoder, MMBertForMTM) else 0
    assert scores.video.shape == (frames, 1 + candidates + extra)
    assert scores.text.shape == (words, 11 + (candidates if extra else 0))
    (scores.video.sum() + scores.text.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_scores_are_of_single_precision_under_autocast(encoder) -> None:
    encoder = encoder.float()
    given = [50 * tensor for tensor in inputs(dtype=torch.float32)]
    plain = encoder.masked_scores(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder.masked_scores(*given)
    for one, other in zip(plain, mixed, strict=True):
        assert other.dtype == torch.float32
        # inputs of the products are rounded once, to 8 bits; the products and their sums are not
        assert len(other.unique()) == other.numel() and not torch.equal(other, other.bfloat16().float())
        torch.testing.assert_close(one, other, atol=0.05 * one.abs().max().item(), rtol=0)


def test_entries_have_the_published_names_and_share_the_embeddings() -> None:
    def names(built: nn.Module) -> list[str]:
        prefix = "cls.predictions."
        return sorted(key.removeprefix(prefix) for key in built.state_dict() if key.startswith(prefix))

    transform = [f"transform.{part}.{kind}" for part in ("LayerNorm", "dense") for kind in ("bias", "weight")]
    mtm, mfmmlm = MMBertForMTM(CONFIG), MMBertForMFMMLM(CONFIG)
    assert names(mtm) == ["decoder.weight", *transform]
    assert names(mfmmlm) == ["bias", "decoder.bias", "decoder.weight", *transform]
    for built in (mtm, mfmmlm):
        head = built.head
        assert head.decoder.weight is built.bert.embeddings.word_embeddings.weight
        for moved in (built.half(), built.float()):
            assert moved.head.decoder.weight is moved.bert.embeddings.word_embeddings.weight
    assert mfmmlm.head.decoder.bias is mfmmlm.head.bias


def test_a_new_head_keeps_the_embeddings_that_it_shares() -> None:
    embedding = nn.Embedding(11, 8, padding_idx=0)
    before = embedding.weight.detach().clone()
    head = LMHead(CONFIG, embedding, bias=True)
    assert torch.equal(embedding.weight, before) and (head.bias == 0).all()
    assert (head.transform.dense.bias == 0).all() and head.transform.LayerNorm.eps == CONFIG.layer_norm_eps
    hidden = torch.randn(2, 3, 8)
    head.bias.data[:] = torch.arange(11.0)
    wanted = head.transform(hidden) @ embedding.weight.T + torch.arange(11.0)
    torch.testing.assert_close(head(hidden), wanted)


@pytest.mark.parametrize("with_decoder", [True, False])
def test_the_head_of_a_pretrained_bert_is_taken_over_where_there_is_one(encoder, with_decoder: bool) -> None:
    torch.manual_seed(5)
    donor = MMBertForMFMMLM(CONFIG)
    nn.init.normal_(donor.head.bias)
    nn.init.normal_(donor.head.transform.dense.weight)
    bert = dict(donor.bert.state_dict())
    head = {"cls.predictions." + key: value for key, value in donor.head.state_dict().items()}
    if not with_decoder:
        head = {key: value for key, value in head.items() if ".decoder." not in key}
    encoder.float().load_pretrained({**bert, **head, "cls.seq_relationship.bias": torch.zeros(2)}, "model.bin")
    assert torch.equal(encoder.head.transform.dense.weight, donor.head.transform.dense.weight)
    assert torch.equal(encoder.head.decoder.weight, donor.bert.embeddings.word_embeddings.weight)
    assert encoder.head.decoder.weight is encoder.bert.embeddings.word_embeddings.weight
    if encoder.lm_bias:
        assert torch.equal(encoder.head.decoder.bias, donor.head.bias)
    before = encoder.head.transform.dense.weight.clone()
    encoder.load_pretrained(bert, "model.bin")
    assert torch.equal(encoder.head.transform.dense.weight, before)
    del head["cls.predictions.transform.dense.bias"]
    with pytest.raises(CheckpointError, match=r"model\.bin.*1 missing keys: transform\.dense\.bias"):
        encoder.load_pretrained({**bert, **head}, "model.bin")
