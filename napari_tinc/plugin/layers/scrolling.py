"""Which chunks are read next by who goes through planes, or time points, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import NamedTuple

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.lazy import Index, Source

# Steps that are no jump: a wheel turned fast leaves planes out.
_LONGEST_STEP = 4
# Planes that are read ahead: two after the first step, twice as many after each one that follows. They are decoded
# several at once, up to a multiple of that number: each costs a third of what it costs alone.
_FIRST_AHEAD, _MOST_AHEAD, _AT_ONCE = 2, 16, 8
# All chunks that are ahead take no more memory than this.
_MOST_BYTES = 2**27

# Positions along the axes that are not shown, None along the others.
_Place = tuple[int | None, ...]
# A source's name; start and stop along the axes that are shown, None along the others.
Extent = tuple[Hashable, ...]


@dataclass(frozen=True)
class Slab:
    """Chunks that follow one another along an axis, one position each.

    Parameters
    ----------
    source : Source
    bounds : tuple of slice or int
        Of one of them.
    axis : int
    positions : range
        In any direction.
    """

    source: Source
    bounds: Index
    axis: int
    positions: range

    @property
    def extent(self) -> Extent:
        """What they have in common."""
        return extent_of(self.source, self.bounds)

    @property
    def region(self) -> Index:
        """All of them, as a slice."""
        return self._with(slice(min(self.positions), max(self.positions) + 1))

    def chunk(self, position: int) -> Index:
        """One of them."""
        return self._with(position if isinstance(self.bounds[self.axis], int) else slice(position, position + 1))

    def _with(self, bound: slice | int) -> Index:
        return (*self.bounds[: self.axis], bound, *self.bounds[self.axis + 1 :])


@dataclass(frozen=True)
class _Seen:
    """Where chunks of the same extent were read last, and how that place was come to."""

    at: _Place
    axis: int = 0
    step: int = 0
    ahead: int = 0

    def moved(self, at: _Place) -> _Seen:
        """Return what it is after the next chunk was read."""
        if at == self.at:  # drawn again
            return self
        found = _step(self.at, at)
        if found is None:
            return _Seen(at)
        axis, step = found
        goes_on = self.ahead and axis == self.axis and step * self.step > 0
        return _Seen(at, axis, step, min(2 * self.ahead, _MOST_AHEAD) if goes_on else _FIRST_AHEAD)


class _Plan(NamedTuple):
    """A chunk that is read and what is to be read after it, the nearest first."""

    at: int
    ahead: Slab
    at_once: int

    def unknown(self, known: Callable[[Source, Index], bool]) -> _Plan:
        """Leave out what is known at its beginning."""
        source, positions = self.ahead.source, self.ahead.positions
        while positions and known(source, self.ahead.chunk(positions[0])):
            positions = positions[1:]
        return self._replace(ahead=replace(self.ahead, positions=positions))

    @property
    def distance(self) -> int:
        return abs(self.ahead.positions[0] - self.at)

    @property
    def first(self) -> Slab:
        """What is decoded at once: up to the next multiple of how many these are."""
        first, way = self.ahead.positions[0], self.ahead.positions.step
        start = first // self.at_once * self.at_once
        end = min(start + self.at_once, self.ahead.source.shape[self.ahead.axis]) if way > 0 else start - 1
        return replace(self.ahead, positions=range(first, end, way))


class ReadAhead:
    """Sees what is read, and says what is likely to be read next."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[Extent, _Seen]] = {}  # by source, and by the extent of a chunk
        self._plans: dict[Extent, _Plan] = {}

    def saw(self, source: Source, bounds: Index) -> None:
        """Plan anew what comes after a chunk of a source."""
        at, extent = tuple(_position(bound) for bound in bounds), extent_of(source, bounds)
        # Other chunks of what is shown are read here too, or are a step behind; those elsewhere are not shown any more.
        shown = {e: seen for e, seen in self._seen.get(source.name, {}).items() if seen.at == at or _step(seen.at, at)}
        before = self._seen.get(source.name, {}).get(extent)
        seen = shown[extent] = _Seen(at) if before is None else before.moved(at)
        self._seen[source.name] = shown
        sides = [bound.stop - bound.start for bound in bounds if isinstance(bound, slice)]
        nbytes = source.dtype.itemsize * math.prod(sides) * len(shown)
        self._plans.pop(extent, None)
        if many := min(seen.ahead, _MOST_BYTES // nbytes):
            here, way = int(seen.at[seen.axis] or 0), 1 if seen.step > 0 else -1
            end = min(max(here + way * (many + 1), -1), source.shape[seen.axis])
            at_once = 1 if source.axes[seen.axis] in LEADING else max(1, min(_AT_ONCE, _MOST_BYTES // (2 * nbytes)))
            self._plans[extent] = _Plan(here, Slab(source, bounds, seen.axis, range(here, end, way)), at_once)

    def __bool__(self) -> bool:
        """Whether anything is planned."""
        return bool(self._plans)

    def from_here(self, source: Source, bounds: Index) -> Slab | None:
        """Return a chunk that is read now with those after it that are decoded at once; None if nothing is planned."""
        plan = self._plans.get(extent_of(source, bounds))
        slab = plan.first if plan is not None and plan.ahead.positions else None
        return slab if slab is not None and slab.chunk(slab.positions[0]) == bounds else None

    def goes_on(self, slab: Slab) -> bool:
        """Whether chunks of this extent are still read one after the other."""
        seen = self._seen.get(slab.source.name, {}).get(slab.extent)
        return seen is not None and seen.ahead > 0

    def take(self, known: Callable[[Source, Index], bool]) -> Slab | None:
        """Return the nearest chunks that are not known; the same plan does not return them again."""
        left = {extent: plan.unknown(known) for extent, plan in self._plans.items()}
        self._plans = {extent: plan for extent, plan in left.items() if plan.ahead.positions}
        if not self._plans:
            return None
        extent, plan = min(self._plans.items(), key=lambda item: item[1].distance)
        slab = plan.first
        rest = plan.ahead.positions[len(slab.positions) :]
        self._plans[extent] = plan._replace(ahead=replace(plan.ahead, positions=rest))
        return slab

    def forget(self, extent: Extent | None = None) -> None:
        """Plan nothing any more, for chunks of this extent or for all."""
        self._plans = {other: plan for other, plan in self._plans.items() if extent not in (None, other)}


def extent_of(source: Source, bounds: Index) -> Extent:
    """Return what a chunk has in common with those before and after it."""
    return source.name, *(
        (bound.start, bound.stop) if isinstance(bound, slice) and _position(bound) is None else None for bound in bounds
    )


def _position(bound: slice | int) -> int | None:
    """Where a chunk is along an axis that is not shown: napari asks for planes as slices of one."""
    if isinstance(bound, slice):
        return int(bound.start) if bound.stop - bound.start == 1 else None
    return bound


def _step(first: _Place, second: _Place) -> tuple[int, int] | None:
    """Return along which axis there is one step between two places, and the step; None for a jump."""
    moved = [axis for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(moved) != 1:
        return None
    a, b = first[moved[0]], second[moved[0]]
    if a is None or b is None or abs(b - a) > _LONGEST_STEP:
        return None
    return moved[0], b - a


__all__ = ["Extent", "ReadAhead", "Slab", "extent_of"]
