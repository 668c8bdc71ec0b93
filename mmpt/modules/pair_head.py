"""The head that scores a video-text pair, or classifies it, from one fused state.

VIOLET (arXiv:2111.12681) has it for video-text matching and every downstream task, LAVENDER (arXiv:2206.07160) in the
task-specific baselines that it is compared with.
"""

from torch import nn

from mmpt.modules.linear import Linear

__all__ = ["MatchingHead"]


class MatchingHead(nn.Sequential):
    """Dropout, Linear to twice the width, ReLU and Linear: fused states (.., H) to (.., ``outputs``).

    Entries of the state dict: ``1.{weight,bias}`` (2H, H) and ``3.{weight,bias}`` (outputs, 2H). To be held under the
    name ``fc``.

    Args:
        hidden: width H of the state.
        outputs: 1 for the score of a pair, else the number of classes.
        dropout: share of the state's elements that training drops.
    """

    def __init__(self, hidden: int, outputs: int, dropout: float = 0.1) -> None:
        super().__init__(nn.Dropout(dropout), Linear(hidden, 2 * hidden), nn.ReLU(), Linear(2 * hidden, outputs))
