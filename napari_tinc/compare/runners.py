"""Where the candidates run: processes of this machine, or the workers of a cluster."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from napari_tinc.compare import process
from napari_tinc.compare.process import Job
from napari_tinc.errors import InputError

Volumes = tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]
News = tuple[int, Job]

_STARTING: Job = {"phase": "starting", "fraction": 0.0}
_CONNECT_SECONDS = "10s"


class Runner(Protocol):
    """A place that runs jobs; leaving it stops what still runs."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    def submit(self, index: int, job: Job, data: bytes | None) -> None:
        """Queue a job, with its file where that is made already."""

    def news(self, jobs: int) -> Iterator[News]:
        """What is said about which job, until that many have ended."""


class Local:
    """Processes of this machine, a few at a time.

    Parameters
    ----------
    folder : Path
        Where the volumes are, see :func:`napari_tinc.compare.process.save_volumes`.
    jobs : int
        Processes at a time; they share the cores.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder = folder
        self._threads = max(1, _cores() // jobs)
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="tinc-compare")
        self._stop = threading.Event()
        self._said: queue.SimpleQueue[News] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, index: int, job: Job, data: bytes | None) -> None:
        """Queue a job."""
        self._pool.submit(self._run, index, {**job, "folder": str(self._folder)}, data)

    def news(self, jobs: int) -> Iterator[News]:
        """Yield what is said until all jobs have ended."""
        while jobs:
            index, said = self._said.get()
            jobs -= "phase" not in said
            yield index, said

    def _run(self, index: int, job: Job, data: bytes | None) -> None:
        try:
            self._said.put((index, _STARTING))
            said = process.run(job, data, self._threads, lambda news: self._said.put((index, news)), self._stop.is_set)
        except process.Stopped:
            return
        except Exception as error:  # a full disk, no more processes: the others may still succeed
            said = {"failed": str(error)}
        self._said.put((index, said))


class Cluster:
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
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            raise InputError(
                "expected the package distributed for a scheduler, got none: pip install 'napari-tinc[cluster]'"
            ) from None
        try:
            self._client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"expected a scheduler at {address}, got {error}; check the address") from error
        self._stop = distributed.Event(f"tinc-compare-{uuid.uuid4()}", client=self._client)
        self._completed = distributed.as_completed
        # Sent once to every worker, not with every job.
        self._volumes = self._client.scatter(volumes, broadcast=True, hash=False)
        self._indices: dict[Any, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.cancel(list(self._indices))
        self._stop.set()
        self._client.close()

    def submit(self, index: int, job: Job, data: bytes | None) -> None:
        """Queue a job."""
        future = self._client.submit(_run_there, job, data, *self._volumes, self._stop.name, pure=False)
        self._indices[future] = index

    def news(self, jobs: int) -> Iterator[News]:
        """Yield what is said until all jobs have ended."""
        for future in self._completed(list(self._indices)):
            index = self._indices[future]
            failed = future.exception() if future.status == "error" else None
            yield index, future.result() if failed is None else {"failed": str(failed)}


def _run_there(job: Job, data: bytes | None, *said: Any) -> Job:
    """Run a job where a cluster sent it."""
    distributed: Any = import_module("distributed")
    *volumes, stop = said
    stopped = distributed.Event(stop)
    with tempfile.TemporaryDirectory(prefix="tinc-compare-") as folder:
        process.save_volumes(Path(folder), *volumes)
        return process.run({**job, "folder": folder}, data, _cores(), lambda news: None, stopped.is_set)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
