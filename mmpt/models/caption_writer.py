"""What models that write texts about videos share: group by group, without dropout, each video with its own randomness.

Shapes: B videos.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.models.embedding import evaluating
from mmpt.modules.decoding import DecodingOptions, Hypothesis, read_decoding_options
from mmpt.utils.seeds import item_generator

__all__ = ["CaptionWriter"]

# Rows (videos times beams) that are decoded together: 1 to 4 GB of keys and values at the size of BERT-base.
_ROWS = 256


class CaptionWriter(nn.Module):
    """A model that writes a text about each video; how is :meth:`write`."""

    @abstractmethod
    def write(
        self,
        vfeats: Tensor,
        vmasks: Tensor,
        options: DecodingOptions,
        rngs: Sequence[np.random.Generator],
        **pretext: Any,
    ) -> list[Hypothesis]:
        """Write about as many videos as are decoded together; arguments as :meth:`generate_hypotheses`."""

    def generate(
        self,
        vfeats: Tensor,
        vmasks: Tensor,
        options: DecodingOptions | Mapping[str, Any] | None = None,
        rngs: Sequence[np.random.Generator] | None = None,
        **pretext: Tensor | None,
    ) -> list[list[int]]:
        """Write a text about every video: word ids without special ones; as :meth:`generate_hypotheses`."""
        return [hypothesis.ids for hypothesis in self.generate_hypotheses(vfeats, vmasks, options, rngs, **pretext)]

    def generate_hypotheses(
        self,
        vfeats: Tensor,
        vmasks: Tensor,
        options: DecodingOptions | Mapping[str, Any] | None = None,
        rngs: Sequence[np.random.Generator] | None = None,
        **pretext: Tensor | None,
    ) -> list[Hypothesis]:
        """Write a text about every video; without dropout and gradients, whatever the mode of the model.

        Args:
            vfeats: features or frames of the videos, (B, ..).
            vmasks: (B, ..), true where a second or a frame is real.
            options: the section ``gen_param``; None is greedy.
            rngs: the randomness of each video, for sampling; by default of ``options.seed`` and its number.
            pretext: what else the model is told, as in training: a row for each video, or one for all.

        Raises:
            ConfigError: if a key of ``options`` is unknown or has a wrong value.
        """
        chosen = options if isinstance(options, DecodingOptions) else read_decoding_options(options)
        if rngs is None:
            rngs = [item_generator(chosen.seed, 0, row) for row in range(len(vfeats))]
        size = max(1, _ROWS // chosen.num_beams)
        texts: list[Hypothesis] = []
        with evaluating(self), torch.inference_mode():
            for start in range(0, len(vfeats), size):
                rows = slice(start, start + size)
                own = {key: _rows_of(value, rows) for key, value in pretext.items()}
                texts += self.write(vfeats[rows], vmasks[rows], chosen, rngs[rows], **own)
        return texts


def _rows_of(value: Tensor | None, rows: slice) -> Tensor | None:
    """Return the pretext of some rows; one that is for all stays."""
    return value if value is None or len(value) == 1 else value[rows]
