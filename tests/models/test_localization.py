"""Step localisation: published numbers, the published definition of VLM's, and a problem that a tiny model learns."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from published import assert_published, from_key, pair_inputs, read_golden, state_keys

from mmpt.datasets.mmdataset import MMDataset
from mmpt.evaluators.crosstask_metrics import CrossTaskMetric
from mmpt.evaluators.crosstask_predictor import CrossTaskPredictor
from mmpt.losses.generic import BCE
from mmpt.models.base import VideoTextModel
from mmpt.models.dense import MMFusionActionLocalization
from mmpt.models.embedding import flatten_samples
from mmpt.models.vlm import MMFusionJoint
from mmpt.modules.attention_masks import isolated_mask
from mmpt.processors.crosstask import CrossTaskAligner, StepVideo
from mmpt.processors.crosstask_files import Segment
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import resolve_class

NAMES = ("MMFusionActionLocalization", "MMFusionSeparateActionLocalization", "MMFusionShareActionLocalization")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return read_golden("mmpt_videoclip.npz")


@pytest.fixture(scope="module")
def batch(golden) -> dict[str, torch.Tensor]:
    """Four windows and four steps; numbers of windows and steps need not be the same."""
    return pair_inputs(golden)


def build(name: str, seed: int = 0, **sections) -> VideoTextModel:
    torch.manual_seed(seed)
    cls = resolve_class("model", name)
    model = cls(OmegaConf.merge(cls.tiny_config(), sections)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.1)
    return model


def test_logits_equal_the_published_implementation(golden, batch) -> None:
    model = build("MMFusionSeparateActionLocalization")
    load_into(model, {key: from_key(key, shape) for key, shape in state_keys(golden).items()})
    logits = model(**{name: value[None] for name, value in batch.items()})["logits"]
    name = "MMFusionSeparateActionLocalization.logits"
    assert_published(logits, read_golden("mmpt_localization.npz")[name], name)


def test_vlm_has_the_published_layout() -> None:
    shapes = state_keys(read_golden("mmpt_localization.npz"))
    model = build("MMFusionActionLocalization", model={"use_seg_emb": True})
    report = load_into(model, {key: from_key(key, shape) for key, shape in shapes.items()})
    assert report.missing == () and all(key.endswith("position_ids") for key in report.unexpected)
    assert all(list(value.shape) == shapes[key] for key, value in model.state_dict().items())


def test_vlm_as_it_is_defined(batch) -> None:
    """A video beside ``[CLS] [SEP] [PAD] [SEP]`` of mask 0 1 0 1; texts beside one second of zeros."""
    model = build("MMFusionActionLocalization", dataset={"num_iso_layer": 3})
    joint = MMFusionJoint(OmegaConf.merge(MMFusionJoint.tiny_config(), {"dataset": {"num_iso_layer": 3}})).eval()
    load_into(joint, model.state_dict())
    windows, steps = batch["vfeats"][:3], batch["caps"]
    caps = torch.tensor([[2, 3, 0, 3]]).repeat(3, 1)
    cmasks = torch.tensor([[False, True, False, True]]).repeat(3, 1)
    zeros, seen = torch.zeros(4, 1, 512), torch.ones(4, 1, dtype=torch.bool)
    with torch.no_grad():
        logits = model(steps, batch["cmasks"], windows, batch["vmasks"][:3])["logits"]
        video = joint.joint_states(caps, cmasks, windows, batch["vmasks"][:3])[:, 1:9][batch["vmasks"][:3]]
        text = joint.joint_states(steps, batch["cmasks"], zeros, seen, isolated_mask(seen, batch["cmasks"]))[:, 3:]
        words = batch["cmasks"][:, 2:, None]
    torch.testing.assert_close(logits, video @ ((text * words).sum(1) / words.sum(1)).T, atol=1e-5, rtol=1e-5)


def test_vlm_needs_isolated_halves() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.num_iso_layer"):
        build("MMFusionActionLocalization", dataset={"num_iso_layer": None})
    assert "localization" in MMFusionActionLocalization.capabilities


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_rows_are_valid_seconds_and_columns_steps(self, name, batch) -> None:
        model, vmasks = build(name), batch["vmasks"]
        with torch.no_grad():
            together = model(**batch)["logits"]
            other = model(**{**batch, "caps": batch["caps"][2:], "cmasks": batch["cmasks"][2:]})["logits"]
            windows = [
                model(batch["caps"], batch["cmasks"], batch["vfeats"][row : row + 1], vmasks[row : row + 1])["logits"]
                for row in range(len(vmasks))
            ]
        assert together.shape == (int(vmasks.sum()), 4) and other.shape == (int(vmasks.sum()), 2)
        torch.testing.assert_close(torch.cat(windows), together, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other, together[:, 2:], atol=1e-5, rtol=1e-5)

    def test_a_batch_dimension_of_one(self, name, batch) -> None:
        model = build(name)
        with torch.no_grad():
            wanted = model(**batch)["logits"]
            loaded = {key: value[None] for key, value in batch.items()}
            for inputs in (loaded, flatten_samples(loaded)):
                assert torch.equal(model(**inputs, targets=None)["logits"], wanted)

    def test_padding_and_cls_have_no_influence(self, name, batch) -> None:
        model = build(name)
        changed = {key: value.clone() for key, value in batch.items()}
        changed["vfeats"][~batch["vmasks"]] = float("nan")
        changed["caps"][~batch["cmasks"]] = 7
        with torch.no_grad():
            wanted = model(**batch)["logits"]
            torch.testing.assert_close(model(**changed)["logits"], wanted, atol=1e-5, rtol=1e-5)
            # the video does not see [CLS]; the text does, but for VLM's, whose halves hide it
            embedding = next(m for n, m in model.named_modules() if n.endswith("word_embeddings"))
            embedding.weight[2] = torch.randn(32)
            after = model(**batch)["logits"]
        sees = name == "MMFusionShareActionLocalization"
        assert torch.allclose(after, wanted, atol=1e-5) is not sees

    def test_weights_of_training_and_half_precision(self, name, batch) -> None:
        model = build(name).train()
        logits = model(**batch)["logits"]
        BCE()(logits=logits, targets=torch.zeros(1, *logits.shape)).backward()
        grads = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        assert all(torch.isfinite(grad).all() for grad in grads.values())
        assert any(grad.abs().sum() > 0 for key, grad in grads.items() if "videomlp" in key)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model.eval()(**batch)["logits"].dtype == torch.float32


STEPS = ("w1", "w2 w3", "w4")
DATASET = {
    "bert_name": "tests/data/tiny_bert",
    "use_fast": False,
    "max_video_len": 8,
    "max_len": 24,
    "sliding_window": 4,
    "sliding_window_size": 8,
    "split": "test",
}


def synthetic(number: int, seed: int) -> list[dict]:
    """Videos of 12 to 16 seconds: background, and each step for two seconds, in order."""
    rng = np.random.default_rng(seed)
    looks = np.random.default_rng(99).standard_normal((len(STEPS), 16)).astype(np.float32)
    aligner, items = CrossTaskAligner(DATASET), []
    for video in range(number):
        seconds = int(rng.integers(12, 17))
        starts = 2 * np.sort(rng.choice(seconds // 2, len(STEPS), replace=False))
        feature = 0.3 * rng.standard_normal((seconds, 16)).astype(np.float32)
        for step, start in enumerate(starts):
            feature[start : start + 2] += looks[step]
        segments = tuple(Segment(step, float(start), float(start + 2)) for step, start in enumerate(starts))
        words = [[word_id(name) for name in step.split()] for step in STEPS]
        items.append(aligner(StepVideo(f"v{video}", "23", STEPS, segments), feature, words))
    return items


def word_id(word: str) -> int:
    return 5 + int(word[1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_model_learns_to_locate_steps(name, tmp_path) -> None:
    model = build(name, model={"input_dim": 16}).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    batches = [MMDataset.collater([one]) for one in synthetic(16, seed=1)]
    for _ in range(4):
        for batch in batches:
            batch = flatten_samples(batch)
            loss = BCE()(**{**batch, **model(**batch)})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    predictor = CrossTaskPredictor({"dataset": DATASET, "eval": {"save_path": str(tmp_path)}})
    unseen = [MMDataset.collater([one]) for one in synthetic(16, seed=2)]
    metrics = CrossTaskMetric().compute_metrics(**predictor(model, unseen, device="cpu"))
    assert metrics["recall"] > 0.85 > 2 * metrics["recall_chance_ordered"] > 2 * metrics["recall_chance"]
