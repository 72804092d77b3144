"""One picture of what a compression cost: original, decoded, their difference, and the quality of every octant."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from napari_tinc.errors import InputError
from napari_tinc.system.output import write_atomic

_DPI = 120
_PANEL_INCHES = 4.5
_ROBUST_PERCENTILES = (1, 99)


def save_figure(
    path: str | os.PathLike[str],
    original: NDArray[Any],
    decoded: NDArray[Any],
    octant_psnr: NDArray[np.float64],
    edges: Sequence[NDArray[np.integer]],
    title: str,
) -> None:
    """Draw a compressed volume beside its original and write the PNG whole or not at all.

    Four panels: the original and the decoded volume with the same contrast, which saturates the brightest 1 % so that
    dim structures can be seen; the absolute error on a scale of its own; the PSNR of every octant. 3-D volumes are
    shown along z: maxima of intensities and errors, and the worst octant. Of leading axes (channels, time) the first
    item is shown.

    Parameters
    ----------
    path : str or PathLike
        Where the PNG goes; an existing file is replaced.
    original, decoded : ndarray
        Volumes of the same shape, the spatial axes last.
    octant_psnr : ndarray of float64, 2-D or 3-D
        PSNR of every octant in dB, one axis per spatial axis; those that are not finite are grey.
    edges : sequence of ndarray of int
        Per spatial axis, where octants begin and end, in voxels.
    title : str
        Written above the panels as it is.

    Raises
    ------
    InputError
        If the shapes do not belong together or the file cannot be written.
    """
    _check(original, decoded, octant_psnr, edges)
    first = (0,) * (original.ndim - octant_psnr.ndim)
    original, decoded = original[first], decoded[first]
    shown, error = _maximum_along_z(original), _maximum_error_along_z(original, decoded)
    low, high = _wider(*np.percentile(shown, _ROBUST_PERCENTILES))

    aspect = min(max(shown.shape[0] / shown.shape[1], 0.3), 1.5)
    figure = Figure(figsize=(2 * _PANEL_INCHES + 2, 2 * _PANEL_INCHES * aspect + 1.5), dpi=_DPI, layout="compressed")
    FigureCanvasAgg(figure)  # never a window, whatever the user's backend
    figure.suptitle(title, wrap=True, parse_math=False)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    _show(panels[0, 0], shown, "gray", low, high, "original")
    _show(panels[0, 1], _maximum_along_z(decoded), "gray", low, high, "decoded, same contrast")
    _show(panels[1, 0], error, "magma", 0.0, float(error.max()) or 1.0, "absolute error")
    _show_octants(panels[1, 1], octant_psnr, edges)

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue(), overwrite=True)


def svg(figure: Figure) -> str:
    """A figure as the text of an ``<svg>`` element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _show(axes: Axes, image: NDArray[Any], colours: str, low: float, high: float, title: str) -> None:
    # float64 so that a narrow range of a wide integer dtype is not lost on the way to colours.
    drawn = axes.imshow(image.astype(np.float64), cmap=colours, vmin=low, vmax=high, extent=_extent(image.shape))
    _finish(axes, drawn, title, "grey value")


def _show_octants(axes: Axes, psnr: NDArray[np.float64], edges: Sequence[NDArray[np.integer]]) -> None:
    # fmin passes over nan, which stands for "not known", not for "worst".
    worst = np.fmin.reduce(psnr, axis=0) if psnr.ndim == 3 else psnr
    finite = worst[np.isfinite(worst)]
    low, high = _wider(finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    colours = colormaps["viridis"].with_extremes(bad="0.75")
    masked = np.ma.masked_invalid(worst)
    drawn = axes.pcolormesh(edges[-1], edges[-2], masked, cmap=colours, vmin=low, vmax=high)
    axes.set_facecolor("0.75")
    along_z = ", worst along z" if psnr.ndim == 3 else ""
    grey = "" if finite.size == worst.size else "\n(grey: no error, or not finite)"
    _finish(axes, drawn, f"PSNR of octants{along_z}{grey}", "dB")


def _finish(axes: Axes, drawn: AxesImage | QuadMesh, title: str, unit: str) -> None:
    axes.set(title=title, xlabel="x (voxels)", ylabel="y (voxels)", aspect="equal")
    axes.label_outer()
    axes.figure.colorbar(drawn, ax=axes, label=unit)


def _extent(shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Place the voxels' outer edges at 0 and at the length, as the octants' edges are counted."""
    return 0, shape[1], shape[0], 0


def _wider(low: float, high: float) -> tuple[float, float]:
    """Limits of a colour scale; a single value gets a scale of width 1 around it."""
    return (float(low), float(high)) if low < high else (float(low) - 0.5, float(high) + 0.5)


def _maximum_along_z(volume: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(volume.max(axis=0) if volume.ndim == 3 else volume)


def _maximum_error_along_z(original: NDArray[Any], decoded: NDArray[Any]) -> NDArray[np.float64]:
    """Plane by plane, so that no second volume is needed for the differences."""
    planes = zip(original, decoded, strict=True) if original.ndim == 3 else [(original, decoded)]
    largest = np.zeros(original.shape[-2:])
    for plane, other in planes:
        np.maximum(largest, np.abs(np.subtract(plane, other, dtype=np.float64)), out=largest)
    return largest


def _check(
    original: NDArray[Any],
    decoded: NDArray[Any],
    octant_psnr: NDArray[np.float64],
    edges: Sequence[NDArray[np.integer]],
) -> None:
    if original.shape != decoded.shape:
        raise InputError(f"expected volumes of the same shape, got {original.shape} and {decoded.shape}: give a pair")
    grid = tuple(len(axis_edges) - 1 for axis_edges in edges)
    if octant_psnr.ndim not in (2, 3) or octant_psnr.ndim > original.ndim or grid != octant_psnr.shape:
        raise InputError(
            f"expected one PSNR per octant of a 2-D or 3-D grid, got {octant_psnr.shape} for edges of {grid} octants "
            f"and a volume of shape {original.shape}: give the octants of this volume"
        )
