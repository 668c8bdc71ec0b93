"""The section ``optim``: patterns over the names of parameters, what they freeze and scale, and mistakes in them."""

import logging
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from mmpt.models.videoclip import MMFusionSeparate
from mmpt.models.violet import VIOLETPretraining
from mmpt.models.vlm import MMFusionMTM
from mmpt.optim.options import OptimOptions
from mmpt.optim.parameters import GROUPED_OPTIMIZERS, layer_depths, prepare_parameters, scales_of
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.options import read_options
from mmpt.utils.schema import validate


def options(**given: Any) -> OptimOptions:
    return read_options(OmegaConf.create(given), OptimOptions)


@pytest.fixture
def model() -> MMFusionSeparate:
    return MMFusionSeparate(MMFusionSeparate.tiny_config())


def rates(model: nn.Module) -> dict[str, float]:
    return {name: scales_of(parameter)[0] for name, parameter in model.named_parameters()}


def test_what_is_frozen_and_nothing_else(model, caplog) -> None:
    caplog.set_level(logging.INFO)
    patterns = ["text_encoder.embeddings.*", "video_encoder.bert.encoder.layer.[0-1].attention.*"]
    prepare_parameters(model, options(freeze=patterns), "adam")
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.partition(".layer.")[0] for name in frozen if ".layer." in name} == {"video_encoder.bert.encoder"}
    wanted = [
        name
        for name, _ in model.named_parameters()
        if name.startswith("text_encoder.embeddings.") or (name.startswith("video_") and ".attention." in name)
    ]
    assert frozen == set(wanted) and len(wanted) == 5 + 2 * 10
    values = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    assert f"25 of {len(list(model.parameters()))} tensors do not train, {values / 1e6:.2f} of" in caplog.text


def test_frozen_weights_stay_and_the_others_move(model) -> None:
    prepare_parameters(model, options(freeze=["text_encoder.*"]), "adam")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    batch = {
        "caps": torch.randint(5, 64, (4, 16), generator=generator),
        "cmasks": torch.ones(4, 16, dtype=torch.bool),
        "vfeats": torch.randn(4, 8, 512, generator=generator),
        "vmasks": torch.ones(4, 8, dtype=torch.bool),
    }
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    outputs = model(**batch)
    (outputs["pooled_video"] * outputs["pooled_text"]).sum().backward()
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and all(name.startswith("video_encoder.") for name in moved)


def test_the_last_pattern_counts(model) -> None:
    given = {"*": 0.5, "video_encoder.*": 2, "video_encoder.videomlp.linear1.*": 3.0}
    prepare_parameters(model, options(lr_multipliers=given), "mmadamw")
    found = rates(model)
    assert found["text_encoder.pooler.dense.weight"] == 0.5
    assert found["video_encoder.videomlp.linear2.weight"] == 2
    assert found["video_encoder.videomlp.linear1.bias"] == 3


def test_vectors_do_not_decay_unless_a_pattern_says_so(model) -> None:
    given = {"text_encoder.embeddings.*": 0.0, "video_encoder.videomlp.linear1.bias": 0.5}
    prepare_parameters(model, options(weight_decay_multipliers=given), "mmadamw")
    decays = {name: scales_of(parameter)[1] for name, parameter in model.named_parameters()}
    assert decays["text_encoder.embeddings.word_embeddings.weight"] == 0
    assert decays["text_encoder.encoder.layer.0.output.dense.weight"] == 1
    assert decays["text_encoder.encoder.layer.0.output.dense.bias"] == 0
    assert decays["text_encoder.encoder.layer.0.output.LayerNorm.weight"] == 0
    assert decays["video_encoder.videomlp.linear1.bias"] == 0.5
    assert scales_of(nn.Parameter(torch.zeros(3))) == (1, 0)
    assert scales_of(nn.Parameter(torch.zeros(3, 3))) == (1, 1)


def test_of_violet_every_weight_decays_as_published() -> None:
    section = OmegaConf.load(REPOSITORY / "projects/task/violet.yaml")
    assert section.fairseq.optimization.optimizer in GROUPED_OPTIMIZERS
    violet = VIOLETPretraining(VIOLETPretraining.tiny_config())
    prepare_parameters(violet, read_options(section.optim, OptimOptions), section.fairseq.optimization.optimizer)
    assert {scales_of(parameter) for parameter in violet.parameters()} == {(1.0, 1.0)}
    assert any(parameter.dim() == 1 for parameter in violet.parameters())


def test_layer_decay_by_hand(model) -> None:
    prepare_parameters(model, options(layer_decay=0.5, lr_multipliers={"text_encoder.pooler.*": 4}), "mmadamw")
    found = rates(model)  # two video layers, three text layers
    assert found["video_encoder.bert.encoder.layer.1.output.dense.weight"] == 0.5
    assert found["video_encoder.bert.encoder.layer.0.output.dense.weight"] == 0.25
    assert found["video_encoder.bert.embeddings.word_embeddings.weight"] == 0.125
    assert found["video_encoder.videomlp.linear1.weight"] == 1
    assert found["text_encoder.encoder.layer.2.attention.self.query.bias"] == 0.5
    assert found["text_encoder.encoder.layer.0.attention.self.query.bias"] == 0.125
    assert found["text_encoder.embeddings.LayerNorm.weight"] == 0.0625
    assert found["text_encoder.pooler.dense.weight"] == 4


def test_layers_of_other_names() -> None:
    names = ["vit.patch_embed.weight", "vit.blocks.0.w", "vit.blocks.11.w", "head.weight"]
    assert layer_depths(names) == {"vit.patch_embed.weight": 13, "vit.blocks.0.w": 12, "vit.blocks.11.w": 1}
    assert layer_depths(["embed.weight", "head.weight"]) == {}


def test_a_shared_weight_goes_by_any_of_its_names() -> None:
    model = MMFusionMTM(MMFusionMTM.tiny_config())
    words = model.get_parameter("mm_encoder.bert.embeddings.word_embeddings.weight")
    decoder = model.get_parameter("mm_encoder.cls.predictions.decoder.weight")
    assert words is decoder
    prepare_parameters(model, options(freeze=["*.decoder.weight"]))
    assert not words.requires_grad


@pytest.mark.parametrize("key", ["freeze", "lr_multipliers", "weight_decay_multipliers"])
def test_a_pattern_that_matches_nothing_names_the_nearest(model, key: str) -> None:
    pattern = "text_encoder.embedings.*"
    given: Any = [pattern] if key == "freeze" else {pattern: 0.5}
    with pytest.raises(ConfigError, match=rf"optim.{key}: '{pattern}' matches no.*text_encoder.embeddings.\*"):
        prepare_parameters(model, options(**{key: given}), "mmadamw")


def test_a_pattern_far_from_all_names_shows_some(model) -> None:
    with pytest.raises(ConfigError, match="It has names such as video_encoder"):
        prepare_parameters(model, options(freeze=["zzz"]))


def test_nothing_left_to_train(model) -> None:
    with pytest.raises(ConfigError, match="optim.freeze: matches every parameter"):
        prepare_parameters(model, options(freeze=["video_encoder.*", "text_encoder.*"]), "adam")


@pytest.mark.parametrize(
    "given", [{"lr_multipliers": {"*": 0.5}}, {"layer_decay": 0.9}, {"weight_decay_multipliers": {"*": 0}}]
)
def test_other_optimizers_cannot_follow(model, given) -> None:
    with pytest.raises(ConfigError, match=f"optim.{next(iter(given))}.*'adam'.*optimizer: mmadamw"):
        prepare_parameters(model, options(**given), "adam")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer_decay": 0}, "optim.layer_decay: must be above 0"),
        ({"layer_decay": 1.5}, "optim.layer_decay: must be above 0"),
        ({"lr_multipliers": {"*": 0}}, "optim.lr_multipliers: '\\*': must be above 0.*optim.freeze"),
        ({"lr_multipliers": {"*": float("nan")}}, "optim.lr_multipliers"),
        ({"weight_decay_multipliers": {"*": -1}}, "optim.weight_decay_multipliers"),
        ({"freeze": "text_encoder.*"}, "freeze"),
        ({"lr_multipliers": {"*": "much"}}, "lr_multipliers"),
        ({"freese": ["text_encoder.*"]}, "unknown key 'optim.freese'.*'freeze'"),
        ([1], "optim"),
    ],
)
def test_a_wrong_section_is_refused_before_anything_runs(given, message: str) -> None:
    config = OmegaConf.create({"model": {"model_cls": "MMFusionSeparate"}, "optim": given})
    with pytest.raises(ConfigError, match=message) as caught:
        validate(config, "job.yaml")
    assert "job.yaml" in str(caught.value)


def test_a_right_section_is_let_through() -> None:
    section = {"freeze": ["a.*"], "lr_multipliers": {"text_encoder.layer.[0-3].*": 0.1}, "layer_decay": 0.9}
    assert validate(OmegaConf.create({"optim": section}), "job.yaml") == []
