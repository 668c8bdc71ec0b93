"""Extract one feature per second from videos.

    python scripts/video_feature_extractor/extract.py --videos my_videos/ --fdir data/feat/my_s3d \\
        --type s3d --weights pretrained_models/s3d_howto100m.pth

The same as ``mmpt extract features``, for project YAMLs (``script:``) and for a checkout that is not installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt_cli.extract_features import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
