"""What the compare widget does in threads: run the comparison, and single tasks one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from psygnal import Signal
from qtpy.QtCore import QObject

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.compare.peers import PEERS
from napari_tinc.encode import speeds
from napari_tinc.plugin.compare.model import Choice
from napari_tinc.plugin.compress import engine, worker

if TYPE_CHECKING:
    from napari_tinc.compare.candidates import Candidate
    from napari_tinc.compare.engine import Comparison
    from napari_tinc.compare.results import Result


@dataclass(frozen=True)
class Job:
    """Everything that a comparison needs; the voxels are read, and copied, in the thread."""

    data: Any
    metadata: Metadata
    choice: Choice
    device: str = "auto"
    mask: Any = None


@dataclass(frozen=True)
class Opened:
    """The volume is read; these are the rows to come."""

    comparison: Comparison


@dataclass(frozen=True)
class Advised:
    """What is recommended, before anything has run."""

    text: str


@dataclass(frozen=True)
class Compared:
    """The comparison ended; ``verdict`` says how the recommendation did."""

    verdict: str
    complete: bool


def compare_events(job: Job, control: worker.Control) -> Generator[Any, None, Any]:
    """Compare, yielding :class:`Opened`, results found on disk, :class:`Advised`, and the engine's events."""
    return (yield from worker.guarded(_compare(job, control), job.device))


def _compare(job: Job, control: worker.Control) -> Generator[Any, None, Any]:
    data = yield from worker.read_copy(job.data)
    mask = None if job.mask is None else (yield from worker.read_copy(job.mask))
    from napari_tinc.compare.candidates import Candidate
    from napari_tinc.compare.engine import Comparison
    from napari_tinc.compare.recommend import recommend, verdicts

    choice = job.choice
    ours = [Candidate.tinc(name, choice.preset, device=job.device) for name in choice.strategies]
    chosen = [*ours, *(Candidate(name) for name in choice.peers)]
    comparison = Comparison(data, metadata=job.metadata, candidates=chosen, ratios=choice.ratio_values(), mask=mask)
    yield Opened(comparison)
    yield from comparison.stored()
    if control.discarded:
        return Compared("", complete=False)
    advice = recommend(comparison.facts)
    yield Advised(f"{advice.strategy}: {advice.reason}")
    complete = yield from _run(comparison, control)
    found = verdicts(comparison.results, comparison.facts)
    return Compared("\n".join(f"{one.target_ratio:g} times smaller: {one.text}" for one in found), complete)


def _run(comparison: Comparison, control: worker.Control) -> Generator[Any, None, bool]:
    """Run what is left, until it is done (True) or nobody wants it any more (False)."""
    events, array, started = comparison.run(), comparison.truth.array, time.monotonic()
    try:
        for event in events:
            if control.discarded:
                return False
            if event.kind == "started":
                started = time.monotonic()
            elif event.result is not None and event.result.ok and not event.result.same_as:
                _remember(event.candidate, array, time.monotonic() - started)
            yield event
    finally:
        events.close()
    return True


def _remember(candidate: Candidate, array: Any, seconds: float) -> None:
    """Keep how long a candidate took, for :func:`napari_tinc.encode.speeds.estimate_comparison`."""
    settings = candidate.settings
    preset, device = ("", "cpu") if settings is None else (settings.preset, settings.device)
    run = speeds.Run(preset, candidate.name, device, array.dtype.name, array.size, trained=True, seconds=seconds)
    speeds.remember(run, speeds.COMPARING)


def missing_peers() -> dict[str, str]:
    """Say which codecs cannot be used here, and why; asks ffmpeg, so not in the interface's thread."""
    from napari_tinc.compare.candidates import Candidate

    reasons = {name: Candidate(name).missing() for name in PEERS}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def content_of(result: Result) -> Any:
    """Open a candidate's file: our own as a compressed volume, which decodes where one looks; a peer's as an array.

    Our own are decoded later, by the viewer in the window's thread, which must not load or compile anything then.
    """
    if result.candidate.settings is not None:
        engine.prepared().result()
    return result.volume() if result.candidate.settings is not None else result.decode()


class Aside(QObject):
    """Single tasks in a thread, one after the other; what comes of them is handled in the interface's thread.

    Parameters
    ----------
    parent : QObject
    """

    changed = Signal(str)  # what is being done; empty when there is nothing left to do

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._waiting: deque[tuple[str, Callable[[], Any], Callable[[Any], None]]] = deque()
        self._then: Callable[[Any], None] | None = None
        self._worker: Any = None

    @property
    def busy(self) -> bool:
        """Whether a task is running."""
        return self._worker is not None

    def run(self, saying: str, task: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do a task as soon as the earlier ones are done, and call ``then`` with what it returns.

        An error becomes a notification, and ``then`` is not called.
        """
        self._waiting.append((saying, task, then))
        if self._worker is None:
            self._next()

    def clear(self) -> None:
        """Forget what is waiting, and what comes of the running task."""
        self._waiting.clear()
        self._then = None

    def _next(self) -> None:
        if not self._waiting:
            self.changed.emit("")
            return
        saying, task, self._then = self._waiting.popleft()
        self.changed.emit(saying)
        self._worker = worker.follow(_once, (task,), self._ignore, self._take, self._finished)

    def _ignore(self, _: Any) -> None:
        """Nothing happens between start and end."""

    def _take(self, outcome: Any) -> None:
        then, self._then = self._then, None
        if isinstance(outcome, worker.Failed):
            show_error(outcome.message)
        elif then is not None:
            then(outcome)

    def _finished(self) -> None:
        self._worker = None
        self._next()


def _once(task: Callable[[], Any]) -> Generator[None, None, Any]:
    return (yield from worker.guarded(_call(task)))


def _call(task: Callable[[], Any]) -> Generator[None, None, Any]:
    yield None
    return task()
