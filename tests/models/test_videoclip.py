"""VideoCLIP: numbers and key names of the published implementation, its options, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from published import TINY, assert_published, config_of, from_key, pair_inputs, read_golden, state_keys
from safetensors.torch import save_file

import mmpt.models
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.models.base import encode_by_length, masked_mean, valid_lengths
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.files import REPOSITORY


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return read_golden("mmpt_videoclip.npz")


@pytest.fixture(scope="module")
def batch(golden) -> dict[str, torch.Tensor]:
    return pair_inputs(golden)


def config(**sections):
    towers = {"video_encoder_cls": "MMBertForEncoder", "text_encoder_cls": "BertModel", "num_hidden_video_layers": 2}
    return config_of({**towers, **sections.pop("model", {})}, **sections)


@pytest.fixture(scope="module")
def published(golden) -> dict[str, torch.Tensor]:
    return {key: from_key(key, shape) for key, shape in state_keys(golden).items()}


@pytest.fixture
def model(published) -> MMFusionSeparate:
    built = MMFusionSeparate(OmegaConf.create(config()))
    load_into(built, published)
    return built.eval()


def test_outputs_and_loss_equal_the_published_implementation(model, batch, golden) -> None:
    with torch.no_grad():
        outputs = model(**batch)
        loss = MMContraLoss()(**outputs)
    for name, value in (*outputs.items(), ("loss", loss)):
        assert_published(value, golden["MMFusionSeparate." + name], name)


def test_parameters_have_the_published_names_and_shapes(model, published) -> None:
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wanted = {key: tuple(value.shape) for key, value in published.items() if not key.endswith("position_ids")}
    assert own == wanted
    assert load_into(model, published).unexpected == (
        "text_encoder.embeddings.position_ids",
        "video_encoder.bert.embeddings.position_ids",
    )
    model.load_state_dict({key: published[key] for key in own})
    with pytest.raises(CheckpointError, match=r"1 missing keys: text_encoder\.pooler\.dense\.bias"):
        load_into(model, {key: value for key, value in published.items() if key != "text_encoder.pooler.dense.bias"})
    with pytest.raises(CheckpointError, match="1 unexpected keys: cls"):
        load_into(model, {**published, "cls": torch.zeros(1)})


def test_base_size_has_the_published_number_of_entries_and_parameters(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with torch.device("meta"):
        base = MMFusionSeparate({"dataset": {"bert_name": str(tmp_path), "split": "test"}})
    position_ids = 2
    assert len(base.state_dict()) + position_ids == 310
    assert sum(parameter.numel() for parameter in base.parameters()) == 177_423_360


def test_length_groups_and_common_padding_do_not_change_the_output(model, batch) -> None:
    many = {name: value.repeat(9, *[1] * (value.dim() - 1)) for name, value in batch.items()}
    lengths = torch.arange(36) % 9
    many["vmasks"] = torch.arange(8)[None] < lengths[:, None]
    many["cmasks"] = torch.arange(16)[None] < (3 + lengths[:, None])
    results = []
    with torch.no_grad():
        for groups in (1, 4, 100):
            model.length_groups = groups
            results.append(model(**many))
        alone = [model(**{name: value[row : row + 1] for name, value in many.items()}) for row in range(36)]
    for name in ("pooled_video", "pooled_text"):
        singles = torch.cat([output[name] for output in alone])
        for result in results:
            torch.testing.assert_close(result[name], singles, atol=2e-6, rtol=1e-5)


def test_encode_video_and_frames_agree_with_the_states_of_forward(model, batch) -> None:
    masks = batch["vmasks"].clone()
    masks[:, 6:] = False
    masks[0, 2:] = False
    with torch.no_grad():
        states = model.forward_video(batch["vfeats"], masks, batch["caps"], batch["cmasks"], output_hidden_states=True)
        frames = model.encode_video_frames(batch["vfeats"], masks, batch["caps"])
        alone = model.encode_video_frames(batch["vfeats"][:1], masks[:1], batch["caps"][:1])
        pooled = model.encode_video(batch["vfeats"], masks, batch["caps"], batch["cmasks"])
        text = model.forward_text(batch["caps"], batch["cmasks"], output_hidden_states=True)
    assert states.shape == (4, 10, 32) and frames.shape == (4, 8, 32) and text.shape == (4, 15, 32)
    torch.testing.assert_close(frames[masks], states[:, 1:9][masks], atol=2e-6, rtol=1e-5)
    assert (frames[~masks] == 0).all()
    torch.testing.assert_close(frames[:1], alone, atol=2e-6, rtol=1e-5)
    counts = masks.sum(1, keepdim=True) + 1
    torch.testing.assert_close(pooled, (frames.sum(1) + states[:, 9]) / counts, atol=2e-6, rtol=1e-5)
    assert model.score_pairs(pooled[:2], pooled).shape == (2, 4)


@pytest.mark.parametrize(
    ("cls", "isolated"), [(MMFusionSeparate, None), (mmpt.models.MMFusionJoint, 2), (mmpt.models.MMFusionJoint, None)]
)
def test_unit_embeddings_make_dot_products_cosines(cls, isolated) -> None:
    plain_config = OmegaConf.merge(cls.tiny_config(), {"dataset": {"num_iso_layer": isolated}})
    unit_config = OmegaConf.merge(plain_config, {"model": {"unit_embeddings": True}})
    torch.manual_seed(0)
    plain = cls(plain_config).eval()
    unit = cls(unit_config).eval()
    unit.load_state_dict(plain.state_dict())
    inputs = {"caps": torch.tensor([[2, 3, 9, 3, 0], [2, 3, 8, 7, 3]]), "vfeats": torch.randn(2, 4, 512)}
    inputs |= {"cmasks": inputs["caps"] > 0, "vmasks": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()}
    with torch.no_grad():
        before, after = plain(**inputs), unit(**inputs)
        if cls is MMFusionSeparate or isolated:
            text = unit.encode_text(inputs["caps"], inputs["cmasks"])
            torch.testing.assert_close(text, after["pooled_text"])
    for name in ("pooled_video", "pooled_text"):
        assert (before[name].norm(dim=1) - 1).abs().min() > 1e-2
        torch.testing.assert_close(after[name], before[name] / before[name].norm(dim=1, keepdim=True))
    loss = MMContraLoss(temperature=0.1)
    torch.testing.assert_close(loss(**after), MMContraLoss(temperature=0.1, normalize=True)(**before))


def test_unit_embeddings_of_nothing_are_zeros_in_half_precision_too() -> None:
    model = MMFusionSeparate(OmegaConf.merge(MMFusionSeparate.tiny_config(), {"model": {"unit_embeddings": True}}))
    states, mask = torch.ones(2, 3, 4, dtype=torch.float16), torch.tensor([[True, True, False], [False] * 3])
    torch.testing.assert_close(model.pool(states, mask), torch.tensor([[0.5] * 4, [0.0] * 4], dtype=torch.float16))


def test_special_ids_come_from_the_tokenizer_when_there_is_no_text(model, batch) -> None:
    pytest.importorskip("transformers")
    with torch.no_grad():
        assert torch.equal(model.encode_video(batch["vfeats"], batch["vmasks"]), model(**batch)["pooled_video"])


def test_rows_without_anything_valid_give_finite_numbers(model, batch) -> None:
    empty = {**batch, "cmasks": torch.zeros_like(batch["cmasks"]), "vmasks": torch.zeros_like(batch["vmasks"])}
    with torch.no_grad():
        outputs = model(**empty)
    assert all((value == 0).all() for value in outputs.values())
    with torch.no_grad():
        only_specials = model(**{**batch, "vmasks": empty["vmasks"]})["pooled_video"]
    assert torch.isfinite(only_specials).all() and only_specials.abs().sum() > 0


def test_masks_may_be_integers_and_features_half(model, batch) -> None:
    with torch.no_grad():
        plain = model(**batch)
        given = {**batch, "cmasks": batch["cmasks"].long(), "vmasks": batch["vmasks"].to(torch.uint8)}
        given["vfeats"] = batch["vfeats"].half()
        other = model(**given)
    torch.testing.assert_close(plain["pooled_text"], other["pooled_text"])
    torch.testing.assert_close(plain["pooled_video"], other["pooled_video"], atol=1e-3, rtol=1e-3)


def test_bad_inputs_name_the_key(model, batch) -> None:
    with pytest.raises(DataError, match=r"width 600, expected model\.input_dim=512"):
        model(**{**batch, "vfeats": torch.zeros(4, 8, 600)})
    long = {**batch, "vfeats": torch.zeros(4, 9, 512), "vmasks": torch.ones(4, 9)}
    with pytest.raises(DataError, match=r"9 seconds.*dataset\.max_video_len: 8"):
        model(**long)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"mm_encoder_cls": "MMBertForEncoder"}, r"model\.mm_encoder_cls"),
        ("model", {"init": "pretraind"}, r"model\.init: 'pretraind'"),
        ("model", {"num_hidden_video_layers": 0}, r"model\.num_hidden_video_layers: must be at least 1"),
        ("model", {"text_encoder_cls": "BertModle"}, "unknown encoder 'BertModle'.*'BertModel'"),
        ("dataset", {"max_len": 10}, r"dataset\.max_len: 10 leaves no room"),
        ("dataset", {"max_video_len": 63, "max_len": 70}, "need 65 positions, but .* has 64"),
        ("dataset", {"max_len": 80}, "need 71 positions"),
        ("model", {"input_dim": "wide"}, "input_dim"),
    ],
)
def test_bad_settings_name_the_key(section: str, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MMFusionSeparate(config(**{section: values}))


def test_null_encoder_keys_of_public_configs_mean_the_defaults() -> None:
    built = MMFusionSeparate(config(model={"mm_encoder_cls": None, "video_encoder_cls": None}))
    assert type(built.video_encoder).__name__ == "MMBertForEncoder"
    assert len(built.video_encoder.bert.encoder.layer) == 2 and len(built.text_encoder.encoder.layer) == 3


@pytest.fixture
def pretrained_folder(tmp_path, published) -> str:
    prefix = "text_encoder."
    state = {"bert." + key.removeprefix(prefix): value for key, value in published.items() if key.startswith(prefix)}
    state = {key.replace("bert.pooler", "cls.pooler"): value for key, value in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    return str(tmp_path)


def test_training_starts_from_bert_in_both_towers(pretrained_folder, published) -> None:
    built = MMFusionSeparate(config(dataset={"bert_name": pretrained_folder, "split": "train"}))
    for tower, depth in ((built.text_encoder, 3), (built.video_encoder.bert, 2)):
        for layer in range(depth):
            key = f"encoder.layer.{layer}.attention.self.query.weight"
            assert torch.equal(tower.get_parameter(key), published["text_encoder." + key])
        words = "embeddings.word_embeddings.weight"
        assert torch.equal(tower.get_parameter(words), published["text_encoder." + words])


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"init": "random"}, "dataset": {"split": "train"}},
        {"dataset": {"split": "test"}},
        {"dataset": {"split": "train"}, "fairseq": {"checkpoint": {"restore_file": "runs/a/checkpoint_best.pt"}}},
    ],
)
def test_bert_is_not_read_where_other_weights_replace_it(sections: dict) -> None:
    MMFusionSeparate(config(**sections))  # the folder holds no weights


def test_training_from_a_folder_without_weights_says_what_to_do() -> None:
    for split in ("train", None):
        with pytest.raises(CheckpointError, match=r"model\.init: random"):
            MMFusionSeparate(config(dataset={"split": split}))


def test_gradient_checkpointing_key_reaches_both_towers() -> None:
    built = MMFusionSeparate(config(model={"gradient_checkpointing": True}))
    assert built.video_encoder.bert.encoder.gradient_checkpointing and built.text_encoder.encoder.gradient_checkpointing


def test_models_and_losses_are_importable_by_their_public_names() -> None:
    assert mmpt.models.MMFusionSeparate is MMFusionSeparate and "MMFusionSeparate" in dir(mmpt.models)
    with pytest.raises(AttributeError, match="no attribute 'MMFusionSeperate'"):
        _ = mmpt.models.MMFusionSeperate
    assert mmpt.models.MMFusionJoint.__module__ == "mmpt.models.vlm"


def test_everything_imports_without_optional_packages() -> None:
    modules = [
        "mmpt.models.videoclip",
        "mmpt.models.vlm",
        "mmpt.models.embedding",
        "mmpt.losses.contrastive",
        "mmpt.modules.retri",
    ]
    code = (
        "import sys\n"
        "for name in ('transformers', 'faiss', 'av', 'fairseq', 'PIL', 'matplotlib'): sys.modules[name] = None\n"
        + "\n".join(f"import {name}" for name in modules)
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_helpers_on_worked_examples() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
    assert valid_lengths(mask).tolist() == [3, 0, 2]
    assert valid_lengths(mask[:, :0]).tolist() == [0, 0, 0]
    states = torch.arange(12.0).reshape(3, 4, 1)
    assert masked_mean(states, mask)[:, 0].tolist() == [1.0, 0.0, 8.5]

    lengths = torch.tensor([5, 1, 3, 2, 4, 0, 5, 1] * 4)
    wide = torch.arange(5)[None] < lengths[:, None]
    seen = []

    def encode(rows, longest):
        seen.append((len(lengths[rows]), longest))
        return lengths[rows][:, None]

    assert torch.equal(encode_by_length(wide, 4, encode)[:, 0], lengths)
    assert seen == [(8, 1), (8, 2), (8, 4), (8, 5)]


def test_one_video_may_have_several_texts(model, batch) -> None:
    with torch.no_grad():
        whole = model(**batch)
        fewer = model(batch["caps"], batch["cmasks"], batch["vfeats"][:2], batch["vmasks"][:2])
    assert torch.equal(fewer["pooled_text"], whole["pooled_text"])
    torch.testing.assert_close(fewer["pooled_video"], whole["pooled_video"][:2], atol=2e-6, rtol=1e-5)
