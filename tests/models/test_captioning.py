"""Captioning: training and generation compute the same, videos are encoded once, and what is learnt is written."""

import itertools

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mmpt.losses import NLGLoss
from mmpt.models.base import VideoTextModel
from mmpt.models.captioning import PROMPT_LENGTH, MMFusionNLG
from mmpt.models.vlm import MMFusionMTM
from mmpt.modules.attention_masks import joint_token_types, text_generation_mask
from mmpt.modules.masking import shift_for_generation
from mmpt.utils.checkpoint import load_into, reconcile
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.tokenizers import SpecialIds

CLS, SEP, PAD = 2, 3, 0
IDS = SpecialIds(CLS, SEP, PAD, 4)
Batch = dict[str, torch.Tensor]


def build(seed: int = 0, std: float = 0.3, **model) -> MMFusionNLG:
    torch.manual_seed(seed)
    config = OmegaConf.merge(MMFusionNLG.tiny_config(), {"model": {"input_dim": 6, **model}})
    built = MMFusionNLG(config)
    for parameter in built.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=std)
    nn.init.normal_(built.mm_encoder.cls["predictions"].bias)
    return built.eval()


def videos(lengths: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(3)
    vmasks = torch.arange(8)[None] < torch.tensor(lengths)[:, None]
    # What lies under padding must not matter, whatever it is.
    vfeats = torch.randn(len(lengths), 8, 6, generator=generator).masked_fill(~vmasks[..., None], torch.nan)
    return {"vfeats": vfeats, "vmasks": vmasks}


def texts(words: list[list[int]]) -> Batch:
    caps = torch.full((len(words), 16), PAD)
    for row, ids in zip(caps, words, strict=True):
        row[: len(ids) + 3] = torch.tensor([CLS, SEP, *ids, SEP])
    inputs, labels = (torch.from_numpy(array) for array in shift_for_generation(caps.numpy(), IDS))
    return {"caps": inputs, "text_label": labels, "cmasks": caps != PAD}


WORDS = [[7, 9, 9, 20], [11], list(range(20, 33)), [40, 41, 42, 43, 44, 45]]


def batch() -> Batch:
    return {**videos([5, 8, 1, 3]), **texts(WORDS)}


def test_one_word_at_a_time_gives_the_scores_of_the_whole_sequence() -> None:
    model, given = build(), batch()
    with torch.no_grad():
        wanted = model(**given)["logits"]
        vfeats, vmasks = model.clean_video(given["vfeats"], given["vmasks"])
        mask = nn.functional.pad(vmasks, (1, 1), value=True)
        state = model.mm_encoder.begin(torch.tensor([[CLS, SEP]] * 4), vfeats, mask)
        assert state.words == 0 and state.cache.length == 10
        steps = [model.mm_encoder.next_word(given["caps"][:, position], state) for position in range(2, 16)]
    labelled = given["text_label"] != -100
    torch.testing.assert_close(torch.stack(steps, 1)[labelled[:, 2:]], wanted, atol=1e-5, rtol=1e-5)
    assert len(wanted) == sum(len(words) + 1 for words in WORDS) and wanted.dtype == torch.float32


def test_scores_are_those_of_the_full_sequence_under_the_generation_mask() -> None:
    model, given = build(length_groups=1), batch()
    mask = text_generation_mask(given["vmasks"], given["cmasks"])
    vfeats, _ = model.clean_video(given["vfeats"], given["vmasks"])
    with torch.no_grad():
        states = model.mm_encoder(given["caps"], vfeats, mask, joint_token_types(8, 16)).last_hidden_state
        wanted = model.mm_encoder.cls["predictions"](states[:, 8:])[given["text_label"] != -100]
        outputs = model(**given)["logits"]
        told = model(**given, attention_mask=mask)["logits"]
        unlabelled = model(**{key: value for key, value in given.items() if key != "text_label"})["logits"]
    for found in (outputs, told, unlabelled):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    bent = {**given, "attention_mask": mask.tril()}
    assert not torch.allclose(model(**bent)["logits"], wanted, atol=1e-3)


def test_a_word_depends_on_the_video_and_on_earlier_words_alone() -> None:
    model, given = build(), batch()
    label = torch.full_like(given["text_label"], -100)
    label[3, 5] = 1  # what follows w3 of the last text
    with torch.no_grad():
        before = model(**{**given, "text_label": label})["logits"]
        for position, changes in ((4, True), (5, True), (6, False), (9, False)):
            caps = given["caps"].clone()
            caps[3, position] = 60
            after = model(**{**given, "caps": caps, "text_label": label})["logits"]
            assert torch.allclose(before, after, atol=1e-6) != changes
        vfeats = given["vfeats"].clone()
        vfeats[3, 2] += 1
        assert not torch.allclose(before, model(**{**given, "vfeats": vfeats, "text_label": label})["logits"])


class Count:
    """Counts what passes through a model: videos projected, positions of each call of the encoder."""

    def __init__(self, model: MMFusionNLG) -> None:
        self.projected: list[tuple[int, ...]] = []
        self.encoded: list[tuple[int, ...]] = []
        encoder = model.mm_encoder
        encoder.videomlp.register_forward_hook(lambda m, args, out: self.projected.append(tuple(out.shape[:2])))
        encoder.bert.encoder.layer[0].register_forward_hook(
            lambda m, args, out: self.encoded.append(tuple(args[0].shape[:2]))
        )


@pytest.mark.parametrize("beams", [1, 3])
def test_a_video_is_encoded_once_and_every_step_one_word_per_beam(beams: int) -> None:
    model = build()
    count = Count(model)
    given = videos([2, 4, 3])
    model.generate(**given, options={"num_beams": beams, "min_length": 9})
    assert count.projected == [(3, 4)]  # the three videos, as long as the longest
    assert count.encoded[0] == (3, 6) and count.encoded[1] == (3, 1)
    assert count.encoded[2:] == [(3 * beams, 1)] * (model.max_new_tokens - 1)


def test_greedy_follows_the_likeliest_word_of_the_whole_sequence() -> None:
    model, given = build(), videos([5, 8, 1, 3])
    written = model.generate(**given)
    for row, ids in enumerate(written):
        one = {key: value[row : row + 1] for key, value in given.items()}
        for length in range(min(len(ids) + 1, model.max_new_tokens)):
            logits = model(**one, **texts([ids[:length]]))["logits"]
            assert int(logits[length].argmax()) == (ids[length] if length < len(ids) else SEP)
    assert len({tuple(ids) for ids in written}) > 1


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"num_beams": 3, "length_penalty": 0.0}, {"do_sample": True}]
)
def test_a_text_scores_what_training_says_of_its_labels(options: dict) -> None:
    model, given = build(std=0.15), videos([5, 8, 1, 3])
    nn.init.constant_(model.mm_encoder.cls["predictions"].bias[PAD : PAD + 1], -99.0)  # no text is trained to have it
    found = model.generate_hypotheses(**given, options=options)
    labelled = texts([text.ids for text in found])
    with torch.no_grad():
        logits = model(**given, **labelled)["logits"]
    labels = labelled["text_label"]
    words = labels[labels != -100]
    likelihoods = logits.log_softmax(-1).gather(1, words[:, None])[:, 0].split([len(text.ids) + 1 for text in found])
    for text, parts in zip(found, likelihoods, strict=True):
        total = parts.sum() if text.finished else parts[:-1].sum()
        length = (PROMPT_LENGTH + len(text.ids)) ** options.get("length_penalty", 1.0)
        assert text.score == pytest.approx(float(total) / length, abs=1e-4)
    assert len({tuple(text.ids) for text in found}) > 1


def test_beam_search_finds_the_best_of_all_texts() -> None:
    model, given = build(std=0.15, max_decode_length=5), videos([5, 2])
    assert model.max_new_tokens == 2
    others = [word for word in range(64) if word != SEP]
    candidates = [[SEP], *([word, SEP] for word in others), *map(list, itertools.product(others, repeat=2))]
    with torch.no_grad():
        found = model.generate_hypotheses(**given, options={"num_beams": 64, "early_stopping": "never"})
        for row, hypothesis in enumerate(found):
            video = {key: value[row : row + 1].repeat_interleave(len(others) + 1, 0) for key, value in given.items()}
            caps = torch.tensor([[CLS, SEP, CLS, word] for word in [*others, PAD]])
            label = torch.tensor([[-100, -100, 1, 1]]).expand(len(caps), -1)
            logits = model(caps, torch.ones_like(caps), **video, text_label=label)["logits"]
            first, second = logits.view(-1, 2, 64).log_softmax(-1).unbind(1)

            def score(ids: list[int], first=first, second=second) -> float:
                total = first[0, ids[0]]
                if len(ids) > 1:
                    total = total + second[others.index(ids[0]), ids[1]]
                return float(total) / (PROMPT_LENGTH + sum(word != SEP for word in ids))

            best = max(candidates, key=score)
            assert hypothesis.ids == [word for word in best if word != SEP]
            assert hypothesis.score == pytest.approx(score(best), abs=1e-5)


@pytest.mark.parametrize("options", [None, {"num_beams": 4}, {"do_sample": True, "seed": 8}])
def test_a_batch_of_videos_of_several_lengths_is_written_about_as_one_by_one(options, monkeypatch) -> None:
    model, given = build(), videos([5, 8, 1, 3, 4])
    together = model.generate(**given, options=options)
    assert together == model.generate(**given, options=options)
    if options and options.get("do_sample"):
        assert together != model.generate(**given, options={**options, "seed": 9})
    else:
        alone = [
            model.generate(given["vfeats"][row : row + 1], given["vmasks"][row : row + 1], options)[0]
            for row in range(5)
        ]
        assert together == alone
    monkeypatch.setattr("mmpt.models.caption_writer._ROWS", 8)  # in parts
    assert model.generate(**given, options=options) == together


def test_generation_leaves_mode_and_gradients_as_they_were() -> None:
    model, given = build(), videos([5, 3])
    wanted = model.generate(**given)
    model.train()
    assert model.generate(**given) == wanted and model.training and model.mm_encoder.videomlp.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_learnt_is_written() -> None:
    model, given = build(std=0.05), batch()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model.train()
    words = [words[:9] for words in WORDS]
    given |= texts(words)
    for _ in range(60):
        optimizer.zero_grad()
        loss = NLGLoss()(**{**given, **model(**given)})
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2
    rows = {key: given[key] for key in ("vfeats", "vmasks")}
    assert model.generate(**rows) == words == model.generate(**rows, options={"num_beams": 3})
    assert all(hypothesis.finished for hypothesis in model.generate_hypotheses(**rows))


@pytest.mark.parametrize(("asked", "given"), [(None, 10), (8, 5), (24, 10)])
def test_the_greatest_length_counts_the_three_prompt_ids(asked: int | None, given: int) -> None:
    model = build(max_decode_length=asked)
    assert model.max_new_tokens == given
    endless = model.generate_hypotheses(**videos([3]), options={"min_length": 99})[0]
    assert len(endless.ids) == given and not endless.finished


def test_wrong_keys_are_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.max_decode_length: 3 .* leaves no room"):
        build(max_decode_length=3)
    with pytest.raises(ConfigError, match=r"model\.mm_encoder_cls: MMBertForMTM writes no text; use MMBertForNLG"):
        build(mm_encoder_cls="MMBertForMTM")
    with pytest.raises(ConfigError, match=r"gen_param\.beams: unknown key"):
        build().generate(**videos([3]), options={"beams": 3})


def test_training_starts_from_vlm_and_a_test_needs_every_weight() -> None:
    torch.manual_seed(0)
    vlm = MMFusionMTM(OmegaConf.merge(MMFusionMTM.tiny_config(), {"model": {"input_dim": 6, "use_seg_emb": True}}))
    model = build()
    pretrained = dict(vlm.state_dict())
    with pytest.raises(CheckpointError, match=r"2 missing keys: mm_encoder\.cls\.predictions\.bias"):
        load_into(model, pretrained)
    state = {"mmmodel." + key: value.clone() for key, value in pretrained.items()}
    own = {"mmmodel." + key: value for key, value in model.state_dict().items()}
    kept = (*model.allow_missing, *model.new_heads)
    reconcile(state, own, prefix="mmmodel.", allow_missing=kept, allow_unexpected=model.allow_unexpected)
    assert set(state) == set(own)
    model.load_state_dict({key.removeprefix("mmmodel."): value for key, value in state.items()})
    head = model.mm_encoder.cls["predictions"]
    assert torch.equal(head.decoder.weight, vlm.mm_encoder.cls["predictions"].decoder.weight)
    assert head.decoder.weight is model.mm_encoder.bert.embeddings.word_embeddings.weight
    with_segments = build(use_seg_emb=True)
    load_into(with_segments, model.state_dict())
    load_into(model, {**with_segments.state_dict(), "mm_encoder.bert.embeddings.position_ids": torch.arange(64)[None]})


def test_entries_are_those_of_the_published_layout() -> None:
    model = build(use_seg_emb=True)
    heads = {key for key in model.state_dict() if ".cls." in key}
    layers = ("transform.dense", "transform.LayerNorm")
    wanted = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert {key.removeprefix("mm_encoder.cls.predictions.") for key in heads} == {
        *wanted,
        "bias",
        "decoder.weight",
        "decoder.bias",
    }
    assert len(model.state_dict()) == 69
    assert isinstance(model, VideoTextModel) and "retrieval" not in model.capabilities
