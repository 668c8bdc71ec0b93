"""Items of VIOLET's pre-training: frames and tokens of the same numbers, masks of the item alone, a training step."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_samples import TINY_BERT, settings, word, write_frames
from omegaconf import OmegaConf

from mmpt.datasets.mmdataset import MMDataset
from mmpt.losses.violet import VIOLETLoss
from mmpt.models.violet import VIOLETPretraining
from mmpt.processors.base import UnusableItemError
from mmpt.processors.frame_base import FrameVideoProcessor
from mmpt.processors.violet_pretraining import VIOLETPretrainingAligner
from mmpt.store.visual_tokens import new_shard
from mmpt.utils.errors import ConfigError, DataError

VIDEOS = {"long": 20, "short": 2, "one": 1}
CAPTION = [word(n) for n in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("violet")
    write_frames(folder / "frames", {**VIDEOS, "without": 3, "other": 3})
    with new_shard(folder / "vq", (2, 2), {}) as writer:
        for video, frames in {**VIDEOS, "other": 4}.items():  # the tokens of frame k are k, 100 + k, 200 + k, 300 + k
            writer.append((np.arange(frames)[:, None] + 100 * np.arange(4)).reshape(-1, 2, 2).astype(np.uint16), video)
    return folder


def aligner(folder: Path, split: str = "train", **more: object) -> VIOLETPretrainingAligner:
    return VIOLETPretrainingAligner(OmegaConf.create(settings(folder, split, vq_path=str(folder / "vq"), **more)))


def item(folder: Path, video: object, seed: int = 0, split: str = "train", **more: object) -> dict[str, torch.Tensor]:
    made = aligner(folder, split, **more)
    stored = FrameVideoProcessor(settings(folder))(video)
    return made(video, stored, CAPTION, np.random.default_rng(seed))


def levels(made: dict[str, torch.Tensor]) -> list[int]:
    """Return which frames are in an item: frame k is grey of level 10 k."""
    centre = made["vfeats"].float()[:, 0, 6:10].mean((1, 2))[made["vmasks"]]
    return (centre / 10).round().long().tolist()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_tokens_are_those_of_the_frames_that_were_drawn(folder: Path, split: str) -> None:
    drawn = set()
    for seed in range(8):
        made = item(folder, "long", seed, split)
        codes = made["visual_codes"]
        assert codes.shape == (4, 2, 2) and codes.dtype == torch.int64
        assert codes[:, 0, 0].tolist() == levels(made)
        assert torch.equal(codes.flatten(1) - codes[:, :1, 0], 100 * torch.arange(4).expand(4, 4))
        drawn.add(tuple(levels(made)))
    assert len(drawn) > 1 if split == "train" else drawn == {(0, 6, 13, 19)}


def test_tokens_of_a_clip_are_those_of_its_frames(folder: Path) -> None:
    made = item(folder, ("long", 20.5, 35.0), split="valid")  # frames 10 to 16 are shown from 21 to 33
    assert made["visual_codes"][:, 0, 0].tolist() == levels(made) == [10, 12, 14, 16]


def test_absent_frames_have_no_masks(folder: Path) -> None:
    for seed in range(10):
        made = item(folder, "short", seed)
        assert made["vmasks"].tolist() == [True, True, False, False]
        assert made["masked_squares"][:2].any() and not made["masked_squares"][2:].any()


def test_words_are_masked_by_their_probability_and_specials_never(folder: Path) -> None:
    made = aligner(folder, mask_probability=0.3)
    stored = FrameVideoProcessor(settings(folder))("one")
    rng = np.random.default_rng(0)
    items = [made("one", stored, CAPTION, rng) for _ in range(400)]
    share = torch.stack([one["masked_words"] for one in items]).float().mean(0)
    assert (share[1:6] - 0.3).abs().max() < 0.1 and not share[0] and not share[6:].any()
    assert 0.4 < np.mean([bool(one["attended"]) for one in items]) < 0.6
    assert items[0]["selection_noise"].shape == (4 * 5 + 8,) and items[0]["selection_noise"].dtype == torch.float32
    never = aligner(folder, attended_share=0.0)
    assert not any(never("one", stored, CAPTION, rng)["attended"] for _ in range(20))


def test_an_item_depends_on_its_generator_alone(folder: Path) -> None:
    one, other = item(folder, "long", 5), item(folder, "long", 5)
    assert all(torch.equal(value, other[key]) for key, value in one.items() if isinstance(value, torch.Tensor))
    assert not torch.equal(one["selection_noise"], item(folder, "long", 6)["selection_noise"])
    spawned = pickle.loads(pickle.dumps(aligner(folder)))  # as a worker gets it
    again = spawned("long", FrameVideoProcessor(settings(folder))("long"), CAPTION, np.random.default_rng(5))
    assert all(torch.equal(value, again[key]) for key, value in one.items() if isinstance(value, torch.Tensor))


def test_what_does_not_fit_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.image_transform: \['img_rand_crop'\].*pad_resize"):
        aligner(folder, image_transform=["img_rand_crop"])
    with pytest.raises(ConfigError, match=r"dataset\.attended_share: 2"):
        aligner(folder, attended_share=2.0)
    with pytest.raises(ConfigError, match=r"dataset\.vq_path: not set"):
        VIOLETPretrainingAligner(settings(folder, "train"))
    with pytest.raises(DataError, match=r"dataset\.image_size: 15"):
        aligner(folder, image_size=15)
    with pytest.raises(UnusableItemError, match="video without: has no visual tokens"):
        item(folder, "without")
    with pytest.raises(DataError, match="video other: .* tokens of 4 frames"):
        item(folder, "other")


def test_a_trained_model_is_used_without_the_tokens_of_its_training(folder: Path) -> None:
    made = VIOLETPretrainingAligner(settings(folder, vq_path=str(folder / "moved away")))
    assert made._build_text_seq(CAPTION)[0].tolist() == item(folder, "long")["caps"].tolist()


def test_items_of_different_lengths_train_the_model_together(folder: Path) -> None:
    """Loss and gradients of a batch of one-, two- and four-frame clips, half of it masked by attention."""
    sizes = {"num_frames": 4, "image_size": 16, "max_text_len": 8, "bert_name": TINY_BERT}
    config = OmegaConf.merge(
        VIOLETPretraining.tiny_config(), {"dataset": sizes, "model": {"visual_codes": 400, "max_frames": 4}}
    )
    torch.manual_seed(0)
    model = VIOLETPretraining(config).train()
    items = [item(folder, video, seed) for seed in (1, 2) for video in VIDEOS]
    batch = MMDataset.collater(items)
    batch["attended"] = torch.arange(6) % 2 == 0
    outputs = model(**batch)
    loss = VIOLETLoss()(**{**batch, **outputs})
    loss.backward()
    assert torch.isfinite(loss) and len(outputs["code_logits"]) > 6
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert set(outputs["code_targets"].tolist()) <= set(batch["visual_codes"].flatten().tolist())
