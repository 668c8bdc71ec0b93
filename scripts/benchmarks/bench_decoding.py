"""Caption generation by beam search: keys and values kept, against encoding video and words anew for every word.

python scripts/benchmarks/bench_decoding.py
python scripts/benchmarks/bench_decoding.py -o beams=1 -o hidden=64
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from mmpt.modules.attention_masks import joint_token_types, text_generation_mask
from mmpt.modules.bert import BertConfig
from mmpt.modules.decoding import DecodingOptions, Hypothesis, decode
from mmpt.modules.mmbert_heads import MMBertForNLG
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

# Any two ids serve: nothing is decoded to text.
CLS, SEP = 2, 3


class AllTokens:
    """Keep the videos and all tokens so far (N, T), and compute everything again at every step, as published."""

    def __init__(self, model: MMBertForNLG, vfeats: Tensor, vmasks: Tensor) -> None:
        self.model, self.vfeats, self.vmasks = model, vfeats, vmasks
        self.tokens = torch.tensor([[CLS, SEP]]).expand(len(vfeats), 2)

    def select(self, rows: Tensor) -> None:
        """Keep rows; see :class:`~mmpt.modules.decoding.DecoderState`."""
        self.vfeats, self.vmasks, self.tokens = self.vfeats[rows], self.vmasks[rows], self.tokens[rows]

    @staticmethod
    def step(last: Tensor, state: "AllTokens") -> Tensor:
        """Return the scores of the next word (N, V)."""
        state.tokens = torch.cat([state.tokens, last[:, None]], dim=1)
        mask = text_generation_mask(state.vmasks, torch.ones_like(state.tokens, dtype=torch.bool))
        types = joint_token_types(state.vmasks.shape[1], state.tokens.shape[1])
        states = state.model(state.tokens, state.vfeats, mask, types).last_hidden_state
        return state.model.next_words(states[:, -1])


def _run(kept: bool) -> Callable[..., Run]:
    def make(folder: Path, videos: int, beams: int, words: int, hidden: int, layers: int) -> Run:
        torch.manual_seed(0)
        sizes = {"num_attention_heads": 4, "intermediate_size": 4 * hidden, "vocab_size": 8000}
        model = MMBertForNLG(BertConfig(hidden_size=hidden, num_hidden_layers=layers, **sizes)).eval()
        # Random weights of BERT's size write the same word over and over; larger ones write texts.
        with torch.no_grad():
            for parameter in model.bert.parameters():
                parameter.mul_(3)
        vmasks = torch.arange(32) < torch.linspace(8, 32, videos).long()[:, None]
        vfeats = torch.randn(videos, 32, 512) * vmasks[..., None]
        start = torch.full((videos,), CLS)
        options = DecodingOptions(num_beams=beams, min_length=words)
        specials, seen = (
            start[:, None] + torch.tensor([0, SEP - CLS]),
            torch.nn.functional.pad(vmasks, (1, 1), value=True),
        )

        def texts() -> list[Hypothesis]:
            way = (model.next_word, model.begin(specials, vfeats, seen)) if kept else (
                AllTokens.step, AllTokens(model, vfeats, vmasks))  # fmt: skip
            return decode(*way, start, options, end=SEP, max_tokens=words, prompt=3)

        def call() -> list[list[int]]:
            with torch.inference_mode():
                return [list(text.ids) for text in texts()]

        return Run(call, videos * words, counted=True)

    return make


WORKS = (
    Work(
        "captions",
        "words",
        _run(kept=True),
        _run(kept=False),
        "the whole sequence encoded again for every word",
        sizes={"videos": 16, "beams": 5, "words": 21, "hidden": 256, "layers": 4},
        quick={"videos": 4, "words": 12},
        tiny={"videos": 2, "beams": 2, "words": 4, "hidden": 32, "layers": 1},
        threads=2,
        least_ratio=5,
        group="evaluation",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
