"""Render the short clips of the demo corpus, with captions and questions in the layouts of VIOLET and LAVENDER.

    python scripts/demo_corpus/generate_short.py --output data/demo_frames

Writes, below the output folder:

    videos/<id>.mp4|.avi            two seconds each, small, 10 frames per second
    txt_demo-pretrain.json          {"train": {video: [caption, ..]}, "val": {..}}, for pre-training
    txt_demo-retrieval.json         {"train", "val", "test": [{"video", "caption"}]}
    txt_demo-mc.json                which of five captions is the clip's, as MSRVTT-MC; test alone
    txt_demo-action.json            what the shape does, five actions to choose from, as TGIF-Action
    txt_demo-qa.json                open-ended questions: {"video", "question", "answer", "answer_text"}, "vocab"
    caption/<split>.yaml, ..        captions, as SwinBERT's
    bert/config.json, vocab.txt     a small BERT to be trained from scratch
    triples.json, manifest.json     what each clip shows; what was done

A second run renders only what is missing.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.extras import require
from scripts.demo_corpus.command import corpus_command
from scripts.demo_corpus.frame_texts import (
    PROMPT_WORDS,
    answer_words,
    write_action_questions,
    write_caption_questions,
    write_captions,
    write_open_questions,
    write_pretraining,
    write_retrieval,
)
from scripts.demo_corpus.generate import BERT, write_bert_folder, write_triples
from scripts.demo_corpus.narration import caption_words
from scripts.demo_corpus.plan import VideoPlan
from scripts.demo_corpus.rendering import render_corpus
from scripts.demo_corpus.short_clips import ShortCounts, plan_short_clips

__all__ = ["main"]

#: An epoch has few updates, and a demo few epochs: nothing is learned by heart that dropout would have to prevent.
SHORT_BERT = {**BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SHORT_BERT["initializer_range"] = 0.08  # so narrow a model learns sooner from wider weights than BERT's 0.02


def main(argv: Sequence[str] | None = None) -> int:
    """Render the clips and write their texts; return the exit code, 1 if a video could not be written."""
    return corpus_command(__doc__, "data/demo_frames", ShortCounts(), generate, argv)


def generate(output: Path, seed: int, counts: ShortCounts, workers: int) -> int:
    """Write a corpus to a folder; return the exit code.

    Raises:
        ConfigError: if the folder holds a corpus of another seed or size.
    """
    require("av", "video")
    plans = plan_short_clips(seed, counts)
    settings = {"seed": seed, **asdict(counts)}
    return render_corpus(plans, output, settings, workers, lambda: write_texts(plans, output, seed))


def write_texts(plans: Sequence[VideoPlan], output: Path, seed: int) -> None:
    """Write every annotation file and the BERT folder."""
    write_triples(output / "triples.json", plans)
    write_pretraining(output / "txt_demo-pretrain.json", plans)
    write_retrieval(output / "txt_demo-retrieval.json", plans)
    write_caption_questions(output / "txt_demo-mc.json", plans, seed)
    write_action_questions(output / "txt_demo-action.json", plans, seed)
    write_open_questions(output / "txt_demo-qa.json", plans)
    write_captions(output / "caption", plans)
    write_bert_folder(output / "bert", {*caption_words(), *PROMPT_WORDS, *answer_words()}, SHORT_BERT)


if __name__ == "__main__":
    sys.exit(main())
