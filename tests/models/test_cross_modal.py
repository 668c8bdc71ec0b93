"""What VIOLET and LAVENDER share, against the published numbers."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from frame_goldens import assert_close, fill, frame_golden, golden_bert, golden_config, listed_keys, tensors
from omegaconf import OmegaConf
from torch import Tensor

from mmpt.models.cross_modal import CrossModalModel, States, tiny_cross_modal_config
from mmpt.modules.bert import read_bert_config
from mmpt.utils.errors import ConfigError, DataError


class Bare(CrossModalModel):
    """The shared part alone; a pair scores its text's [CLS], summed."""

    with_lm_head = True

    def score_aligned(self, text: States, video: States) -> Tensor:
        return self.fuse(video, text).last_hidden_state[:, video.values.shape[1]].sum(-1)

    def forward(self) -> None: ...


class BareWithOrder(Bare):
    frame_order = True


@pytest.fixture(scope="module")
def violet(tmp_path_factory) -> CrossModalModel:
    bert = golden_bert("violet", tmp_path_factory.mktemp("violet"))
    return fill(Bare(OmegaConf.create(golden_config("violet", "Bare", bert))))


@pytest.fixture(scope="module")
def tiny() -> CrossModalModel:
    torch.manual_seed(0)
    return Bare(tiny_cross_modal_config("Bare")).eval()


@torch.no_grad()
def test_violet_encodes_and_fuses_as_published(violet) -> None:
    golden = frame_golden("violet")
    images, ids, mask = tensors(golden, "img", "txt", "mask")
    assert_close(violet.enc_img.swin(violet.enc_img.normalise(images)).permute(0, 4, 1, 2, 3), golden["swin"], "swin")
    video, text = violet.encode_video(images), violet.encode_text(ids, mask)
    assert_close(video.values, golden["feat_img"], "feat_img")
    assert_close(text.values, golden["feat_txt"], "feat_txt")
    joint = violet.fuse(video, text).last_hidden_state
    assert_close(joint, golden["cross"], "cross")
    assert_close(violet.attention_received(video, text), golden["att_score"], "att_score")
    assert_close(violet.fc_mtm["predictions"](joint[:, video.values.shape[1] :]), golden["logits_mtm"], "logits_mtm")


@torch.no_grad()
def test_lavender_encodes_frames_of_224_pixels_as_published(tmp_path) -> None:
    golden = frame_golden("lavender")
    bert = golden_bert("lavender", tmp_path / "bert")
    model = fill(BareWithOrder(OmegaConf.create(golden_config("lavender", "BareWithOrder", bert))))
    (images,) = tensors(golden, "img")
    swin = model.enc_img.swin(images).permute(0, 4, 1, 2, 3)
    assert_close(swin[:, :, :, :2, :3], golden["swin"], "swin")
    assert_close(model.encode_video(images).values, golden["feat_img"], "feat_img")


@pytest.mark.parametrize(("system", "cls", "swin"), [("violet", Bare, "small"), ("lavender", BareWithOrder, "base")])
def test_state_dict_keys_at_base_size_are_the_published_ones(system, cls, swin, tmp_path, monkeypatch) -> None:
    bert = dataclasses.asdict(read_bert_config(golden_bert(system, tmp_path / "bert")))
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
    sizes |= {"vocab_size": 30522, "max_position_embeddings": 512}
    base = type(read_bert_config(golden_bert(system, tmp_path / "bert")))(**{**bert, **sizes})
    monkeypatch.setattr("mmpt.models.cross_modal.read_bert_config", lambda *_, **__: base)
    with torch.device("meta"):
        model = cls(OmegaConf.create({"dataset": {}, "model": {"init": "random", "swin": swin}}))
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    heads = ("fc.", "fc_mvm.", "emb_task")
    listed = {key: shape for key, shape in listed_keys(system).items() if not key.startswith(heads)}
    assert listed.pop("enc_txt.emb_txt.position_ids", (1, 512)) == (1, 512)
    assert own == listed


@torch.no_grad()
def test_absent_frames_are_as_if_they_were_not_there(tiny) -> None:
    frames = torch.rand(3, 2, 3, 64, 64)
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    hidden = torch.where(mask[..., None, None, None], frames, torch.nan)
    states = tiny.encode_video(hidden, mask)
    one = tiny.encode_video(frames[:1, :1])
    positions = one.values.shape[1]
    torch.testing.assert_close(states.values[0, :positions], one.values[0])
    torch.testing.assert_close(states.values[1], tiny.encode_video(frames[1:2]).values[0])
    assert not states.values[0, positions:].any() and not states.values[2].any()
    assert states.mask.sum(1).tolist() == [positions, 2 * positions, 0]


@torch.no_grad()
def test_bytes_and_fractions_of_255_are_the_same_frames(tiny) -> None:
    frames = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(tiny.encode_video(frames).values, tiny.encode_video(frames / 255).values)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Tests run in one thread, which adds in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_gradients_of_rows_named_often_are_the_same_bit_for_bit_every_time() -> None:
    values = torch.randn(8, 40, 128, requires_grad=True)
    index = torch.arange(8).repeat(32)
    shares = torch.randn(len(index), 40, 128)

    def gradient() -> Tensor:
        picked = States(values, torch.ones(8, 40, dtype=torch.bool)).rows(index).values
        return torch.autograd.grad((picked * shares).sum(), values)[0]

    first = gradient()
    torch.testing.assert_close(first, shares.unflatten(0, (32, 8)).sum(0), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(first, gradient()) for _ in range(20))


@torch.no_grad()
def test_all_pairs_are_the_aligned_pairs(tiny) -> None:
    video = tiny.encode_video(torch.rand(3, 2, 3, 64, 64))
    caps = torch.randint(5, 64, (4, 7))
    text = tiny.encode_text(caps, torch.ones_like(caps))
    scores = tiny.score_pairs(text, video)
    for i in range(4):
        for j in range(3):
            alone = tiny.score_aligned(text.rows(slice(i, i + 1)), video.rows(slice(j, j + 1)))
            torch.testing.assert_close(scores[i, j], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_generated_text_is_seen_by_itself_alone_and_from_left_to_right(tiny) -> None:
    video = tiny.encode_video(torch.rand(1, 2, 3, 64, 64))
    caps = torch.randint(5, 64, (1, 9))
    first = tiny.fuse(video, tiny.encode_text(caps, torch.ones_like(caps)), causal_text=6).last_hidden_state
    changed = caps.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 59 + 5
    other = tiny.fuse(video, tiny.encode_text(changed, torch.ones_like(caps)), causal_text=6).last_hidden_state
    before = video.values.shape[1] + 6
    torch.testing.assert_close(first[:, :before], other[:, :before])
    assert ((first - other).abs().amax(-1)[:, before:] > 1e-4).all()


def test_what_does_not_fit_the_tables_is_refused(tiny) -> None:
    with pytest.raises(DataError, match=r"7 frames.*model\.max_frames"):
        tiny.encode_video(torch.rand(1, 7, 3, 64, 64))
    with pytest.raises(DataError, match=r"144 patches.*dataset\.image_size"):
        tiny.encode_video(torch.rand(1, 1, 3, 96, 96))
    with pytest.raises(DataError, match="expected"):
        tiny.encode_video(torch.rand(1, 2, 64, 64, 3))
    for section, key, value, match in (
        ("dataset", "num_frames", 9, "model.max_frames"),
        ("model", "swin", "huge", "none of tiny"),
        ("model", "drop_path", 1.0, "drop_path"),
        ("model", "swin_window", [7, 7], "three numbers"),
        ("model", "init", "zeros", "init"),
    ):
        config = tiny_cross_modal_config("Bare")
        config[section][key] = value
        with pytest.raises(ConfigError, match=match):
            Bare(config)
