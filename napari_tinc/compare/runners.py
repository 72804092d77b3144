"""Where the candidates run: processes of this machine, or the workers of a cluster."""

from __future__ import annotations

import os
import queue
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from napari_tinc.compare import process
from napari_tinc.compare.process import Job
from napari_tinc.errors import InputError
from napari_tinc.system import cluster

Volumes = tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]
News = tuple[int, Job]

_STARTING: Job = {"phase": "starting", "fraction": 0.0}
_RUNNING: Job = {"phase": "running", "fraction": 0.0}
_HEARTBEAT_SECONDS = 0.25


class Runner(ABC):
    """A place that runs jobs; leaving it stops what still runs."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[News] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @abstractmethod
    def submit(self, index: int, job: Job, data: bytes | None) -> None:
        """Queue a job, with its file where that is made already."""

    def news(self, jobs: int) -> Iterator[News]:
        """Yield what is said about which job, until that many have ended.

        When nobody says anything an unfinished job is named, so that whoever listens can stop at any time.
        """
        unfinished = set(range(jobs))
        while unfinished:
            try:
                index, said = self._said.get(timeout=_HEARTBEAT_SECONDS)
            except queue.Empty:
                index, said = min(unfinished), _RUNNING
            if "phase" not in said:
                unfinished.remove(index)
            yield index, said


class Local(Runner):
    """Processes of this machine, a few at a time.

    Parameters
    ----------
    folder : Path
        Where the volumes are, see :func:`napari_tinc.compare.process.shared_volumes`.
    jobs : int
        Processes at a time; they share the cores.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        super().__init__()
        self._folder = folder
        self._threads = max(1, _cores() // jobs)
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="tinc-compare")
        self._stop = threading.Event()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, index: int, job: Job, data: bytes | None) -> None:
        """Queue a job."""
        self._pool.submit(self._run, index, {**job, "folder": str(self._folder)}, data)

    def _run(self, index: int, job: Job, data: bytes | None) -> None:
        try:
            self._said.put((index, _STARTING))
            said = process.run(job, data, self._threads, lambda news: self._said.put((index, news)), self._stop.is_set)
        except process.Stopped:
            return
        except Exception as error:  # a full disk, no more processes: the others may still succeed
            said = {"failed": str(error)}
        self._said.put((index, said))


class Cluster(Runner):
    """The workers of a ``distributed`` scheduler; each runs jobs in processes of its own, as here.

    Parameters
    ----------
    address : str
        Of the scheduler.
    volumes : tuple of ndarray or None
        Original, mask and clean volume.

    Raises
    ------
    InputError
        If ``distributed`` is not installed or nobody answers.
    """

    def __init__(self, address: str, volumes: Volumes) -> None:
        super().__init__()
        self._client = cluster.connect(address)
        try:
            # Sent once to every worker, not with every job.
            self._volumes = self._client.scatter(volumes, broadcast=True, hash=False)
        except TimeoutError as error:
            self._client.close()
            raise InputError(f"expected workers at the scheduler {address}, got none; start some") from error
        self._stop = cluster.distributed().Event(f"tinc-compare-{uuid.uuid4()}", client=self._client)
        self._futures: list[Any] = []

    def __exit__(self, *error: object) -> None:
        self._client.cancel(self._futures)
        self._stop.set()
        self._client.close()

    def submit(self, index: int, job: Job, data: bytes | None) -> None:
        """Queue a job."""
        future = self._client.submit(_run_there, job, data, *self._volumes, self._stop.name, pure=False)
        self._futures.append(future)
        future.add_done_callback(partial(self._completed, index))

    def _completed(self, index: int, future: Any) -> None:
        if future.status != "cancelled":
            error = future.exception()
            self._said.put((index, future.result() if error is None else {"failed": str(error)}))


def _run_there(job: Job, data: bytes | None, *said: Any) -> Job:
    """Run a job where a cluster sent it."""
    *volumes, stop = said
    stopped = cluster.distributed().Event(stop)
    with process.shared_volumes(*volumes) as folder:
        return process.run({**job, "folder": str(folder)}, data, _cores(), lambda news: None, stopped.is_set)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
