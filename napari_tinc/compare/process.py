"""Start a worker, follow it, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.compare import worker
from napari_tinc.errors import InputError
from napari_tinc.system.working import working_folder

Job = dict[str, Any]

_LOOK_SECONDS = 0.1


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The comparison was stopped while this candidate ran."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for volumes or files, for as long as the block runs; see :mod:`napari_tinc.system.working`."""
    with working_folder(Path(tempfile.gettempdir()), "tinc-compare-") as folder:
        yield folder


@contextmanager
def shared_volumes(original: NDArray[Any], mask: NDArray[Any] | None, clean: NDArray[Any] | None) -> Iterator[Path]:
    """Write the volumes to a folder where workers read them, for as long as the block runs.

    Raises
    ------
    InputError
        If there is no room for them.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder())
            for name, array in ((worker.ORIGINAL, original), (worker.MASK, mask), (worker.CLEAN, clean)):
                if array is not None:
                    np.save(folder / name, array, allow_pickle=False)
        except OSError as error:
            raise InputError(
                f"expected {original.nbytes / 1e6:.0f} MB of room in {tempfile.gettempdir()}, got: "
                f"{error.strerror or error}; make room, or name another folder in TMPDIR"
            ) from error
        yield folder


def run(job: Job, data: bytes | None, threads: int, report: Callable[[Job], None], stopped: Callable[[], bool]) -> Job:
    """Do a job in a new process.

    Parameters
    ----------
    job : dict
        See :func:`napari_tinc.compare.worker.perform`, without ``file`` and ``made``.
    data : bytes or None
        The file, if it is there already.
    threads : int
        For torch, unless the environment says otherwise.
    report : callable
        Told what the worker says on its way.
    stopped : callable
        Asked ten times a second; once it says yes the process is killed.

    Returns
    -------
    dict
        ``outcome`` with the file itself as ``data``; or ``out_of_reach`` or ``failed`` with the reason.

    Raises
    ------
    Stopped
        If it was.
    """
    environment = {"OMP_NUM_THREADS": str(threads)} | dict(os.environ)
    with temporary_folder() as folder, tempfile.TemporaryFile() as errors:
        file = folder / "file"
        if data is not None:
            file.write_bytes(data)
        told = {**job, "file": str(file), "made": data is not None}
        with subprocess.Popen(
            [sys.executable, "-m", worker.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            text=True, encoding="utf-8", env=environment, start_new_session=True,
        ) as process:  # fmt: skip
            lines: queue.SimpleQueue[str] = queue.SimpleQueue()
            reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
            reader.start()
            try:
                last = _follow(process, lines, told, report, stopped)
            finally:
                process.kill()
                reader.join()
        if last is None:
            return {"failed": f"its process ended with code {process.returncode}: {_tail(errors)}"}
        return {**last, "data": file.read_bytes()} if "outcome" in last else last


def _follow(
    process: subprocess.Popen[str],
    lines: queue.SimpleQueue[str],
    job: Job,
    report: Callable[[Job], None],
    stopped: Callable[[], bool],
) -> Job | None:
    """Hand over the job and pass on what is said; return what is said last, None if it ends without."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    except OSError:  # it died at once; stderr says why
        with contextlib.suppress(OSError):  # what could not be written is tried again
            process.stdin.close()
        return None
    while True:
        if stopped():
            raise Stopped
        try:
            line = lines.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        if not line:
            return None
        said: Job = json.loads(line)
        if "phase" not in said:
            return said
        report(said)


def _read(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return " ".join(errors.read().decode(errors="replace").split())[-300:] or "no message"
