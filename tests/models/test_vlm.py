"""VLM: numbers and key names of the published implementation, isolation, and what it refuses."""

import argparse

import pytest
import torch
from published import TINY, assert_published, config_of, state_keys
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vlm_samples import POOLED, assert_close, joint, mtm, run, weights

import mmpt.models
from mmpt.losses import MTM, T2VContraLoss
from mmpt.models.vlm import MMFusionJoint, MMFusionMFMMLM, MMFusionMTM, MMFusionShare
from mmpt.modules.attention_masks import isolated_mask, joint_mask, joint_token_types
from mmpt.utils.checkpoint import load_checkpoint, load_into, reconcile
from mmpt.utils.errors import CheckpointError, ConfigError, DataError

# numbers and names of the published implementation


def test_masked_modelling_equals_the_published_implementation(mtm_model, masked, golden) -> None:
    outputs = run(mtm_model, masked)
    outputs["loss"] = MTM()(**{**masked, **outputs})
    for name, value in outputs.items():
        assert_published(value, golden["MMFusionMTM.train." + name], name)


def test_isolated_retrieval_equals_the_published_implementation(joint_model, batch, golden) -> None:
    outputs = run(joint_model, batch)
    outputs["loss"] = T2VContraLoss()(**outputs)
    for train_path in ("trainTrue", "trainFalse"):  # the published model took two ways
        for name, value in outputs.items():
            assert_published(value, golden[f"MMFusionJoint.iso2.{train_path}.{name}"], name)
    apart = {
        "pooled_video": joint_model.encode_video(batch["vfeats"], batch["vmasks"], batch["caps"]),
        "pooled_text": joint_model.encode_text(batch["caps"], batch["cmasks"]),
    }
    for name, value in apart.items():
        assert_published(value, golden[f"MMFusionJoint.iso2.trainFalse.{name}"], name)


@pytest.mark.parametrize(
    ("name", "cls", "dataset", "use_seg_emb"),
    [
        ("MMFusionShare", MMFusionShare, {}, False),
        ("MMFusionMFMMLM.train", MMFusionMFMMLM, {}, True),
        ("MMFusionMTM.train", MMFusionMTM, {}, True),
        ("MMFusionJoint.isoNone.trainTrue", MMFusionJoint, {}, True),
        ("MMFusionJoint.iso2.trainTrue", MMFusionJoint, {"num_iso_layer": 2}, True),
    ],
)
def test_entries_have_the_published_names_and_shapes(name, cls, dataset, use_seg_emb, golden) -> None:
    built = cls(config_of({"use_seg_emb": use_seg_emb}, dataset))
    wanted = {key: tuple(shape) for key, shape in state_keys(golden)[name].items()}
    del wanted["mm_encoder.bert.embeddings.position_ids"]
    assert {key: tuple(value.shape) for key, value in built.state_dict().items()} == wanted
    assert load_into(built, weights(golden, name)).unexpected == ("mm_encoder.bert.embeddings.position_ids",)


@pytest.mark.parametrize(
    ("cls", "entries", "parameters"), [(MMFusionMTM, 212, 111_257_088), (MMFusionJoint, 207, 110_664_960)]
)
def test_base_size_has_the_published_number_of_entries(cls, entries: int, parameters: int, tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    dataset = {"bert_name": str(tmp_path), "split": "test", "num_iso_layer": 12}
    with torch.device("meta"):
        base = cls({"dataset": dataset, "model": {"use_seg_emb": True}})
    position_ids = 1
    assert len(base.state_dict()) + position_ids == entries
    assert sum(parameter.numel() for parameter in base.parameters()) == parameters


def test_fine_tuning_starts_from_a_training_checkpoint(batch, mtm_model, tmp_path) -> None:
    position_ids = {"mm_encoder.bert.embeddings.position_ids": torch.arange(64)[None]}
    state = {"mmmodel." + key: value for key, value in {**mtm_model.state_dict(), **position_ids}.items()}
    content = {"args": None, "cfg": {"task": argparse.Namespace(_name="mmtask")}, "model": state}
    torch.save(content, tmp_path / "checkpoint_best.pt")
    built = joint(3)
    report = load_checkpoint(built, tmp_path / "checkpoint_best.pt")
    heads = ("transform.dense.", "transform.LayerNorm.", "decoder.weight")
    assert len(report.unexpected) == 6 and not report.missing
    assert all(key.endswith("position_ids") or any(head in key for head in heads) for key in report.unexpected)
    isolated = mtm({"num_iso_layer": 3})
    load_checkpoint(isolated, tmp_path / "checkpoint_best.pt")
    assert_close(run(built, batch), run(isolated, batch))
    assert set(load_checkpoint(mtm(), tmp_path / "checkpoint_best.pt").loaded) == set(mtm().state_dict())
    # the trainer's way
    own = {"mmmodel." + key: value for key, value in built.state_dict().items()}
    reconcile(
        state,
        own,
        prefix="mmmodel.",
        allow_missing=MMFusionJoint.allow_missing,
        allow_unexpected=MMFusionJoint.allow_unexpected,
    )
    assert set(state) == set(own)


@pytest.mark.parametrize("in_file", [True, False])
def test_the_table_of_segments_may_be_absent_on_either_side(golden, in_file: bool) -> None:
    state = weights(golden, "MMFusionJoint.iso2.trainTrue")
    segments = "mm_encoder.bert.embeddings.seg_embeddings.weight"
    if not in_file:
        del state[segments]
    report = load_into(joint(model={"use_seg_emb": not in_file}), state)
    assert (segments in report.unexpected) == in_file and (segments in report.missing) == (not in_file)


def test_a_checkpoint_without_the_head_does_not_serve_pre_training(golden) -> None:
    with pytest.raises(CheckpointError, match=r"5 missing keys: mm_encoder\.cls\.predictions"):
        load_into(mtm(), weights(golden, "MMFusionJoint.iso2.trainTrue"))


# isolation


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_two_passes_equal_one_pass_under_the_isolated_mask(golden, batch, layers: int) -> None:
    built = joint(layers)
    load_into(built, weights(golden, "MMFusionJoint.iso2.trainTrue"))
    mask = isolated_mask(batch["vmasks"], batch["cmasks"])
    types = joint_token_types(8, 16)
    with torch.no_grad():
        states = built.mm_encoder(batch["caps"], batch["vfeats"], [mask] * 3, types, num_layers=layers)
    valid = joint_mask(batch["vmasks"], batch["cmasks"])[..., None]
    wanted = {}
    for name, half in zip(POOLED, (slice(1, 10), slice(10, None)), strict=True):
        wanted[name] = (states.last_hidden_state * valid)[:, half].sum(1) / valid[:, half].sum(1)
    assert_close(run(built, batch), wanted)


def test_halves_are_independent_only_where_isolated(golden, batch) -> None:
    other = {**batch, "vfeats": batch["vfeats"].flip(0), "vmasks": batch["vmasks"].flip(0)}
    for layers in (3, None):
        built = joint(layers)
        load_into(built, weights(golden, "MMFusionJoint.iso2.trainTrue"))
        one, two = run(built, batch), run(built, other)
        assert torch.equal(one["pooled_text"], two["pooled_text"]) == (layers is not None)
        assert ("retrieval" in built.capabilities) == (layers is not None)


def test_joint_pooling_is_the_mean_of_each_half(golden, batch) -> None:
    built = joint(None)
    load_into(built, weights(golden, "MMFusionJoint.isoNone.trainTrue"))
    with torch.no_grad():
        states = built.mm_encoder(
            batch["caps"], batch["vfeats"], joint_mask(batch["vmasks"], batch["cmasks"]), joint_token_types(8, 16)
        ).last_hidden_state
    outputs = run(built, batch)
    for row in range(4):
        seconds, words = int(batch["vmasks"][row].sum()), int(batch["cmasks"][row].sum())
        assert batch["vmasks"][row, :seconds].all()
        video = torch.cat([states[row, 1 : 1 + seconds], states[row, 9:10]]).mean(0)
        text = states[row, 10 : 10 + words - 2].mean(0)
        torch.testing.assert_close(outputs["pooled_video"][row], video, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(outputs["pooled_text"][row], text, atol=2e-6, rtol=1e-5)


def test_a_shared_encoder_with_cls_hidden_is_the_isolated_one(golden, batch) -> None:
    shared, isolated = MMFusionShare(config_of({})).eval(), joint(3, model={"use_seg_emb": False})
    for built in (shared, isolated):
        load_into(built, weights(golden, "MMFusionShare"))
    hidden = batch["cmasks"].clone()
    hidden[:, 0] = False
    assert_close(run(shared, batch, cmasks=hidden), run(isolated, batch))
    assert not torch.allclose(run(shared, batch)["pooled_text"], run(isolated, batch)["pooled_text"], atol=1e-3)


def test_a_shared_encoder_takes_each_half_at_its_place_in_the_joint_sequence(golden, batch) -> None:
    shared = MMFusionShare(config_of({})).eval()
    load_into(shared, weights(golden, "MMFusionShare"))
    outputs, embeddings = run(shared, batch), shared.mm_encoder.bert.embeddings
    with torch.no_grad():
        for row in range(4):
            seconds, words = int(batch["vmasks"][row].sum()), int(batch["cmasks"][row].sum())
            caps, tokens = batch["caps"][row], shared.mm_encoder.videomlp(batch["vfeats"][row, :seconds])
            ids = torch.cat([caps[:1], caps[2:words]])
            sequences = {
                "pooled_video": (
                    torch.cat([embeddings.word_embeddings(caps[:1]), tokens, embeddings.word_embeddings(caps[1:2])]),
                    [*range(seconds + 1), 8 + 1],
                    [0] * (seconds + 2),
                ),
                "pooled_text": (
                    embeddings.word_embeddings(ids),
                    [0, *range(8 + 2, 8 + 2 + len(ids) - 1)],
                    [0] + [1] * (len(ids) - 1),
                ),
            }
            for name, (embedded, positions, types) in sequences.items():
                whole = embedded + embeddings.position_embeddings(torch.tensor(positions))
                whole = embeddings.LayerNorm(whole + embeddings.token_type_embeddings(torch.tensor(types)))
                wanted = shared.mm_encoder.bert.encoder(whole[None]).last_hidden_state[0, 1:].mean(0)
                torch.testing.assert_close(outputs[name][row], wanted, atol=5e-6, rtol=1e-5)


def test_layers_share_masks_and_no_mask_per_layer_is_ever_made(masked) -> None:
    class Shapes(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[tuple[int, ...]] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.seen |= {tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
            return result

    built = mtm({"num_iso_layer": 2}, packed=False)
    masks = built.layer_masks(masked["vmasks"], masked["cmasks"])
    assert len(masks) == 3 and masks[0] is masks[1] and masks[2] is not masks[0]
    assert masks[0].shape == (4, 24, 24) and masks[2].shape == (4, 24)
    longest = [int(masked[name].sum(1).max()) for name in ("vmasks", "cmasks")]
    sizes = {24, sum(longest)}
    with Shapes() as shapes:
        built.joint_states(*(masked[name] for name in ("caps", "cmasks", "vfeats", "vmasks"))).sum().backward()
    square = {shape for shape in shapes.seen if len(shape) > 2 and shape[-1] == shape[-2] and shape[-1] in sizes}
    assert any(shape[-1] == sum(longest) for shape in square)
    heads, layers = 4, 3
    assert {shape[1] for shape in square if len(shape) == 4} <= {1, heads}
    assert not any(len(shape) > 4 or layers in shape[:-2] for shape in square)


# inputs and settings


def test_videos_and_texts_need_not_be_equally_many_where_they_are_apart(joint_model, mtm_model, batch) -> None:
    texts = {name: batch[name].repeat_interleave(5, 0) for name in ("caps", "cmasks")}
    outputs = run(joint_model, batch, **texts)
    assert outputs["pooled_video"].shape == (4, 32) and outputs["pooled_text"].shape == (20, 32)
    torch.testing.assert_close(outputs["pooled_video"], run(joint_model, batch)["pooled_video"])
    with pytest.raises(DataError, match="4 videos and 20 texts cannot be encoded jointly"):
        run(mtm_model, batch, **texts)


def test_a_joint_model_does_not_encode_one_half(mtm_model, batch) -> None:
    for encode in (
        lambda: mtm_model.encode_text(batch["caps"], batch["cmasks"]),
        lambda: mtm_model.encode_video(batch["vfeats"], batch["vmasks"], batch["caps"]),
        lambda: mtm_model.encode_video_frames(batch["vfeats"], batch["vmasks"], batch["caps"]),
    ):
        with pytest.raises(ConfigError, match=r"dataset\.num_iso_layer is not set.*Set it to 3"):
            encode()


def test_frames_agree_with_the_states_of_the_video(joint_model, batch) -> None:
    with torch.no_grad():
        states = joint_model.forward_video(*(batch[n] for n in ("vfeats", "vmasks", "caps", "cmasks")), True)
        frames = joint_model.encode_video_frames(batch["vfeats"], batch["vmasks"], batch["caps"])
    assert states.shape == (4, 10, 32) and frames.shape == (4, 8, 32)
    torch.testing.assert_close(frames[batch["vmasks"]], states[:, 1:9][batch["vmasks"]], atol=2e-6, rtol=1e-5)
    assert (frames[~batch["vmasks"]] == 0).all()


@pytest.mark.parametrize("name", ["MMFusionShare", "MMFusionJoint", "MMFusionMTM", "MMFusionMFMMLM"])
def test_bad_videos_are_refused(name: str, batch) -> None:
    cls = getattr(mmpt.models, name)
    built = cls(cls.tiny_config())
    with pytest.raises(DataError, match=r"width 600, expected model\.input_dim=512"):
        built(**{**batch, "vfeats": torch.zeros(4, 8, 600)})
    with pytest.raises(DataError, match=r"9 seconds.*dataset\.max_video_len: 8"):
        built(**{**batch, "vfeats": torch.zeros(4, 9, 512), "vmasks": torch.ones(4, 9)})


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("dataset", {"num_iso_layer": 12}, r"dataset\.num_iso_layer: 12.*tiny_bert has 3 layers: must be 1 to 3"),
        ("dataset", {"num_iso_layer": 0}, r"dataset\.num_iso_layer: 0.*must be 1 to 3"),
        ("dataset", {"max_len": 65}, r"need 65 positions, but .* has 64"),
        ("dataset", {"max_len": 10}, r"dataset\.max_len: 10 leaves no room"),
        ("model", {"init": "pretraind"}, r"model\.init: 'pretraind'"),
        ("model", {"mm_encoder_cls": "MMBertForJiont"}, "unknown encoder 'MMBertForJiont'.*'MMBertForJoint'"),
        ("model", {"length_groups": 0}, r"model\.length_groups: must be at least 1"),
    ],
)
def test_bad_settings_name_the_key(section: str, values: dict, message: str) -> None:
    given = {"model": {}, "dataset": {}, section: values}
    with pytest.raises(ConfigError, match=message):
        MMFusionJoint(config_of(given["model"], given["dataset"]))


@pytest.mark.parametrize(
    ("cls", "named", "built"),
    [
        (MMFusionMTM, None, "MMBertForMTM"),
        (MMFusionMTM, "MMBertForMFMMLM", "MMBertForMTM"),
        (MMFusionMTM, "mmpt.modules.mmbert_heads:MMBertForMFMMLM", "MMBertForMFMMLM"),
        (MMFusionMFMMLM, None, "MMBertForMFMMLM"),
        (MMFusionMFMMLM, "MMBertForMTM", "MMBertForMTM"),
        (MMFusionJoint, None, "MMBertForEncoder"),
        (MMFusionShare, None, "MMBertForEncoder"),
    ],
)
def test_encoders_of_public_configs(cls, named: str | None, built: str) -> None:
    model = cls(config_of({"mm_encoder_cls": named}))
    assert type(model.mm_encoder).__name__ == built


def test_an_encoder_without_the_head_does_not_pre_train() -> None:
    with pytest.raises(ConfigError, match=r"model\.mm_encoder_cls: MMBertForJoint has no head"):
        MMFusionMTM(config_of({"mm_encoder_cls": "MMBertForJoint"}))


@pytest.mark.parametrize("cls", [MMFusionMTM, MMFusionJoint])
def test_training_starts_from_bert(cls, golden, tmp_path) -> None:
    prefix = "mm_encoder.bert."
    state = {
        key.replace(prefix, "bert."): value
        for key, value in weights(golden, "MMFusionMTM.train").items()
        if key.startswith(prefix) and "seg_embeddings" not in key
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    built = cls(config_of({"use_seg_emb": True}, {"bert_name": str(tmp_path), "split": "train"}))
    for key in ("encoder.layer.2.output.dense.weight", "embeddings.word_embeddings.weight"):
        assert torch.equal(built.mm_encoder.bert.get_parameter(key), state["bert." + key])
    with pytest.raises(CheckpointError, match=r"model\.init: random"):
        cls(config_of({}, {"split": "train"}))
