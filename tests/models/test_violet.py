"""VIOLET: parity with the published numbers, its training step against loops, its checkpoints."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from frame_goldens import assert_close, fill, frame_golden, golden_bert, golden_config, listed_keys, tensors
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from mmpt.losses.violet import VIOLETLoss
from mmpt.models.fairseq_model import FairseqMMModel
from mmpt.models.violet import VIOLETMultipleChoice, VIOLETOpenEnded, VIOLETPretraining, VIOLETRetrieval
from mmpt.models.violet_masking import choose_masks
from mmpt.modules.masking_visual import selection_noise
from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import CheckpointError, ConfigError, DataError
from mmpt.utils.tokenizers import SpecialIds
from mmpt.utils.weight_files import load_state_dict_file

MASK = 4  # of tests/data/tiny_bert


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> VIOLETPretraining:
    bert = golden_bert("violet", tmp_path_factory.mktemp("violet"))
    return fill(VIOLETPretraining(OmegaConf.create(golden_config("violet", "VIOLETPretraining", bert))))


def build(cls: type, seed: int = 0, **model: Any) -> Any:
    torch.manual_seed(seed)
    made = cls(OmegaConf.merge(cls.tiny_config(), {"model": model}))
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def pretraining_batch(count: int = 3, seed: int = 0) -> dict[str, Any]:
    """Clips of one or two frames of 8 x 8 squares, texts of 6 words at most, some of both masked."""
    rng = np.random.default_rng(seed)
    caps = torch.zeros(count, 8, dtype=torch.long)
    words = 3 + np.arange(count) % 4
    for row, number in enumerate(words):
        caps[row, : number + 2] = torch.tensor([2, *rng.integers(5, 64, number), 3])
    vmasks = torch.arange(2)[None] < 1 + torch.arange(count)[:, None] % 2
    squares = torch.from_numpy(rng.random((count, 2, 8, 8)) < 0.1)
    return {
        "caps": caps,
        "cmasks": caps != 0,
        "vfeats": torch.from_numpy(rng.integers(0, 256, (count, 2, 3, 64, 64)).astype(np.uint8)),
        "vmasks": vmasks,
        "visual_codes": torch.from_numpy(rng.integers(0, 32, (count, 2, 8, 8))),
        "masked_words": (caps > 4) & torch.from_numpy(rng.random((count, 8)) < 0.4),
        "masked_squares": squares,
    }


@torch.no_grad()
def test_the_heads_score_as_published(published) -> None:
    golden = frame_golden("violet")
    images, ids, mask = tensors(golden, "img", "txt", "mask")
    video, text = published.encode_video(images), published.encode_text(ids, mask)
    joint = published.fuse(video, text).last_hidden_state
    assert_close(published.fc_mvm(joint[:, : video.values.shape[1]])[..., :64], golden["logits_mvm_first64"], "mvm")
    assert_close(published.score_aligned(text, video), golden["fc_score"], "score")
    nothing = {"masked_words": torch.zeros_like(ids), "masked_squares": torch.zeros(2, 2, 3, 3)}
    vmasks, codes = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, 3, 3, dtype=torch.long)
    outputs = published(ids, mask, images, vmasks, codes, **nothing)
    assert_close(outputs["matching_scores"] / 0.05, golden["forward_vtm"], "vtm")
    assert outputs["text_logits"].shape == (0, 300) and outputs["code_logits"].shape == (0, 8192)


@torch.no_grad()
def test_masked_positions_are_told_as_published(published) -> None:
    """Where words are masked in the file's sense only (each by itself), the logits are those of the whole sequence."""
    golden = frame_golden("violet")
    images, ids, mask = tensors(golden, "img", "txt", "mask")
    words = torch.zeros_like(ids, dtype=torch.bool)
    words[0, 3] = words[1, [1, 5]] = True
    squares = torch.zeros(2, 2, 3, 3, dtype=torch.bool)
    squares[0, 1, 2, 0] = squares[1, 0, 0, 2] = True
    codes = torch.arange(36).view(2, 2, 3, 3)
    outputs = published(ids, mask, images, torch.ones(2, 2), codes, masked_words=words, masked_squares=squares)
    hidden = images.clone()
    hidden[0, 1, :, 64:, :32] = hidden[1, 0, :, :32, 64:] = 0
    masked = ids.masked_fill(words, published.special_ids.mask)
    video = published.encode_video(hidden)
    joint = published.fuse(video, published.encode_text(masked, mask)).last_hidden_state
    assert_close(outputs["text_logits"], published.fc_mtm["predictions"](joint[:, 20:][words]).numpy(), "words")
    at = joint[[0, 1], [1 * 10 + 1 + 2 * 3 + 0, 0 * 10 + 1 + 0 * 3 + 2]]
    assert_close(outputs["code_logits"], published.fc_mvm(at).numpy(), "squares")
    assert outputs["code_targets"].tolist() == [9 + 6, 18 + 2]
    assert outputs["text_targets"].tolist() == [int(ids[0, 3]), int(ids[1, 1]), int(ids[1, 5])]


def test_state_dict_keys_at_base_size_are_the_published_ones(tmp_path, monkeypatch) -> None:
    from mmpt.modules.bert import BertConfig

    monkeypatch.setattr("mmpt.models.cross_modal.read_bert_config", lambda *_, **__: BertConfig())
    bert = "tests/data/tiny_bert"
    with torch.device("meta"):
        model = VIOLETPretraining(OmegaConf.create({"dataset": {"bert_name": bert}, "model": {"init": "random"}}))
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    listed = listed_keys("violet")
    listed.pop("enc_txt.emb_txt.position_ids")
    assert own == listed
    assert sum(parameter.numel() for parameter in model.parameters()) == 197_577_489


# --- the training step against plain loops in double precision ---


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + 1e-12).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def transformer(state: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    """One sequence (L, H), all of it visible."""
    layer = 0
    while f"trsfr.layer.{layer}.output.dense.weight" in state:
        name = f"trsfr.layer.{layer}"
        q, k, v = (linear(state, f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        parts = []
        for one in torch.arange(x.shape[1]).chunk(heads):
            parts.append(torch.softmax(q[:, one] @ k[:, one].T / math.sqrt(len(one)), dim=-1) @ v[:, one])
        attended = linear(state, f"{name}.attention.output.dense", torch.cat(parts, dim=1))
        x = norm(state, f"{name}.attention.output.LayerNorm", x + attended)
        inner = linear(state, f"{name}.output.dense", gelu(linear(state, f"{name}.intermediate.dense", x)))
        x, layer = norm(state, f"{name}.output.LayerNorm", x + inner), layer + 1
    return x


def head(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.3", linear(state, f"{name}.1", x).clamp(min=0))


def loops(model: VIOLETPretraining, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The three losses, one sample and one pair at a time, without padding."""
    state = dict(model.named_parameters(remove_duplicate=False))
    count, side = len(batch["caps"]), 64 // batch["visual_codes"].shape[-1]
    videos, texts = [], []
    for row in range(count):
        frames = int(batch["vmasks"][row].sum())
        pixels = batch["vfeats"][row : row + 1, :frames].double() / 255
        for t, y, x in batch["masked_squares"][row, :frames].nonzero().tolist():
            pixels[0, t, :, y * side : (y + 1) * side, x * side : (x + 1) * side] = 0
        videos.append(model.encode_video(pixels).values[0])
        length = int(batch["cmasks"][row].sum())
        ids = [MASK if batch["masked_words"][row, n] else int(batch["caps"][row, n]) for n in range(length)]
        name = "enc_txt.emb_txt"
        embedded = state[f"{name}.word_embeddings.weight"][ids] + state[f"{name}.token_type_embeddings.weight"][0]
        texts.append(norm(state, f"{name}.LayerNorm", embedded + state[f"{name}.position_embeddings.weight"][:length]))
    fused = {
        (v, t): transformer(state, torch.cat([videos[v], texts[t]]), model.bert.num_attention_heads)
        for v in range(count)
        for t in range(count)
    }
    words, squares, matches = [], [], []
    for row in range(count):
        video = len(videos[row])
        for n in batch["masked_words"][row].nonzero()[:, 0].tolist():
            hidden = gelu(linear(state, "fc_mtm.predictions.transform.dense", fused[row, row][video + n]))
            hidden = norm(state, "fc_mtm.predictions.transform.LayerNorm", hidden)
            logits = linear(state, "fc_mtm.predictions.decoder", hidden)
            words.append(logits.logsumexp(0) - logits[batch["caps"][row, n]])
        for t, y, x in batch["masked_squares"][row, : int(batch["vmasks"][row].sum())].nonzero().tolist():
            logits = head(state, "fc_mvm", fused[row, row][t * 65 + 1 + y * 8 + x])
            squares.append(logits.logsumexp(0) - logits[batch["visual_codes"][row, t, y, x]])
        order = [row, *((row + step) % count for step in range(1, min(count, 4)))]
        scores = torch.cat([head(state, "fc", fused[row, text][video]) for text in order]) / 0.05
        matches.append(scores.logsumexp(0) - scores[0])
    return {name: torch.stack(all_).mean() for name, all_ in (("mlm", words), ("mvm", squares), ("vtm", matches))}


def test_losses_and_gradients_equal_plain_loops() -> None:
    model, batch = build(VIOLETPretraining).double(), pretraining_batch()
    model.fc.get_submodule("3").weight.data *= 0.1  # so that matching is not decided
    outputs = model(**{**batch, "vfeats": batch["vfeats"].double() / 255})
    parts = VIOLETLoss().parts(**outputs)
    wanted = loops(model, batch)
    for name, value in wanted.items():
        torch.testing.assert_close(
            parts[name].double(), value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert min(wanted.values()) > 0.01
    named = dict(model.named_parameters())
    got = dict(zip(named, torch.autograd.grad(VIOLETLoss()(**outputs), named.values()), strict=True))
    exact = dict(zip(named, torch.autograd.grad(sum(wanted.values()), named.values()), strict=True))
    for name, gradient in exact.items():
        torch.testing.assert_close(
            got[name], gradient, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert got["fc_mvm.3.weight"].abs().max() > 1e-3
    # ... and the slope of the loops' loss along a random direction of all weights
    direction = {name: torch.randn_like(parameter) for name, parameter in named.items()}
    slope = sum(float((got[name] * direction[name]).sum()) for name in named)
    assert math.isclose(slope, _slope(model, batch, direction), rel_tol=1e-3)


@torch.no_grad()
def _slope(model: VIOLETPretraining, batch: dict[str, Any], direction: dict[str, Tensor], step: float = 1e-6) -> float:
    values = []
    for move in (step, -2 * step):
        for name, parameter in model.named_parameters():
            parameter += move * direction[name]
        values.append(float(sum(loops(model, batch).values())))
    return (values[0] - values[1]) / (2 * step)


# --- which positions attention chooses ---


def test_attention_chooses_as_many_positions_as_published_and_no_special_ones() -> None:
    """The published code's own scores of 4 frames of 7 x 7 squares and 12 text positions: 31 of 212 positions."""
    golden = frame_golden("violet")
    caps, special = torch.from_numpy(golden["txt"]), SpecialIds(cls=101, sep=102, pad=0, mask=103)
    published_count = golden["masking/attended/cov"].sum((1, 2, 3)) + (golden["masking/attended/ans_mtm"] >= 0).sum(1)
    assert published_count.tolist() == [31, 31]
    scores = torch.from_numpy(golden["masking/att"])
    noise = torch.from_numpy(selection_noise(np.random.default_rng(0), 424)).view(2, 212)
    chosen = choose_masks(scores, noise, 0.15, caps, torch.ones(2, 4, dtype=torch.bool), (7, 7), special)
    assert (chosen.words.sum(1) + chosen.squares.sum((1, 2, 3))).tolist() == [31, 31]
    assert not chosen.words[(caps == 0) | (caps == 101) | (caps == 102)].any()


def test_absent_frames_are_not_chosen_and_not_counted() -> None:
    caps, special = torch.tensor([[2, 9, 8, 7, 3, 0]]), SpecialIds(cls=2, sep=3, pad=0, mask=4)
    vmasks = torch.tensor([[True, False]])
    ones = torch.ones(1, 2 * 5 + 6)
    chosen = choose_masks(ones, torch.zeros_like(ones), 0.5, caps, vmasks, (2, 2), special)
    assert int(chosen.words.sum() + chosen.squares.sum()) == int((5 + 6) * 0.5) and not chosen.squares[0, 1].any()
    everything = choose_masks(ones, torch.zeros_like(ones), 1.0, caps, vmasks, (2, 2), special)
    assert everything.squares[0, 0].all() and everything.words[0].tolist() == [False, True, True, True, False, False]


@torch.no_grad()
def test_attention_chooses_in_the_samples_that_say_so() -> None:
    model, batch = build(VIOLETPretraining), pretraining_batch()
    noise = torch.from_numpy(selection_noise(np.random.default_rng(3), 3 * 138)).view(3, 138)
    batch |= {"attended": torch.tensor([True, False, True]), "selection_noise": noise}
    seen = {}
    model.fuse, fuse = lambda *a, **k: seen.setdefault(k.get("need_attention", False), fuse(*a, **k)), model.fuse
    outputs = model(**batch)
    video = model.encode_video(batch["vfeats"], batch["vmasks"])
    maps = fuse(video, model.encode_text(batch["caps"], batch["cmasks"]), need_attention=True).attentions
    assert len(seen[True].attentions[0]) == 2  # two samples were scored, the third was not
    expected = []
    for row in range(3):
        words, squares = batch["masked_words"][row], batch["masked_squares"][row] & batch["vmasks"][row, :, None, None]
        if row != 1:
            frames = int(batch["vmasks"][row].sum())
            real = torch.cat([torch.arange(130) < frames * 65, torch.ones(8, dtype=torch.bool)])
            scores = sum(layer[row].mean(0)[real].sum(0) for layer in maps)
            keys = scores.log() + noise[row]
            keys[[0, 65]] = keys[130:][batch["caps"][row] < 4] = -math.inf
            keys[130:][batch["caps"][row] < 4] = keys[frames * 65 : 130] = -math.inf
            drawn = torch.zeros(138, dtype=torch.bool)
            drawn[keys.topk(int((frames * 65 + 8) * 0.15)).indices] = True
            words, squares = drawn[130:], drawn[:130].view(2, 65)[:, 1:].reshape(2, 8, 8)
        expected.append((batch["caps"][row][words], batch["visual_codes"][row][squares]))
    assert torch.equal(outputs["text_targets"], torch.cat([words for words, _ in expected]))
    assert torch.equal(outputs["code_targets"], torch.cat([codes for _, codes in expected]))


@torch.no_grad()
def test_absent_frames_attend_to_nothing() -> None:
    model, batch = build(VIOLETPretraining), pretraining_batch()
    text = model.encode_text(batch["caps"], batch["cmasks"])
    together = model.attention_received(model.encode_video(batch["vfeats"], batch["vmasks"]), text)
    alone = model.attention_received(model.encode_video(batch["vfeats"][:1, :1]), text.rows(slice(0, 1)))
    torch.testing.assert_close(torch.cat([together[:1, :65], together[:1, 130:]], dim=1), alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_negatives_can_be_named() -> None:
    model, batch = build(VIOLETPretraining), pretraining_batch()
    default = model(**batch)["matching_scores"]
    named = model(**batch, negatives=torch.tensor([[2], [0], [0]]))["matching_scores"]
    torch.testing.assert_close(named[:, 0], default[:, 0])
    torch.testing.assert_close(named[:, 1], torch.stack([default[0, 2], default[1, 2], default[2, 1]]))


@torch.no_grad()
def test_another_text_of_the_same_video_is_no_negative() -> None:
    model, batch = build(VIOLETPretraining), pretraining_batch()
    scores = model(**batch)["matching_scores"]
    same = torch.tensor([[False, True, False], [False, False, True], [False, False, False]])
    found = model(**batch, video_key=torch.tensor([7, 7, 8]))
    torch.testing.assert_close(found["matching_scores"], scores.masked_fill(same, -torch.inf))
    assert VIOLETLoss()(**found).isfinite()


def test_tokens_of_another_grid_are_refused() -> None:
    batch = pretraining_batch()
    batch["visual_codes"] = batch["visual_codes"][..., :4]
    with pytest.raises(DataError, match=r"8 x 4 visual tokens.*dataset\.vq_path"):
        build(VIOLETPretraining)(**batch)


# --- downstream ---


@torch.no_grad()
def test_retrieval_scores_all_pairs_of_a_batch() -> None:
    model, batch = build(VIOLETRetrieval), pretraining_batch()
    scores = model(**batch)["pair_scores"]
    pair = {key: batch[key][2:] for key in ("vfeats", "vmasks")} | {key: batch[key][:1] for key in ("caps", "cmasks")}
    torch.testing.assert_close(scores[0, 2], model(**pair)["pair_scores"][0, 0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_options_are_scored_with_the_video_of_their_question() -> None:
    model, batch = build(VIOLETMultipleChoice), pretraining_batch(6)
    caps, cmasks = batch["caps"].view(2, 3, 8), batch["cmasks"].view(2, 3, 8)
    video = {key: batch[key][:2] for key in ("vfeats", "vmasks")}
    scores = model.option_scores(caps=caps, cmasks=cmasks, **video)
    alone = model.score_pairs(model.encode_text(caps[1], cmasks[1]), model.encode_video(**video))[:, 1]
    torch.testing.assert_close(scores[1], alone, atol=1e-5, rtol=1e-5)
    option_mask = torch.tensor([[True, True, True], [True, False, True]])
    outputs = model(
        caps=batch["caps"],
        cmasks=batch["cmasks"],
        option_mask=option_mask.flatten(),
        answers=torch.tensor([[1], [2]]),
        **video,
    )
    torch.testing.assert_close(outputs["logits"], scores.masked_fill(~option_mask, -math.inf))
    assert outputs["targets"].tolist() == [1, 2]
    with pytest.raises(DataError, match="5 options for 2 questions"):
        model.option_scores(caps=batch["caps"][:5], cmasks=batch["cmasks"][:5], **video)


def test_open_ended_answers_come_from_the_head() -> None:
    model, batch = build(VIOLETOpenEnded), pretraining_batch()
    outputs = model(**batch, answers=torch.tensor([4, -100, 0]))
    assert outputs["logits"].shape == (3, 5)
    loss = F.cross_entropy(outputs["logits"], outputs["targets"])
    loss.backward()
    assert model.fc.get_submodule("3").weight.grad[4].abs().max() > 0
    with pytest.raises(ConfigError, match=r"model\.num_labels"):
        build(VIOLETOpenEnded, num_labels=None)
    with pytest.raises(ConfigError, match="VIOLETRetrieval"):
        model.score_pairs(model.encode_text(batch["caps"], batch["cmasks"]), model.encode_video(batch["vfeats"]))


@pytest.mark.parametrize("cls", [VIOLETRetrieval, VIOLETMultipleChoice, VIOLETOpenEnded])
def test_a_released_pretraining_checkpoint_goes_into_every_task(cls: type, tmp_path) -> None:
    """The released files are flat state dicts; old ones hold a constant that models of today do not."""
    pretrained = build(VIOLETPretraining, seed=1)
    released = {**pretrained.state_dict(), "enc_txt.emb_txt.position_ids": torch.arange(64)[None]}
    torch.save(released, tmp_path / "ckpt_violet_pretrain.pt")
    state = load_state_dict_file(tmp_path / "ckpt_violet_pretrain.pt")
    model = build(cls)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    if cls is VIOLETOpenEnded:
        with pytest.raises(CheckpointError, match=r"fc\.3\.weight"):
            load_into(model, state)  # a test has no new head
    else:
        assert "fc_mvm.3.weight" in load_into(model, state).unexpected
    begun = FairseqMMModel(model)
    begun.begins = True
    wrapped = {f"mmmodel.{key}": value for key, value in state.items()}
    begun.upgrade_state_dict_named(wrapped, "")
    begun.load_state_dict(wrapped)
    for key, value in model.state_dict().items():
        source = before if cls is VIOLETOpenEnded and key.startswith("fc.3.") else released
        assert torch.equal(value, source[key]), key
