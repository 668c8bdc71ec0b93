"""Counting the operations of a call of a model: matrix products, convolutions and attention, forward and backward."""

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

__all__ = ["count"]


def count(call: Callable[[], Any]) -> float:
    """Return the floating-point operations of a call; a multiplication with its addition is two.

    What feed-forward blocks would compute again, to keep less, does not count: no step needs it.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    aten = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    def product(values: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return 2 * math.prod(values) * weight[0]

    # torch has no formula for the kernels of the CPU
    own = {
        torch.ops.mkldnn._linear_pointwise: product,
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    kept = mock.patch("mmpt.modules.linear._keeps_little", lambda *_: False)
    with kept, FlopCounterMode(display=False, custom_mapping=own) as counter:
        call()
    return float(counter.get_total_flops())
