"""The multi-head baseline of LAVENDER: each batch is for the head of its member, and for what that does."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.losses import HeadsLoss
from mmpt.models.lavender_heads import LAVENDERMultiHead
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.schema import validate


def built(**model: Any) -> LAVENDERMultiHead:
    torch.manual_seed(0)
    made = LAVENDERMultiHead(OmegaConf.merge(LAVENDERMultiHead.tiny_config(), {"model": model}))
    for module in made.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.1)
    return made.eval()


def batch_of(count: int, *shape: int) -> dict[str, Any]:
    """Videos of two frames, and texts of the shape (.., X) each."""
    generator = torch.Generator().manual_seed(1)
    caps = torch.randint(5, 60, (count, *shape), generator=generator)
    caps[..., 0] = 2
    vfeats = torch.rand(count, 2, 3, 64, 64, generator=generator)
    return {
        "caps": caps,
        "cmasks": torch.ones_like(caps, dtype=torch.bool),
        "vfeats": vfeats,
        "vmasks": torch.ones(count, 2, dtype=torch.bool),
    }


def at_cls(model: LAVENDERMultiHead, batch: dict[str, Any], caps: Tensor, row: int) -> Tensor:
    """The fused state of the text's [CLS], of one pair."""
    one = slice(row, row + 1)
    video = model.encode_video(batch["vfeats"][one], batch["vmasks"][one])
    fused = model.fuse(video, model.encode_text(caps[None], torch.ones(1, len(caps)))).last_hidden_state
    return fused[0, video.values.shape[1]]


def test_heads_have_the_published_names() -> None:
    keys = [key for key in built().state_dict() if key.startswith("fc") and "fc_mtm" not in key and "weight" in key]
    assert keys == [
        *("fc.1.weight", "fc.3.weight", "fc_retrieval_clips.1.weight", "fc_retrieval_clips.3.weight"),
        *("fc_retmc_texts.1.weight", "fc_retmc_texts.3.weight", "fc_qamc_choice_qa.1.weight"),
        *("fc_qamc_choice_qa.3.weight", "fc_qaoe_open_qa.1.weight", "fc_qaoe_open_qa.3.weight"),
    ]
    state = built().state_dict()
    assert [len(state[f"{name}.3.weight"]) for name in ("fc", "fc_qamc_choice_qa", "fc_qaoe_open_qa")] == [1, 3, 5]
    assert "enc_img.emb_odr" in state and "emb_task" not in state


@torch.no_grad()
def test_retrieval_scores_every_text_with_every_video() -> None:
    model, batch = built(), batch_of(3, 7)
    scores = model(**batch, member=["clips"] * 3)["pair_scores"]
    head = model.get_submodule("fc_retrieval_clips")
    wanted = [[head(at_cls(model, batch, caps, video))[0] for video in range(3)] for caps in batch["caps"]]
    torch.testing.assert_close(scores, torch.tensor(wanted), atol=1e-5, rtol=0)
    both = (scores / 0.05, scores.T / 0.05)
    expected = sum(torch.nn.functional.cross_entropy(one, torch.arange(3)) for one in both) / 2
    torch.testing.assert_close(HeadsLoss()(pair_scores=scores), expected)


@torch.no_grad()
def test_each_option_has_its_text_or_its_output() -> None:
    model, batch = built(), batch_of(2, 3, 6)
    mask, answers = torch.tensor([[True] * 3, [True, True, False]]), torch.tensor([[1], [0]])
    outputs = model(**batch, member=["texts"] * 2, answers=answers, option_mask=mask)
    head = model.get_submodule("fc_retmc_texts")
    wanted = torch.tensor(
        [[head(at_cls(model, batch, caps, row))[0] for caps in batch["caps"][row]] for row in range(2)]
    )
    torch.testing.assert_close(outputs["logits"], wanted.masked_fill(~mask, -torch.inf), atol=1e-5, rtol=0)
    assert outputs["targets"].tolist() == [1, 0]
    joined = {**batch, "caps": batch["caps"][:, 0], "cmasks": batch["cmasks"][:, 0]}
    outputs = model(**joined, member=["choice-qa"] * 2, answers=answers, option_mask=mask[:, :2])
    head = model.get_submodule("fc_qamc_choice_qa")
    wanted = torch.stack([head(at_cls(model, batch, joined["caps"][row], row)) for row in range(2)])
    torch.testing.assert_close(outputs["logits"], wanted[:, :2], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match=r"model.heads.choice-qa.outputs: 3, but questions have 4"):
        model.option_scores(**joined, option_mask=torch.ones(2, 4))


@torch.no_grad()
def test_answers_and_captions() -> None:
    model, batch = built(), batch_of(2, 6)
    outputs = model(**batch, member=["open-qa"] * 2, answers=torch.tensor([4, -100]))
    assert outputs["logits"].shape == (2, 5)
    expected = torch.nn.functional.cross_entropy(outputs["logits"][:1], torch.tensor([4]))
    torch.testing.assert_close(HeadsLoss()(**outputs), expected)
    labels = torch.full((2, 6), -100)
    labels[0, 2], labels[1, 0] = 9, 2
    captions = {**batch, "text_label": labels, "objective": ["captioning"] * 2, "member": ["captions"] * 2}
    logits = model(**captions)["logits"]
    assert logits.shape == (2, 64)
    later = {**captions, "caps": captions["caps"].clone()}
    later["caps"][0, 3:] = 7
    torch.testing.assert_close(model(**later)["logits"], logits)
    assert len(model.generate(batch["vfeats"], batch["vmasks"])) == 2


@torch.no_grad()
def test_a_test_uses_the_head_that_the_config_names() -> None:
    batch = batch_of(2, 6)
    for name in ("clips", "open-qa"):
        model = built(member=name)
        text, video = model.encode_text(batch["caps"], batch["cmasks"]), model.encode_video(batch["vfeats"])
        assert model.classify(text, video).shape == (2, 5 if name == "open-qa" else 1)
    with pytest.raises(ConfigError, match="model.member: not set"):
        built(member=None).score_aligned(text, video)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"a": {"type": "qamcc", "outputs": 3}}, "model.heads.a.type: 'qamcc' is none of .*qamc"),
        ({"a": {"type": "qaoe"}}, "model.heads.a.outputs: 1; a head of type qaoe has 2 or more"),
        ({"a": {"type": "retmc", "outputs": 2}}, "model.heads.a.outputs: 2; a head of type retmc has 1"),
        ({"b": {}}, "model.heads.b: dataset.members has no such member"),
        ({"a": {"kind": "qaoe"}}, "kind"),
    ],
)
def test_heads_that_cannot_be(heads: dict[str, Any], message: str) -> None:
    config = LAVENDERMultiHead.tiny_config()
    config.model.heads, config.dataset.members = heads, {"a": {}}
    with pytest.raises(ConfigError, match=message):
        LAVENDERMultiHead(config)


def test_what_does_not_go_with_heads_is_refused() -> None:
    model, batch = built(), batch_of(2, 6)
    with pytest.raises(ConfigError, match="knows tasks by their heads"):
        model(**batch, task_ids=torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError, match="of member 'open-qa', of type qaoe, has no answers"):
        model(**batch, member=["open-qa"] * 2)
    with pytest.raises(ConfigError, match="has none for 'clip'.*clips"):
        model(**batch, member=["clip"] * 2)
    with pytest.raises(DataError, match="has no text_label"):
        model(**batch, objective="captioning")
    assert validate(LAVENDERMultiHead.tiny_config(), "tiny") == []
