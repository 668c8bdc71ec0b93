"""VLM's pre-training objective: what is hidden, what is scored against what, and what does not change the scores."""

import pytest
import torch
from published import config_of
from vlm_samples import POOLED, assert_close, joint, mtm, run

from mmpt.losses import MTM
from mmpt.models.vlm import MMFusionMFMMLM
from mmpt.modules.attention_masks import joint_mask, joint_token_types, text_generation_mask
from mmpt.utils.checkpoint import load_into


def test_the_pre_training_model_pools_in_training_and_in_evaluation(mtm_model, batch) -> None:
    reference = joint(None)
    load_into(reference, mtm_model.state_dict())
    wanted = run(reference, batch)
    assert set(wanted) == set(POOLED)
    assert_close(run(mtm_model.eval(), batch), wanted)
    assert_close(run(mtm_model.train(), batch), wanted)
    trained = mtm({"train_path": "data/how2/how2_s3d_train.lst", "num_iso_layer": 2})
    assert set(run(trained.train(), batch)) == set(run(trained.eval(), batch)) == set(POOLED)
    assert {"retrieval", "masked_modeling"} <= trained.capabilities and "retrieval" not in mtm_model.capabilities


def test_masked_frames_are_hidden_from_the_encoder_but_not_from_the_caller(mtm_model, masked) -> None:
    kept = {name: value.clone() for name, value in masked.items()}
    wanted = run(mtm_model, masked)
    assert all(torch.equal(value, kept[name]) for name, value in masked.items())
    label = masked["video_label"] & masked["vmasks"]
    changed = masked["vfeats"] + label[..., None]
    got = run(mtm_model, masked, vfeats=changed)
    assert torch.equal(got["text_logits"], wanted["text_logits"])
    assert torch.equal(got["video_logits"][:, 1:], wanted["video_logits"][:, 1:])
    assert not torch.isclose(got["video_logits"][:, 0], wanted["video_logits"][:, 0]).any()
    emptied = masked["vfeats"].masked_fill(label[..., None], 0)
    assert_close(run(mtm_model, masked, vfeats=emptied, target_vfeats=masked["vfeats"]), wanted)


def test_scores_have_a_row_per_label_and_a_column_per_competitor(mtm_model, masked) -> None:
    rows = []
    mtm_model.mm_encoder.cls["predictions"].transform.register_forward_hook(lambda *args: rows.append(len(args[2])))
    outputs = run(mtm_model, masked)
    label = masked["video_label"] & masked["vmasks"]
    frames, words = int(label.sum()), int((masked["text_label"] != -100).sum())
    others = int((masked["vmasks"] & ~label).sum())
    assert outputs["video_logits"].shape == (frames, 1 + others + 64)
    assert outputs["text_logits"].shape == (words, 64 + others)
    assert rows == [frames, words]  # the head sees nothing but labelled positions
    own = MMFusionMFMMLM(config_of({})).eval()
    shapes = {name: tuple(value.shape) for name, value in run(own, masked).items()}
    assert shapes == {"video_logits": (frames, 1 + others), "text_logits": (words, 64)}


def test_scores_equal_the_head_on_the_states_of_one_pass(mtm_model, masked) -> None:
    encoder, label = mtm_model.mm_encoder, masked["video_label"] & masked["vmasks"]
    with torch.no_grad():
        hidden = encoder(
            masked["caps"],
            masked["vfeats"] * ~label[..., None],
            joint_mask(masked["vmasks"], masked["cmasks"]),
            joint_token_types(8, 16),
        ).last_hidden_state
        words = [hidden[r, 0 if p == 0 else 8 + p] for r, p in (masked["text_label"] != -100).nonzero().tolist()]
        frames = [hidden[r, 1 + p] for r, p in label.nonzero().tolist()]
        wanted = encoder.masked_scores(
            torch.stack(frames),
            torch.stack(words),
            masked["vfeats"][label],
            masked["vfeats"][masked["vmasks"] & ~label],
        )
    assert_close(run(mtm_model, masked), {"video_logits": wanted.video, "text_logits": wanted.text})


@pytest.mark.parametrize("with_mask", [False, True])
def test_length_groups_do_not_change_the_scores(mtm_model, masked, with_mask: bool) -> None:
    many = {name: value.repeat(9, *[1] * (value.dim() - 1)) for name, value in masked.items()}
    many["vmasks"] = torch.arange(8) < (1 + torch.arange(36)[:, None] * 5 % 8)
    if with_mask:
        many["attention_mask"] = text_generation_mask(many["vmasks"], many["cmasks"])
    results = []
    for groups in (1, 4, 100):
        mtm_model.length_groups = groups
        results.append(run(mtm_model, many))
    assert_close(results[0], results[1])
    assert_close(results[0], results[2])


def test_an_attention_mask_of_the_data_replaces_the_models_own(mtm_model, masked) -> None:
    plain = joint_mask(masked["vmasks"], masked["cmasks"])[:, None].expand(4, 24, 24)
    assert_close(run(mtm_model, masked, attention_mask=plain), run(mtm_model, masked))
    causal = text_generation_mask(masked["vmasks"], masked["cmasks"])
    names = ("caps", "cmasks", "vfeats", "vmasks")
    later = masked["caps"].clone()
    later[:, 4:] = (later[:, 4:] + 7) % 64
    with torch.no_grad():
        one = mtm_model.joint_states(*(masked[name] for name in names), causal)
        two = mtm_model.joint_states(later, *(masked[name] for name in names[1:]), causal)
    before = slice(0, 8 + 4)  # [CLS], the video, its [SEP] and two words
    torch.testing.assert_close(one[:, before], two[:, before])
    assert not torch.isclose(one[:, 8 + 4], two[:, 8 + 4]).all()


def test_batches_without_labels_of_one_kind_train(mtm_model, masked) -> None:
    no_frames = {**masked, "video_label": torch.zeros_like(masked["video_label"])}
    no_words = {**masked, "text_label": torch.full_like(masked["text_label"], -100)}
    for given in (no_frames, no_words, {**no_frames, "text_label": no_words["text_label"]}):
        mtm_model.zero_grad()
        loss = MTM()(**{**given, **mtm_model(**given)})
        assert torch.isfinite(loss)
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in mtm_model.parameters() if p.grad is not None)
    only_words = {name: value for name, value in masked.items() if name != "video_label"}
    assert_close(run(mtm_model, only_words), run(mtm_model, no_frames))


def test_padding_does_not_reach_the_scores(mtm_model, masked) -> None:
    vmasks = masked["vmasks"].clone()
    vmasks[:, 6:] = False
    noisy = masked["vfeats"].masked_fill(~vmasks[..., None], float("nan"))
    caps = masked["caps"].where(masked["cmasks"], 50)
    wanted = run(mtm_model, masked, vmasks=vmasks)
    assert_close(run(mtm_model, masked, vmasks=vmasks, vfeats=noisy, caps=caps), wanted)
    assert all(torch.isfinite(value).all() for value in wanted.values())


def test_gradients_reach_everything_that_scores(mtm_model, masked) -> None:
    MTM()(**{**masked, **mtm_model(**masked)}).backward()
    without = {name for name, parameter in mtm_model.named_parameters() if parameter.grad is None}
    assert without == {
        "mm_encoder.bert.embeddings.seg_embeddings.weight",  # as published
        "mm_encoder.bert.pooler.dense.weight",
        "mm_encoder.bert.pooler.dense.bias",
    }
