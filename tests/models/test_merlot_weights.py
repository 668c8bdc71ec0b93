"""MERLOT's published variables, as ours and back."""

import json

import pytest
import torch
from merlot_goldens import CHECKPOINT, golden_config
from torch import Tensor

from mmpt.models.merlot import MERLOTPretraining
from mmpt.models.merlot_answering import MERLOTVCR, MERLOTAnswering
from mmpt.models.merlot_weights import from_published, to_published
from mmpt.utils.checkpoint import load_checkpoint, load_into
from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.tf_checkpoint import OPTIMIZER_STATE, read_tf_checkpoint

_ADAM = "encoder/layer00/query_layer/kernel/adam_m"


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return read_tf_checkpoint(CHECKPOINT)


def test_the_published_size_has_the_published_variables() -> None:
    shapes = json.loads((REPOSITORY / "tests/data/merlot_variables.json").read_text())
    with torch.device("meta"):
        model = MERLOTPretraining({"model": {"model_cls": "MERLOTPretraining"}})
        variables = {name: torch.empty(shape) for name, shape in shapes.items()}
    own = model.state_dict()
    converted = model.published_state(variables)
    assert len(variables) == 597 and sum(value.numel() for value in model.parameters()) == 235_534_634
    assert {key: value.shape for key, value in converted.items()} == {key: value.shape for key, value in own.items()}
    back = to_published(own)
    assert {name: list(value.shape) for name, value in back.items()} == shapes


def test_every_tensor_of_a_published_checkpoint_is_used_or_of_the_optimizer(published: dict[str, Tensor]) -> None:
    model = MERLOTPretraining(golden_config())
    report = load_into(model, published)
    assert len(published) == 171 and {"global_step", _ADAM} < published.keys()
    assert len(report.loaded) == 169 + 2 and not report.missing and not report.unexpected  # and two aliases
    assert torch.equal(
        model.encoder.layer[1].intermediate.dense.weight, published["encoder/layer01/intermediate/kernel"].T
    )
    kernel = published["vision_backbone/vision_transformer/resnet50lite/block_group1/conv2d_5/kernel"]
    assert torch.equal(model.vision.resnet.stages[0][1].spatial.conv.weight, kernel.permute(3, 2, 0, 1))


def test_names_and_layouts_come_back_bit_by_bit(published: dict[str, Tensor]) -> None:
    back = to_published(from_published(published))
    weights = {name: value for name, value in published.items() if name not in ("global_step", _ADAM)}
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        assert back[name].dtype == value.dtype and back[name].shape == value.shape, name
        assert torch.equal(back[name].view(torch.int32), value.view(torch.int32)), name


def test_our_own_states_stay_as_they_are() -> None:
    state = MERLOTPretraining(MERLOTPretraining.tiny_config()).state_dict()
    assert from_published(state).keys() == state.keys()
    again = from_published(to_published(state))
    assert again.keys() == state.keys() and all(torch.equal(again[key], value) for key, value in state.items())


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_is_loaded_by_any_of_its_names(suffix: str) -> None:
    model = MERLOTPretraining(golden_config())
    report = load_checkpoint(model, f"{CHECKPOINT}{suffix}")
    assert len(report.loaded) == 171 and not report.unexpected


def test_what_answers_questions_begins_with_the_encoders(published: dict[str, Tensor]) -> None:
    for cls in (MERLOTAnswering, MERLOTVCR):
        model = cls(golden_config())
        report = load_into(model, published, allow_missing=model.new_heads)
        assert report.missing and all(key.startswith(("classifier", "answer", "rationale")) for key in report.missing)
        assert {key.split(".")[0] for key in report.unexpected} == {
            "lm_head", "language_text", "text_head", "image_head", "text_image_order", "image_image_order"
        }  # fmt: skip
        with pytest.raises(CheckpointError, match="not fine-tuned for this task"):
            load_into(model, published)


def test_the_heads_of_vcr_have_published_names() -> None:
    state = MERLOTVCR(MERLOTVCR.tiny_config()).state_dict()
    named = to_published(state)
    assert named["answer_cls/classifier_mlp0/kernel"].shape == (32, 16)
    assert named["rationale_cls/classifier_mlp1/kernel"].shape == (16, 1)
    again = from_published(named)
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_a_variable_of_something_else_is_told(published: dict[str, Tensor]) -> None:
    state = {**published, "encoder/layer00/gate/kernel": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="1 unexpected keys: encoder/layer00/gate/kernel"):
        load_into(MERLOTPretraining(golden_config()), state)
    wrong = {**published, "encoder/layer00/intermediate/kernel": torch.zeros(256, 64)}
    with pytest.raises(CheckpointError, match=r"keys of another shape: encoder\.layer\.0\.intermediate\.dense\.weight"):
        load_into(MERLOTPretraining(golden_config()), wrong)
    del wrong["encoder/layer00/intermediate/kernel"]
    with pytest.raises(CheckpointError, match=r"1 missing keys: encoder\.layer\.0\.intermediate\.dense\.weight"):
        load_into(MERLOTPretraining(golden_config()), wrong)


def test_the_state_of_the_optimizer_need_not_be_read() -> None:
    weights = read_tf_checkpoint(CHECKPOINT, without=OPTIMIZER_STATE)
    assert len(weights) == 169 and all(value.dtype == torch.float32 for value in weights.values())
