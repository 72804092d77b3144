"""How many threads work, and the pool of those that do."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import chain, starmap
from threading import Lock, local
from typing import Any, TypeVar

from napari_tinc.system.forks import after_fork

Given = TypeVar("Given")
Made = TypeVar("Made")

# Boxes in work at a time: each takes some ten bytes a voxel.
_MOST_BOXES = 8
# Blocks that a thread takes at once, and least shares for every thread.
_MOST_AT_ONCE, _SHARES = 8, 4
_here = local()
_counting, _boxes_in_work = Lock(), 0
_forked = False


def is_forked() -> bool:
    """Whether this process was forked: it has only the thread that forked it."""
    return _forked


def usable_cores() -> int:
    """Cores that this process may use, no more than ``OMP_NUM_THREADS`` says."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(all_cores(), int(told)) if told.isdecimal() and int(told) else all_cores()


class BlockThreads:
    """Threads that work on blocks while their caller waits: the kernels run without the interpreter's lock.

    Of many blocks a thread takes some at once: to hand one over takes as long as a small one. With one core, or where
    each has a box to work on, the caller works on them itself: more threads than cores take a fifth longer.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="tinc-blocks") if cores > 1 else None

    def map(self, work: Callable[..., Made], *given: Iterable[Any]) -> Iterator[Made]:
        """Return what comes of the blocks in their order."""
        jobs = list(zip(*given, strict=True))
        if self._pool is None or every_core_has_a_box():
            return starmap(work, jobs)
        size = max(1, min(_MOST_AT_ONCE, len(jobs) // (_SHARES * self._cores)))
        shares = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        return chain.from_iterable(self._pool.map(lambda share: list(starmap(work, share)), shares))

    def follow(
        self, work: Callable[[Given], Made], first: Iterable[Given], after: Callable[[Given, Made], Iterable[Given]]
    ) -> Iterator[tuple[Given, Made]]:
        """Work on jobs, and on those that come after them; yield each with what came of it, as they are done.

        Who stops early waits for those in work.
        """
        ready = deque(first)
        if self._pool is None or every_core_has_a_box():
            while ready:
                job = ready.popleft()
                made = work(job)
                ready.extend(after(job, made))
                yield job, made
            return
        begun: dict[Future[list[Made]], list[Given]] = {}
        try:
            while ready or begun:
                while ready and len(begun) < 2 * self._cores:
                    size = max(1, min(_MOST_AT_ONCE, len(ready) // (_SHARES * self._cores)))
                    share = [ready.popleft() for _ in range(size)]
                    begun[self._pool.submit(lambda share: list(map(work, share)), share)] = share
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    for job, made in zip(begun.pop(future), future.result(), strict=True):
                        ready.extend(after(job, made))
                        yield job, made
        finally:
            for future in begun:
                future.cancel()
            wait(begun)


@lru_cache(maxsize=1)
def block_threads() -> BlockThreads:
    """Return the threads of this process that work on blocks."""
    return BlockThreads(usable_cores())


@lru_cache(maxsize=1)
def _box_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_BOXES, "tinc-boxes", lambda: setattr(_here, "works_on_boxes", True))


def with_a_box(work: Callable[..., Made], *given: Any) -> Made:
    """Work on what is a box of something larger, of which other threads have others."""
    global _boxes_in_work
    with _counting:
        _boxes_in_work += 1
    _here.boxes = getattr(_here, "boxes", 0) + 1
    try:
        return work(*given)
    finally:
        _here.boxes -= 1
        with _counting:
            _boxes_in_work -= 1


def every_core_has_a_box() -> bool:
    """Whether this thread has a box, and as many threads as there are cores have one."""
    return getattr(_here, "boxes", 0) > 0 and _boxes_in_work >= usable_cores()


def works_beside_others() -> bool:
    """Whether this is a thread of :func:`side_by_side`."""
    return hasattr(_here, "works_on_boxes")


def side_by_side(work: Callable[[Given], Made], boxes: Iterable[Given]) -> Iterator[Made]:
    """Work on boxes in threads, and yield what comes of each in their order; no more at a time than there are cores.

    Who stops early waits for those in work. The work may use :func:`block_threads`, whose threads wait for nobody; of
    boxes in boxes only the outer ones are worked on side by side.
    """
    most = 1 if works_beside_others() or every_core_has_a_box() else min(usable_cores(), _MOST_BOXES)
    if most == 1:
        yield from map(work, boxes)
        return
    begun = deque[Future[Made]]()
    try:
        for box in boxes:
            begun.append(_box_threads().submit(with_a_box, work, box))
            if len(begun) >= most:
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
    global _forked, _counting, _boxes_in_work
    _forked, _counting, _boxes_in_work = True, Lock(), 0
    _here.boxes = 0
    block_threads.cache_clear()
    _box_threads.cache_clear()


after_fork(_begin_anew)
