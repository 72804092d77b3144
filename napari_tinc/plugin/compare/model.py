"""What the compare widget knows: the form, the state, and a row per candidate and ratio. No Qt, no torch, no pandas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_tinc.compare.candidates import STRATEGIES
from napari_tinc.compare.container import overhead
from napari_tinc.encode.speeds import Estimate, estimate_comparison
from napari_tinc.errors import InputError, TincError
from napari_tinc.plugin.compress.model import Source, budget_of
from napari_tinc.plugin.compress.report import size_text
from napari_tinc.system.text import decibels_text
from napari_tinc.target import Target

if TYPE_CHECKING:
    import pandas as pd

    from napari_tinc.compare.engine import Comparison, Event
    from napari_tinc.compare.results import Result

DEFAULT_BAR = 30.0


class State(StrEnum):
    """Where a comparison stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"


ACTIVE = (State.PREPARING, State.RUNNING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user has entered.

    Parameters
    ----------
    ratios : str
        Numbers with commas or spaces between them.
    preset : str
    strategies, peers : tuple of str
        See :func:`napari_tinc.compare.candidates.candidates`.
    bar : float
        PSNR in dB that an octant should have.
    """

    ratios: str = "64"
    preset: str = "fast"
    strategies: tuple[str, ...] = STRATEGIES
    peers: tuple[str, ...] = ()
    bar: float = DEFAULT_BAR

    def ratio_values(self) -> tuple[float, ...]:
        """Return the ratios as numbers, each once.

        Raises
        ------
        InputError
            If there is none, or one is no number.
        """
        words = self.ratios.replace(",", " ").split()
        try:
            values = tuple(dict.fromkeys(float(word) for word in words))
        except ValueError:
            raise InputError(f"expected ratios such as '64, 256', got {self.ratios!r}") from None
        if not values:
            raise InputError("expected at least one ratio, got none; enter one such as 64")
        return values


@dataclass(slots=True)
class Row:
    """One candidate at one ratio.

    Parameters
    ----------
    name : str
        The candidate's.
    ratio : float
        Raw bytes over file bytes that were asked for.
    status : str
        What it is at; empty once it has finished.
    result : Result or None
    values : dict
        Columns of :func:`napari_tinc.compare.results.table`, once it has finished.
    """

    name: str
    ratio: float
    status: str = "waiting"
    result: Result | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is a file, which can be shown."""
        return self.result is not None and self.result.ok

    def title(self) -> str:
        """Name it with its ratio and PSNR, for layers."""
        psnr = f": {decibels_text(self.values['psnr'], 2)}" if self.ok else ""
        return f"{self.name}, {self.ratio:g}x{psnr}"


@dataclass(eq=False)
class CompareModel:
    """The compare widget's mind.

    Notes
    -----
    ``state_changed(State)`` is emitted after every change of state, ``reset()`` when the rows are others, and
    ``row_changed(int)`` when one row is.
    """

    state_changed = Signal(object)
    reset = Signal()
    row_changed = Signal(int)

    choice: Choice = field(default_factory=Choice)
    source: Source | None = None
    problem: str = ""  # why the source layer cannot be compressed
    state: State = State.IDLE
    message: str = ""
    rows: list[Row] = field(default_factory=list)
    comparison: Comparison | None = None
    advice: str = ""
    verdict: str = ""

    @property
    def active(self) -> bool:
        """Whether a comparison is under way."""
        return self.state in ACTIVE

    @property
    def finished(self) -> int:
        """Rows that have an outcome."""
        return sum(row.result is not None for row in self.rows)

    def error(self) -> str:
        """Say why the form cannot be run as it is; empty if it can."""
        if self.source is None:
            return self.problem or "open an image and choose it as source"
        if not self.choice.strategies and not self.choice.peers:
            return "expected at least one strategy or codec, got none; tick some"
        try:
            for ratio in self.choice.ratio_values():
                budget_of(Target.ratio(ratio), self.source, self._least())
        except TincError as error:
            return str(error)
        return ""

    def size_preview(self) -> str:
        """Say how large the files may be, or what is wrong with the form."""
        if problem := self.error():
            return problem
        assert self.source is not None
        source, ratios = self.source, self.choice.ratio_values()
        budgets = [size_text(budget_of(Target.ratio(ratio), source, self._least())) for ratio in ratios]
        return f"{size_text(source.nbytes)} → {', '.join(budgets)}"

    def expected_time(self) -> str:
        """Say how long it will take, from what was measured on this machine; empty if that cannot be said."""
        if self.error() or self.active or self.source is None:
            return ""
        ours = [f"{name} {self.choice.preset}" for name in self.choice.strategies]
        names, source = [*ours, *self.choice.peers], self.source
        expected, unknown = estimate_comparison(source.voxels, source.dtype, names * len(self.choice.ratio_values()))
        lacking = len(set(unknown))
        if expected is None:
            return "Expected time: unknown until the first run on this machine"
        if lacking:
            expected = Estimate(expected.low, None)
        others = f", {lacking} of {len(names)} were never measured here" * bool(lacking)
        return f"Expected time: {expected.text()}{others}; earlier results are shown at once"

    def _least(self) -> int:
        """Bytes that no file of what is ticked is smaller than."""
        assert self.source is not None
        source, least = self.source, []
        if self.choice.strategies:
            least.append(source.least)
        if self.choice.peers:
            codec = 1 if source.varied else 0
            least.append(overhead(source.shape, source.metadata.axes, source.dtype.itemsize) + codec)
        return min(least)

    def begin(self) -> None:
        """Start a comparison.

        Raises
        ------
        InputError
            If one is running, or the form is not complete.
        """
        if self.active:
            raise InputError("expected no comparison to be running, got one; stop it first, or wait")
        if problem := self.error():
            raise InputError(problem)
        self.advice = self.verdict = ""
        self.rows, self.comparison = [], None
        self.reset.emit()
        self._enter(State.PREPARING)

    def open(self, comparison: Comparison) -> None:
        """Take over the rows of a comparison that is about to run."""
        self.comparison = comparison
        self.rows = [Row(one.name, ratio) for ratio in comparison.ratios for one in comparison.candidates]
        self.reset.emit()
        if self.state is State.PREPARING:
            self._enter(State.RUNNING)

    def take(self, results: Iterable[Result]) -> None:
        """Take in results, found on disk or just made."""
        for result in results:
            row = self.rows[index := self.index(result.candidate.name, result.target_ratio)]
            row.result, row.status = result, result.problem
            row.values = self._values(result)
            self.row_changed.emit(index)

    def advance(self, event: Event) -> None:
        """Take in news of a running candidate; see :class:`napari_tinc.compare.engine.Event`."""
        if event.result is not None:
            self.take([event.result])
            return
        row = self.rows[index := self.index(event.candidate.name, event.target_ratio)]
        if event.phase == "running" and row.status != "waiting":
            return  # a sign of life
        row.status = f"{event.phase} {event.fraction:.0%}" if event.fraction else event.phase
        self.row_changed.emit(index)

    def measure_again(self) -> None:
        """Count again the octants that are not good enough, after the bar has changed."""
        for index, row in enumerate(self.rows):
            if row.result is not None:
                row.values = self._values(row.result)
                self.row_changed.emit(index)

    def table(self) -> pd.DataFrame:
        """Return what has finished; see :func:`napari_tinc.compare.results.table`."""
        assert self.comparison is not None
        return self.comparison.table(self.choice.bar)

    def answer(self) -> str:
        """Say what to use, as far as that is known."""
        if self.comparison is None:
            return ""
        from napari_tinc.compare.recommend import answer

        said = answer(self.comparison.results)
        return f"So far: {said}" if said and self.active else said

    def stop(self) -> None:
        """Ask to stop; what has finished stays."""
        if self.active:
            self._enter(State.STOPPING)

    def finish(self, verdict: str, complete: bool) -> None:
        """End, with everything or (stopped) with a part of it."""
        self.verdict = verdict
        self._drop_unfinished()
        self._enter(State.DONE if complete else State.STOPPED)

    def fail(self, message: str) -> None:
        """End with an error, in words for the user."""
        self._drop_unfinished()
        self._enter(State.FAILED, message)

    def status(self) -> str:
        """Say where things stand, in a line."""
        count = f"{self.finished} of {len(self.rows)}"
        at = next((f": {row.name}" for row in self.rows if row.status not in ("", "waiting") and not row.result), "")
        texts = {
            State.IDLE: "Idle",
            State.PREPARING: "Preparing: reading the volume",
            State.RUNNING: f"{count} finished{at}",
            State.STOPPING: "Stopping",
            State.STOPPED: f"Stopped: {count} finished; Compare continues from there",
            State.DONE: f"Done: {count} finished",
            State.FAILED: f"Failed: {self.message}",
        }
        return texts[self.state]

    def _drop_unfinished(self) -> None:
        for index, row in enumerate(self.rows):
            if row.result is None and row.status != "not run":
                row.status = "not run"
                self.row_changed.emit(index)

    def index(self, name: str, ratio: float) -> int:
        """Return the number of a row."""
        return next(i for i, row in enumerate(self.rows) if (row.name, row.ratio) == (name, ratio))

    def _values(self, result: Result) -> dict[str, Any]:
        from napari_tinc.compare.results import table

        assert self.comparison is not None
        frame = table([result], self.comparison.truth.array.nbytes, self.choice.bar)
        values: dict[str, Any] = frame.iloc[0].to_dict()
        return values

    def _enter(self, state: State, message: str = "") -> None:
        self.state, self.message = state, message
        self.state_changed.emit(state)
