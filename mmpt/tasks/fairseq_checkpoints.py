"""fairseq's checkpoints made safe against a kill at any moment.

fairseq writes the first name of a checkpoint atomically and copies it to the others (``checkpoint_last.pt``,
``checkpoint_best.pt``) in place: a process killed during the copy leaves a cut file, from which it cannot resume.
"""

import os
import shutil
from pathlib import Path

from fairseq.file_io import PathManager

from mmpt.utils.checkpoint import allow_fairseq_checkpoints

__all__ = ["copy_atomically", "make_checkpoints_safe"]


def make_checkpoints_safe() -> None:
    """Let fairseq read its own checkpoints under ``weights_only``, and copy them atomically."""
    allow_fairseq_checkpoints()
    PathManager.copy = staticmethod(copy_atomically)


def copy_atomically(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """Copy a file so that ``dst_path`` is at every moment the old file or the whole new one.

    Takes and returns what fairseq's ``PathManager.copy`` does.

    Raises:
        FileExistsError: if ``dst_path`` exists and ``overwrite`` is not set.
    """
    target = Path(dst_path)
    if target.exists() and not overwrite:
        raise FileExistsError(dst_path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(src_path, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return True
