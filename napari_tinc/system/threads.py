"""How many threads work, and the pool of those that do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from napari_tinc.system.forks import after_fork

_forked = False


def is_forked() -> bool:
    """Whether this process was forked: it has only the thread that forked it."""
    return _forked


def usable_cores() -> int:
    """Cores that this process may use, no more than ``OMP_NUM_THREADS`` says."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(all_cores(), int(told)) if told.isdecimal() and int(told) else all_cores()


@lru_cache(maxsize=1)
def block_threads() -> ThreadPoolExecutor:
    """Threads that work on blocks while their caller waits: the kernels run without the interpreter's lock."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="tinc-blocks")


def all_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin_anew() -> None:
    """Make threads of its own in a forked process; its parent's are not there."""
    global _forked
    _forked = True
    block_threads.cache_clear()


after_fork(_begin_anew)
