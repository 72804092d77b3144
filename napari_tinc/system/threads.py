"""How many threads work, and the pool of those that do."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from threading import local
from typing import TypeVar

from napari_tinc.system.forks import after_fork

Given = TypeVar("Given")
Made = TypeVar("Made")

# Boxes in work at a time: each takes some ten bytes a voxel.
_MOST_BOXES = 8
_here = local()
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


@lru_cache(maxsize=1)
def _box_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_BOXES, "tinc-boxes", lambda: setattr(_here, "works_on_boxes", True))


def side_by_side(work: Callable[[Given], Made], boxes: Iterable[Given]) -> Iterator[Made]:
    """Work on boxes in threads, and yield what comes of each in their order; no more at a time than there are cores.

    Who stops early waits for those in work. The work may use :func:`block_threads`, whose threads wait for nobody; of
    boxes in boxes only the outer ones are worked on side by side.
    """
    most = 1 if hasattr(_here, "works_on_boxes") else min(usable_cores(), _MOST_BOXES)
    if most == 1:
        yield from map(work, boxes)
        return
    begun = deque[Future[Made]]()
    try:
        for box in boxes:
            begun.append(_box_threads().submit(work, box))
            if len(begun) > most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
        wait(begun)


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
    _box_threads.cache_clear()


after_fork(_begin_anew)
