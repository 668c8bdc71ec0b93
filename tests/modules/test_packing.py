"""Packed batches against padded ones: states, gradients, kernels, and what is computed."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmpt.modules.attention_masks import isolated_mask, isolated_segments, joint_mask
from mmpt.modules.packing import Packing, Segments, packed_attention, padded_attention
from mmpt.modules.transformer import TransformerEncoder, TransformerOptions, initialise

LENGTH = 7
lengths_of = st.lists(st.integers(0, LENGTH), min_size=1, max_size=6)


def encoder(**changed) -> TransformerEncoder:
    torch.manual_seed(0)
    built = TransformerEncoder(TransformerOptions(8, 2, 2, 16, **changed)).double()
    initialise(built, 0.3)
    return built


def batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(len(lengths), LENGTH, 8, generator=generator, dtype=torch.float64)
    return hidden, torch.arange(LENGTH) < torch.tensor(lengths)[:, None]


def gradients(built: TransformerEncoder, states: Tensor) -> list[Tensor]:
    weighted = (states * torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)).sum()
    return list(torch.autograd.grad(weighted, list(built.parameters())))


@given(lengths_of, st.booleans())
@settings(max_examples=30, deadline=None)
def test_states_and_gradients_equal_the_padded_ones(lengths: list[int], checkpointing: bool) -> None:
    built = encoder(gradient_checkpointing=checkpointing)
    hidden, mask = batch(lengths)
    padded = built(hidden, mask).last_hidden_state * mask[..., None]
    packing = Packing(mask)
    packed = packing.unpack(built(packing.pack(hidden), packing).last_hidden_state)
    torch.testing.assert_close(packed, padded)
    for mine, theirs in zip(gradients(built, packed), gradients(built, padded), strict=True):
        torch.testing.assert_close(mine, theirs)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_isolated_parts_equal_the_isolated_mask(sizes: list[tuple[int, int]], isolated: int) -> None:
    seconds, words = torch.tensor(sizes).unbind(1)
    vmasks, cmasks = torch.arange(3) < seconds[:, None], torch.arange(4) < words[:, None] + 2
    hidden, _ = batch([LENGTH] * len(sizes))
    joint = joint_mask(vmasks, cmasks)
    built = encoder()
    masks = [isolated_mask(vmasks, cmasks)] * isolated + [joint] * (2 - isolated)
    padded = built(hidden, masks).last_hidden_state * joint[..., None]
    apart, together = Packing(isolated_segments(vmasks, cmasks)), Packing(joint)
    packings = [apart] * isolated + [together] * (2 - isolated)
    states = built(packings[0].pack(hidden), packings).last_hidden_state
    torch.testing.assert_close(packings[0].unpack(states), padded)


@given(lengths_of)
@settings(max_examples=30, deadline=None)
def test_packing_and_unpacking_keep_what_is_valid_and_masks_may_have_holes(lengths: list[int]) -> None:
    hidden, mask = batch(lengths)
    mask = mask & (torch.arange(LENGTH) != 1)
    packing = Packing(mask)
    torch.testing.assert_close(packing.unpack(packing.pack(hidden)), hidden * mask[..., None])
    numbers, places = packing.between(2, 5)
    torch.testing.assert_close(packing.pack(hidden)[numbers], hidden[:, 2:5].flatten(0, 1)[places])
    assert len(numbers) == int(mask[:, 2:5].sum())
    assert sum(rows * length for rows, length in packing.groups) == int(mask.sum())


@given(lengths_of)
@settings(max_examples=20, deadline=None)
def test_attention_in_padded_form_is_the_same(lengths: list[int]) -> None:
    hidden, mask = batch(lengths)
    packing = Packing(mask)
    if not packing.groups:
        return
    q = packing.pack(hidden).unflatten(1, (2, 4))
    inputs = (q, q.flip(0), q * 2)
    torch.testing.assert_close(padded_attention(*inputs, packing), packed_attention(*inputs, packing))


def test_with_dropout_the_mean_is_that_without_and_the_backward_pass_draws_nothing() -> None:
    hidden, mask = batch([7, 6, 3, 3, 1])
    packing = Packing(mask)
    q, k, v = (packing.pack(hidden * scale).unflatten(1, (2, 4)).requires_grad_() for scale in (1, -1, 2))
    with torch.no_grad():
        torch.manual_seed(0)
        mean = torch.stack([packed_attention(q, k, v, packing, 0.3) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, packed_attention(q, k, v, packing), atol=0.45, rtol=0)

    def seeded(*inputs: Tensor) -> Tensor:
        torch.manual_seed(1)
        return packed_attention(*inputs, packing, 0.3)

    assert torch.autograd.gradcheck(seeded, (q, k, v))


def test_gradient_checkpointing_replays_dropout() -> None:
    hidden, mask = batch([7, 4, 1, 0])
    packing, made = Packing(mask), []
    for checkpointing in (False, True):
        built = encoder(hidden_dropout=0.2, attention_dropout=0.2, gradient_checkpointing=checkpointing).train()
        torch.manual_seed(3)
        made.append(gradients(built, built(packing.pack(hidden), packing).last_hidden_state))
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)


def test_the_fast_kernel_is_reached_and_no_mask_is_made() -> None:
    class Names(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[str] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.add(func.name())
            return func(*args, **(kwargs or {}))

    hidden, mask = batch([7, 7, 2])
    built, packing = encoder().eval(), Packing(mask)
    with Names() as names:
        built(packing.pack(hidden), packing).last_hidden_state.sum().backward()
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names.seen
    assert "aten::_scaled_dot_product_flash_attention_for_cpu_backward" in names.seen
    assert not names.seen & {"aten::_softmax", "aten::masked_fill_.Scalar", "aten::_safe_softmax"}


def test_operations_are_those_of_the_valid_positions() -> None:
    def operations(lengths: list[int], packed: bool) -> tuple[int, int]:
        hidden, mask = batch(lengths)
        built = encoder()
        packing = Packing(mask) if packed else None
        with FlopCounterMode(display=False) as counter:
            built(packing.pack(hidden) if packing else hidden, packing or mask).last_hidden_state.sum().backward()
        total = counter.get_flop_counts()["Global"]
        dense = sum(count for op, count in total.items() if "addmm" in str(op) or str(op).endswith("mm"))
        return dense, counter.get_total_flops()

    full, half = operations([7] * 4, True), operations([7, 0, 7, 0], True)
    assert half[0] * 2 == full[0]
    assert operations([7, 1, 1, 1], True)[0] * 28 == full[0] * 10
    assert operations([7, 1, 1, 1], False)[0] == full[0]


def test_segments_of_one_part_are_the_mask() -> None:
    _, mask = batch([3, 0, 5])
    assert Packing(Segments(mask.long())).index.tolist() == Packing(mask).index.tolist()
    assert F.pad(mask, (0, 0)).sum() == len(Packing(mask).index)
