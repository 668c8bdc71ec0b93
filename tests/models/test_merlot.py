"""MERLOT against the numbers of the published implementation, and against itself."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from merlot_goldens import assert_near, golden_batch, golden_config, merlot_golden, published_model
from torch import Tensor, nn

from mmpt.losses.merlot import MERLOTLoss
from mmpt.models.merlot import MERLOTPretraining
from mmpt.modules.attention_masking import masked_count, masking_noise
from mmpt.utils.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def model() -> MERLOTPretraining:
    return published_model()


@pytest.fixture(scope="module")
def outputs(model: MERLOTPretraining) -> dict[str, Tensor]:
    with torch.no_grad():
        return model(**golden_batch(), video_id=["a", "b"])


def test_images_are_encoded_as_published(model: MERLOTPretraining) -> None:
    with torch.no_grad():
        encoded = model.encode_images(golden_batch()["vfeats"])
    assert_near(torch.stack([encoded.summary, encoded.target], dim=1), "vit/cls")
    assert_near(encoded.patches.flatten(1, 2), "vit/seq")
    assert_near(encoded.target, "img_trg_h")


def test_whole_pixels_are_floats_times_255(model: MERLOTPretraining) -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_images(pixels), model.encode_images(pixels / 255))


def test_texts_alone_are_encoded_as_published(model: MERLOTPretraining) -> None:
    tokens = golden_batch()["tokens"]
    with torch.no_grad():
        starts, scores = model.read_record(tokens, need_scores=True)
        rows = tokens.flatten(1)
        embedded = model._embed_words(model.language_text, rows)
        attentions = model.contextualise(embedded, rows != 0, need_attention=True).attentions
        again, none = model.read_record(tokens, need_scores=False)
    assert_near(starts, "lang_trg_h")
    assert none is None and scores is not None and attentions is not None
    torch.testing.assert_close(again, starts, atol=1e-5, rtol=1e-5)
    valid = (rows != 0)[:, None].expand(2, 2, -1)  # a padding query is another one here
    assert_near(torch.stack([maps.mean(1) for maps in attentions], dim=1), "lang_attn", valid)


def test_words_rank_as_by_the_published_attention_with_its_padding_queries(model: MERLOTPretraining) -> None:
    tokens = golden_batch()["tokens"]
    with torch.no_grad():
        scores = model.read_record(tokens, need_scores=True)[1]
    published = merlot_golden()["outputs/lang_attn"].sum((1, 2))  # over layers and all queries
    for ours, theirs, words in zip(scores.view(2, -1), published, tokens.flatten(1) >= 100, strict=True):
        assert torch.equal(ours[words].argsort(), theirs[words].argsort())
        assert (theirs[words] - ours[words]).std() < 1e-5 < (theirs[words] - ours[words]).mean()


def test_joint_sequences_are_embedded_and_encoded_as_published(model: MERLOTPretraining) -> None:
    batch = golden_batch()
    texts = batch["masked_ids"].reshape(4, 16)
    with torch.no_grad():
        images = model.embed_images(model.encode_images(batch["vfeats"]), batch["shuffled_idx_img"].view(4, 2))
        embedded = model.embed_text(texts, texts != 0)
        states = model.join(images, texts)
        values = torch.cat([images.flatten(1, 2), embedded.values], dim=1)
        seen = torch.cat([torch.ones(4, 6, dtype=torch.bool), texts != 0], dim=1)
        attentions = model.contextualise(values, seen, need_attention=True).attentions
    assert_near(images, "viz_input")
    assert_near(embedded.values, "lang_input")
    assert_near(states.images, "enc/viz")
    assert_near(states.text, "enc/lang", texts != 0)
    assert attentions is not None
    maps = torch.stack([one.mean(1) for one in attentions], dim=1)
    assert_near(maps, "enc/self_attn_probs", seen[:, None].expand(4, 2, -1))


def test_order_of_moments_is_told_as_published(outputs: dict[str, Tensor]) -> None:
    assert_near(outputs["text_image_logits"], "lg_lv")
    assert_near(outputs["image_image_logits"], "lg_vv")
    assert torch.equal(outputs["order_targets"].flatten(), merlot_golden()["outputs/temporal_labels"])


def test_losses_are_the_published(outputs: dict[str, Tensor]) -> None:
    loss = MERLOTLoss()
    parts, measures = loss.parts(**outputs), loss.measures(**outputs)
    assert_near(parts["mlm"], "loss/mask")
    assert_near(0.25 * parts["contrastive"], "loss/contr")
    assert_near(parts["temporal"], "loss/temporal")
    assert_near(loss(**outputs), "loss/total")
    assert_near(measures["mlm_accuracy"], "loss/mask_acc")
    assert_near(measures["text_image_order_accuracy"], "loss/temporal_lang_viz_acc")
    assert_near(measures["image_image_order_accuracy"], "loss/temporal_viz_viz_acc")


def test_words_are_scored_where_they_are_masked_alone(model: MERLOTPretraining, outputs: dict[str, Tensor]) -> None:
    assert outputs["word_logits"].shape == (12, 400)
    batch = golden_batch()
    wanted = batch["tokens"].view(4, 16).gather(1, batch["masked_idx"])
    assert torch.equal(outputs["word_targets"], wanted.flatten())


def drawn_batch(seed: int = 0) -> dict[str, Any]:
    """The golden records with noise in place of masked texts."""
    batch = {key: value for key, value in golden_batch().items() if not key.startswith("masked")}
    items = [masking_noise(np.random.default_rng(seed + row), 2, 16, masked_count(16), 100, 400) for row in range(2)]
    return batch | {name: torch.stack([item[name] for item in items]) for name in items[0]}


def test_the_noise_of_an_item_decides_what_is_masked(model: MERLOTPretraining) -> None:
    with torch.no_grad():
        together, other = model(**drawn_batch()), model(**drawn_batch(seed=5))
        alone = [model(**{key: value[row : row + 1] for key, value in drawn_batch().items()}) for row in range(2)]
    assert torch.equal(together["word_targets"], torch.cat([one["word_targets"] for one in alone]))
    assert not torch.equal(together["word_targets"], other["word_targets"])
    told = together["word_targets"]
    assert ((told >= 100) | (told == 0)).all() and (told >= 100).sum() >= 10


def test_a_record_may_be_read_in_parts() -> None:
    apart = MERLOTPretraining(golden_config(langonly_num_chunks_in_group=2)).eval()
    apart.load_state_dict(published_model().state_dict())
    tokens = golden_batch()["tokens"]
    changed = tokens.clone()
    changed[:, 3, 1] += 1
    with torch.no_grad():
        states, scores = apart.read_record(tokens, need_scores=True)
        others, _ = apart.read_record(changed, need_scores=False)
    moved = (states - others).abs().amax(1).view(2, 4) > 1e-4
    assert moved.tolist() == [[False, False, True, True]] * 2 and scores.shape == (8, 8)


def test_without_hidden_places_images_are_not_compared(model: MERLOTPretraining) -> None:
    still = copy.copy(model)
    still.sequence = copy.copy(model.sequence)
    still.sequence.image_shuffle_prob = 0.0
    with torch.no_grad():
        outputs = still(**{key: value for key, value in golden_batch().items() if key != "shuffled_idx_img"})
    assert "image_image_logits" not in outputs and (outputs["order_weights"] == 0.01).all()
    assert MERLOTLoss().parts(**outputs)["temporal"].isfinite()


def test_videos_and_texts_have_unit_vectors_that_compare(model: MERLOTPretraining) -> None:
    batch = golden_batch()
    masks = torch.tensor([[True, True, False, True], [True, False, False, False]])
    with torch.no_grad():
        video, text = model.encode_video(batch["vfeats"], masks), model.encode_text(batch["tokens"][:, 1])
        frames = model(**batch)["image_vectors"].view(2, 4, -1)
    torch.testing.assert_close(video.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(video[1], frames[1, 0])
    mean = frames[0, [0, 1, 3]].mean(0)
    torch.testing.assert_close(video[0], mean / mean.norm())
    assert model.score_pairs(text, video).shape == (2, 2)


def test_a_story_is_ordered_by_the_pairs_of_its_captions_and_images(model: MERLOTPretraining) -> None:
    batch = golden_batch()
    index = torch.tensor([[66, 64, 67, 65], [64, 65, 66, 67]])
    with torch.no_grad():
        logits = model.order_logits(batch["vfeats"], batch["tokens"], index)
        swapped = model.order_logits(batch["vfeats"][:, [1, 0, 2, 3]], batch["tokens"], index[:, [1, 0, 2, 3]])
    assert logits.shape == (2, 4, 4, 4)
    torch.testing.assert_close(swapped, logits[:, :, [1, 0, 2, 3]], atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"model\.max_image_positions: 80"):
        model.order_logits(batch["vfeats"], batch["tokens"], index + 20)


def test_gradients_are_the_slopes_of_the_loss_in_double_precision() -> None:
    model, batch, loss = published_model().double(), golden_batch(), MERLOTLoss()
    batch["vfeats"] = batch["vfeats"].double()
    loss(**model(**batch)).backward()
    generator = torch.Generator().manual_seed(0)
    parts = {"vision.resnet", "vision.encoder", "image_tokens", "word_embeddings", "language_text", "joint_text"}
    parts |= {"encoder.layer.0", "encoder.layer.1", "lm_head", "text_head", "image_head", "text_image_order"}
    checked = set()
    for part in sorted(parts | {"image_image_order", "norm", "vision.positions"}):
        named = {name: value for name, value in model.named_parameters() if name.startswith(part)}
        checked |= named.keys()
        ways = {
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in named.items()
        }
        slope = sum(float((value.grad * ways[name]).sum()) for name, value in named.items())
        values = []
        for step in (1e-8, -1e-8):
            with torch.no_grad():
                for name, value in named.items():
                    value += step * ways[name]
                values.append(float(loss(**model(**batch))))
                for name, value in named.items():
                    value -= step * ways[name]
        assert slope == pytest.approx((values[0] - values[1]) / 2e-8, rel=1e-4, abs=2e-6), part
        assert abs(slope) > 1e-4, part
    assert len(checked) > 160


def test_every_parameter_learns() -> None:
    model = published_model()
    MERLOTLoss()(**model(**golden_batch())).backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_words_and_their_scores_share_weights() -> None:
    model = MERLOTPretraining(MERLOTPretraining.tiny_config())
    assert model.lm_head.decoder.weight is model.word_embeddings.weight
    std = model.encoder.layer[0].intermediate.dense.weight.std()
    assert 0.016 < std < 0.019  # a normal of 0.02, cut at two standard deviations
    assert all(
        not module.bias.any() for module in model.modules() if isinstance(module, nn.Linear) and module.bias.ndim
    )


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("dataset", {"chunks_in_group": 0}, r"dataset\.chunks_in_group: must be at least 1"),
        ("dataset", {"image_shuffle_prob": 1.5}, r"dataset\.image_shuffle_prob: 1\.5"),
        ("dataset", {"shuffle_offset": 1}, r"dataset\.shuffle_offset: 1 is an index that images in their places have"),
        ("dataset", {"shuffle_offset": 79}, r"model\.max_image_positions: 80, but there is an image of index 80"),
        ("model", {"langonly_num_chunks_in_group": 3}, r"model\.langonly_num_chunks_in_group: 3"),
        ("model", {"resnet_layers": [1, 2]}, r"model\.resnet_layers"),
        ("model", {"init": "pretrained"}, r"model\.init: 'pretrained'"),
        ("model", {"dropout": 1.0}, r"model\.dropout"),
        ("model", {"vocab_size": 0}, r"model\.vocab_size: must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(section: str, values: dict[str, Any], message: str) -> None:
    config = golden_config()
    config[section] = config[section] | values
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        MERLOTPretraining(config)


def test_batches_that_do_not_fit_are_refused(model: MERLOTPretraining) -> None:
    batch = golden_batch()
    with pytest.raises(DataError, match="3 chunks, not whole groups of dataset.chunks_in_group: 2"):
        model(**{key: value[:, :3] for key, value in batch.items() if not key.startswith("masked")})
    with pytest.raises(DataError, match="no mask_left: dataset.aligner"):
        model(**{key: value for key, value in drawn_batch().items() if key != "mask_left"})
    with pytest.raises(DataError, match="multiples of 32: set dataset.image_size"):
        model.encode_images(torch.zeros(1, 3, 48, 64))
    with pytest.raises(DataError, match="68 positions, but the model has embeddings of 64"):
        model.encode_text(torch.full((1, 68), 100))
    with pytest.raises(DataError, match=r"token id 400, but the model has embeddings of model\.vocab_size: 400"):
        model.encode_text(torch.tensor([[2, 400]]))
