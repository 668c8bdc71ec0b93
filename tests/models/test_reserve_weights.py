"""Published weights of MERLOT Reserve under our names and back."""

import json

import pytest
import torch
from reserve_goldens import golden_config, parameters
from torch import nn

from mmpt.models.reserve import ReservePretraining
from mmpt.models.reserve_answering import ReserveTVQA, ReserveVCR
from mmpt.models.reserve_options import PRESETS
from mmpt.models.reserve_weights import flax_names, published_names, sizes_of
from mmpt.modules.reserve_towers import AttentionPool
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import REPOSITORY

SHAPES = json.loads((REPOSITORY / "tests/data/reserve_shapes.json").read_text())


def test_there_and_back_changes_no_bit() -> None:
    model = ReservePretraining(golden_config())
    report = load_into(model, parameters())
    assert not report.missing and not report.unexpected
    assert len(report.loaded) == len(model.state_dict()) == len(parameters()) + 2 * 2 * 8
    back = flax_names(model.state_dict())
    assert set(back) == set(parameters())
    assert all(torch.equal(back[key], value) and back[key].is_contiguous() for key, value in parameters().items())


@pytest.mark.parametrize(("size", "count", "leaves"), [("base", 316_412_163, 449), ("large", 853_117_955, 689)])
def test_published_sizes_have_the_published_parameters(size: str, count: int, leaves: int) -> None:
    with torch.device("meta"):
        model = ReservePretraining({"model": {"preset": size}})
        published = {key: torch.empty(shape) for key, shape in SHAPES[size].items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(published) == leaves
    ours = {key: value.shape for key, value in published_names(published).items()}
    assert ours == {key: value.shape for key, value in model.state_dict().items()}
    back = {key: list(value.shape) for key, value in flax_names(model.state_dict()).items()}
    assert back == SHAPES[size]
    assert sizes_of(published) == PRESETS[size]


def test_fine_tuned_weights_bring_their_head_and_begin_without_one() -> None:
    with_head = {**parameters(), "proj/kernel": torch.ones(128, 1)}
    for cls in (ReserveVCR, ReserveTVQA):
        model = cls(golden_config(cls.__name__))
        report = load_into(model, with_head)
        assert not report.missing
        assert torch.equal(model.proj.weight, torch.ones(1, 128))
        assert any(key.startswith("audio_encoder") for key in report.unexpected) == (cls is ReserveVCR)
        with pytest.raises(CheckpointError, match="proj.weight"):
            load_into(model, parameters())
        load_into(model, parameters(), allow_missing=cls.new_heads)
        assert "proj/kernel" in flax_names(model.state_dict())


def test_what_is_no_parameter_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match="vision_encoder/extra"):
        published_names({**parameters(), "vision_encoder/extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"head/kernel: shape \(3,\)"):
        published_names({"head/kernel": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="no MERLOT Reserve"):
        sizes_of({"weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="no parameter of a layer"):
        flax_names({"joint_transformer.encoder.layer.0.odd.weight": torch.zeros(1)})


def test_the_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 256, "joint_layers": 1, "vision_layers": 1, "audio_layers": 1, "span_layers": 1}
    model = ReservePretraining({"model": {**sizes, "vocab_size": 512}})
    layer = model.joint_transformer.encoder.layer[0]
    # A normal distribution cut at two deviations has 0.8796 of the deviation.
    for weight, wanted in (
        (layer.attention.attention.query.weight, 0.02 / 2**0.5 * 0.8796),
        (layer.output.dense.weight, 18 / 1024 / 2**0.5 * 0.8796),
        (model.audio_encoder.embedding.weight, 0.02 / 2**0.5 * 0.8796),
        (model.vision_encoder.seq_attnpool.key.weight, 1 / 16),
        (model.token_encoder.weight, 0.02),
    ):
        assert float(weight.detach().std()) == pytest.approx(wanted, rel=0.03)
    assert float(layer.output.dense.weight.detach().abs().max()) <= 2 * 18 / 1024 / 2**0.5
    assert all(not part.bias.any() for part in model.modules() if isinstance(part, nn.Linear) and part.bias is not None)
    assert model.contrastive_scales.tolist() == [1, 1, 1]
    assert 0 < float(model.vision_encoder.transformer.cls.detach().std()) < 0.03
    assert isinstance(model.vision_encoder.seq_attnpool, AttentionPool)


def test_a_wide_model_draws_its_word_table_evenly() -> None:
    sizes = {"hidden_size": 1024, "joint_layers": 0, "vision_layers": 0, "audio_layers": 0, "span_layers": 0}
    table = ReservePretraining({"model": {**sizes, "vocab_size": 64}}).token_encoder.weight
    limit = (6 / (1024 + 64)) ** 0.5
    assert 0.99 * limit < float(table.detach().abs().max()) <= limit


def test_training_begins_from_a_file(tmp_path) -> None:
    from mmpt.utils.weight_files import save_safetensors

    save_safetensors(tmp_path / "published.safetensors", parameters())
    config = golden_config("ReserveVCR", init=str(tmp_path / "published.safetensors"))
    model = ReserveVCR(config)
    assert torch.equal(model.token_encoder.weight, parameters()["token_encoder/Embed_0/embedding"])
    assert float(model.proj.weight.detach().std()) == pytest.approx(0.01, rel=0.3)
