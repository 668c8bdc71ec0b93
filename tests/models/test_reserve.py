"""MERLOT Reserve's pre-training against the published numbers and against itself written down a second time."""

import pytest
import reserve_reference as reference
import torch
from reserve_goldens import GRID, GROUPS, golden_batch, golden_config, golden_model, parameters, reserve_golden, tensor
from torch import Tensor

from mmpt.losses import ReserveLoss
from mmpt.models.reserve import ReservePretraining
from mmpt.models.reserve_options import PRESETS, tiny_reserve_config
from mmpt.models.reserve_weights import flax_names
from mmpt.modules.reserve_towers import patches_of
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import ConfigError, DataError

OBJECTIVES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")


def with_patches(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**batch, "patches": patches_of(batch["vfeats"])}


def test_the_rows_and_losses_of_a_batch_are_the_published_ones() -> None:
    with torch.no_grad():
        rows = golden_model()(**golden_batch())
    for name, value in reserve_golden().items():
        if name.startswith("outputs/pretrain/") and "sources" not in name:
            ours = rows["_".join(name.split("/")[2:])]
            torch.testing.assert_close(ours, torch.from_numpy(value), atol=1e-4, rtol=0, msg=name)
    assert torch.equal(rows["span_sources"], tensor("outputs/pretrain/stuff_to_span/_sources"))
    loss = ReserveLoss()
    for name, value in loss.parts(**rows).items():
        torch.testing.assert_close(value, tensor(f"outputs/loss/{name}"), atol=1e-4, rtol=0)
    torch.testing.assert_close(loss(**rows), tensor("outputs/loss/total"), atol=1e-4, rtol=0)
    measures = loss.measures(**rows)
    for source in ("text2audio", "audio2text", "random_text"):
        ours = measures[f"stuff_to_span_from_{source}"]
        torch.testing.assert_close(ours, tensor(f"outputs/loss/_stuff_to_span_from_{source}"), atol=1e-4, rtol=0)


def test_values_and_gradients_are_those_of_the_specification_in_double_precision() -> None:
    batch = {key: value.double() if value.is_floating_point() else value for key, value in golden_batch().items()}
    batch = {key: value[:2] for key, value in batch.items()}
    model = golden_model(torch.float64)
    rows = model(**batch)
    ReserveLoss()(**rows).backward()
    published = {key: value.double().requires_grad_() for key, value in parameters().items()}
    wanted = reference.pretraining(published, with_patches(batch), GRID, GROUPS, 8, 0.25)
    assert set(rows) == {*wanted, "span_words"}
    for name, value in wanted.items():
        torch.testing.assert_close(rows[name], value, atol=1e-6, rtol=1e-6, msg=name)
    reference.loss(wanted).backward()
    gradients = flax_names({name: parameter.grad for name, parameter in model.named_parameters()})
    assert set(gradients) == set(published)
    for name, value in published.items():
        largest = float(value.grad.abs().max())
        if not name.endswith("seq_attnpool/key/bias"):  # moves all scores alike: nothing but rounding
            assert largest > 1e-6, name
        torch.testing.assert_close(gradients[name], value.grad, atol=1e-6 * max(largest, 1e-2), rtol=1e-5, msg=name)


def test_spans_of_a_test_go_by_their_words() -> None:
    batch = golden_batch()
    with torch.no_grad():
        model = golden_model()
        rows = model(**batch)
        found = model.contrasted(rows)
        vectors = model.encode_text(found["stuff_to_span"].keys)
    torch.testing.assert_close(torch.nn.functional.normalize(found["stuff_to_span"].own), vectors, atol=1e-4, rtol=0)
    assert list(found) == list(OBJECTIVES)
    assert found["imgs_to_audio"].keys is None and found["text_to_audio"].keys is None
    assert found["text_to_audio"].others is rows["text_to_audio_y_extra"]


def test_without_noise_a_batch_is_not_split_outside_of_training() -> None:
    model, batch = golden_model(), golden_batch()
    without = {key: value for key, value in batch.items() if not key.startswith("noise_")}
    batch["noise_split"] = torch.zeros_like(batch["noise_split"])
    with torch.no_grad():
        drawn, given = model(**without), model(**batch)
    for name in ("imgs_to_audio_x", "text_to_audio_x"):
        assert torch.equal(drawn[name], given[name])


def test_random_text_may_be_left_out() -> None:
    batch = {key: value for key, value in golden_batch().items() if not key.startswith("random_text")}
    rows = golden_model()(**batch)
    assert len(rows["stuff_to_span_x"]) == len(rows["stuff_to_span_y"]) < 24
    assert set(rows["span_sources"].tolist()) == {0, 1}
    assert ReserveLoss()(**rows).isfinite()


def test_a_batch_in_which_a_kind_has_no_masks_still_gives_a_gradient() -> None:
    batch = golden_batch()
    for name in ("text2audio", "audio2text", "random_text"):
        batch[name] = batch[name].masked_fill(batch[name] == 3, 50)
    model = golden_model()
    rows = model(**batch)
    assert len(rows["stuff_to_span_x"]) == 0
    loss = ReserveLoss()(**rows)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_another_grid_changes_nothing_but_sizes() -> None:
    model = golden_model()
    other = golden_config()
    other.dataset.image_grid = [6, 4]
    adapted = ReservePretraining(other).eval()
    load_into(adapted, parameters())
    batch = golden_batch()
    batch["vfeats"] = torch.rand(3, 4, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    adapted.sequence.seq_len = model.sequence.seq_len = 48
    with torch.no_grad():
        rows = adapted(**batch)
        assert torch.equal(rows["stuff_to_span_x"], model(**batch)["stuff_to_span_x"])
    wanted = reference.pretraining(parameters(), with_patches(batch), (6, 4), GROUPS, 8, 0.25)
    torch.testing.assert_close(rows["imgs_to_audio_y"], wanted["imgs_to_audio_y"], atol=1e-4, rtol=0)


def test_videos_and_texts_have_vectors_for_retrieval() -> None:
    model, frames = golden_model(), golden_batch()["vfeats"]
    clips = golden_batch()["audio_clips"]
    with torch.no_grad():
        silent, loud = model.encode_video(frames), model.encode_video(frames, audio_clips=clips)
        part = model.encode_video(frames, torch.arange(4) < torch.tensor([[4], [2], [1]]), clips)
        two = model.encode_video(frames[1:2, :2], audio_clips=clips[1:2, :6])
        spans = model.encode_text(tensor("inputs/text_spans")[0])
    for vectors in (silent, loud, part, spans):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)), atol=1e-4, rtol=0)
    torch.testing.assert_close(part[0], loud[0])
    torch.testing.assert_close(part[1], two[0], atol=1e-6, rtol=0)
    assert not torch.allclose(silent, loud, atol=1e-3)
    torch.testing.assert_close(spans, tensor("outputs/api/embed_text_spans_only")[:12], atol=1e-4, rtol=0)
    assert model.score_pairs(spans, loud).shape == (12, 3)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"preset": "lage"}}, "model.preset: 'lage' .* Did you mean 'large'"),
        ({"model": {"hidden_size": 100}}, "model.hidden_size: 100 is not a multiple"),
        ({"model": {"vocab_size": 0}}, "model.vocab_size"),
        ({"model": {"text_spans": 0}}, "model.text_spans"),
        ({"model": {"span_layers": -1}}, "model.span_layers"),
        ({"dataset": {"image_grid": [3, 4]}}, "dataset.image_grid"),
        ({"dataset": {"num_segments": 5}}, "dataset.num_segments: 5 is not a multiple"),
        ({"dataset": {"mask_rate": 1.0}}, "dataset.mask_rate"),
    ],
)
def test_values_that_no_model_can_have_name_their_key(sections: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReservePretraining(tiny_reserve_config("ReservePretraining", **sections))


def test_heads_must_hold_the_scaled_dimensions() -> None:
    model = ReservePretraining(tiny_reserve_config("ReservePretraining", model={"size_per_head": 16}))
    with pytest.raises(ConfigError, match="model.size_per_head: 16"):
        model.encode_text(torch.tensor([[11, 12]]))


def test_batches_that_contradict_themselves_are_refused() -> None:
    model, batch = golden_model(), golden_batch()
    with pytest.raises(DataError, match="audio_clips: 11 sounds for 4 segments"):
        model(**{**batch, "audio_clips": batch["audio_clips"][:, 1:]})
    with pytest.raises(DataError, match="text2audio.* for 2 groups"):
        model(**{**batch, "text2audio": batch["text2audio"][:, :1]})
    with pytest.raises(DataError, match="multiples of 16"):
        model.encode_video(torch.zeros(1, 1, 3, 30, 32))


def test_a_preset_replaces_the_sizes() -> None:
    config = tiny_reserve_config("ReservePretraining", model={"preset": "large"})
    with torch.device("meta"):
        model = ReservePretraining(config)
    assert model.hidden_size == PRESETS["large"]["hidden_size"] == 1024
    assert len(model.joint_transformer.encoder.layer) == 24
