"""Running tasks on threads of this process, or on the workers of a cluster: a window of them at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Protocol

from napari_tinc.encode.framing import software_version
from napari_tinc.errors import InputError
from napari_tinc.system.cluster import distributed
from napari_tinc.system.threads import usable_cores, with_a_box

_GO_ON = "run the same command again: it goes on from here"
# Tasks that wait for every thread, here and on a cluster, so that none need wait for the next one; and for how many
# seconds the number of a cluster's threads holds.
_AHEAD, _AHEAD_OF_CLUSTER, _COUNTED_SECONDS = 2, 32, 5.0
_WAIT_SECONDS = 30


class Engine(Protocol):
    """Where tasks run."""

    note: str

    def run(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call a function with the arguments of every task.

        Yields
        ------
        number of the task, and its result
            As they are done, in any order. Closing the iterator gives up what has not begun.
        """


class Threads:
    """Threads of this process, one for every core."""

    note = ""

    def run(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """See :class:`Engine`."""
        numbered, waiting = enumerate(tasks), dict[Future[Any], int]()
        pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="tinc-shards")
        try:
            while True:
                for number, task in islice(numbered, _AHEAD * usable_cores() - len(waiting)):
                    waiting[pool.submit(with_a_box, function, *task)] = number
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


class Cluster:
    """The workers of a ``distributed`` scheduler.

    Parameters
    ----------
    client : distributed.Client

    Raises
    ------
    InputError
        If there are no workers, or they have no napari-tinc of this version.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.note = f"dashboard: {client.dashboard_link}" if client.dashboard_link else ""
        try:
            client.wait_for_workers(1, timeout=_WAIT_SECONDS)
            versions = client.run(software_version)
        except TimeoutError as error:
            raise InputError("expected workers at the scheduler, got none; start some") from error
        except ImportError as error:
            raise InputError(f"expected napari-tinc on every worker, got {error}; install it there") from error
        others = {version for version in versions.values() if version != software_version()}
        if others:
            raise InputError(
                f"expected workers with napari-tinc {software_version()}, got {', '.join(sorted(others))}; "
                "install the same version everywhere"
            )

    def run(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """See :class:`Engine`."""
        package, numbers = distributed(), dict[Any, int]()
        numbered = enumerate(tasks)
        completed = package.as_completed(loop=self._client.loop)
        room, counted = 0, -math.inf
        try:
            while True:
                if time.monotonic() - counted > _COUNTED_SECONDS:
                    room = _AHEAD_OF_CLUSTER * max(1, sum(self._client.nthreads().values()))
                    counted = time.monotonic()
                if len(numbers) <= room // 2:
                    some = list(islice(numbered, room - len(numbers)))
                    if some:  # at once, which costs the scheduler less than one by one
                        arguments = zip(*(task for _, task in some), strict=True)
                        futures = self._client.map(function, *arguments, pure=False, retries=2)
                        numbers |= {future: number for future, (number, _) in zip(futures, some, strict=True)}
                        completed.update(futures)
                if not numbers:
                    return
                for future in completed.next_batch():
                    result = _result(package, future)
                    yield numbers.pop(future), result
        finally:
            self._client.cancel(list(numbers))


def _result(package: Any, future: Any) -> Any:
    try:
        return future.result()
    except package.KilledWorker as error:
        raise InputError(
            f"expected workers that stay alive, got several that died at the same task; give them more memory, then "
            f"{_GO_ON}"
        ) from error
    except (package.client.FutureCancelledError, OSError) as error:
        raise InputError(f"expected the scheduler to go on, got: {error}; start it, then {_GO_ON}") from error


__all__ = ["Cluster", "Engine", "Threads"]
