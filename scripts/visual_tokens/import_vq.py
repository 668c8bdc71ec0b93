"""Import VIOLET's published visual tokens, ``vq_<data set>.pkl``, without executing them.

    python scripts/visual_tokens/import_vq.py --out data/webvid/vq vq_webvid2.5m_train_0.pkl vq_webvid2.5m_train_1.pkl

Writes shards ``<out>/tokens_<number>`` (``dataset.vq_path``). What was imported already is left alone. The
frames must be those that the tokens were made of, in the same order: import ``img_*.tsv`` or ``.pkl`` of the same name.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.store.visual_tokens import import_tokens
from mmpt.utils.files import sole_writer
from mmpt_cli.extraction import exit_code

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for an error, 130 if interrupted."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="vq_*.pkl")
    parser.add_argument("--out", required=True, help="folder for the tokens (dataset.vq_path)")
    options = parser.parse_args(argv)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with sole_writer(Path(options.out) / ".lock"):
        for file in options.files:
            videos = import_tokens(file, options.out)
            print(f"{file}: {videos} videos imported" if videos else f"{file}: imported before, left alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
