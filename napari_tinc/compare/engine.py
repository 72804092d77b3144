"""The comparison: every candidate at every ratio on one volume, finished ones kept on disk."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_tinc.arrays.inputs import check_volume
from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.compare import process, runners
from napari_tinc.compare.candidates import NETWORK, Candidate, check_distinct, default_candidates
from napari_tinc.compare.measures import MEASURES, Measures, Truth
from napari_tinc.compare.recommend import Facts, facts_of, recommend
from napari_tinc.compare.results import DEFAULT_BAR, Result, table
from napari_tinc.compare.store import Store, array_key, default_folder
from napari_tinc.errors import InputError
from napari_tinc.target import Target

Array = NDArray[Any]


@dataclass(frozen=True)
class Event:
    """News of a running comparison.

    Parameters
    ----------
    kind : str
        ``"started"``, ``"progress"`` or ``"finished"``. While a candidate runs there is progress four times a second,
        even if there is nothing new: the moments to stop at.
    candidate : Candidate
    target_ratio : float
    phase : str
        What the candidate is at, such as ``"training"``.
    fraction : float
        How far this phase is, 0 to 1.
    done, total : int
        Results there are, and will be.
    result : Result or None
        Of a candidate that has finished.
    """

    kind: str
    candidate: Candidate
    target_ratio: float
    phase: str
    fraction: float
    done: int
    total: int
    result: Result | None = None


class Comparison:
    """Candidates on one volume at equal bytes.

    Parameters
    ----------
    array : ndarray
        2-D or 3-D image, possibly with channels and time.
    metadata : Metadata, optional
        By default ``Metadata.default(array.ndim)``.
    candidates : sequence of Candidate, optional
        By default :func:`napari_tinc.compare.candidates.default_candidates`.
    ratios : sequence of float
        Raw bytes over file bytes; every candidate's file obeys each of them.
    threshold : float, optional
        Where the foreground begins, in the volume's units; by default the Otsu threshold of every channel and time.
    mask, clean : ndarray, optional
        The true foreground, and the volume without noise, both of the array's shape.
    cache : path, optional
        Where results are kept; by default in the user's cache folder.

    Raises
    ------
    InputError
        If the volume or a candidate cannot be used, or the volume has one value only.
    BudgetError
        If a ratio asks for a file that is not smaller than the volume.
    """

    def __init__(
        self,
        array: Array,
        *,
        metadata: Metadata | None = None,
        candidates: Sequence[Candidate] | None = None,
        ratios: Sequence[float] = (64.0,),
        threshold: float | None = None,
        mask: Array | None = None,
        clean: Array | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        # How a volume is displayed changes no file's quality: stored results stay valid.
        self.metadata = (metadata or Metadata.default(array.ndim)).displayed(Display())
        check_volume(array, self.metadata)
        if array.min() == array.max():
            raise InputError(f"expected a volume with different values, got {array.min()} everywhere: nothing to lose")
        self.candidates = tuple(default_candidates() if candidates is None else candidates)
        check_distinct(self.candidates)
        self.ratios = tuple(dict.fromkeys(float(ratio) for ratio in ratios))
        if not self.ratios:
            raise InputError("expected at least one ratio, got none; give one such as 64")
        self.truth = Truth(array, self.metadata.axes, threshold, mask, clean)
        self._budgets = {ratio: Target.ratio(ratio).budget(array.nbytes, array.size) for ratio in self.ratios}
        self._cache = Path(cache) if cache is not None else default_folder()
        self._found: dict[tuple[Candidate, float], Result] = {}

    @cached_property
    def facts(self) -> Facts:
        """What is measured on the volume before anything runs: what ``auto`` stands for depends on it."""
        return facts_of(self.truth)

    @property
    def results(self) -> tuple[Result, ...]:
        """What there is so far, in the order of ratios and candidates."""
        return tuple(self._found[task] for task in self._tasks() if task in self._found)

    def result(self, name: str, ratio: float) -> Result:
        """One result by its candidate's name.

        Raises
        ------
        InputError
            If there is none (yet).
        """
        for (candidate, target), result in self._found.items():
            if candidate.name == name and target == ratio:
                return result
        raise InputError(f"expected a finished candidate, got {name!r} at ratio {ratio:g}; run the comparison first")

    def table(self, bar: float = DEFAULT_BAR) -> pd.DataFrame:
        """What there is so far as a tidy table; see :func:`napari_tinc.compare.results.table`."""
        return table(self.results, self.truth.array.nbytes, bar)

    def stored(self) -> Iterator[Result]:
        """Take over what earlier comparisons of this volume left on disk, and what can be said without running."""
        for candidate, ratio in self._tasks():
            if (candidate, ratio) not in self._found and (result := self._restore(candidate, ratio)) is not None:
                self._found[candidate, ratio] = result
                yield result

    def run(self, jobs: int = 1, scheduler: str | None = None) -> Generator[Event, None, None]:
        """Run what is not stored yet. Closing the generator at any yield stops it; finished results stay.

        A candidate that fails, or has no setting small enough, is a result with a problem, not an error. Where ``auto``
        stands for another candidate, their one file is made once and is the result of both.

        Parameters
        ----------
        jobs : int
            Candidates at a time on this machine; with several, their seconds are those of a shared machine.
        scheduler : str, optional
            Address of a ``distributed`` scheduler, whose workers run them instead.

        Yields
        ------
        Event

        Raises
        ------
        InputError
            If ``jobs`` is not positive, the scheduler cannot be used, or results cannot be written.
        """
        if jobs < 1:
            raise InputError(f"expected at least one job at a time, got {jobs}")
        for result in self.stored():
            yield self._finished(result)
        open_tasks = [task for task in self._tasks() if task not in self._found]
        files = list(dict.fromkeys((self._resolved(candidate), ratio) for candidate, ratio in open_tasks))
        if not files:
            return
        volumes = (self.truth.array, self.truth.mask, self.truth.clean)
        with ExitStack() as stack:
            runner: runners.Runner
            if scheduler is None:
                runner = runners.Local(stack.enter_context(process.shared_volumes(*volumes)), jobs)
            else:
                runner = runners.Cluster(scheduler, volumes)
            stack.enter_context(runner)
            for index, file in enumerate(files):
                runner.submit(index, self._job(*file), self._made(*file))
            for index, said in runner.news(len(files)):
                yield from self._take(*files[index], said)

    def _tasks(self) -> list[tuple[Candidate, float]]:
        return [(candidate, ratio) for ratio in self.ratios for candidate in self.candidates]

    def _resolved(self, candidate: Candidate) -> Candidate:
        """The candidate whose file this one's is: ``auto`` stands for another strategy on every volume."""
        settings = candidate.settings
        if settings is None or settings.model != NETWORK or settings.between != "auto":
            return candidate
        return replace(candidate, settings=replace(settings, between=recommend(self.facts).between))

    def _job(self, candidate: Candidate, ratio: float) -> process.Job:
        return {
            "candidate": candidate.as_dict(),
            "budget": self._budgets[ratio],
            "metadata": {key: value for key, value in asdict(self.metadata).items() if key != "display"},
            "threshold": self.truth.threshold,
        }

    def _made(self, candidate: Candidate, ratio: float) -> bytes | None:
        """The file, where an earlier comparison made it but measured it against other truths."""
        budget = self._budgets[ratio]
        return (
            None if self._store.coded(candidate, budget) is None else self._store.path(candidate, budget).read_bytes()
        )

    @cached_property
    def _store(self) -> Store:
        truth = self.truth
        volume = array_key(truth.array, repr(self.metadata))
        known = array_key(None, repr(truth.threshold), array_key(truth.mask), array_key(truth.clean))
        return Store(self._cache, volume, known)

    def _restore(self, candidate: Candidate, ratio: float) -> Result | None:
        budget, made = self._budgets[ratio], self._resolved(candidate)
        if (reason := candidate.missing()) is not None:
            return Result(candidate, ratio, budget, problem=f"unavailable: {reason}")
        costs = self._store.coded(made, budget)
        if costs is not None and "problem" in costs:
            return _named(candidate, Result(made, ratio, budget, problem=costs["problem"], stored=True))
        said = None if costs is None else self._store.measured(made, budget)
        if costs is None or said is None:
            return None
        return _named(candidate, self._result(made, ratio, costs, said, stored=True))

    def _take(self, made: Candidate, ratio: float, said: process.Job) -> Iterator[Event]:
        """Turn what a runner says of a file into an event per candidate it stands for; keep what has finished."""
        candidates = [candidate for candidate in self.candidates if self._resolved(candidate) == made]
        if "phase" in said:
            kind = "started" if said["phase"] == "starting" else "progress"
            done, total = len(self._found), len(self._tasks())
            for candidate in candidates:
                yield Event(kind, candidate, ratio, said["phase"], said["fraction"], done, total)
            return
        result = self._keep(made, ratio, said)
        results = [_named(candidate, result) for candidate in candidates]
        self._found |= {(one.candidate, ratio): one for one in results}
        yield from map(self._finished, results)

    def _keep(self, candidate: Candidate, ratio: float, said: process.Job) -> Result:
        budget = self._budgets[ratio]
        if "out_of_reach" in said:
            self._store.keep_problem(candidate, budget, said["out_of_reach"])
            return Result(candidate, ratio, budget, problem=said["out_of_reach"])
        if "failed" in said:
            return Result(candidate, ratio, budget, problem=f"failed: {said['failed']}")
        outcome = said["outcome"]
        costs = self._store.coded(candidate, budget)
        if costs is None:
            costs = outcome["costs"]
            self._store.keep_file(candidate, budget, said["data"], costs)
        self._store.keep_measures(candidate, budget, outcome["measures"])
        return self._result(candidate, ratio, costs, outcome["measures"], stored=False)

    def _result(
        self, candidate: Candidate, ratio: float, costs: dict[str, Any], said: dict[str, Any], stored: bool
    ) -> Result:
        path = self._store.path(candidate, self._budgets[ratio])
        spent = {name: costs[name] for name in ("encode_seconds", "decode_seconds", "peak_bytes")}
        measures = Measures(**{name: said[name] for name in MEASURES})
        octants = np.array(said["octants"])
        size = path.stat().st_size
        return Result(candidate, ratio, self._budgets[ratio], path, size, spent, measures, octants, stored=stored)

    def _finished(self, result: Result) -> Event:
        done, total = len(self._found), len(self._tasks())
        return Event("finished", result.candidate, result.target_ratio, "finished", 1.0, done, total, result)


def _named(candidate: Candidate, result: Result) -> Result:
    """The result of the candidate's file under the candidate's own name."""
    if candidate == result.candidate:
        return result
    return replace(result, candidate=candidate, same_as=result.candidate.name)
