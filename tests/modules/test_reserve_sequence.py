"""The joint sequence: published numbers, and a worked example of who sees whom."""

import numpy as np
import pytest
import torch

from mmpt.models.reserve_weights import published_names
from mmpt.modules.reserve_noise import reserve_noise, split_sources
from mmpt.modules.reserve_sequence import prepare_multimodal_inputs
from mmpt.modules.reserve_towers import Tower, tower_options
from mmpt.utils.errors import DataError
from tests.models.published_reserve import reserve_golden


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in reserve_golden().items()}


def assert_published(golden, name: str, inputs) -> None:
    torch.testing.assert_close(inputs.x, golden[f"outputs/{name}/x"], atol=1e-4, rtol=0)
    torch.testing.assert_close(inputs.coordinates, golden[f"outputs/{name}/rotary_coords"], atol=1e-6, rtol=0)
    assert torch.equal(inputs.mask, golden[f"outputs/{name}/attention_mask"])


def test_a_zero_shot_sequence_is_the_published_one(golden) -> None:
    tokens, subsegments = (golden[f"inputs/{name}"].long()[None] for name in ("zs_tokens", "zs_subseg_idxs"))
    inputs = prepare_multimodal_inputs(
        tokens,
        torch.div(subsegments, 3, rounding_mode="floor"),
        golden["params/token_encoder/Embed_0/embedding"][tokens],
        vision=golden["outputs/vision/seq_attnpool"][None, :4],
        vision_grid=(2, 2),
        audio=golden["outputs/audio/seq_attnpool"][None, :12],
        audio_pointers=subsegments,
        padding_length=44,
    )
    assert_published(golden, "mm", inputs)


def test_sequences_of_several_videos_are_the_published_ones(golden) -> None:
    tokens, pointers = (golden[f"inputs/audio2text{end}"].view(6, 32).long() for end in ("", "/audio_ptr"))
    inputs = prepare_multimodal_inputs(
        tokens,
        torch.div(pointers, 3, rounding_mode="floor") % 2,
        golden["params/token_encoder/Embed_0/embedding"][tokens],
        vision=golden["outputs/vision/seq_attnpool"][:2].expand(6, -1, -1, -1),
        vision_grid=(2, 2),
        audio=golden["outputs/audio/seq_attnpool"][:12].expand(6, -1, -1, -1),
        audio_pointers=pointers,
        padding_length=40,
        sources=golden["inputs/video_src_index"].view(6, 2).long(),
    )
    assert_published(golden, "mm2", inputs)
    # and what the joint transformer makes of them, of padding too
    tower = Tower(tower_options(128, 2, 64), with_cls=False).eval()
    names = {key.removeprefix("params/"): value for key, value in golden.items() if "joint_transformer" in key}
    state = {key.removeprefix("joint_transformer."): value for key, value in published_names(names).items()}
    tower.load_state_dict(state)
    with torch.no_grad():
        joined = tower(*inputs)[1]
    torch.testing.assert_close(joined, golden["outputs/mm2/joint_seq"], atol=1e-4, rtol=0)


def test_who_sees_whom() -> None:
    tokens = torch.tensor([[7, 8, 0]])
    inputs = prepare_multimodal_inputs(
        tokens,
        torch.tensor([[0, 1, -1]]),
        torch.zeros(1, 3, 4),
        vision=torch.ones(1, 2, 1, 4),
        vision_grid=(1, 1),
        padding_length=6,
        sources=torch.tensor([[3, 5]]),
    )
    words_and_frames = [
        [1, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0] * 6,
        [1, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0] * 6,
    ]
    assert inputs.mask[0].int().tolist() == words_and_frames
    hidden = prepare_multimodal_inputs(
        tokens,
        None,
        torch.zeros(1, 3, 4),
        vision=torch.ones(1, 2, 1, 4),
        vision_grid=(1, 1),
        vision_segments=torch.tensor([1, 2]),
        vision_mask=torch.tensor([[True, False]]),
    )
    assert hidden.mask[0, 0].int().tolist() == [1, 1, 0, 1, 0]
    assert hidden.coordinates[0, 3:, 2].tolist() == [1 / 16, 2 / 16]


def test_sounds_stand_in_runs() -> None:
    tokens = torch.tensor([[5, 5, 9, 5, 5]])
    sounds = torch.arange(3 * 2 * 1.0).view(1, 3, 2, 1) + 1
    pointers = torch.tensor([[2, 2, -1, 0, 0]])
    inputs = prepare_multimodal_inputs(tokens, None, torch.zeros(1, 5, 1), audio=sounds, audio_pointers=pointers)
    assert inputs.x[0, :, 0].tolist() == [5, 6, 0, 1, 2]
    first = prepare_multimodal_inputs(tokens, None, torch.zeros(1, 5, 1), audio=sounds)
    assert first.x[0, :, 0].tolist() == [1, 2, 0, 1, 2]


def test_too_long_a_sequence_is_refused() -> None:
    with pytest.raises(DataError, match="3 positions does not fit 2"):
        prepare_multimodal_inputs(torch.ones(1, 3, dtype=torch.long), None, torch.zeros(1, 3, 4), padding_length=2)


def test_noise_depends_on_the_generator_alone() -> None:
    one, other = (reserve_noise(np.random.default_rng(5), 62, 4) for _ in range(2))
    assert set(one) == {"noise_gumbel", "noise_split", "noise_cut"}
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert one["noise_gumbel"].shape == (62,) and one["noise_gumbel"].dtype == torch.float32
    many = reserve_noise(np.random.default_rng(5), 20_000, 20_000)
    assert float(many["noise_gumbel"].mean()) == pytest.approx(0.5772, abs=0.03)
    assert float(many["noise_split"].float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(many["noise_cut"].min()) >= 0 and float(many["noise_cut"].max()) < 1


def test_a_cut_makes_two_videos_of_one() -> None:
    sources = torch.tensor([[0, 0, 1, 1]] * 4)
    split = split_sources(sources, torch.tensor([True, True, True, False]), torch.tensor([0, 0.5, 0.999, 0]))
    assert split.tolist() == [[0, 16, 17, 17], [0, 0, 17, 17], [0, 0, 1, 17], [0, 0, 1, 1]]
    alone = split_sources(torch.zeros(1, 1, dtype=torch.long), torch.tensor([True]), torch.tensor([0.5]))
    assert alone.tolist() == [[0]]
