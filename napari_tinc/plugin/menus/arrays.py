"""Compress a layer that may be larger than memory into an OME-Zarr, while the user goes on working."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
from napari import Viewer
from napari.layers import Image
from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QProgressDialog

from napari_tinc.arrays.inputs import ome_order
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.errors import InputError
from napari_tinc.plugin.compress import worker
from napari_tinc.plugin.compress.lost import show_lost_of
from napari_tinc.plugin.compress.model import full_resolution, source_of
from napari_tinc.plugin.compress.preview import Placement
from napari_tinc.plugin.compress.report import size_text
from napari_tinc.plugin.layers.results import add_result, display_of
from napari_tinc.plugin.window.dialogs import ask_path
from napari_tinc.plugin.window.layer_form import is_original
from napari_tinc.plugin.window.preferences import read
from napari_tinc.settings import Settings
from napari_tinc.target import Target

if TYPE_CHECKING:  # its libraries take a second to import
    from napari_tinc.chunks.array import Options
    from napari_tinc.chunks.engine import Engine

_SCALE = 1000
_MOST_SENT = 2**20  # bytes that go with every task
_PREFERENCE = "“Cluster for OME-Zarrs” in napari's preferences"
# Running ones: nobody else keeps them.
_running: list[ArrayCompression] = []


def compress_into_zarr(viewer: Viewer) -> None:
    """Ask for a name, and compress the selected layer into an OME-Zarr in the background.

    Raises
    ------
    InputError
        If no image is selected, or it cannot be compressed.
    """
    chosen = [layer for layer in viewer.layers.selection if isinstance(layer, Image) and is_original(layer)]
    if len(chosen) != 1:
        raise InputError(f"expected one image to compress, got {len(chosen)}: select one in the layer list")
    path = ask_path(None, "Compress into an OME-Zarr", chosen[0].name, ".zarr", "OME-Zarr")
    if path is not None:
        preferences = read()
        # A quality cannot be asked of an array.
        target = Target.ratio(64) if preferences.target.kind in ("psnr", "ssim") else preferences.target
        ArrayCompression(viewer, chosen[0], path, target, Settings(preferences.preset, device=preferences.device))


class ArrayCompression(QObject):
    """One compression in a thread, and the dialog that shows how far it is.

    Parameters
    ----------
    viewer : Viewer
    layer : Image
    path : Path
        Of the OME-Zarr.
    target : Target
    settings : Settings
    axes : str
        One letter per axis, where the user has chosen; else those of the layer.
    region : tuple of slice, optional
        Of the layer's data; by default all.
    """

    def __init__(
        self,
        viewer: Viewer,
        layer: Any,
        path: Path,
        target: Target,
        settings: Settings,
        axes: str = "",
        region: tuple[slice, ...] | None = None,
    ) -> None:
        from napari_tinc.chunks.array import Options

        super().__init__()
        self._viewer, self._layer, self._path, self._region = viewer, layer, path, region
        data, metadata = _in_ome_order(layer, axes, region)
        options = Options(target, replace(settings, provenance=False), overwrite=True)
        self._data = data
        name = str(layer.source.path or layer.name)
        self._worker = create_worker(
            worker.guarded, _steps(data, metadata, path, options, name, read().scheduler), settings.device
        )
        self._dialog = QProgressDialog(f"Compressing {layer.name}…", "Cancel", 0, _SCALE, viewer.window._qt_window)
        self._dialog.setWindowModality(Qt.WindowModality.NonModal)
        self._dialog.setMinimumDuration(0)
        self._dialog.setAutoClose(False)
        self._dialog.canceled.connect(self._worker.quit)
        self._worker.yielded.connect(self._show)
        self._worker.returned.connect(self._add)
        self._worker.aborted.connect(self._tell)
        self._worker.finished.connect(self._end)
        _running.append(self)
        self._worker.start()

    def _show(self, progress: Any) -> None:
        self._dialog.setLabelText(f"{self._layer.name}: {progress.phase}, {progress.step} of {progress.steps}")
        self._dialog.setValue(min(_SCALE - 1, _SCALE * progress.step // max(1, progress.steps)))

    def _add(self, compressed: Any) -> None:
        if isinstance(compressed, worker.Failed):
            show_error(f"Compressing {self._layer.name} failed: {compressed.message}")
            return
        source = self._layer if self._layer in self._viewer.layers else None
        result = add_result(self._viewer, compressed, source, self._region if source is not None else None)
        said = f"{size_text(compressed.nbytes)}, {compressed.ratio:.1f} times smaller"
        show_info(f"{self._layer.name} was compressed to {self._path}: {said}")
        show_lost_of(self._viewer, self._data, result)

    def _tell(self) -> None:
        show_warning(f"{self._path.name} was not finished; compress into the same name again to go on from here")

    def _end(self) -> None:
        self._dialog.reset()
        self._dialog.deleteLater()
        _running.remove(self)


def _in_ome_order(layer: Any, axes: str, region: tuple[slice, ...] | None) -> tuple[Any, Metadata]:
    """Return a layer's array and metadata in the order of axes that OME-Zarr demands; nothing is read."""
    source = source_of(layer, axes, region)
    placement = Placement.of(layer, source.metadata.axes, source.shape, region)
    metadata = source.metadata.displayed(display_of(placement.place, layer))
    order = ome_order(metadata.axes)
    index = [metadata.axes.index(letter) for letter in order]
    data = full_resolution(layer)
    part = data if region is None else data[region]
    return (part if order == metadata.axes else part.transpose(index)), metadata.reordered(index)


def _steps(data: Any, metadata: Metadata, path: Path, options: Options, name: str, scheduler: str) -> Any:
    """Compress, and open what was made."""
    from napari_tinc.chunks.array import compress_array
    from napari_tinc.chunks.image import of_array
    from napari_tinc.chunks.view import CompressedArray

    with _engine(data, scheduler) as engine:
        yield from compress_array(of_array(data, metadata), path, options, engine, name)
    return CompressedArray.open(path)


class _Bounded(io.RawIOBase):
    """A file that forgets what is written to it, and raises OverflowError where that is too much for a task."""

    _written = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._written += size
        if self._written > _MOST_SENT:
            raise OverflowError
        return size


@contextmanager
def _engine(data: Any, scheduler: str) -> Iterator[Engine]:
    """Threads of this process, or the workers of a scheduler, which then read the data themselves."""
    from napari_tinc.chunks.engine import Cluster, Threads
    from napari_tinc.system.cluster import connect

    if not scheduler:
        yield Threads()
        return
    try:
        cloudpickle.dump(data, _Bounded())
    except OverflowError:
        raise InputError(
            "expected a layer that workers can read themselves, such as a Zarr, got one in napari's memory; "
            f"save it as Zarr and open that, or clear {_PREFERENCE}"
        ) from None
    try:
        client = connect(scheduler)
    except InputError as error:
        raise InputError(f"{error}, or clear {_PREFERENCE}") from error
    with client:
        yield Cluster(client)


__all__ = ["ArrayCompression", "compress_into_zarr"]
