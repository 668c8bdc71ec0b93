"""The embedding loop: order, ids, clips, and that it leaves model and random state as they were."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from mmpt.models.embedding import embed_pairs, evaluating, flatten_samples
from mmpt.models.vlm import MMFusionJoint
from mmpt.utils.errors import ConfigError, DataError


class Sums(nn.Module):
    """A model whose outputs say which rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.frozen = nn.Dropout(0.5).eval()
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, caps, vfeats, **kwargs):
        self.calls.append((self.training, torch.is_grad_enabled()))
        return {"pooled_video": vfeats.sum((1, 2))[:, None].half(), "pooled_text": caps.sum(1)[:, None].float()}


def batch(rows: list[int], **extra) -> dict:
    caps = torch.tensor(rows)[:, None] * torch.tensor([1, 0, 0])
    return {"caps": caps, "vfeats": 2.0 * caps[..., None], **extra}


def test_rows_stay_in_order_as_float32() -> None:
    pairs = embed_pairs(Sums(), [batch([3, 1], video_id=["c", "a"]), batch([2], video_id=["b"])])
    assert pairs.ids == ["c", "a", "b"]
    assert pairs.video.dtype == pairs.text.dtype == np.float32
    assert pairs.text[:, 0].tolist() == [3, 1, 2] and pairs.video[:, 0].tolist() == [6, 2, 4]


def test_ids_fall_back_to_indices_and_numbers() -> None:
    assert embed_pairs(Sums(), [batch([1, 2], idx=torch.tensor([7, 9]))]).ids == [7, 9]
    assert embed_pairs(Sums(), [batch([1, 2]), batch([3])]).ids == [0, 1, 2]


def grouped(shape: tuple[int, ...]) -> dict:
    rows = torch.arange(int(np.prod(shape))).reshape(shape)
    caps = rows[..., None] * torch.tensor([1, 0, 0])
    return {"caps": caps, "vfeats": caps[..., None].float(), "start": torch.zeros(shape[0])}


def test_clips_are_merged_and_each_video_names_its_clips() -> None:
    pairs = embed_pairs(Sums(), [{**grouped((2, 3)), "video_id": ["a", "b"]}])
    assert pairs.ids == ["a"] * 3 + ["b"] * 3 and pairs.text[:, 0].tolist() == list(range(6))


def test_groups_of_videos_in_a_collated_batch_keep_their_ids() -> None:
    items = [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
    collated = [tuple(item[position] for item in items) for position in range(3)]  # as default_collate transposes
    pairs = embed_pairs(Sums(), [{**grouped((2, 3, 2)), "video_id": collated}])
    assert pairs.ids == [name for name in ("a1", "a2", "a3", "b1", "b2", "b3") for _ in range(2)]
    one = embed_pairs(Sums(), [{**grouped((1, 3, 2)), "video_id": [("a1",), ("a2",), ("a3",)]}])
    assert one.ids == ["a1", "a1", "a2", "a2", "a3", "a3"]


def test_ids_that_do_not_divide_the_pairs_are_an_error() -> None:
    with pytest.raises(DataError, match="3 pairs comes with 2 ids"):
        embed_pairs(Sums(), [batch([1, 2, 3], video_id=["a", "b"])])


def test_an_empty_loader_is_an_error() -> None:
    with pytest.raises(DataError, match="no items"):
        embed_pairs(Sums(), [])


def test_modes_are_put_back_after_success_and_failure() -> None:
    model = Sums().train()
    model.frozen.eval()
    embed_pairs(model, [batch([1])])
    assert model.calls == [(False, False)]
    assert model.training and model.layer.training and not model.frozen.training
    with pytest.raises(KeyError):
        embed_pairs(model, [{"vfeats": torch.zeros(1)}])
    assert model.training and not model.frozen.training
    with evaluating(model):
        assert not model.training
    assert model.training


def test_random_state_is_left_alone_even_by_a_shuffling_loader() -> None:
    loader = DataLoader([batch([1])] * 4, batch_size=None, shuffle=True)
    model = Sums()
    before = torch.get_rng_state()
    embed_pairs(model, loader)
    assert torch.equal(before, torch.get_rng_state())


def test_device_and_progress(capsys) -> None:
    model = Sums()
    pairs = embed_pairs(model, [batch([1])], device="cpu", progress="embedding")
    assert len(pairs.ids) == 1 and "embedding" in capsys.readouterr().err


def test_leading_dimensions_are_merged_in_order() -> None:
    caps = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    batch = {"caps": caps, "vfeats": torch.rand(2, 3, 4, 6, 7), "idx": torch.tensor([1, 2]), "video_id": ["a"]}
    flat = flatten_samples(batch)
    assert flat["caps"].shape == (24, 5)
    assert torch.equal(flat["caps"][1 * 12 + 2 * 4 + 3], caps[1, 2, 3])
    assert flat["vfeats"].shape == (24, 6, 7)
    assert flat["idx"].shape == (2,)
    again = flatten_samples(flat)
    assert again.keys() == flat.keys() and all(again[key] is flat[key] for key in flat)


def test_a_model_that_encodes_pairs_together_is_refused() -> None:
    model = MMFusionJoint(OmegaConf.merge(MMFusionJoint.tiny_config(), {"dataset": {"num_iso_layer": None}}))
    with pytest.raises(ConfigError, match=r"MMFusionJoint does not encode videos and texts apart.*num_iso_layer"):
        embed_pairs(model, [])
