"""Train a small tokenizer for MERLOT or MERLOT Reserve on your own transcripts.

    python scripts/tokenizers/train.py --kind reserve --texts data/transcripts --output data/tokenizer --vocab-size 4096

Writes the published file layout (encoder.json and vocab.bpe, or lowercase_encoder.json), special ids in their places,
so that dataset.tokenizer may name the folder. The same texts give the same files. Weights that were trained with the
published vocabulary need the published files instead.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.transcript_source import open_transcripts
from mmpt.utils.errors import DataError, MMPTError
from mmpt.utils.subword_training import KINDS, train_subwords
from mmpt.utils.subwords import load_subwords

__all__ = ["build_parser", "main", "texts_of"]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kind", choices=KINDS, required=True, help="whose vocabulary")
    add(
        "--texts",
        nargs="+",
        required=True,
        metavar="PATH",
        help="transcripts (folders of .json, .vtt, .srt, or files of many videos: .json, .jsonl), or .txt files with"
        " one text per line",
    )
    add("--output", required=True, metavar="DIR", help="folder of the tokenizer (dataset.tokenizer)")
    add("--vocab-size", type=int, default=4096, help="ids, special ones included; fewer come of little text (4096)")
    add("--least-count", type=int, default=2, help="how often two parts must meet before they are merged (2)")
    return parser


def texts_of(paths: Sequence[str]) -> Iterator[str]:
    """Yield the texts of transcripts and of lines, in the order of the paths and of the ids.

    Raises:
        DataError: if a path does not exist or a transcript is malformed; names it.
    """
    for path in map(Path, paths):
        if path.suffix.lower() == ".txt":
            try:
                yield from path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: cannot be read ({error})") from error
            continue
        source = open_transcripts(path)
        for video_id in sorted(source.ids()):
            spoken = source[video_id]
            yield " ".join(word.text for word in spoken.words)
            if spoken.denoised is not None:
                yield " ".join(spoken.denoised)
            yield from (spoken.meta[key] for key in sorted(spoken.meta))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 for an error."""
    args = build_parser().parse_args(argv)
    try:
        files = train_subwords(args.kind, texts_of(args.texts), args.vocab_size, args.output, args.least_count)
        subwords = load_subwords(args.output)
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{', '.join(map(str, files))}: {subwords.vocab_size} ids (model.vocab_size)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
