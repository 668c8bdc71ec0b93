"""Time caption generation: keys and values kept, against encoding video and words anew for every word.

python scripts/benchmarks/bench_decoding.py                     # 16 videos of 32 s, 5 beams, 21 words; about a minute
python scripts/benchmarks/bench_decoding.py --videos 4 --beams 1 --hidden 64 --layers 2
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.modules.attention_masks import joint_token_types, text_generation_mask
from mmpt.modules.bert import BertConfig
from mmpt.modules.decoding import DecodingOptions, Hypothesis, decode
from mmpt.modules.mmbert_heads import MMBertForNLG
from mmpt.utils.files import write_json

__all__ = ["main"]

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


def _timed(what: str, call: Callable[[], list[Hypothesis]], repeats: int) -> tuple[float, list[Hypothesis]]:
    best, texts = float("inf"), []
    for _ in range(repeats):
        begin = time.perf_counter()
        texts = call()
        best = min(best, time.perf_counter() - begin)
    print(f"{what:<46} {best:8.3f} s  {sum(len(text.ids) for text in texts) / best:8.1f} words/s")
    return best, texts


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if the ways write different texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("videos", 16), ("beams", 5), ("words", 21), ("hidden", 256), ("layers", 4)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 4, "intermediate_size": 4 * given.hidden, "vocab_size": 8000}
    model = MMBertForNLG(BertConfig(hidden_size=given.hidden, num_hidden_layers=given.layers, **sizes)).eval()
    # Random weights of BERT's size write the same word over and over; larger ones write texts.
    with torch.no_grad():
        for parameter in model.bert.parameters():
            parameter.mul_(3)
    vmasks = torch.arange(32) < torch.linspace(8, 32, given.videos).long()[:, None]
    vfeats = torch.randn(given.videos, 32, 512) * vmasks[..., None]
    start = torch.full((given.videos,), CLS)
    options = DecodingOptions(num_beams=given.beams, min_length=given.words)
    specials, seen = start[:, None] + torch.tensor([0, SEP - CLS]), torch.nn.functional.pad(vmasks, (1, 1), value=True)

    def kept() -> list[Hypothesis]:
        state = model.begin(specials, vfeats, seen)
        return decode(model.next_word, state, start, options, end=SEP, max_tokens=given.words, prompt=3)

    def anew() -> list[Hypothesis]:
        state = AllTokens(model, vfeats, vmasks)
        return decode(AllTokens.step, state, start, options, end=SEP, max_tokens=given.words, prompt=3)

    with torch.inference_mode():
        slow, expected = _timed("everything anew for every word", anew, 1)
        fast, texts = _timed("keys and values kept", kept, 3)
    print(f"{'anew / kept':<46} {slow / fast:8.1f} x")
    if given.json:
        write_json(given.json, {**vars(given), "anew_seconds": slow, "kept_seconds": fast, "ratio": slow / fast})
    return 0 if [text.ids for text in texts] == [text.ids for text in expected] else 1


if __name__ == "__main__":
    sys.exit(main())
