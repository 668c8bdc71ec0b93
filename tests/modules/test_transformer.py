"""The shared encoder: names, masks, hooks, and its two attention paths, recomputed independently."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmpt.modules import transformer
from mmpt.modules.transformer import (
    MASKED_SCORE,
    AttentionInputs,
    KeyValueCache,
    TransformerEncoder,
    TransformerOptions,
    additive_mask,
    initialise,
)
from mmpt.utils.errors import ConfigError

SIZES = {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "intermediate_size": 24}


def make(**options) -> TransformerEncoder:
    torch.manual_seed(0)
    encoder = TransformerEncoder(TransformerOptions(**{**SIZES, **options}))
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def hidden(batch: int = 3, length: int = 5) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(1))


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()


def names(part: str, norms: tuple[str, ...]) -> set[str]:
    linears = [f"attention.{part}.{which}" for which in ("query", "key", "value")]
    linears += ["attention.output.dense", "intermediate.dense", "output.dense", *norms]
    return {f"{name}.{kind}" for name in linears for kind in ("weight", "bias")}


def test_parameter_names_are_those_of_bert_and_vit() -> None:
    layer = make(norm="post").layer[0]
    assert set(layer.state_dict()) == names("self", ("attention.output.LayerNorm", "output.LayerNorm"))
    layer = make(norm="pre").layer[0]
    assert set(layer.state_dict()) == names("attention", ("layernorm_before", "layernorm_after"))
    bare = set(make(qkv_bias=False, bias=False).layer[0].state_dict())
    assert {name for name in bare if name.endswith("bias")} == {
        "attention.output.LayerNorm.bias",
        "output.LayerNorm.bias",
    }


def by_hand(encoder: TransformerEncoder, x: torch.Tensor, mask: torch.Tensor, pre: bool, eps: float) -> torch.Tensor:
    """Loop over examples and heads; masked keys are simply left out."""
    rows = []
    for example, valid in zip(x, mask, strict=True):
        for layer in encoder.layer:
            weights = layer.state_dict()

            def linear(values, name, weights=weights):
                return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

            def norm(values, name, weights=weights):
                centred = values - values.mean(-1, keepdim=True)
                scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
                return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

            core = "attention.attention" if pre else "attention.self"
            inner = norm(example, "layernorm_before") if pre else example
            heads = []
            for head in range(4):
                part = slice(4 * head, 4 * head + 4)
                query, key, value = (linear(inner, f"{core}.{w}")[:, part] for w in ("query", "key", "value"))
                heads.append((query @ key[valid].T / 2).softmax(-1) @ value[valid])
            attended = linear(torch.cat(heads, -1), "attention.output.dense") + example
            example = attended if pre else norm(attended, "attention.output.LayerNorm")
            inner = norm(example, "layernorm_after") if pre else example
            fed = linear(F.gelu(linear(inner, "intermediate.dense")), "output.dense") + example
            example = fed if pre else norm(fed, "output.LayerNorm")
        rows.append(example)
    return torch.stack(rows)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_both_attention_paths_equal_a_computation_by_hand(norm: str) -> None:
    encoder = make(norm=norm, layer_norm_eps=1e-3)
    wanted = by_hand(encoder, hidden(), MASK, norm == "pre", 1e-3)
    fast = encoder(hidden(), MASK)
    explicit = encoder(hidden(), MASK, need_attention=True, output_hidden_states=True)
    torch.testing.assert_close(fast.last_hidden_state, wanted, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(explicit.last_hidden_state, wanted, atol=2e-5, rtol=1e-5)
    assert fast.attentions is None and fast.hidden_states is None
    assert len(explicit.attentions) == 2 and len(explicit.hidden_states) == 3
    torch.testing.assert_close(explicit.hidden_states[-1], explicit.last_hidden_state)
    assert (explicit.attentions[0][2, :, :, 1:] == 0).all()
    torch.testing.assert_close(explicit.attentions[1].sum(-1), torch.ones(3, 4, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("need_attention", [False, True])
def test_rows_that_are_all_padding_stay_finite(dtype: torch.dtype, need_attention: bool) -> None:
    encoder = make().to(dtype)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    output = encoder(hidden().to(dtype), mask, need_attention=need_attention).last_hidden_state
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("need_attention", [False, True])
def test_padding_attends_evenly_where_the_masked_score_is_low_enough(need_attention: bool) -> None:
    options = TransformerOptions(16, 1, 2, 32, norm="pre", masked_score=-1e10)
    encoder = TransformerEncoder(options).eval()
    hidden, mask = torch.randn(1, 4, 16), torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2, :2] = True
    with torch.no_grad():
        attention = encoder.layer[0].attention.attention
        context, _ = attention(hidden, AttentionInputs(additive_mask(mask, hidden.dtype, -1e10), None, need_attention))
        values = attention.value(hidden)
        torch.testing.assert_close(context[0, 3], values[0].mean(0))
        plain = TransformerEncoder(TransformerOptions(16, 1, 2, 32, norm="pre")).eval()
        plain.load_state_dict(encoder.state_dict())
        states = [one(hidden, mask, need_attention=need_attention).last_hidden_state for one in (encoder, plain)]
        assert torch.equal(states[0][:, :2], states[1][:, :2])
        for dtype in (torch.float16, torch.bfloat16):
            with torch.autocast("cpu", dtype=dtype):
                assert encoder(hidden, mask, need_attention=need_attention).last_hidden_state.isfinite().all()
            assert copy.deepcopy(encoder).to(dtype)(hidden.to(dtype), mask).last_hidden_state.isfinite().all()


def test_additive_mask_shapes_and_values() -> None:
    keys = additive_mask(MASK.long(), torch.float16)
    assert keys.shape == (3, 1, 1, 5) and keys.dtype == torch.float16
    assert torch.equal(keys[:, 0, 0] == 0, MASK) and (keys[~MASK[:, None, None]] == MASKED_SCORE).all()
    assert additive_mask(torch.ones(3, 5, 5), torch.float32).shape == (3, 1, 5, 5)


def test_masks_per_layer_are_applied_in_their_layer_and_shared_ones_once(monkeypatch) -> None:
    encoder = make(num_layers=3)
    isolated = torch.eye(5, dtype=torch.bool)[None].expand(3, 5, 5)
    first = TransformerEncoder(TransformerOptions(**{**SIZES, "num_layers": 1})).eval()
    rest = TransformerEncoder(TransformerOptions(**SIZES)).eval()
    first.layer[0].load_state_dict(encoder.layer[0].state_dict())
    for position in (0, 1):
        rest.layer[position].load_state_dict(encoder.layer[position + 1].state_dict())
    wanted = rest(first(hidden(), isolated).last_hidden_state, MASK).last_hidden_state

    made = []
    monkeypatch.setattr(transformer, "additive_mask", lambda *a: made.append(additive_mask(*a)) or made[-1])
    output = encoder(hidden(), [isolated, MASK, MASK]).last_hidden_state
    torch.testing.assert_close(output, wanted)
    assert len(made) == 2
    assert not torch.allclose(output, encoder(hidden(), MASK).last_hidden_state)
    with pytest.raises(ValueError, match="2 attention masks for 3 layers"):
        encoder(hidden(), [MASK, MASK])


def test_rotary_hook_reaches_both_paths_and_only_relative_turns_matter() -> None:
    encoder = make()

    def turn(offset: float):
        def rotary(query, key):
            angle = (torch.arange(query.shape[2]) + offset)[:, None] * torch.tensor([1.0, 0.3])

            def rotated(x):
                a, b = x[..., :2], x[..., 2:]
                return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

            return rotated(query), rotated(key)

        return rotary

    plain = encoder(hidden()).last_hidden_state
    turned = encoder(hidden(), rotary=turn(0)).last_hidden_state
    shifted = encoder(hidden(), rotary=turn(7), need_attention=True).last_hidden_state
    assert not torch.allclose(plain, turned, atol=1e-3)
    torch.testing.assert_close(turned, shifted, atol=2e-5, rtol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients_with_dropout() -> None:
    encoder = make(hidden_dropout=0.2, attention_dropout=0.0).train()
    gradients = []
    for flag in (False, True):
        encoder.gradient_checkpointing = flag
        encoder.zero_grad()
        torch.manual_seed(5)
        encoder(hidden(), MASK).last_hidden_state.pow(2).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_initialise_follows_berts_rule() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict(
        {
            "e": nn.Embedding(400, 64, padding_idx=3),
            "l": nn.Linear(64, 400),
            "n": nn.LayerNorm(64),
            "b": nn.Linear(2, 2, bias=False),
        }
    )
    nn.init.constant_(module["n"].weight, 5)
    initialise(module, 0.02)
    assert (module["e"].weight[3] == 0).all() and abs(module["e"].weight.std().item() - 0.02) < 1e-3
    assert abs(module["l"].weight.std().item() - 0.02) < 1e-3 and (module["l"].bias == 0).all()
    assert (module["n"].weight == 1).all()


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="hidden_size 16 is not a multiple of num_heads 3"):
        make(num_heads=3)
    with pytest.raises(ConfigError, match="neither 'post' nor 'pre'"):
        make(norm="sandwich")
    with pytest.raises(ConfigError, match="unknown activation 'gelo'.*'gelu'"):
        make(activation="gelo")


def test_the_first_layers_alone_give_the_state_that_the_whole_run_passes_through() -> None:
    encoder = make(num_layers=3)
    states = encoder(hidden(), MASK, output_hidden_states=True).hidden_states
    for count in range(4):
        for masks in (MASK, [MASK] * count, [MASK] * 3):
            short = encoder(hidden(), masks, num_layers=count, output_hidden_states=True)
            assert torch.equal(short.last_hidden_state, states[count]) and len(short.hidden_states) == count + 1
    with pytest.raises(ValueError, match="num_layers 4: the encoder has 3 layers"):
        encoder(hidden(), MASK, num_layers=4)
    with pytest.raises(ValueError, match="1 attention masks for 2 layers"):
        encoder(hidden(), [MASK], num_layers=2)


def causal(prefix: int, length: int) -> torch.Tensor:
    """Return the mask of a prefix that sees itself, followed by positions that see what is before them: (1, L, L)."""
    seen = torch.ones(length, length).tril().bool()
    seen[:prefix, :prefix] = True
    return seen[None].expand(3, length, length)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("need_attention", [False, True])
def test_a_cache_gives_the_states_of_the_whole_sequence(norm: str, need_attention: bool) -> None:
    encoder, whole = make(norm=norm), hidden(length=6)
    mask = causal(3, 6)
    wanted = encoder(whole, mask).last_hidden_state
    cache = KeyValueCache()
    assert cache.length == 0
    parts = [encoder(whole[:, :3], None, cache=cache).last_hidden_state]
    for position in range(3, 6):
        seen = torch.ones(3, position + 1, dtype=torch.bool)
        step = encoder(whole[:, position : position + 1], seen, cache=cache, need_attention=need_attention)
        parts.append(step.last_hidden_state)
        assert cache.length == position + 1
    torch.testing.assert_close(torch.cat(parts, 1), wanted, atol=1e-5, rtol=1e-5)
    # Several new positions at once, with a row of mask for each.
    cache = KeyValueCache()
    encoder(whole[:, :3], cache=cache)
    late = encoder(whole[:, 3:], mask[:, 3:], cache=cache).last_hidden_state
    torch.testing.assert_close(late, wanted[:, 3:], atol=1e-5, rtol=1e-5)


def test_selected_rows_of_a_cache_go_on_as_their_own_sequences() -> None:
    encoder, whole = make(), hidden(length=6)
    rows = torch.tensor([2, 0, 0, 1])
    cache = KeyValueCache()
    encoder(whole[:, :5], causal(5, 5), cache=cache)
    cache.select(rows)
    output = encoder(whole[rows, 5:], cache=cache).last_hidden_state
    wanted = encoder(whole[rows], causal(5, 6)[:1].expand(4, 6, 6)).last_hidden_state[:, 5:]
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-5)


def test_a_cache_is_filled_once_per_call_under_gradient_checkpointing_too() -> None:
    encoder = make(gradient_checkpointing=True)
    cache = KeyValueCache()
    encoder(hidden(), MASK, cache=cache).last_hidden_state.sum().backward()
    assert cache.length == 5 and len(cache.layers) == 2
