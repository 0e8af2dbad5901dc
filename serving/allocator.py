"""Memory that a process of polyvec's own frees, and soon takes again: kept, for it costs most to get anew.

A decoded page is tens of megabytes, an answer of 64 texts a megabyte or two. glibc takes such blocks from the
kernel and gives them back, and the kernel clears each of their pages anew: a quarter of what a page costs that is
decoded and cut up. A process that belongs to somebody else is left as it is.

Python's own objects are looked through less often, see `collect_seldom`.

An engine's processes are told by `STEP_TUNABLES`, since only glibc's start can give them huge pages.
"""

import ctypes
import gc
import os

_MEGABYTE = 1 << 20

# mallopt(3): names of malloc.h and what they are set to, in bytes. The first is the most that glibc takes.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_TOP_PAD = -3, -1, -2
_OPTIONS = {
    _M_MMAP_THRESHOLD: 32 * _MEGABYTE,
    _M_TRIM_THRESHOLD: 256 * _MEGABYTE,
    _M_TOP_PAD: 16 * _MEGABYTE,
}

STEP_TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "hugetlb": 1,  # madvise
        "mmap_max": 0,
        "trim_threshold": 1024 * _MEGABYTE,
        "top_pad": 64 * _MEGABYTE,
    }.items()
)
"""GLIBC_TUNABLES of a process that runs a model on a CPU.

A step's activations are tens of megabytes, which glibc takes from the kernel and gives back at every step: each of
their pages is cleared and mapped anew. Kept, and in huge pages, they cost nothing the second time.
"""

_OF_THE_USER = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
)


_OBJECTS_PER_COLLECTION = 20_000


def collect_seldom() -> None:
    """Look for garbage in cycles after some 20,000 new objects, and not after 700 or 2,000.

    A request is some hundred objects, which go without it. With dozens of requests at once, the collector went
    through their objects again and again: some 4 % of the server's time in requests of one text (perf, one run).
    """
    gc.set_threshold(_OBJECTS_PER_COLLECTION, *gc.get_threshold()[1:])


def keep_memory() -> bool:
    """Keep up to 256 MB of freed memory in this process; whether it could be arranged.

    It cannot without glibc, and is not where the user has set such options for the process.
    """
    if any(name in os.environ for name in _OF_THE_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    taken = [mallopt(option, value) == 1 for option, value in _OPTIONS.items()]
    return all(taken)
