"""Video Swin and its published weights; parity with the published numbers is in tests/models/test_cross_modal.py."""

import pytest
import torch
from torch import Tensor, nn

from mmpt.modules.swin_weights import inflate, load_swin
from mmpt.modules.swin_windows import WindowAttention
from mmpt.modules.video_swin import SWIN_SIZES, SwinOptions, VideoSwin, swin_options
from mmpt.utils.errors import CheckpointError, ConfigError

SMALL = SwinOptions(8, (2, 2), (1, 2), (2, 4, 4), drop_path=0.0)


def swin(options: SwinOptions = SMALL, seed: int = 0) -> VideoSwin:
    torch.manual_seed(seed)
    model = VideoSwin(options).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=1.0 if name.endswith("relative_position_bias_table") else 0.3)
    return model


def images(frames: int, height: int, width: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (3, 32, 32), (2, 24, 40), (5, 30, 33)])
def test_every_frame_is_kept_and_odd_sizes_are_padded(frames, height, width) -> None:
    assert swin()(images(frames, height, width)).shape == (2, frames, -(-height // 8), -(-width // 8), 16)


def test_a_window_attends_within_itself_alone() -> None:
    """Without shift, a pixel reaches only what its window of 4 x 4 patches (16 pixels) covers."""
    model = swin(SwinOptions(8, (1,), (2,), (2, 4, 4), 0.0))
    one = images(2, 32, 32, batch=1)
    other = one.clone()
    other[:, :, :, :4, :4] += 1
    moved = (model(one) - model(other)).abs().amax(dim=(0, 1, 4)) > 1e-6
    assert moved[:4, :4].all() and not moved[4:].any() and not moved[:, 4:].any()


def test_shifted_windows_do_not_join_opposite_borders() -> None:
    model = swin(SwinOptions(8, (2,), (2,), (2, 4, 4), 0.0))
    one = images(2, 32, 32, batch=1)
    other = one.clone()
    other[:, :, :, :4, :4] += 1  # the upper left patch
    moved = (model(one) - model(other)).abs().amax(dim=(0, 1, 4)) > 1e-6
    # It reaches its window, and through the shifted windows two patches more, but not the far corner.
    assert moved[:4, :4].all() and moved[4:6, 4:6].all() and not moved[6:].any() and not moved[:, 6:].any()


def test_attention_equals_a_loop_over_windows_and_heads() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, (2, 2, 2))
    nn.init.normal_(attention.relative_position_bias_table)
    hidden = torch.randn(3, 5, 8, 8)
    got = attention(hidden, None)
    place = [(t, y, x) for t in range(2) for y in range(2) for x in range(2)]
    for batch in range(3):
        for window in range(5):
            query, key, value = attention.qkv(hidden[batch, window]).view(8, 3, 2, 4).unbind(1)
            parts = []
            for head in range(2):
                scores = query[:, head] @ key[:, head].T / 2
                for i, one in enumerate(place):
                    for j, other in enumerate(place):
                        t, y, x = (a - b + 1 for a, b in zip(one, other, strict=True))
                        scores[i, j] = scores[i, j] + attention.relative_position_bias_table[9 * t + 3 * y + x, head]
                parts.append(scores.softmax(-1) @ value[:, head])
            torch.testing.assert_close(got[batch, window], attention.proj(torch.cat(parts, dim=-1)))


def test_gradient_checkpointing_equals_plain() -> None:
    gradients = []
    for flag in (False, True):
        model = swin().train()
        for stage in model.layers:
            stage.gradient_checkpointing = flag
        model(images(2, 32, 32)).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, plain in gradients[0].items():
        torch.testing.assert_close(plain, gradients[1][name], msg=name)


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean() -> None:
    model = swin(SwinOptions(8, (2, 2), (1, 2), (2, 4, 4), drop_path=0.5))
    rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0, 1 / 6, 2 / 6, 0.5])
    drop = model.layers[1].blocks[1].drop_path.train()
    torch.manual_seed(0)
    kept = drop(torch.ones(4000, 2, 3))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept.amax((1, 2)) == kept.amin((1, 2))).all() and abs(kept.mean() - 1) < 0.05
    assert torch.equal(drop.eval()(kept), kept)


def test_weights_of_videos_load_under_their_published_names(tmp_path) -> None:
    wanted, got = swin(), swin(seed=1)
    state = {"backbone." + key: value for key, value in wanted.state_dict().items()}
    state["cls_head.fc_cls.weight"] = torch.zeros(4, 16)
    torch.save({"meta": {"epoch": 30, "config": "..."}, "state_dict": state}, tmp_path / "video.pth")
    load_swin(got, tmp_path / "video.pth")
    assert all(torch.equal(value, got.state_dict()[key]) for key, value in wanted.state_dict().items())


def image_state() -> dict[str, Tensor]:
    """The names of an image Swin of windows of 4 x 4, which have no offsets in time."""
    state = {key: value for key, value in swin().state_dict().items() if not key.endswith("position_index")}
    state["patch_embed.proj.weight"] = torch.randn(8, 3, 4, 4)
    for key in [key for key in state if key.endswith("bias_table")]:
        state[key] = torch.randn(49, state[key].shape[1])
        state[key.replace("bias_table", "index")] = torch.zeros(16, 16, dtype=torch.long)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    state["head.weight"] = torch.zeros(5, 16)
    return state


def test_weights_of_images_are_inflated(tmp_path) -> None:
    """A still video through inflated weights gives the image's projection, whatever the frame."""
    state = image_state()
    torch.save({"model": state}, tmp_path / "image.pth")
    model = swin()
    load_swin(model, tmp_path / "image.pth")
    still = images(1, 32, 32)[:, :1].expand(-1, 3, -1, -1, -1)
    projected = model.patch_embed.proj(still.transpose(1, 2))
    wanted = nn.functional.conv2d(still[:, 0], state["patch_embed.proj.weight"], model.patch_embed.proj.bias, stride=4)
    torch.testing.assert_close(projected[:, :, 0], wanted, atol=1e-5, rtol=1e-4)
    key = "layers.1.blocks.0.attn.relative_position_bias_table"
    table = model.state_dict()[key].view(3, 49, 2)
    assert all(torch.equal(table[time], state[key]) for time in range(3))


def test_tables_of_other_windows_are_resized() -> None:
    state = image_state()
    table = inflate(state, (2, 7, 7))["layers.0.blocks.0.attn.relative_position_bias_table"]
    assert table.shape == (3 * 169, 1)
    middle = table.view(3, 13, 13)[0, 6, 6]
    torch.testing.assert_close(middle, state["layers.0.blocks.0.attn.relative_position_bias_table"].view(7, 7)[3, 3])


def test_unfit_weights_are_named(tmp_path) -> None:
    torch.save({"state_dict": swin(SwinOptions(16, (2, 2), (1, 2), (2, 4, 4))).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth.*another shape"):
        load_swin(swin(), tmp_path / "other.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="not the weights of a Swin"):
        load_swin(swin(), tmp_path / "nothing.pth")


def test_sizes_are_published_ones_or_named() -> None:
    assert swin_options("small").dim == 768 and swin_options("base").dim == 1024 and SWIN_SIZES["base"].stride == 32
    with pytest.raises(ConfigError, match=r"'bse' is none of .* 'base'"):
        swin_options("bse")
    with pytest.raises(ConfigError, match="3 heads do not divide the width 16"):
        SwinOptions(8, (1, 1), (1, 3))
