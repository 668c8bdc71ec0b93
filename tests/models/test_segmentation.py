"""Segmentation models: outputs, published sizes, checkpoints with and without a classifier, and that they learn."""

import argparse
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from mmpt.evaluators.coin_predictor import COINPredictor
from mmpt.losses.generic import CrossEntropy
from mmpt.models import (
    MMFusionActionSegmentation,
    MMFusionMTM,
    MMFusionSeparate,
    MMFusionSeparateActionSegmentation,
)
from mmpt.processors.windows import video_only_text
from mmpt.tasks.task import Task
from mmpt.utils.checkpoint import load_checkpoint, reconcile
from mmpt.utils.errors import CheckpointError, ConfigError
from mmpt.utils.tokenizers import SpecialIds
from mmpt.utils.weight_files import save_safetensors

BOTH = pytest.mark.parametrize("cls", [MMFusionActionSegmentation, MMFusionSeparateActionSegmentation])
PRETRAINED = {MMFusionActionSegmentation: MMFusionMTM, MMFusionSeparateActionSegmentation: MMFusionSeparate}


def build(cls, seed=0, **model):
    torch.manual_seed(seed)
    config = cls.tiny_config()
    config.model.update(model)
    built = cls(config).eval()
    for module in built.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
    return built


def windows(count=5):
    """Windows of 8, 6, 8, 3 .. seconds."""
    generator = torch.Generator().manual_seed(7)
    caps, cmasks = video_only_text(SpecialIds(cls=2, sep=3, pad=0, mask=4), count)
    vmasks = torch.arange(8)[None] < (8 - torch.arange(count)[:, None] * 2 % 7)
    vfeats = torch.randn(count, 8, 512, generator=generator) * vmasks[..., None]
    return {"caps": caps, "cmasks": cmasks, "vfeats": vfeats, "vmasks": vmasks}


def logits_of(model, batch):
    with torch.no_grad():
        return model(**batch)["logits"]


@BOTH
def test_logits_and_the_loader_s_leading_dimension(cls):
    model, batch = build(cls), windows()
    logits = logits_of(model, batch)
    assert logits.shape == (5, 8, 5) and logits.dtype == torch.float32 and logits.isfinite().all()
    assert "retrieval" not in model.capabilities and "segmentation" in model.capabilities
    assert torch.equal(logits, logits_of(model, {key: value[None] for key, value in batch.items()}))
    singles = [logits_of(model, {key: value[row : row + 1] for key, value in batch.items()}) for row in range(5)]
    valid = batch["vmasks"]
    torch.testing.assert_close(logits[valid], torch.cat(singles)[valid], atol=5e-6, rtol=1e-5)


@BOTH
def test_only_valid_seconds_of_the_same_window_matter(cls):
    model, batch = build(cls), windows()
    wanted, valid = logits_of(model, batch), batch["vmasks"]
    noise = torch.where(valid[..., None], batch["vfeats"], torch.nan)
    got = logits_of(model, {**batch, "vfeats": noise})
    torch.testing.assert_close(wanted[valid], got[valid], atol=5e-6, rtol=1e-5)
    # the hidden [CLS] and the padding of the text beside the video
    caps = batch["caps"].clone()
    caps[:, 0], caps[:, 2] = 40, 41
    got = logits_of(model, {**batch, "caps": caps})
    torch.testing.assert_close(wanted[valid], got[valid], atol=5e-6, rtol=1e-5)
    if cls is MMFusionSeparateActionSegmentation:  # where [CLS] is to be seen, it counts
        shown = logits_of(model, {**batch, "cmasks": torch.ones_like(batch["cmasks"])})
        assert (shown - wanted)[valid].abs().max() > 1e-4
    changed = batch["vfeats"].clone()
    changed[0, 3] += 1
    moved = (logits_of(model, {**batch, "vfeats": changed}) - wanted).abs().amax(-1)
    assert (moved[0] > 1e-4).all() and moved[1:].max() < 1e-5


def test_all_layers_isolated_is_the_video_alone():
    model, batch = build(MMFusionActionSegmentation), windows()
    states = model.encode_video_frames(batch["vfeats"], batch["vmasks"])
    valid = batch["vmasks"]
    wanted = model.mm_encoder.classifier(states)[valid]
    torch.testing.assert_close(logits_of(model, batch)[valid], wanted, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("isolated", [None, 1, 2])
def test_fewer_isolated_layers_see_the_end_of_the_text(isolated):
    config = MMFusionActionSegmentation.tiny_config()
    config.dataset.num_iso_layer = isolated
    torch.manual_seed(0)
    model, batch = MMFusionActionSegmentation(config).eval(), windows(3)
    caps = batch["caps"].clone()
    caps[:, 3] = 40
    apart = (logits_of(model, batch) - logits_of(model, {**batch, "caps": caps}))[batch["vmasks"]]
    assert apart.abs().max() > 1e-6
    # the published pass: all positions at once, one mask per layer
    first, rest = torch.zeros(3, 1, dtype=torch.bool), torch.tensor([[True, False, True]]).expand(3, 3)
    seen = torch.cat([first, batch["vmasks"], rest], dim=1)
    part = torch.tensor([0] + [1] * 9 + [2] * 2)
    apart_mask = (part[:, None] == part[None]) & seen[:, None]
    masks = [apart_mask] * (isolated or 0) + [seen] * (3 - (isolated or 0))
    types = torch.tensor([[0] * 10 + [1] * 2]).expand(3, -1)
    with torch.no_grad():
        output = model.mm_encoder(batch["caps"], batch["vfeats"], masks, types).last_hidden_state
        wanted = model.mm_encoder.classifier(output[:, 1:9])
    valid = batch["vmasks"]
    torch.testing.assert_close(logits_of(model, batch)[valid], wanted[valid], atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "entries", "parameters", "model"),
    [
        (MMFusionActionSegmentation, 209, 111_264_011, {"use_seg_emb": True}),
        (MMFusionSeparateActionSegmentation, 312, 178_022_411, {}),
    ],
)
def test_published_sizes(cls, entries, parameters, model, tmp_path):
    bert = {"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 30522}
    (tmp_path / "config.json").write_text(json.dumps(bert))
    dataset = {"bert_name": str(tmp_path), "max_video_len": 32, "max_len": 96}
    with torch.device("meta"):
        built = cls(OmegaConf.create({"dataset": dataset, "model": {"init": "random", "num_labels": 779, **model}}))
    # published files hold the constant 0, 1, 2 .. of each embedding, too
    constants = sum(name.endswith("position_embeddings.weight") for name in built.state_dict())
    assert len(built.state_dict()) + constants == entries
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


def save(path, model, drop=()):
    """Save a training checkpoint of the published layout."""
    state = {f"mmmodel.{key}": value for key, value in model.state_dict().items() if not key.startswith(tuple(drop))}
    for key in [key for key in state if key.endswith("position_embeddings.weight")]:
        state[key.replace("position_embeddings.weight", "position_ids")] = torch.arange(512)[None]
    torch.save({"args": None, "cfg": {"task": argparse.Namespace(_name="mmtask")}, "model": state}, path)


@BOTH
def test_checkpoints_round_trip(cls, tmp_path):
    model, other, batch = build(cls), build(cls, seed=1), windows()
    wanted = logits_of(model, batch)
    assert not torch.equal(wanted, logits_of(other, batch))
    save_safetensors(tmp_path / "model.safetensors", model.state_dict())
    load_checkpoint(other, tmp_path / "model.safetensors")
    assert torch.equal(wanted, logits_of(other, batch))
    other = build(cls, seed=2)
    save(tmp_path / "checkpoint_best.pt", model)
    assert not load_checkpoint(other, tmp_path / "checkpoint_best.pt").missing
    assert torch.equal(wanted, logits_of(other, batch))


@BOTH
def test_fine_tuning_begins_with_a_new_classifier_and_a_test_never_does(cls, tmp_path):
    pretrained, model = build(PRETRAINED[cls], seed=3), build(cls)
    save(tmp_path / "checkpoint_best.pt", pretrained)
    with pytest.raises(
        CheckpointError, match=r"2 missing keys: \w+_encoder\.classifier\.bias, \w+_encoder\.classifier\.w"
    ):
        load_checkpoint(model, tmp_path / "checkpoint_best.pt")
    fresh = {key: value.clone() for key, value in model.state_dict().items() if "classifier" in key}
    with pytest.raises(CheckpointError, match="This checkpoint has no classifier: it was not fine-tuned for this task"):
        load_checkpoint(model, tmp_path / "checkpoint_best.pt")
    report = load_checkpoint(model, tmp_path / "checkpoint_best.pt", allow_missing=model.new_heads)
    assert sorted(report.missing) == sorted(fresh) and len(fresh) == 2
    state, before = model.state_dict(), pretrained.state_dict()
    assert all(torch.equal(state[key], before[key]) for key in report.loaded)
    assert all(torch.equal(state[key], value) for key, value in fresh.items())
    # what fairseq does when a training starts from it
    given = {f"mmmodel.{key}": value for key, value in before.items()}
    own = {f"mmmodel.{key}": value for key, value in build(cls).state_dict().items()}
    reconcile(given, own, prefix="mmmodel.", allow_missing=model.new_heads, allow_unexpected=model.allow_unexpected)
    assert set(given) - set(own) == set() == set(own) - set(given)


@BOTH
def test_another_number_of_classes_is_an_error(cls, tmp_path):
    save(tmp_path / "checkpoint_best.pt", build(cls))
    with pytest.raises(CheckpointError, match=r"classifier\.bias \(5,\) in the file, \(6,\) in the model"):
        load_checkpoint(build(cls, num_labels=6), tmp_path / "checkpoint_best.pt")


@BOTH
def test_wrong_settings(cls):
    config = cls.tiny_config()
    config.model.num_labels = None
    with pytest.raises(ConfigError, match=r"model\.num_labels: not set"):
        cls(config)
    config.model.num_labels = 0
    with pytest.raises(ConfigError, match=r"model\.num_labels: must be at least 1"):
        cls(config)
    key = "mm_encoder_cls" if cls is MMFusionActionSegmentation else "video_encoder_cls"
    config.model.update({"num_labels": 5, key: "MMBertForEncoder"})
    with pytest.raises(ConfigError, match=rf"model\.{key}: MMBertForEncoder has no classifier"):
        cls(config)


@pytest.fixture
def corpus(tmp_path):
    """Ten videos whose seconds are noise around one direction per class; COIN's layout."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((4, 16)) * 1.5
    database = {}
    (tmp_path / "feat").mkdir()
    for number in range(10):
        classes = np.repeat(rng.integers(0, 4, 5), 4)[: 17 + number % 4]
        features = directions[classes] + rng.standard_normal((len(classes), 16))
        np.save(tmp_path / "feat" / f"v{number}.npy", features.astype(np.float16))
        steps = [(second, int(label)) for second, label in enumerate(classes) if label]
        database[f"v{number}"] = {
            "subset": "training" if number < 7 else "testing",
            "annotation": [{"id": n, "label": f"step {n}", "segment": [s, s + 1.0]} for s, n in steps],
        }
    (tmp_path / "COIN.json").write_text(json.dumps({"database": database}))
    return tmp_path


def task_config(corpus, cls, **dataset):
    config = cls.tiny_config()
    config.model.update({"input_dim": 16, "num_labels": None})
    names = {"meta_processor": "MetaProcessor", "text_processor": "TextProcessor", "aligner": "Aligner"}
    config.dataset.update(
        {
            **{key: f"COINActionSegmentation{name}" for key, name in names.items()},
            "video_processor": "VideoProcessor",
            "vfeat_dir": str(corpus / "feat"),
            "sliding_window": 4,
            **dataset,
        }
    )
    return OmegaConf.merge(config, {"loss": {"loss_cls": "CrossEntropy"}})


@BOTH
def test_learns_classes_that_the_features_show(cls, corpus):
    torch.manual_seed(0)
    path = str(corpus / "COIN.json")
    task = Task(task_config(corpus, cls, train_path=path))
    task.build_dataset()
    model = task.build_model()
    assert model(**windows_of(task.train_data))["logits"].shape[-1] == 4  # the number of classes is that of the data
    assert isinstance(task.build_loss(), CrossEntropy)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = DataLoader(task.train_data, batch_size=1, shuffle=True, collate_fn=task.train_data.collater)
    for _ in range(8):
        for batch in loader:
            optimizer.zero_grad()
            task(model, batch)["loss"].backward()
            optimizer.step()
    tested = Task(task_config(corpus, cls, split="test", test_path=path))
    tested.build_dataset()
    config = {"eval": {"save_path": str(corpus / "eval")}}
    loader = DataLoader(tested.test_data, batch_size=1, collate_fn=tested.test_data.collater)
    outputs = COINPredictor(config)(model, loader, device="cpu")
    accuracy = (outputs["Y_pred"] == outputs["Y_true"]).mean()
    share = max(np.bincount(outputs["Y_true"])) / len(outputs["Y_true"])
    assert accuracy > 0.9 > share + 0.3


def windows_of(dataset):
    return {key: value for key, value in dataset[0].items() if key in ("caps", "cmasks", "vfeats", "vmasks")}


@BOTH
def test_several_videos_in_a_batch_are_refused_before_anything_is_read(cls, corpus):
    config = task_config(corpus, cls, train_path=str(corpus / "COIN.json"))
    config = OmegaConf.merge(config, {"fairseq": {"dataset": {"batch_size": 4}}})
    with pytest.raises(
        ConfigError, match=r"fairseq\.dataset\.batch_size is 4.*COINActionSegmentationAligner.*must be 1"
    ):
        Task(config).build_dataset()
