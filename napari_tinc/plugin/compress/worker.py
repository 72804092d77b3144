"""One compression in a thread of its own, under napari's ``thread_worker``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tinc.arrays.inputs import looks_like_labels
from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.arrays.scratch import read_steps
from napari_tinc.errors import TincError
from napari_tinc.measures.noise import note_text
from napari_tinc.plugin.compress import engine
from napari_tinc.plugin.compress.losses import kept_structure, worst_octants
from napari_tinc.plugin.compress.model import importance_weights
from napari_tinc.plugin.compress.preview import View
from napari_tinc.plugin.compress.report import Report, worst_octant_text
from napari_tinc.settings import Settings
from napari_tinc.system.steps import relay
from napari_tinc.target import Target

if TYPE_CHECKING:
    from napari_tinc.progress import Progress
    from napari_tinc.volume import CompressedVolume

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

PREVIEW_SECONDS = 1.0
_NEW_VIEW_SECONDS = 0.3  # each preview costs the interface a redraw
# A preview may cost this share of the time.
_PREVIEW_SHARE = 0.1
_SSIM_VOXELS = 1 << 21
_LABEL_VOXELS = 1 << 23
_PREPARED_SECONDS = 0.1  # how often one who waits for the engine can be stopped
# Loading takes a second or two; what takes longer is the compiler.
_COMPILING_SECONDS = 3.0


@dataclass(frozen=True)
class Job:
    """Everything that a compression needs; the voxels are read, and copied, in the thread."""

    data: Any
    target: Target
    metadata: Metadata
    settings: Settings
    mask: Any = None
    mask_weight: float = 1.0
    region: tuple[slice, ...] | None = None  # of data and mask; by default all
    labels_too: bool = False  # compress what looks like a label image, as the user wants it


class Control:
    """What the interface may say to a running compression, from its own thread."""

    def __init__(self) -> None:
        self._finish, self._discard = threading.Event(), threading.Event()
        self.view: View | None = None

    def finish(self) -> None:
        """End training now and keep what was learnt."""
        self._finish.set()

    def discard(self) -> None:
        """End as soon as possible, without a result."""
        self._discard.set()

    @property
    def finishing(self) -> bool:
        """Whether training is to end."""
        return self._finish.is_set()

    @property
    def discarded(self) -> bool:
        """Whether nobody waits for a result any more."""
        return self._discard.is_set()


@dataclass(frozen=True)
class Previewed:
    """A view, decoded with the weights of the moment."""

    view: View
    image: Array


@dataclass(frozen=True)
class Preparing:
    """What is being prepared, where it is not the volume (empty)."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The compression succeeded."""

    volume: CompressedVolume
    report: Report


@dataclass(frozen=True)
class LooksLikeLabels:
    """Nothing was compressed: the voxels look like the numbers of objects, which would become other numbers."""


@dataclass(frozen=True)
class Discarded:
    """The compression was stopped and left nothing."""


@dataclass(frozen=True)
class Failed:
    """The compression failed; ``message`` is for the user."""

    message: str
    error: BaseException


Outcome = Finished | Discarded | Failed | LooksLikeLabels
Events = Generator["Progress | Preparing | Previewed | None", None, Outcome]


def compress_events(job: Job, control: Control) -> Events:
    """Compress, yielding progress, previews and (between, to be interruptible) ``None``."""
    outcome: Outcome = yield from guarded(_compress(job, control), job.settings.device)
    return outcome


def guarded(steps: Generator[Any, None, Any], device: str = "auto") -> Generator[Any, None, Any]:
    """Pass on what a generator yields and returns; an error becomes the outcome :class:`Failed`.

    No error may leave the generator of a worker, which swallows every RuntimeError, torch's out-of-memory included.
    """
    try:
        return (yield from steps)
    except TincError as error:
        return Failed(str(error), error)
    except Exception as error:
        logger.exception("work in a thread failed")
        return Failed(_explain(error, device), error)


def _explain(error: Exception, device: str) -> str:
    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return f"expected enough memory (device {device}), got: {text}; choose another device or compress a crop"
    return f"{type(error).__name__}: {text}; please report this as a bug"


def _compress(job: Job, control: Control) -> Events:
    started = time.monotonic()
    # Cut here and not in the interface: a Zarr array reads as soon as it is sliced.
    data = yield from _read(job.data, job.region, control)
    if data is None:
        return Discarded()
    if not job.labels_too and looks_like_labels(_some_planes(data)):
        return LooksLikeLabels()
    weights = None
    if job.mask is not None:
        mask = yield from _read(job.mask, job.region, control)
        weights = None if mask is None else importance_weights(mask, job.mask_weight)
    yield from prepare(control)
    if control.discarded:
        return Discarded()
    from napari_tinc.encode.compression import compress_steps

    steps = compress_steps(
        data,
        job.target,
        job.settings,
        metadata=job.metadata,
        weights=weights,
        should_stop=lambda: control.finishing,
    )
    pacer = _Pacer()
    try:
        while True:
            try:
                progress = next(steps)
            except StopIteration as stop:
                volume: CompressedVolume = stop.value
                break
            if control.discarded:
                return Discarded()
            yield progress
            view = control.view
            if progress.decode is not None and view is not None and pacer.due(view):
                yield Previewed(view, pacer.timed(view, progress.decode))
        yield None
        report = yield from _report(data, volume, started)
    finally:
        steps.close()
    return Finished(volume, report)


def prepare(control: Control) -> Generator[Preparing | None, None, None]:
    """Wait until what compresses is loaded and compiled; say so if that takes long."""
    engine_ready, started = engine.prepared(), time.monotonic()
    told = False
    while not control.discarded:
        try:
            engine_ready.result(_PREPARED_SECONDS)
            break
        except TimeoutError:
            waited = time.monotonic() - started
        if waited > _COMPILING_SECONDS and not told:
            told = True
            yield Preparing("loading the coder; after an installation it is compiled once, which takes some seconds…")
        yield None
    if told:
        yield Preparing("")  # what comes now is the rule


def _read(data: Any, region: tuple[slice, ...] | None, control: Control) -> Generator[None, None, Array | None]:
    """Copy a region of an array; return None as soon as nobody waits for it any more."""
    steps = read_copy(data if region is None else data[region])
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                array: Array = stop.value
                return array
            if control.discarded:
                return None
            yield None


def _some_planes(data: Array) -> Array:
    """Return enough of an array to tell what it is, from the middle of its first axis."""
    planes = max(1, _LABEL_VOXELS // max(1, data[0].size))
    start = max(0, (len(data) - planes) // 2)
    return data[start : start + planes]


def read_copy(data: Any) -> Generator[None, None, Array]:
    """Copy an array, so that what the user does to the layer meanwhile does no harm."""
    return (yield from relay(read_steps(data, copy=True), lambda read: None))


class _Pacer:
    """Decide when a preview is due: soon for a new view, else every second, and never too much of the time."""

    def __init__(self) -> None:
        self._shown: View | None = None
        self._next = self._earliest = 0.0

    def due(self, view: View) -> bool:
        now = time.monotonic()
        return now >= self._next or (view != self._shown and now >= self._earliest)

    def timed(self, view: View, decode: Callable[..., Array]) -> Array:
        begun = time.monotonic()
        image = decode(view.region, view.scale)
        ended = time.monotonic()
        self._shown, self._earliest = view, ended + max(_NEW_VIEW_SECONDS, (ended - begun) / _PREVIEW_SHARE)
        self._next = max(self._earliest, ended + PREVIEW_SECONDS)
        return image


def _ssim(data: Array, volume: CompressedVolume) -> tuple[float, str]:
    """SSIM of the volume or, where that takes long, of as many planes from its middle as can be had quickly."""
    from napari_tinc.measures import metrics

    axes = volume.metadata.axes
    axis = next(i for i, letter in enumerate(axes) if letter not in LEADING)
    side, per_plane = data.shape[axis], data.size // data.shape[axis]
    planes = min(side, max(1, _SSIM_VOXELS // per_plane))
    start = (side - planes) // 2
    region = (*[slice(None)] * axis, slice(start, start + planes))
    order = sorted(range(len(axes)), key=lambda i: axes[i] not in LEADING)
    spatial = sum(letter not in LEADING for letter in axes)
    original, decoded = (part.transpose(order) for part in (data[region], volume.decode(region)))
    part = "" if planes == side else f"{axes[axis]} {start}:{start + planes}"
    return metrics.ssim(original, decoded, spatial), part


def _report(data: Array, volume: CompressedVolume, started: float) -> Generator[None, None, Report]:
    seconds = time.monotonic() - started
    ssim, part = _ssim(data, volume)
    yield None
    losses = tuple(worst_octants(data, volume))
    yield None
    kept = kept_structure(data, volume)
    worst = min(volume.octants, key=lambda octant: octant.psnr)
    box = worst_octant_text(worst.box, worst.item, len(volume.value_ranges))
    psnr, promised = float(volume.provenance["psnr"]), volume.provenance.get("max_error")
    return Report(
        volume.raw_nbytes, volume.nbytes, psnr, ssim, part, seconds, worst.psnr, box,
        "" if kept is None else kept.sentence(), losses, promised if isinstance(promised, float | int) else None,
        note_text(volume.provenance.get("noise")), str(volume.provenance.get("advice", "")),
    )  # fmt: skip


def start(
    job: Job,
    control: Control,
    on_event: Callable[[Any], None],
    on_outcome: Callable[[Any], None],
    on_finished: Callable[[], None],
) -> Any:
    """Run a compression in napari's thread pool; see :func:`follow`."""
    return follow(compress_events, (job, control), on_event, on_outcome, on_finished)


def follow(
    generator: Callable[..., Generator[Any, None, Any]],
    arguments: tuple[Any, ...],
    on_event: Callable[[Any], None],
    on_outcome: Callable[[Any], None],
    on_finished: Callable[[], None],
) -> Any:
    """Run a generator in napari's thread pool.

    Parameters
    ----------
    generator : callable
        Its generator raises nothing, see :func:`guarded`.
    arguments : tuple
        Of the generator.
    on_event, on_outcome, on_finished : bound methods of a QObject
        Called in the interface's thread; Qt drops the connection with the object. A worker that is told to quit, as
        napari does when it closes, has no outcome.

    Returns
    -------
    napari.qt.threading.GeneratorWorker
    """
    from napari.qt.threading import create_worker
    from qtpy.QtCore import Qt

    steps = generator(*arguments)
    worker = create_worker(_pass_on, steps, _start_thread=False)
    # A worker that quits leaves its generator as it stands, and with it the processes that it may have started.
    worker.aborted.connect(steps.close, Qt.ConnectionType.DirectConnection)
    worker.yielded.connect(on_event)
    worker.returned.connect(on_outcome)
    worker.finished.connect(on_finished)
    worker.start()
    return worker


def _pass_on(steps: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
    return (yield from steps)


__all__ = [
    "Control",
    "Discarded",
    "Failed",
    "Finished",
    "Job",
    "LooksLikeLabels",
    "Preparing",
    "Previewed",
    "compress_events",
    "follow",
    "guarded",
    "prepare",
    "read_copy",
    "start",
]
