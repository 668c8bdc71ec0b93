"""Write, from a file of rows (docs/own_corpus.md), what the systems read of it in pre-training.

    python scripts/comparison/narration_files.py --rows data/compare/corpus.jsonl --output data/compare

The rows of training and validation are what is said from when to when. Writes, below the output folder:

    raw_caption.json             their sentences as HowTo100M has them, {video: {"start", "end", "text"}}
    pretraining.jsonl            the rows themselves, for VIOLET and LAVENDER
    train.lst, val.lst           ids of their videos
    bert/config.json, vocab.txt  a small BERT, to be trained from scratch, whose vocabulary are the words of training
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.processors.corpus_rows import CorpusRow, read_corpus
from mmpt.utils.errors import DataError, MMPTError
from mmpt.utils.files import atomic_open, write_json
from scripts.demo_corpus.generate import BERT, write_bert_folder

__all__ = ["main"]

_LISTS = {"train": "train.lst", "valid": "val.lst"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file of rows, with a column split")
    parser.add_argument("--output", type=Path, required=True, help="folder of the files")
    add = parser.add_argument_group("the small BERT").add_argument
    add("--hidden-size", type=int, default=128)
    add("--layers", type=int, default=2)
    add("--heads", type=int, default=4)
    add("--initializer-range", type=float, default=0.08, help="so narrow a model learns sooner from wider weights")
    add("--words", nargs="*", default=["true", "false"], help="words that a prompt needs")
    arguments = parser.parse_args(argv)
    try:
        write_narration(arguments.rows, arguments.output, arguments.words, _sizes(arguments))
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_narration(rows_file: Path, output: Path, words: Sequence[str], sizes: dict[str, object]) -> None:
    """Write the files.

    Raises:
        DataError: if the rows are wrong, none is of training or of validation, or one of them has no times.
    """
    rows = read_corpus(rows_file, "retrieval", max_missing=0.0)
    fields = ("video", "start", "end", "text", "split")
    with atomic_open(output / "pretraining.jsonl") as file:
        told = [row for row in rows if row.split in _LISTS]
        file.writelines(json.dumps({name: getattr(row, name) for name in fields}) + "\n" for row in told)
    for split, name in _LISTS.items():
        videos = dict.fromkeys(row.video for row in rows if row.split == split)
        if not videos:
            raise DataError(f"{rows_file}: no row is of split {split!r}; {name} would be empty")
        with atomic_open(output / name) as file:
            file.writelines(f"{video}\n" for video in videos)
    spoken: dict[str, dict[str, list[object]]] = {}
    for row in told:
        for key, value in _timed(row).items():
            spoken.setdefault(row.video, {"start": [], "end": [], "text": []})[key].append(value)
    write_json(output / "raw_caption.json", spoken, indent=None)
    said = {word for row in rows if row.split == "train" for word in row.text.split()}
    write_bert_folder(output / "bert", {*said, *words}, sizes)


def _timed(row: CorpusRow) -> dict[str, object]:
    if row.start is None or row.end is None:
        raise DataError(f"{row.place}: has no start and end, which say when it is said")
    return {"start": row.start, "end": row.end, "text": row.text}


def _sizes(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        **BERT,
        "hidden_size": arguments.hidden_size,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": arguments.heads,
        "intermediate_size": 4 * arguments.hidden_size,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": arguments.initializer_range,
    }


if __name__ == "__main__":
    sys.exit(main())
