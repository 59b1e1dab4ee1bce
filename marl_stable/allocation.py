"""Memory that tensors in main memory have given back stays with the process, for the next ones.

glibc hands it back to the system wherever enough of it lies at the end of the heap, so that the same pages are asked
for, and filled with zeros, again with every minibatch. How often that happens is a matter of what lies where.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers of glibc's malloc.h
KEPT = 2**30  # bytes at the heap's end
LARGE = 2**25  # bytes from which on a block is the system's own: the most that every glibc takes
OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have it so from now on, and say whether it is; without glibc, and where users have set this, nothing changes."""
    if sys.platform != "linux" or any(name in os.environ for name in OWN_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_THRESHOLD, LARGE) and mallopt(M_TRIM_THRESHOLD, KEPT))
