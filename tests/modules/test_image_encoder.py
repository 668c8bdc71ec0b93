"""MERLOT's image encoder: convolutions against plain arithmetic, positions, sizes."""

import pytest
import torch
from torch.nn import functional as F

from mmpt.modules.image_encoder import GridPositions, ImageEncoder, ImageTokens
from mmpt.modules.lite_resnet import Bottleneck, LiteResNet, StandardConv
from mmpt.modules.transformer import TransformerOptions
from mmpt.modules.truncated_init import initialise_truncated
from mmpt.utils.errors import DataError


def test_a_convolution_is_by_a_weight_of_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    conv = StandardConv(6, 64, 3, stride=2).double()
    x = torch.randn(2, 6, 8, 10, dtype=torch.float64)
    weight = conv.conv.weight.detach()
    rows = []
    for one in weight:
        mean = one.mean()
        rows.append((one - mean) / torch.sqrt(((one - mean) ** 2).mean() + 1e-5))
    wanted = F.group_norm(F.conv2d(F.pad(x, (1, 1, 1, 1)), torch.stack(rows), stride=2), 32, eps=1e-4)
    torch.testing.assert_close(conv(x), wanted)
    with torch.no_grad():
        conv.conv.weight.mul_(1 + 2 * torch.rand(64, 1, 1, 1)).add_(3.0)
    torch.testing.assert_close(conv(x), wanted, atol=1e-3, rtol=1e-3)  # neither scale nor offset of the weight counts


def test_a_strided_block_averages_before_its_widening_and_its_shortcut() -> None:
    torch.manual_seed(0)
    block = Bottleneck(32, 32, stride=2, first=True)
    x = torch.randn(1, 32, 4, 4)
    hidden = F.avg_pool2d(block.spatial(block.reduce(x).relu()).relu(), 2)
    assert block.shortcut is not None
    wanted = (block.expand(hidden) + block.shortcut(F.avg_pool2d(x, 2))).relu()
    torch.testing.assert_close(block(x), wanted)
    same = Bottleneck(128, 32, stride=1, first=False)
    assert same.shortcut is None and same(torch.randn(1, 128, 4, 4)).shape == (1, 128, 4, 4)


def test_sixteen_pixels_of_a_side_become_one_place() -> None:
    net = LiteResNet((1, 1, 2))
    assert net.width == 1024
    assert net(torch.zeros(2, 3, 64, 32)).shape == (2, 1024, 4, 2)
    assert [len(stage) for stage in net.stages] == [1, 1, 2]


def test_positions_are_the_upper_left_of_the_table() -> None:
    table = GridPositions(4, 2)
    with torch.no_grad():
        table.patches.copy_(torch.arange(64 * 64.0).view(1, 64, 64, 1).expand(1, 64, 64, 4))
    assert table(2, 3)[0, :, 0].tolist() == [0, 0, 0, 1, 2, 64, 65, 66]
    with pytest.raises(DataError, match="65 x 2 places, but the model has embeddings of 64 x 64"):
        table(65, 2)


def options(**more: int) -> TransformerOptions:
    return TransformerOptions(32, 1, 2, 64, norm="pre", layer_norm_eps=1e-5, **more)


def test_images_are_encoded_each_by_itself_also_without_convolutions() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(options(), ())
    initialise_truncated(encoder, 0.2)
    images = torch.rand(3, 3, 64, 96)
    encoded, alone = encoder(images), encoder(images[1:2])
    assert encoded.summary.shape == encoded.target.shape == (3, 32) and encoded.patches.shape == (3, 2, 3, 32)
    for all_of_them, one in zip(encoded, alone, strict=True):
        torch.testing.assert_close(all_of_them[1:2], one, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoded.summary, encoded.target)
    assert encoder.projection.weight.shape == (32, 3, 16, 16)


def test_tokens_of_a_joint_sequence_know_their_image_and_place() -> None:
    torch.manual_seed(0)
    encoder, tokens = ImageEncoder(options(), ()), ImageTokens(32, 5, 1e-5)
    initialise_truncated(tokens, 0.2)
    encoded = encoder(torch.rand(2, 3, 32, 64))
    found = tokens(encoded, torch.tensor([4, 0]))
    assert found.shape == (2, 3, 32)
    place = encoded.patches[1, 0, 1] + tokens.index.weight[0] + tokens.positions.patches[0, 0, 1]
    torch.testing.assert_close(found[1, 2], F.layer_norm(place, (32,)))
    summary = encoded.summary[0] + tokens.index.weight[4] + tokens.positions.cls[0, 0]
    torch.testing.assert_close(found[0, 0], F.layer_norm(summary, (32,)))


def test_initial_weights_are_cut_at_two_deviations() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(options(), (1, 1, 1))
    initialise_truncated(encoder, 0.02)
    assert encoder.resnet is not None
    for weight, std in (
        (encoder.positions.patches, 0.02),
        (encoder.encoder.layer[0].intermediate.dense.weight, 0.02),
        (encoder.resnet.stages[2][0].spatial.conv.weight, (256 * 9) ** -0.5),
    ):
        values = weight.detach()
        assert values.abs().max() <= 2 * std and float(values.std()) == pytest.approx(0.88 * std, rel=0.03)
    assert (encoder.resnet.stem[0].norm.weight == 1).all() and not encoder.projection.bias.any()
