"""Render the demo corpus: real video files of moving coloured shapes, with what is said about them.

    python scripts/demo_corpus/generate.py --output data/demo

Writes, below the output folder:

    videos/<id>.mp4|.mkv|.avi       H.264 and MPEG-4, several sizes and frame rates
    raw_caption.json                HowTo100M-style narration: {id: {"start": [..], "end": [..], "text": [..]}}
    how2_train.lst, how2_val.lst    ids of the narrated videos
    vtt_train.csv, vtt_val.csv, vtt_test.csv, vtt_data.json
                                    MSR-VTT-format retrieval splits; no (colour, shape, action) of the test or
                                    validation clips occurs in any narrated video or training clip
    vtt_qa_test.csv                 MSR-VTT-format multiple-choice questions about the test clips
    coin/, crosstask/, youcook/     annotations of the step videos in COIN's, CrossTask's and YouCook2's formats
    bert/config.json, vocab.txt     a small BERT to be trained from scratch
    triples.json, manifest.json     what each video shows; what was done

A second run renders only what is missing.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.utils.extras import require
from mmpt.utils.files import atomic_open, write_json
from scripts.demo_corpus.annotations import write_coin, write_crosstask, write_questions, write_youcook
from scripts.demo_corpus.command import corpus_command
from scripts.demo_corpus.plan import Counts, VideoPlan, plan_corpus
from scripts.demo_corpus.rendering import render_corpus

__all__ = ["BERT", "main", "write_bert_folder", "write_triples"]

#: Sizes of the small BERT; the vocabulary is that of the corpus.
BERT = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Render the corpus; return the exit code, 1 if a video could not be written."""
    return corpus_command(__doc__, "data/demo", Counts(), generate, argv)


def generate(output: Path, seed: int, counts: Counts, workers: int) -> int:
    """Write a corpus to a folder; return the exit code.

    Raises:
        ConfigError: if the folder holds a corpus of another seed or size.
    """
    require("av", "video")
    plans = plan_corpus(seed, counts)

    def write() -> None:
        write_texts(plans, output)
        write_questions(output / "vtt_qa_test.csv", [plan for plan in plans if plan.split == "clips_test"], seed)
        steps = [plan for plan in plans if plan.split.startswith("steps")]
        write_coin(output / "coin" / "COIN.json", steps)
        write_crosstask(output / "crosstask", steps)
        write_youcook(output / "youcook", steps)
        write_bert(plans, output / "bert")

    return render_corpus(plans, output, {"seed": seed, **asdict(counts)}, workers, write)


def write_texts(plans: Sequence[VideoPlan], output: Path) -> None:
    """Write narration, id lists and retrieval files."""
    narrated = [plan for plan in plans if plan.split.startswith("narrated")]
    write_json(
        output / "raw_caption.json",
        {
            plan.name: {
                "start": [line.start for line in plan.lines],
                "end": [line.end for line in plan.lines],
                "text": [line.text for line in plan.lines],
            }
            for plan in narrated
        },
        indent=None,
    )
    for split in ("train", "val"):
        with atomic_open(output / f"how2_{split}.lst") as file:
            file.writelines(f"{plan.name}\n" for plan in narrated if plan.split == f"narrated_{split}")
        clips = [plan for plan in plans if plan.split == f"clips_{split}"]
        _write_csv(output / f"vtt_{split}.csv", clips, sentences=split != "train")
    _write_csv(output / "vtt_test.csv", [plan for plan in plans if plan.split == "clips_test"], sentences=True)
    train = [plan for plan in plans if plan.split == "clips_train"]
    sentences = [{"video_id": plan.name, "caption": caption} for plan in train for caption in plan.captions]
    write_json(output / "vtt_data.json", {"sentences": sentences}, indent=None)
    write_triples(output / "triples.json", plans)


def write_triples(path: Path, plans: Sequence[VideoPlan]) -> None:
    """Write video -> ``[start, end, colour, shape, action]`` of each segment."""
    triples = {
        plan.name: [[s.start, s.end, s.triple.colour, s.triple.shape, s.triple.action] for s in plan.segments]
        for plan in plans
    }
    write_json(path, triples, indent=None)


def _write_csv(path: Path, plans: Sequence[VideoPlan], sentences: bool) -> None:
    table = pd.DataFrame({"video_id": [plan.name for plan in plans]})
    if sentences:
        table["sentence"] = [plan.captions[0] for plan in plans]
    with atomic_open(path) as file:
        table.to_csv(file, index=False)


def write_bert(plans: Sequence[VideoPlan], folder: Path) -> None:
    """Write a BERT folder without weights: the training words as whole pieces, single letters for the rest."""
    said = [line.text for plan in plans for line in plan.lines]
    said += [caption for plan in plans if plan.split == "clips_train" for caption in plan.captions]
    write_bert_folder(folder, {word for text in said for word in text.split()}, BERT)


def write_bert_folder(folder: Path, words: Iterable[str], sizes: Mapping[str, Any]) -> None:
    """Write config.json and vocab.txt: ``words`` are whole pieces, anything else is spelled with single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    whole = sorted(set(words) - set(letters))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *whole]
    with atomic_open(folder / "vocab.txt") as file:
        file.writelines(f"{piece}\n" for piece in pieces)
    with atomic_open(folder / "config.json") as file:
        file.write(json.dumps({**sizes, "vocab_size": len(pieces)}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
