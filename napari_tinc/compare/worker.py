"""One candidate in a process of its own, so that its memory can be measured and it can be stopped at any time.

Reads one JSON line, the job, from stdin; writes JSON lines to stdout: progress, and at the end the outcome. It ends at
once when stdin closes, so it does not outlive the comparison that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.compare import memory
from napari_tinc.compare.measures import Truth, measure
from napari_tinc.errors import BudgetError, TincError
from napari_tinc.settings import Settings

Array = NDArray[Any]
Job = dict[str, Any]
Report = Callable[[Job], None]

ORIGINAL, MASK, CLEAN = "original.npy", "mask.npy", "clean.npy"
_REPORT_SECONDS = 0.2


def main() -> None:
    """Do the job on stdin."""
    # Some codecs print to stdout from C: what they say goes to stderr, and the real stdout is ours alone.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(said: Job) -> None:
        print(json.dumps(said), file=channel, flush=True)

    try:
        report({"outcome": perform(job, report)})
    except BudgetError as error:
        report({"out_of_reach": str(error)})
    except TincError as error:
        report({"failed": str(error)})


def perform(job: Job, report: Report) -> Job:
    """Make the file (unless it is there already), decode and measure it.

    Parameters
    ----------
    job : dict
        ``folder`` with the volumes; ``candidate``, ``budget``, ``metadata``, ``threshold``; ``file`` where the file
        goes, or is if ``made``.
    report : callable
        Told about progress.

    Returns
    -------
    dict
        ``costs`` of a file that was made, and ``measures``.
    """
    folder, file = Path(job["folder"]), Path(job["file"])
    said: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in job["metadata"].items()}
    metadata = Metadata(**said)
    optional = [np.load(folder / name) if (folder / name).exists() else None for name in (MASK, CLEAN)]
    truth = Truth(np.load(folder / ORIGINAL), metadata.axes, job["threshold"], *optional)
    run = _Tinc(metadata, job, report) if job["candidate"]["codec"] == "tinc" else _Peer(metadata, job)
    before = memory.own_peak()
    costs: Job = {}
    if not job["made"]:
        data, costs["encode_seconds"] = run.encode(truth.array)
        file.write_bytes(data)
    start = time.perf_counter()
    decoded = run.decode(file.read_bytes())
    costs["decode_seconds"] = time.perf_counter() - start
    costs["peak_bytes"] = memory.own_peak() - before + memory.child_peak()
    report({"phase": "measuring", "fraction": 1.0})
    measures, octants = measure(truth, decoded)
    return {"costs": costs, "measures": {**asdict(measures), "octants": octants.tolist()}}


class _Tinc:
    """Our own codec; torch is loaded only here."""

    def __init__(self, metadata: Metadata, job: Job, report: Report) -> None:
        from napari_tinc import target, volume
        from napari_tinc.encode import compression

        self._steps, self._open = compression.compress_steps, volume.CompressedVolume
        self._target = target.Target.size(job["budget"])
        asked = job["candidate"]["settings"]
        between = asked["between"]
        self._settings = Settings(**asked | {"between": between if isinstance(between, str) else tuple(between)})
        self._metadata, self._report = metadata, report

    def encode(self, array: Array) -> tuple[bytes, float]:
        start = told = time.perf_counter()
        steps = self._steps(array, self._target, self._settings, metadata=self._metadata)
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                data: bytes = stop.value.to_bytes()
                return data, time.perf_counter() - start
            if time.perf_counter() - told >= _REPORT_SECONDS:
                told = time.perf_counter()
                self._report({"phase": progress.phase, "fraction": progress.step / max(1, progress.steps)})

    def decode(self, data: bytes) -> Array:
        return self._open(data, self._settings.device).decode()


class _Peer:
    """A classical codec."""

    def __init__(self, metadata: Metadata, job: Job) -> None:
        from napari_tinc.compare import peers

        self._peers, self._peer = peers, peers.named(job["candidate"]["codec"])
        self._axes, self._budget = metadata.axes, job["budget"]

    def encode(self, array: Array) -> tuple[bytes, float]:
        fitted = self._peers.fit(self._peer, array, self._axes, self._budget)
        return fitted.data, fitted.encode_seconds

    def decode(self, data: bytes) -> Array:
        return self._peers.unpack(data)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
