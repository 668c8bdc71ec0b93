"""Cut videos with their transcripts into segments for MERLOT or MERLOT Reserve: frames, words, sound.

    python scripts/segment_extractor/extract_segments.py --kind reserve --videos my_videos/ --transcripts my_vtts/ \\
        --tokenizer data/tokenizer --store data/mine/segments

The same as ``mmpt extract segments``, for project YAMLs (``script:``) and for a checkout that is not installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt_cli.extract_segments import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
