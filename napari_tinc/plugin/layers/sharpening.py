"""Show a coarse level at once where the fine one takes long, and the fine one as soon as a thread has decoded it.

Who goes through planes one after the other finds the next ones decoded: the thread reads ahead when nobody waits.

Only napari's own slicing sees coarse voxels: whoever else reads a layer's data gets its voxels, and waits for them.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import QCoreApplication
from superqt.utils import ensure_main_thread

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.lazy import Index, LazyArray, Source
from napari_tinc.plugin.layers.scrolling import Extent, ReadAhead, Slab, extent_of

Array = np.ndarray[Any, Any]
Ends = tuple[tuple[int, int], ...]
_Chunk = tuple[str, str]

# The interface waits this long for fine voxels: what is there sooner needs no coarse ones first.
PATIENCE_SECONDS = 0.06
# … and no longer for the other chunks of a plane, which are read at once.
_SAME_LOOK_SECONDS = 0.02
# A layer that is new is sliced at its first plane, then where the user is, before anything is drawn: nothing fine is
# decoded until then.
ARRIVAL_SECONDS = 0.3
# What the status bar says.
COARSE, SHARP = "coarse, sharpening…", "sharp"
# Rows decoded at a time: between them what was asked for later gets its turn.
_ROWS = 128
_TELL_SECONDS = 0.3
# More chunks than a plane has on any screen; what is done and not yet read again takes no more memory than this.
_MOST_WAITING, _MOST_DONE_BYTES = 256, 2**28


class Sharpener:
    """Decodes chunks in a thread, those asked for last first; the thread ends when there is nothing left to do.

    Parameters
    ----------
    wanted : callable
        Tells whether the viewer shows the levels; if not, what waits is dropped.
    tell : callable
        Called in the thread when something is sharper than when it was read: what shows it should read it again.
    patient : bool
        Wait for all voxels of a plane, but for those that nobody sees.
    report : callable, optional
        Called in the thread again and again while what is shown is coarse, with True, and at last with False.
    """

    def __init__(
        self,
        wanted: Callable[[], bool],
        tell: Callable[[], object],
        patient: bool = False,
        report: Callable[[bool], object] | None = None,
    ) -> None:
        self._wanted, self._tell, self._patient, self._lock = wanted, tell, patient, threading.Lock()
        self._report = report
        self._waiting: OrderedDict[_Chunk, _Task] = OrderedDict()  # what was asked for last comes last
        self._done: OrderedDict[_Chunk, _Task] = OrderedDict()
        self._done_bytes = 0
        self._ahead = ReadAhead()
        self._slabs: dict[Extent, _SlabTask] = {}  # begun
        self._versions: Counter[_Chunk] = Counter()
        self._coarse = _LastRead()
        self._running = False
        self._gave_up = -math.inf  # when a coarse chunk was last decoded
        self._arrives = math.inf

    def level(self, fine: LazyArray, coarse: LazyArray | None) -> LazyArray:
        """Return a level that napari's slices find coarser where its own voxels are not decoded soon.

        Both should not read from the same volume: its decoder would let the coarse one wait for the fine one. Without a
        coarse one, floats that cannot be seen (NaN) are shown meanwhile, or zeros.
        """
        return ShownArray(fine.source, _Sharpened(fine.source, None if coarse is None else coarse.source, self))

    def version(self, source: Source, bounds: Index) -> int:
        """Return how often a chunk was read that may have been coarse and should be read again."""
        return self._versions[_key(source, bounds)]

    def read(self, source: Source, bounds: Index) -> Array | None:
        """Return a chunk, or None if it takes longer than the interface can wait."""
        key, now = _key(source, bounds), time.monotonic()
        self._arrives = min(self._arrives, now + ARRIVAL_SECONDS)
        if not self._wanted():  # not yet: nobody sees this; or not here: nobody would tell that viewer
            self._versions[key] += 1
            return None if now < self._arrives else source.read(bounds)
        if self.waits_for(bounds):
            return source.read(bounds)
        with self._lock:
            task = self._done.get(key) or self._waiting.get(key) or _Task(source, bounds)
            if not task.done.is_set():
                self._wait_for(task)
            self._ahead.saw(source, bounds)
            self._start()
            patience = PATIENCE_SECONDS if now >= max(self._gave_up + _SAME_LOOK_SECONDS, self._arrives) else 0.0
        task.done.wait(patience)
        with self._lock:
            task.shown_coarse = not task.done.is_set()
        return None if task.shown_coarse else task.result()

    def waits_for(self, bounds: Index) -> bool:
        """Whether a region is shown when it is decoded, and never coarse before."""
        wide = sum(bound.stop - bound.start > 1 for bound in bounds if isinstance(bound, slice))
        return self._patient and wide <= 2

    def read_coarse(self, source: Source, ends: Ends) -> Array:
        """Return what is shown instead."""
        return self._coarse.read(source, ends)

    def give_up(self) -> None:
        """For the chunks that are read next there is no patience left."""
        self._gave_up = time.monotonic()

    @property
    def sharp(self) -> bool:
        """Whether all that was asked for is decoded."""
        return not self._waiting

    @property
    def idle(self) -> bool:
        """Whether nothing is decoded ahead either."""
        return not self._running

    def _wait_for(self, task: _Task) -> None:
        # Of chunks of the same extent the one asked for before is not shown any more.
        for other in [one for one in self._waiting.values() if one.extent == task.extent and one is not task]:
            self._drop(other.key)
        self._waiting[task.key] = task
        self._waiting.move_to_end(task.key)
        if len(self._waiting) > _MOST_WAITING:
            self._drop(next(iter(self._waiting)))

    def _start(self) -> None:
        if (self._waiting or self._ahead) and not self._running:
            self._running = True
            threading.Thread(target=self._work, name="tinc-sharpening", daemon=True).start()

    def _drop(self, key: _Chunk) -> None:
        self._waiting.pop(key).done.set()
        self._versions[key] += 1

    def _work(self) -> None:
        time.sleep(max(0.0, self._arrives - time.monotonic()))
        told = reported = time.monotonic()
        news = coarse = False
        while (task := self._latest()) is not None:
            if self._shows_coarse() and (not coarse or time.monotonic() > reported + _TELL_SECONDS):
                coarse, reported = True, time.monotonic()
                self._say(True)
            if task.advance():
                news |= self._finish(task)
            rests = not self._waiting  # and reads ahead
            if news and (rests or time.monotonic() > told + _TELL_SECONDS):
                self._tell()
                told, news = time.monotonic(), False
            if coarse and rests:
                self._say(False)
                coarse = False
        if news:
            self._tell()
        if coarse:
            self._say(False)

    def _shows_coarse(self) -> bool:
        with self._lock:
            return any(task.shown_coarse for task in self._waiting.values())

    def _say(self, coarse: bool) -> None:
        if self._report is not None:
            self._report(coarse)

    def _latest(self) -> _Task | None:
        wanted = self._wanted()
        with self._lock:
            if not wanted:
                for key in list(self._waiting):
                    self._drop(key)
                self._ahead.forget()
                self._slabs = {}
            asked = next(reversed(self._waiting.values()), None)
            task = self._next_ahead() if asked is None else self._slab_with(asked) or asked
            self._running = task is not None
            return task

    def _slab_with(self, asked: _Task) -> _SlabTask | None:
        """Return what is decoded at once with a chunk, by who goes through planes."""
        begun = self._slabs.get(asked.extent)
        if begun is not None and asked.key in begun.keys:
            return begun
        return self._begin(self._ahead.from_here(asked.source, asked.bounds))

    def _next_ahead(self) -> _SlabTask | None:
        self._slabs = {extent: task for extent, task in self._slabs.items() if self._ahead.goes_on(task.slab)}
        begun = next(iter(self._slabs.values()), None)
        return begun or self._begin(self._ahead.take(lambda source, bounds: _key(source, bounds) in self._done))

    def _begin(self, slab: Slab | None) -> _SlabTask | None:
        if slab is None:
            return None
        self._slabs[slab.extent] = _SlabTask(slab)
        return self._slabs[slab.extent]

    def _finish(self, task: _Task) -> bool:
        """Keep what was decoded; return whether it was shown coarse."""
        with self._lock:
            if not isinstance(task, _SlabTask):
                return self._waiting.pop(task.key, None) is not None and self._keep(task)
            self._slabs = {extent: other for extent, other in self._slabs.items() if other is not task}
            if task.failed:  # what is asked for is decoded anew, alone
                self._ahead.forget(task.extent)
                return False
            return sum(self._keep(self._filled(*chunk)) for chunk in task.chunks()) > 0

    def _filled(self, source: Source, bounds: Index, samples: Array) -> _Task:
        task = self._waiting.pop(_key(source, bounds), None) or _Task(source, bounds)
        task.fill(samples)
        return task

    def _keep(self, task: _Task) -> bool:
        if (before := self._done.get(task.key)) is not None:
            self._done_bytes -= before.nbytes
        self._done[task.key] = task
        self._done_bytes += task.nbytes
        while self._done_bytes > _MOST_DONE_BYTES and len(self._done) > 1:
            self._done_bytes -= self._done.popitem(last=False)[1].nbytes
        self._versions[task.key] += task.shown_coarse
        task.done.set()
        return task.shown_coarse


class _LastRead:
    """Keeps the region that was read last: the chunks of a plane come one after the other, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[str, Ends] | None = None
        self._samples: Array = np.empty(0)

    def read(self, source: Source, ends: Ends) -> Array:
        """Return a region, given by start and stop of every axis."""
        with self._lock:
            if self._key != (source.name, ends):
                self._samples = source.read(tuple(slice(*pair) for pair in ends))
                self._key = source.name, ends
            return self._samples


def _key(source: Source, bounds: Index) -> _Chunk:
    return source.name, repr(bounds)


class _Task:
    """A chunk to be decoded strip by strip."""

    def __init__(self, source: Source, bounds: Index) -> None:
        self.source, self.bounds, self.key = source, bounds, _key(source, bounds)
        self.extent = extent_of(source, bounds)
        self.done, self.shown_coarse = threading.Event(), False
        self._error: Exception | None = None
        self._complete = False
        sides = [bound.stop - bound.start for bound in bounds if isinstance(bound, slice)]
        self._array: Array | None = None
        self._shape = tuple(sides)
        self._strips = self._cut()

    def _cut(self) -> Iterator[tuple[tuple[slice, ...], Index]]:
        """Yield the strips along the longest axis: where in the chunk, where in the source."""
        shape, kept = self._shape, [i for i, bound in enumerate(self.bounds) if isinstance(bound, slice)]
        axis = int(np.argmax(shape))
        span = self.bounds[kept[axis]]
        assert isinstance(span, slice)
        for start in range(0, shape[axis], _ROWS):
            stop = min(start + _ROWS, shape[axis])
            there = list(self.bounds)
            there[kept[axis]] = slice(span.start + start, span.start + stop)
            yield (*[slice(None)] * axis, slice(start, stop)), tuple(there)

    @property
    def nbytes(self) -> int:
        """Memory of what is decoded."""
        return 0 if self._array is None else self._array.nbytes

    def advance(self) -> bool:
        """Decode a strip; return whether that was all."""
        try:
            here, there = next(self._strips)
            if self._array is None:
                self._array = np.empty(self._shape, self.source.dtype)
            self._array[here] = self.source.read(there)
        except StopIteration:
            self._complete = True
        except Exception as error:  # raised where the chunk is read
            self._error = error
        return self._complete or self._error is not None

    def fill(self, samples: Array) -> None:
        """Take samples that were decoded already."""
        self._array, self._complete = samples.reshape(self._shape), True

    @property
    def failed(self) -> bool:
        """Whether decoding raised an error."""
        return self._error is not None

    def result(self) -> Array | None:
        """Return the chunk, None if it was dropped, or raise what happened."""
        if self._error is not None:
            raise self._error
        return self._array if self._complete else None


class _SlabTask(_Task):
    """Chunks that are decoded at once."""

    def __init__(self, slab: Slab) -> None:
        super().__init__(slab.source, slab.region)
        self.slab, self.extent = slab, slab.extent
        self.keys = {_key(slab.source, slab.chunk(position)) for position in slab.positions}

    def chunks(self) -> Iterator[tuple[Source, Index, Array]]:
        """Return every chunk with its samples."""
        assert self._array is not None
        axis = sum(isinstance(bound, slice) for bound in self.bounds[: self.slab.axis])
        for position, samples in zip(sorted(self.slab.positions), np.moveaxis(self._array, axis, 0), strict=True):
            yield self.source, self.slab.chunk(position), np.ascontiguousarray(samples)


@dataclass(frozen=True, eq=False)
class _Sharpened:
    """A level that shows a coarser one where its own voxels are not decoded soon."""

    fine: Source
    coarse: Source | None
    sharpener: Sharpener

    @property
    def name(self) -> str:
        return f"{self.fine.name}-shown"  # no cache must take coarse voxels for the others

    @property
    def axes(self) -> str:
        return self.fine.axes

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fine.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.fine.dtype

    def version(self, bounds: Index) -> int:
        return self.sharpener.version(self.fine, bounds)

    def read(self, bounds: Index) -> Array:
        if any(bound.start == bound.stop for bound in bounds if isinstance(bound, slice)):
            return self.fine.read(bounds)
        array = self.sharpener.read(self.fine, bounds)
        if array is None:
            if self.coarse is None or self.sharpener.waits_for(bounds):
                array = _nothing(self.fine, bounds)
            else:
                array = self._stretched(self.coarse, bounds)
            self.sharpener.give_up()
        return array

    def _stretched(self, coarse: Source, bounds: Index) -> Array:
        """Repeat the coarse samples that lie nearest."""
        ends: list[tuple[int, int]] = []
        chosen: list[Array] = []
        for axis, bound, many, few in zip(self.axes, bounds, self.shape, coarse.shape, strict=True):
            ratio = 1.0 if axis in LEADING else few / many
            span = bound if isinstance(bound, slice) else slice(bound, bound + 1)
            nearest = np.minimum((np.arange(span.start, span.stop) + 0.5) * ratio, few - 1).astype(np.int64)
            # All of a plane: its chunks are read one after the other.
            ends.append((int(nearest[0]), int(nearest[0]) + 1) if nearest[0] == nearest[-1] else (0, few))
            chosen.append(nearest - ends[-1][0])
        samples = self.sharpener.read_coarse(coarse, tuple(ends))[np.ix_(*chosen)]
        cut: Array = samples[tuple(slice(None) if isinstance(bound, slice) else 0 for bound in bounds)]
        return cut


def _nothing(source: Source, bounds: Index) -> Array:
    sides = [bound.stop - bound.start for bound in bounds if isinstance(bound, slice)]
    return np.full(sides, np.nan if source.dtype.kind == "f" else 0, source.dtype)


class ShownArray(LazyArray):
    """A level of a layer: napari's slices of it are of another source than everybody else's."""

    _shown: _Sharpened
    _seen: LazyArray

    def __new__(cls, source: Source, shown: _Sharpened) -> ShownArray:
        """Cover all of both sources."""
        self = super().__new__(cls, source)
        assert isinstance(self, ShownArray)
        self._shown, self._seen = shown, LazyArray(shown)
        return self

    def __getitem__(self, index: Any) -> Any:
        """Slice lazily, for napari's slicing from what is shown."""
        caller = sys._getframe(1).f_globals.get("__name__", "")
        # There is no hook: a layer slices its data as anybody would, with no event before, and readers may not make
        # layers of a class of their own. All that napari sets meanwhile is dask's "optimization.fuse.active", which
        # users set too, and would then compute with coarse voxels. This fails the other way: should napari move its
        # module, layers are exact and slow, and a test fails.
        if caller.startswith("napari.layers.") and caller.endswith("._slice"):
            return self._seen[index]
        return super().__getitem__(index)

    @property
    def sharpener(self) -> Sharpener:
        """What decodes it in a thread."""
        return self._shown.sharpener

    def copy(self) -> ShownArray:
        """Return the same level; napari copies a layer's data when the user duplicates the layer."""
        return ShownArray(self.source, self._shown)


def sharpener_in(viewer: ViewerModel, belongs: Callable[[Layer], bool], patient: bool = False) -> Sharpener:
    """Return what sharpens those layers of a viewer that belong to it, as long as there are any.

    While they are coarse the viewer's status bar says so.
    """
    known = weakref.ref(viewer)

    def showing() -> list[Layer]:
        there = known()
        return [] if there is None else [layer for layer in there.layers if belongs(layer)]

    def refresh() -> None:
        for layer in showing():
            layer.refresh(highlight=False, extent=False)

    def say(coarse: bool) -> None:
        there, layers = known(), showing()
        if there is None or not layers:
            return
        text = f"{layers[0].name}: {COARSE}"
        if coarse:
            there.status = text
        elif there.status == text:  # nothing else was said meanwhile
            there.status = f"{layers[0].name}: {SHARP}"

    def tell() -> None:  # a viewer model without a window may be changed in any thread
        refresh() if QCoreApplication.instance() is None else ensure_main_thread(refresh)()

    def report(coarse: bool) -> None:
        say(coarse) if QCoreApplication.instance() is None else ensure_main_thread(say)(coarse)

    return Sharpener(lambda: bool(showing()), tell, patient, report)


__all__ = ["COARSE", "PATIENCE_SECONDS", "SHARP", "Sharpener", "ShownArray", "sharpener_in"]
