"""Reading and writing volumes: TIFF, NPY and Zarr."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_tinc.arrays.inputs import check_axes
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.errors import InputError, TincError
from napari_tinc.files.layout import Volume
from napari_tinc.system.output import check_output, is_zarr, replacing
from napari_tinc.system.text import storable

__all__ = ["SUFFIXES", "Volume", "check_output", "check_suffix", "read_volume", "replacing", "write_volume"]

_log = logging.getLogger(__name__)

# The module of every format here; its libraries take up to a second to load, so that is done when it is needed.
_MODULES = {".tif": "tiff", ".tiff": "tiff", ".npy": "npy", ".zarr": "zarr"}
SUFFIXES = tuple(_MODULES)
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY_MAGIC = b"\x93NUMPY"


def read_volume(path: str | Path, axes: str | None = None) -> Volume:
    """Read a volume from a TIFF, NPY or Zarr, recognised by its content.

    The array's own axis order is kept. Time and channel axes of length one are dropped; axes the file does not name
    become ``z``, or the default order of a bare array; several images in a file give the first, finest one.

    Parameters
    ----------
    path : str or Path
        A TIFF (OME, ImageJ or plain), an NPY file, a Zarr array or an OME-Zarr 0.4 or 0.5 image.
    axes : str, optional
        Axis letters of ``tczyx`` in the array's order, where the file is silent or wrong.

    Returns
    -------
    Volume
        The voxels in native byte order, and their metadata.

    Raises
    ------
    InputError
        The file is missing, cut, damaged, too large for memory, of another format, or an RGB image; or the axes do
        not fit.
    """
    path = Path(path)
    reader = _reader(path)
    try:
        return reader(path, axes)
    except TincError:
        raise
    except MemoryError as error:
        raise InputError(
            f"expected {path.name} to fit into memory, got too many voxels; cut it into parts or add memory"
        ) from error
    except Exception as error:  # damaged bytes make the format libraries raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"expected a complete, readable volume, got {path.name} failing with: {reason}; copy or export it again"
        ) from error


def write_volume(path: str | Path, array: NDArray[Any], metadata: Metadata, overwrite: bool = False) -> None:
    """Write a volume as OME-TIFF, NPY or OME-Zarr 0.5, chosen by the suffix; all of it or nothing.

    Axes, voxel size, units, channel names and name are kept in TIFF and Zarr, but for control characters in names,
    which are spelt out; NPY holds only the voxels.

    Parameters
    ----------
    path : str or Path
        A path ending in ``.tif``, ``.tiff``, ``.npy`` or ``.zarr``.
    array : ndarray
        The voxels.
    metadata : Metadata
        One entry per axis of the array.
    overwrite : bool
        Replace what is at ``path``.

    Raises
    ------
    InputError
        The suffix is another one, the path exists, the folder cannot be written to, the disk is full, or the format
        cannot hold the dtype or a unit.
    """
    path = Path(path)
    check_suffix(path)
    check_axes(metadata.axes, array.ndim)
    metadata = _storable(metadata)
    with replacing(path, overwrite) as partial:
        name = _MODULES[path.suffix.lower()]
        _of_format("write", name)(partial, array, metadata)


def _storable(metadata: Metadata) -> Metadata:
    """Spell out the control characters of names, which readers would refuse, or change in silence."""
    names = tuple(map(storable, metadata.channel_names))
    name = storable(metadata.name)
    if (names, name) != (metadata.channel_names, metadata.name):
        _log.warning("control characters in names are spelt out in the file, such as \\n for a new line")
    return replace(metadata, channel_names=names, name=name)


def check_suffix(path: str | Path) -> None:
    """Refuse a path whose suffix names no format that can be written.

    Raises
    ------
    InputError
        With the suffixes that can.
    """
    if Path(path).suffix.lower() not in _MODULES:
        raise InputError(f"expected a name ending in {', '.join(SUFFIXES)}, got {Path(path).name}; rename the output")


def _reader(path: Path) -> Callable[[Path, str | None], Volume]:
    advice = "convert it to TIFF, NPY or OME-Zarr"
    try:
        if path.is_dir():
            if is_zarr(path):
                return _of_format("read", "zarr")
            raise InputError(f"expected a volume, got the folder {path} which is not a Zarr; give a file, or {advice}")
        with path.open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError) as error:  # a name with NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a readable volume, got {path}: {reason}; check the path") from error
    if start.startswith(_TIFF_MAGICS):
        return _of_format("read", "tiff")
    if start.startswith(_NPY_MAGIC):
        return _of_format("read", "npy")
    raise InputError(f"expected a TIFF, NPY or Zarr volume, got {path.name} starting with {start!r}; {advice}")


def _of_format(does: str, name: str) -> Callable[..., Any]:
    """Return ``read_…`` or ``write_…`` of a format's module."""
    function: Callable[..., Any] = getattr(import_module(f"{__name__}.{name}"), f"{does}_{name}")
    return function
