"""Take a few frames of each video, as JPEGs in a frame store.

    python scripts/frame_extractor/extract_frames.py --videos my_videos/ --store data/mine/frames --frames 5

The same as ``mmpt extract frames``, for project YAMLs (``script:``) and for a checkout that is not installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt_cli.extract_frames import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
