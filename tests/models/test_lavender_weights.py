"""Published files of LAVENDER and SwinBERT, and what their trainings said otherwise."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.models.cross_modal import tiny_cross_modal_config
from mmpt.models.cross_modal_tables import fit_tables
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.models.lavender import LAVENDER
from mmpt.models.lavender_task_specific import LAVENDERTaskSpecificOpenEnded, LAVENDERTaskSpecificRetrieval
from mmpt.models.lavender_weights import contradictions, published_names, read_args
from mmpt.utils.checkpoint import load_checkpoint, load_into
from mmpt.utils.errors import CheckpointError, DataError


def tiny(cls: Any = LAVENDER, seed: int = 0, **model: Any) -> Any:
    torch.manual_seed(seed)
    return cls(OmegaConf.merge(cls.tiny_config(), {"model": model}))


def swinbert(model: LAVENDER, width: int = 5) -> dict[str, Tensor]:
    """The weights of a LAVENDER under SwinBERT's names, with two random projections and things of its own."""
    names = {
        "enc_img.swin.": "swin.backbone.",
        "trsfr.": "trans_encoder.bert.encoder.",
        "enc_txt.emb_txt.": "trans_encoder.bert.embeddings.",
        "fc_mtm.": "trans_encoder.cls.",
    }
    state = {"learn_mask_enabled": torch.ones(1), "trans_encoder.bert.pooler.dense.weight": torch.ones(2, 2)}
    for key, value in model.state_dict().items():
        begin = next((begin for begin in names if key.startswith(begin)), None)
        if begin is not None and not key.endswith("decoder.bias"):
            state[names[begin] + key.removeprefix(begin)] = value
    wide = model.enc_img.fc.in_features
    state |= {"fc.weight": torch.randn(width, wide), "fc.bias": torch.randn(width)}
    state["trans_encoder.bert.img_embedding.weight"] = torch.randn(model.hidden_size, width)
    state["trans_encoder.bert.img_embedding.bias"] = torch.randn(model.hidden_size)
    return state


def test_swinbert_has_the_same_weights_under_other_names() -> None:
    model = tiny(swin_embed_dim=12)
    state = swinbert(model)
    named = published_names(state)
    own = model.state_dict()
    missing = own.keys() - named.keys()
    assert missing == {"emb_task"} | {f"enc_img.{name}" for name in ("emb_cls", "emb_pos", "emb_len", "emb_odr")} | {
        "enc_img.norm.weight",
        "enc_img.norm.bias",
    }
    assert not named.keys() - own.keys()
    for key in named.keys() - {"enc_img.fc.weight", "enc_img.fc.bias"}:
        assert torch.equal(named[key], own[key]), key
    features = torch.randn(7, model.enc_img.fc.in_features)
    narrow = features @ state["fc.weight"].T + state["fc.bias"]
    begin = "trans_encoder.bert.img_embedding."
    wanted = narrow @ state[f"{begin}weight"].T + state[f"{begin}bias"]
    got = features @ named["enc_img.fc.weight"].T + named["enc_img.fc.bias"]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_a_training_may_begin_from_swinbert_and_a_test_may_not() -> None:
    model = tiny(swin_embed_dim=12)
    state = swinbert(model)
    other = tiny(seed=1, swin_embed_dim=12)
    with pytest.raises(CheckpointError, match="emb_task"):
        load_into(other, state)
    begun = {"mmmodel." + key: value for key, value in state.items()}
    FairseqMMModel(other, begins=True).upgrade_state_dict_named(begun, "")
    other.load_state_dict({key.removeprefix("mmmodel."): value for key, value in begun.items()})
    assert torch.equal(other.trsfr.layer[1].output.dense.weight, model.trsfr.layer[1].output.dense.weight)


def test_names_of_a_lavender_stay(tmp_path) -> None:
    model, other = tiny(), tiny(seed=1)
    state = {**model.state_dict(), "enc_txt.emb_txt.position_ids": torch.arange(64)[None]}
    del state["fc_mtm.predictions.decoder.bias"]  # the same as predictions.bias
    torch.save(state, tmp_path / "lavender.pt")
    report = load_checkpoint(other, tmp_path / "lavender.pt")
    assert not report.missing and report.unexpected == ("enc_txt.emb_txt.position_ids",)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("rows", "patches"), [(8, 10), (4, 5)])
def test_tables_of_another_length_keep_the_rows_that_there_are(rows, patches, caplog) -> None:
    model, other = tiny(), tiny(seed=1, max_frames=rows, max_patches=patches)
    own = {key: value.clone() for key, value in other.state_dict().items()}
    load_into(other, model.state_dict())
    both, squares = min(rows, 6), min(1 + patches**2, 65)
    assert torch.equal(other.enc_img.emb_len[:, :both], model.enc_img.emb_len[:, :both])
    assert torch.equal(other.enc_img.emb_len[:, both:], own["enc_img.emb_len"][:, both:])
    assert torch.equal(other.enc_img.emb_pos[:, :, :squares], model.enc_img.emb_pos[:, :, :squares])
    assert torch.equal(other.enc_img.emb_pos[:, :, squares:], own["enc_img.emb_pos"][:, :, squares:])
    assert f"enc_img.emb_len: 6 rows in the file, {rows} in the model: {both} are the file's" in caplog.text


def test_tables_of_another_width_are_left_to_be_refused() -> None:
    state = {"enc_img.emb_len": torch.zeros(1, 6, 1, 8)}
    assert fit_tables(state, {"enc_img.emb_len": torch.zeros(1, 7, 1, 9)})["enc_img.emb_len"].shape[-1] == 8


def test_baselines_begin_from_lavender_and_it_from_them() -> None:
    lavender, retrieval = tiny(), tiny(LAVENDERTaskSpecificRetrieval)
    begun = FairseqMMModel(retrieval, begins=True)
    state = {"mmmodel." + key: value.clone() for key, value in lavender.state_dict().items()}
    begun.upgrade_state_dict_named(state, "")
    assert state.keys() == begun.state_dict().keys()
    assert torch.equal(state["mmmodel.fc.3.weight"], retrieval.fc[3].weight)
    questions = FairseqMMModel(tiny(LAVENDERTaskSpecificOpenEnded), begins=True)
    state = {"mmmodel." + key: value.clone() for key, value in retrieval.state_dict().items()}
    questions.upgrade_state_dict_named(state, "")
    assert state["mmmodel.fc.3.weight"].shape[0] == 5, "one score of a pair is no list of answers"
    baseline = {key: value for key, value in lavender.state_dict().items() if key != "emb_task"}
    baseline |= {f"fc.{key}": value for key, value in retrieval.fc.state_dict().items()}
    state = {"mmmodel." + key: value for key, value in baseline.items()}
    FairseqMMModel(lavender, begins=True).upgrade_state_dict_named(state, "")
    assert state.keys() == FairseqMMModel(lavender).state_dict().keys()


def test_what_the_training_of_a_checkpoint_said_otherwise_is_warned_of(tmp_path, caplog) -> None:
    args = {"vidswin_size": "base", "size_txt": 25, "size_frame": 5, "txt_backbone": "bert-base-uncased"}
    args |= {"max_size_frame": 6, "fusion_encoder": "x/tiny_bert", "kinetics": 600, "size_img": 64}
    (tmp_path / "args.json").write_text(json.dumps(args))
    config = tiny_cross_modal_config(
        "LAVENDER", fairseq={"checkpoint": {"restore_file": str(tmp_path / "ckpt_violet_pretrain_0.pt")}}
    )
    LAVENDER(config)
    said = [record.getMessage().partition("(args.json), ")[2] for record in caplog.records]
    assert sorted(said) == [
        "size_frame was 5, dataset.num_frames is 2",
        "size_txt was 25, dataset.max_text_len is 16",
        "txt_backbone was 'bert-base-uncased', dataset.bert_name is 'tests/data/tiny_bert'",
        "vis_backbone_size was 'base', model.swin is 'custom'",
    ]


def test_args_that_cannot_be_are_refused(tmp_path) -> None:
    nothing: Any = SimpleNamespace()
    with pytest.raises(CheckpointError, match="a BERT of its own"):
        contradictions({"txt_backbone_embed_only": False}, nothing, nothing)
    assert read_args(tmp_path / "lavender.pt") == {}
    (tmp_path / "args.json").write_text("[]")
    with pytest.raises(DataError, match="list, not the arguments"):
        read_args(tmp_path / "lavender.pt")
