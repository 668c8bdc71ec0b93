#!/usr/bin/env python3
"""Expand a project YAML into jobs and run them, or run the YAML of a single job.

python locallaunch.py projects/retri/videoclip.yaml --dryrun
python locallaunch.py projects/retri/videoclip/how2.yaml --jobtype local_big
"""

import sys

from mmpt_cli.launch import main

if __name__ == "__main__":
    sys.exit(main())
