"""LAVENDER against the published numbers, and its tasks against one fusion after another."""

import json
import re
from typing import Any

import pytest
import torch
from frame_goldens import assert_close, fill, frame_golden, golden_bert, golden_config, listed_keys, tensors
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses import LAVENDERLoss
from mmpt.models.cross_modal import States, tiny_cross_modal_config
from mmpt.models.lavender import LAVENDER
from mmpt.modules.masking import IGNORED
from mmpt.optim.options import OptimOptions
from mmpt.optim.parameters import prepare_parameters, scales_of
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.tokenizers import load_tokenizer

# The published groups of parameters, in the keys of the section optim: from nothing, and on top of what decays anyway.
WEIGHT_DECAY = (
    {"*": 1.0, "*bias*": 0.0, "*LayerNorm.weight": 0.0},
    {"enc_img.swin.*norm*.weight": 1.0, "enc_img.norm.weight": 1.0, "*relative_position_bias_table": 0.0},
)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> LAVENDER:
    bert = golden_bert("lavender", tmp_path_factory.mktemp("bert"))
    return fill(LAVENDER(OmegaConf.create(golden_config("lavender", "LAVENDER", bert))))


@pytest.fixture(scope="module")
def tiny(published) -> LAVENDER:
    """A model of small frames with a vocabulary that has words, numbers, "true" and "false"."""
    torch.manual_seed(0)
    config = tiny_cross_modal_config("LAVENDER", dataset={"bert_name": published.sequence.bert_name})
    model = LAVENDER(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def ids(model: LAVENDER, *words: str) -> list[int]:
    return load_tokenizer(model.sequence.bert_name, False).convert_tokens_to_ids(list(words))


def pairs(texts: int, videos: int | None = None, length: int = 8) -> dict[str, Any]:
    """Texts of 3 words and more, padded, with a [MASK] at their end, and videos of one or two frames."""
    generator = torch.Generator().manual_seed(5)
    count = texts if videos is None else videos
    caps = torch.randint(104, 300, (texts, length + 1), generator=generator)
    caps[:, 0], caps[:, -1] = 101, 103
    cmasks = torch.arange(length + 1) < 5 + torch.arange(texts)[:, None] % 4
    cmasks[:, -1] = True
    return {
        "caps": caps.masked_fill(~cmasks, 0),
        "cmasks": cmasks,
        "vfeats": torch.rand(count, 2, 3, 64, 64, generator=generator),
        "vmasks": torch.arange(2) < 1 + torch.arange(count)[:, None] % 2,
    }


def alone(model: LAVENDER, batch: dict[str, Any], video: int, text: int, **pretext: Tensor) -> Tensor:
    """Logits (V,) at the last position of one pair, computed by itself."""
    rows = {key: value[text : text + 1] for key, value in pretext.items()}
    encoded = model.encode_text(batch["caps"][text : text + 1], batch["cmasks"][text : text + 1], **rows)
    clip = model.encode_video(batch["vfeats"][video : video + 1], batch["vmasks"][video : video + 1])
    states = model.fuse(clip, encoded).last_hidden_state[0, -1]
    head = model.fc_mtm["predictions"]
    return F.linear(head.transform(states), head.decoder.weight, head.bias)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "prompt"])
def test_pretraining_is_the_published_one(published, kind) -> None:
    golden = frame_golden("lavender")
    images, caps, mask, label = tensors(golden, "img", "masked_txt", "mask", "ans_mtm")
    label = label.masked_fill(label == -1, IGNORED)
    prompts = torch.from_numpy(golden["pretrain/prompt/prompt/0"]).expand(3, -1)
    outputs = published(
        caps,
        mask,
        images,
        torch.ones(3, 4, dtype=torch.bool),
        objective=["pretraining"] * 3,
        text_label=label,
        negatives=torch.tensor([[2, 1], [2, 0], [0, 1]]),  # the draws of the published run
        **({"prompts": prompts} if kind == "prompt" else {}),
    )
    wanted = {key.split("/")[-1]: value for key, value in golden.items() if key.startswith(f"pretrain/{kind}/")}
    assert_close(outputs["logits"], wanted["out_mtm"][(label != IGNORED).numpy()], "out_mtm")
    assert_close(outputs["match_logits"], wanted["out_vtm"][:, -1], "out_vtm")
    assert outputs["match_label"].tolist() == wanted["ans_vtm"][:, -1].tolist()
    words = LAVENDERLoss()(outputs["logits"], label)
    assert_close(words, wanted["ls_mtm"], "ls_mtm")
    assert_close(LAVENDERLoss()(**{"text_label": label, **outputs}) - words, wanted["ls_vtm"], "ls_vtm")
    true, false = outputs["match_logits"][:, ids(published, "true", "false")].unbind(-1)
    right = (true / (true + false)).view(3, 3).argmax(1) == 0
    assert right.double().mean().item() == pytest.approx(float(wanted["ac_vtm"]))


def test_state_dict_keys_are_the_published_ones(published) -> None:
    """Of this depth; test_cross_modal has the shapes at the base size, of all but emb_task."""
    own, listed = published.state_dict(), listed_keys("lavender")
    assert own.keys() <= listed.keys()
    deeper = r"enc_img\.swin\.layers\.2\.blocks\.\d+\..+|trsfr\.layer\.\d+\..+"
    assert all(re.fullmatch(deeper, key) or key.endswith("position_ids") for key in listed.keys() - own.keys())
    assert own["emb_task"].shape == (listed["emb_task"][0], 64)


@pytest.mark.parametrize("multipliers", WEIGHT_DECAY)
def test_groups_of_parameters_are_the_published_ones(published, multipliers) -> None:
    prepare_parameters(published, OptimOptions(weight_decay_multipliers=multipliers), "mmadamw")
    groups = json.loads(str(frame_golden("lavender")["recipes"]))["opt_groups"]
    decays = {name: group["wd"] for group in groups for name in group["names"]}
    own = {name: 1e-3 * scales_of(parameter)[1] for name, parameter in published.named_parameters()}
    assert own == decays
    assert {group["lr"] for group in groups} == {2e-5}


@torch.no_grad()
def test_prompts_and_task_tokens_stand_before_the_text(tiny) -> None:
    batch = pairs(2)
    caps, cmasks = batch["caps"], batch["cmasks"]
    plain, prompts = tiny.encode_text(caps, cmasks), torch.tensor([[101, 104, 105, 102]])
    prompted = tiny.encode_text(caps, cmasks, prompts=prompts)
    torch.testing.assert_close(prompted.values[:, 4:], plain.values)  # positions begin anew
    torch.testing.assert_close(prompted.values[1, :4], tiny.enc_txt.emb_txt(prompts)[0])
    assert prompted.mask[:, :4].all() and torch.equal(prompted.mask[:, 4:], plain.mask)
    tokened = tiny.encode_text(caps, cmasks, prompts=prompts, task_ids=torch.tensor([2, 0]))
    torch.testing.assert_close(tokened.values[:, 0], tiny.emb_task[[2, 0]])
    torch.testing.assert_close(tokened.values[:, 1:], plain.values)


@torch.no_grad()
def test_a_score_is_the_log_odds_of_true_and_the_published_ratio_ranks_wrongly(tiny, monkeypatch) -> None:
    batch = pairs(3)
    video, text = (
        tiny.encode_video(batch["vfeats"], batch["vmasks"]),
        tiny.encode_text(batch["caps"], batch["cmasks"]),
    )
    logits = torch.stack([alone(tiny, batch, row, row) for row in range(3)])[:, ids(tiny, "true", "false")]
    odds = logits.softmax(-1)
    torch.testing.assert_close(tiny.score_aligned(text, video), (odds[:, 0] / odds[:, 1]).log(), atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(tiny.options, "true_score", "ratio")
    torch.testing.assert_close(tiny.score_aligned(text, video), logits[:, 0] / logits.sum(-1), atol=1e-4, rtol=1e-4)
    # Of negative logits the ratio prefers the pair whose "true" is less likely.
    monkeypatch.setattr(tiny.head, "score", lambda *_: torch.tensor([[-1.0, -3.0], [-3.0, -1.0]]))
    two = States(text.values[:2], text.mask[:2]), States(video.values[:2], video.mask[:2])
    assert tiny.score_aligned(*two).argmax() == 1
    monkeypatch.setattr(tiny.options, "true_score", "difference")
    assert tiny.score_aligned(*two).argmax() == 0


def losses(model: LAVENDER, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = LAVENDERLoss()(**{**batch, **model(**batch)})
    loss.backward()
    return loss.detach(), gradients(model)


def gradients(model: LAVENDER) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def assert_same_training(model: LAVENDER, batch: dict[str, Any], independent: Tensor) -> None:
    model.zero_grad()
    independent.backward()
    wanted = gradients(model)
    loss, got = losses(model, batch)
    torch.testing.assert_close(loss, independent.detach())
    assert {name for name, value in got.items() if value.any()} == {
        name for name, value in wanted.items() if value.any()
    }
    for name, value in wanted.items():
        torch.testing.assert_close(
            got[name], value, atol=2e-6, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_pretraining_trains_as_each_word_and_each_pair_by_itself(tiny) -> None:
    batch = pairs(5)
    label = torch.full_like(batch["caps"], IGNORED)
    label[0, 2], label[0, 3], label[3, 1] = 150, 151, 152
    batch |= {"text_label": label, "objective": ["pretraining"] * 5, "prompts": torch.tensor([[101, 107, 102]] * 5)}
    true, false = ids(tiny, "true", "false")
    words, matches = [], []
    for video in range(5):
        text = tiny.encode_text(batch["caps"][video : video + 1], batch["cmasks"][video : video + 1])
        clip = tiny.encode_video(batch["vfeats"][video : video + 1], batch["vmasks"][video : video + 1])
        logits = tiny.fc_mtm["predictions"](tiny.fuse(clip, text).last_hidden_state[0, -label.shape[1] :])
        words += [F.cross_entropy(logits[at], label[video, at]) for at in (label[video] != IGNORED).nonzero()[:, 0]]
        for step in range(4):  # itself and the next three, in a ring
            logits = alone(tiny, batch, video, (video + step) % 5, prompts=batch["prompts"])
            matches.append(F.cross_entropy(logits, torch.tensor(true if step == 0 else false)))
    assert len(words) == 3
    assert_same_training(tiny, batch, torch.stack(words).mean() + torch.stack(matches).mean())


@torch.no_grad()
def test_pretraining_knows_two_texts_of_a_video(tiny) -> None:
    label = torch.full_like(pairs(3)["caps"], IGNORED)
    batch = pairs(3) | {"text_label": label, "objective": ["pretraining"] * 3, "video_key": torch.tensor([7, 8, 7])}
    true, false = ids(tiny, "true", "false")
    found = tiny(**batch)
    assert found["match_label"].tolist() == [true, false, true, true, false, false, true, true, false]
    assert found["match_scores"].isneginf().flatten().nonzero().flatten().tolist() == [2, 7]


def test_retrieval_trains_all_pairs_and_knows_two_texts_of_a_video(tiny) -> None:
    batch = pairs(3) | {"objective": ["retrieval"] * 3, "video_key": torch.tensor([7, 8, 7])}
    batch["vfeats"][2], batch["vmasks"][2] = batch["vfeats"][0], batch["vmasks"][0]
    true, false = ids(tiny, "true", "false")
    single = []
    for video in range(3):
        for text in range(3):
            same = batch["video_key"][video] == batch["video_key"][text]
            single.append(F.cross_entropy(alone(tiny, batch, video, text), torch.tensor(true if same else false)))
    assert_same_training(tiny, batch, torch.stack(single).mean())


@pytest.mark.parametrize("flat", [False, True])
def test_options_train_each_that_there_is(tiny, flat) -> None:
    texts = pairs(6, videos=2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    token = torch.tensor([1, 1])
    batch = {**texts, "objective": ["options"] * 2, "answers": torch.tensor([[1], [0]]), "task_ids": token}
    batch["option_mask"] = mask
    true, false = ids(tiny, "true", "false")
    logits = [alone(tiny, texts, row // 3, row, task_ids=token.repeat(3)) for row in range(6)]
    targets = [false, true, None, true, false, false]
    known = [F.cross_entropy(one, torch.tensor(to)) for one, to in zip(logits, targets, strict=True) if to is not None]
    if not flat:
        batch |= {key: texts[key].unflatten(0, (2, 3)) for key in ("caps", "cmasks")}
        batch["task_ids"] = torch.ones(2, 3, dtype=torch.long)
    else:
        batch["option_mask"] = mask.flatten()
    assert_same_training(tiny, batch, torch.stack(known).mean())
    with torch.no_grad():
        scores = tiny.option_scores(**batch)
    wanted = torch.stack([one[true] - one[false] for one in logits]).view(2, 3).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(scores, wanted.detach(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_answers_are_read_off_their_mask(tiny) -> None:
    """Without any fine-tuning: the head is that of pre-training."""
    batch = pairs(2)
    batch["caps"][:, 3] = 103
    position = torch.tensor([3, -1])
    scores = tiny.answer_scores(**batch, answer_position=position)
    video, text = (
        tiny.encode_video(batch["vfeats"], batch["vmasks"]),
        tiny.encode_text(batch["caps"], batch["cmasks"]),
    )
    states = tiny.fuse(video, text).last_hidden_state[:, video.values.shape[1] :]
    torch.testing.assert_close(scores[0], tiny.fc_mtm["predictions"](states[0, 3]))
    assert scores.shape == (2, 300)
    mask = torch.tensor([[True] * 3, [True, True, False]])
    chosen = tiny.option_scores(**batch, answer_position=position, option_mask=mask)
    torch.testing.assert_close(chosen, scores[:, ids(tiny, "0", "1", "2")].masked_fill(~mask, -torch.inf))
    label = torch.full_like(batch["caps"], IGNORED)
    label[0, 3] = 130
    torch.testing.assert_close(tiny(**batch, text_label=label)["logits"], scores[:1])


@torch.no_grad()
def test_captions_see_what_is_before_them(tiny) -> None:
    batch = pairs(2)
    label = torch.full_like(batch["caps"], IGNORED)
    label[:, 4] = 120
    later = batch["caps"].clone()
    later[:, 5:] = 200
    told = [
        tiny(**{**batch, "caps": caps}, objective="captioning", text_label=label) for caps in (batch["caps"], later)
    ]
    torch.testing.assert_close(told[0]["logits"], told[1]["logits"])
    batch["caps"][:, 2] = 201
    assert (tiny(**batch, objective="captioning", text_label=label)["logits"] - told[0]["logits"]).abs().amax() > 1e-3


def test_what_a_batch_lacks_is_named(tiny) -> None:
    batch = pairs(2)
    for given, match in (
        ({}, "no text_label"),
        ({"objective": ["words", "retrieval"]}, "of all"),
        ({"objective": "telepathy"}, "must be one of words"),
        ({"objective": "options"}, "no answers"),
        ({"objective": "options", "answers": torch.zeros(2), **pairs(3, videos=2)}, "equally many"),
    ):
        with pytest.raises(DataError, match=match):
            tiny(**{**batch, **given})
    with pytest.raises(DataError, match="option_mask"):
        tiny.option_scores(**batch)
    with pytest.raises(DataError, match="answer_position"):
        tiny.answer_scores(**batch)
    with pytest.raises(ConfigError, match="'301' is no word piece"):
        tiny.word_ids(["301"], "x")


def test_wrong_options_are_refused() -> None:
    for key, value, match in (("true_score", "rato", "Did you mean 'ratio'"), ("matching_texts", 0, "at least 1")):
        with pytest.raises(ConfigError, match=match):
            LAVENDER(tiny_cross_modal_config("LAVENDER", model={key: value}))
    without = LAVENDER(tiny_cross_modal_config("LAVENDER"))
    with pytest.raises(ConfigError, match=r"true_word.*'true' is no word piece"):
        without(**{**pairs(1), "caps": torch.full((1, 9), 4)}, objective="retrieval")
