"""What the C library does with memory that is freed: given back to the system at once, or kept for the next one asking.

A step makes and frees the same large tensors as the one before. glibc asks the system for each and gives it back, and
every page comes as a fault, filled with zeros: on a virtual machine 3 to 23 % of the time of a training step.
"""

import ctypes
import os

__all__ = ["keep_freed_memory"]

#: Bytes that a block may have and still be kept: what mallopt takes, or the most that older versions of glibc take.
_KEPT, _KEPT_BEFORE = 2**30, 2**25
#: Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = -1
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Have this process, and those forked from it, keep what they free, and use it again.

    Each then holds about the most that it ever used, until its end. For processes that compute and end: commands and
    trainings call it, importing MMPT does not. What the environment says of glibc's malloc (``MALLOC_..._``, or
    ``glibc.malloc`` in ``GLIBC_TUNABLES``) stays.

    Returns:
        Whether it is so: false with other C libraries and where the environment says otherwise.
    """
    if any(name in os.environ for name in _OWN_SETTINGS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc; on Windows None is no library
        return False
    large = mallopt(_M_MMAP_THRESHOLD, _KEPT) or mallopt(_M_MMAP_THRESHOLD, _KEPT_BEFORE)
    return bool(large and mallopt(_M_TRIM_THRESHOLD, _NEVER))
