"""Which calls a model answers, and what is said of those that it does not."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from torch import nn

from mmpt.api.capability import (
    CALLS,
    ROWS,
    SYSTEMS,
    MissingCapabilityError,
    calls_of,
    require_call,
    rows_with,
    system_of,
)
from mmpt.models.lavender_heads import LAVENDERMultiHead
from mmpt.models.vlm import MMFusionJoint, MMFusionMTM
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import MMPTError
from mmpt.utils.registry import resolve_class
from mmpt.utils.registry_table import TABLE

WITH_VECTORS = {"encode_video", "encode_text", "index"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.example)
def test_the_example_of_a_row_makes_a_model_of_its_class(row):
    config = read_yaml(row.example)  # a job, or a project whose pre-training is meant
    named = OmegaConf.select(config, "model.model_cls") or OmegaConf.select(
        config, "task_group.pretrain.model.model_cls"
    )
    assert named == row.model_cls
    assert row.system in SYSTEMS and row.calls <= set(CALLS)


def test_every_registered_model_is_of_a_system_and_stands_in_the_table_if_it_answers_a_call():
    listed = {row.model_cls for row in ROWS} | {"MMFusionShareActionLocalization"}  # no config of the repository
    for name in TABLE["model"]:
        kind = resolve_class("model", name)
        assert system_of(kind) in SYSTEMS
        assert name in listed or not calls_of(kind), name
    assert all(row.calls for row in ROWS)


def test_systems_have_what_their_papers_do():
    table = {call: set(rows_with(call)) for call in CALLS}
    assert table["encode_text"] == table["index"] == {"VideoCLIP", "VLM", "MERLOT", "MERLOT Reserve"}
    assert table["similarity"] == table["choose"] == set(SYSTEMS)
    assert table["answer"] == {"VIOLET", "LAVENDER", "MERLOT", "MERLOT Reserve"}
    assert table["caption"] == {"VLM", "LAVENDER"}
    assert rows_with("choose")["VIOLET"].model_cls == "VIOLETMultipleChoice"
    assert rows_with("caption")["LAVENDER"].example == "projects/task/lavender_msrvtt_cap.yaml"


def test_a_config_changes_what_a_model_answers():
    config = MMFusionJoint.tiny_config()
    assert calls_of(MMFusionJoint(config)) >= WITH_VECTORS
    config.dataset.num_iso_layer = None
    assert not calls_of(MMFusionJoint(config)) & WITH_VECTORS


@pytest.mark.parametrize(
    ("member", "calls"),
    [
        ("clips", {"similarity", "classify", "retrieve", "segment", "choose", "caption"}),
        ("texts", {"choose", "caption"}),
        ("choice-qa", {"choose", "caption"}),
        ("open-qa", {"answer", "caption"}),
        (None, {"caption"}),
    ],
)
def test_a_model_of_many_heads_answers_what_its_member_does(member, calls):
    config = LAVENDERMultiHead.tiny_config()
    config.model.member = member
    assert calls_of(LAVENDERMultiHead(config)) == calls


def test_a_missing_call_names_the_model_what_it_has_and_who_has_it():
    model = MMFusionMTM(MMFusionMTM.tiny_config())
    with pytest.raises(MissingCapabilityError, match="MMFusionMTM.* it has: none of the calls"):
        require_call(model, "similarity")  # it sees pairs alone: nothing can be compared
    model = MMFusionJoint(MMFusionJoint.tiny_config())
    require_call(model, "similarity")
    with pytest.raises(MissingCapabilityError) as caught:
        require_call(SimpleNamespace(model=model, calls=calls_of(model), source="runs/mine"), "caption")
    message = str(caught.value)
    assert message.startswith("runs/mine: MMFusionJoint (of VLM) does not write captions")
    assert "similarity" in message and "MMFusionNLG, projects/task/youcookcap.yaml" in message
    assert "LAVENDER (LAVENDER, projects/task/lavender_msrvtt_cap.yaml)" in message
    assert "VIOLET" not in message


def test_an_unknown_call_names_the_nearest():
    with pytest.raises(MMPTError, match="'captoin'.*Did you mean 'caption'"):
        require_call(nn.Linear(1, 1), "captoin")


def test_a_model_of_ones_own_is_called_by_its_class():
    class Mine(nn.Linear):
        capabilities = frozenset({"captioning"})

    assert system_of(Mine) == "Mine" and calls_of(Mine(1, 1)) == {"caption"}
