"""What the C library does with memory that is freed: given back to the system at once, or kept for the next one asking.

A step makes and frees the same large tensors as the one before. glibc asks the system for each and gives it back, and
every page comes as a fault, filled with zeros: on a virtual machine that is a tenth to a third of the time of a step.
"""

import ctypes
import os

__all__ = ["keep_freed_memory"]

#: Bytes that one block may have and still be kept, and that may be free at the end of what the process holds.
_KEPT = 2**30
#: Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Have this process, and those forked from it, keep freed memory up to 1 GiB and use it again.

    For processes that compute for long: commands and trainings call it, importing MMPT does not. What others have said
    in the environment (``GLIBC_TUNABLES``, ``MALLOC_..._THRESHOLD_``) stays.

    Returns:
        Whether it is so: false with other C libraries and where the environment says otherwise.
    """
    if any(name in os.environ for name in _OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no glibc; on Windows None is no library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT) and mallopt(_M_TRIM_THRESHOLD, _KEPT))
