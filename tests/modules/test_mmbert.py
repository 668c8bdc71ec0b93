"""The video tower's building blocks: projection, position rule, sequence layout."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmpt.modules.bert import BertConfig
from mmpt.modules.mmbert import MMBertEmbeddings, MMBertForEncoder, MMBertModel, VideoTokenMLP
from mmpt.modules.transformer import KeyValueCache
from mmpt.utils.errors import DataError

SMALL = BertConfig(
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=20,
    max_position_embeddings=32,
    input_dim=6,
    max_video_len=10,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def positions_of(length: int, video: int | None) -> list[int]:
    """Read positions off embeddings in which only the position table is not zero."""
    embeddings = MMBertEmbeddings(SMALL).eval()
    embeddings.LayerNorm = nn.Identity()
    for table in (embeddings.word_embeddings, embeddings.token_type_embeddings):
        nn.init.zeros_(table.weight)
    with torch.no_grad():
        embeddings.position_embeddings.weight.copy_(torch.arange(32.0)[:, None].expand(32, 8))
    given = None if video is None else torch.zeros(1, video, 8)
    return embeddings(torch.ones(1, length, dtype=torch.long), video_embeddings=given)[0, :, 0].int().tolist()


@pytest.mark.parametrize("video", [0, 1, 4, 10])
def test_positions_with_video(video: int) -> None:
    assert positions_of(4, video) == [*range(video + 1), 11, 12, 13]


def test_positions_without_video() -> None:
    assert positions_of(4, None) == [0, 12, 13, 14]


def test_sequence_is_first_token_then_video_then_the_rest_with_types() -> None:
    embeddings = MMBertEmbeddings(SMALL).eval()
    embeddings.LayerNorm = nn.Identity()
    ids, video = torch.tensor([[3, 7, 9]]), torch.randn(1, 2, 8)
    types = torch.tensor([[0, 0, 0, 1, 1]])
    output = embeddings(ids, types, video)
    words, positions, kinds = (
        table.weight
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings)
    )
    wanted = torch.stack(
        [
            words[3] + positions[0] + kinds[0],
            video[0, 0] + positions[1] + kinds[0],
            video[0, 1] + positions[2] + kinds[0],
            words[7] + positions[11] + kinds[1],
            words[9] + positions[12] + kinds[1],
        ]
    )
    torch.testing.assert_close(output[0], wanted)
    torch.testing.assert_close(embeddings(ids, None, video)[0, :3], wanted[:3])


def test_projection_equals_its_definition_and_casts_half_features() -> None:
    mlp = VideoTokenMLP(SMALL)
    nn.init.normal_(mlp.LayerNorm.weight)
    features = torch.randn(2, 3, 6)
    hidden = nn.functional.gelu(features @ mlp.linear1.weight.T + mlp.linear1.bias)
    spread = (hidden.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    hidden = (hidden - hidden.mean(-1, keepdim=True)) / spread * mlp.LayerNorm.weight + mlp.LayerNorm.bias
    torch.testing.assert_close(mlp(features), hidden @ mlp.linear2.weight.T + mlp.linear2.bias, atol=1e-5, rtol=1e-5)
    assert mlp(features.half()).dtype == torch.float32


def test_features_of_another_width_name_the_key() -> None:
    with pytest.raises(DataError, match=r"width 7, expected model\.input_dim=6: set model\.input_dim=7"):
        VideoTokenMLP(SMALL)(torch.zeros(1, 2, 7))


def test_padded_seconds_can_be_cut_off_without_a_change() -> None:
    torch.manual_seed(0)
    encoder = MMBertForEncoder(SMALL).eval()
    ids, features = torch.tensor([[2, 3]]), torch.randn(1, 9, 6)
    mask = torch.tensor([[1] * 5 + [0] * 5 + [1]]).bool()
    whole = encoder(ids, features, mask).last_hidden_state
    cut = encoder(ids, features[:, :4], mask[:, [0, 1, 2, 3, 4, 10]]).last_hidden_state
    torch.testing.assert_close(whole[:, [0, 1, 2, 3, 4, 10]], cut, atol=1e-5, rtol=1e-5)


def test_video_may_be_none_and_attention_maps_may_be_asked_for() -> None:
    encoder = MMBertForEncoder(SMALL).eval()
    ids = torch.tensor([[2, 3, 5]])
    output = encoder(ids, None, need_attention=True, output_hidden_states=True)
    assert output.last_hidden_state.shape == (1, 3, 8)
    assert [tuple(maps.shape) for maps in output.attentions] == [(1, 2, 3, 3)] * 2
    assert len(output.hidden_states) == 3


def test_segment_table_exists_only_on_request_and_changes_nothing() -> None:
    torch.manual_seed(0)
    plain = MMBertModel(SMALL).eval()
    vlm = MMBertModel(replace(SMALL, use_seg_emb=True)).eval()
    assert set(vlm.state_dict()) - set(plain.state_dict()) == {"embeddings.seg_embeddings.weight"}
    assert vlm.embeddings.seg_embeddings.weight.shape == (256, 8)
    vlm.load_pretrained(plain.state_dict(), "here")
    ids = torch.tensor([[2, 3]])
    video = torch.randn(1, 2, 8)
    torch.testing.assert_close(
        vlm(ids, video_embeddings=video).last_hidden_state, plain(ids, video_embeddings=video).last_hidden_state
    )


def test_given_positions_replace_the_rule() -> None:
    torch.manual_seed(0)
    encoder = MMBertForEncoder(SMALL).eval()
    ids, features = torch.tensor([[2, 3, 5]] * 2), torch.randn(2, 4, 6)
    positions = torch.tensor([0, 1, 2, 3, 4, 11, 12])
    wanted = encoder(ids, features).last_hidden_state
    torch.testing.assert_close(encoder(ids, features, position_ids=positions).last_hidden_state, wanted)
    rows = torch.stack([positions, positions + 2])
    output = encoder(ids, features, position_ids=rows).last_hidden_state
    torch.testing.assert_close(output[0], wanted[0])
    assert not torch.allclose(output[1], wanted[1], atol=1e-3)


def test_a_word_after_the_cached_video_is_encoded_as_in_the_whole_sequence() -> None:
    torch.manual_seed(0)
    encoder = MMBertForEncoder(SMALL).eval()
    ids, features = torch.tensor([[2, 3, 5]] * 2), torch.randn(2, 4, 6)
    types = torch.tensor([[0] * 6 + [1]] * 2)
    seen = torch.ones(2, 7, 7).tril().bool()
    seen[:, :6, :6] = True
    wanted = encoder(ids, features, seen, types, output_hidden_states=True)
    cache = KeyValueCache()
    encoder(ids[:, :2], features, None, types[:, :6], cache=cache)
    step = encoder(ids[:, 2:], None, None, types[:, 6:], cache=cache, position_ids=torch.tensor([12]))
    torch.testing.assert_close(step.last_hidden_state, wanted.last_hidden_state[:, 6:], atol=1e-5, rtol=1e-5)
    first = encoder(ids, features, [seen], types, num_layers=1).last_hidden_state
    torch.testing.assert_close(first, wanted.hidden_states[1])
