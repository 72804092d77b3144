"""The pictures of a comparison: curves, slices and maps of octants, as figures or as small PNGs."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from napari_tinc.arrays.axes import items_first
from napari_tinc.compare.candidates import TINC
from napari_tinc.compare.measures import Truth
from napari_tinc.compare.results import Result

Array = NDArray[Any]

MEASURE_LABELS = {"psnr": "PSNR, dB", "ssim": "SSIM", "dice": "Dice at the threshold"}
_ROBUST_PERCENTILES = (1, 99.5)
_MARKERS = "osD^vP*X<>"


def rate_distortion(table: pd.DataFrame, measures: tuple[str, ...] = ("psnr", "ssim", "dice")) -> Figure:
    """Draw measures against ratio, a line per candidate; with one ratio only, bars, best on top.

    Parameters
    ----------
    table : DataFrame
        See :func:`napari_tinc.compare.results.table`; rows without a file are left out.
    measures : tuple of str
        Keys of :data:`MEASURE_LABELS`.

    Returns
    -------
    Figure
        On a canvas without a window.
    """
    rows = table[table["problem"] == ""]
    single = rows["target_ratio"].nunique() < 2
    names = list(dict.fromkeys(rows["candidate"]))
    height = max(3.2, 0.26 * len(names) + 0.8)
    figure = Figure(figsize=(4.4 * len(measures) + (0 if single else 2.2), height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        draw(axes, rows, measure, names)
    if not single:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return figure


def draw(axes: Axes, rows: pd.DataFrame, measure: str, names: list[str]) -> None:
    """Draw one measure into a panel.

    Parameters
    ----------
    axes : matplotlib Axes
    rows : DataFrame
        Rows of candidates that have a file. With one ratio only they become bars, best on top, else lines. Those
        that lose nothing have no place on the axis of PSNR: the title names them.
    measure : str
        A key of :data:`MEASURE_LABELS`.
    names : list of str
        The candidates; the place in it decides colour and marker.
    """
    values = rows[measure].astype(float)
    (_bars if rows["target_ratio"].nunique() < 2 else _lines)(axes, rows[np.isfinite(values)], measure, names)
    exact = [f"{row.candidate} at {row.target_ratio:g}" for row in rows[values == np.inf].itertuples()]
    if exact:
        axes.set_title(f"no loss: {', '.join(exact)}", fontsize=8, wrap=True)


def best_plane(truth: Truth) -> int:
    """The plane along the first spatial axis where most is to be seen: its values vary most; 0 for a picture."""
    item = truth.items[0]
    return 0 if item.ndim < 3 else int(np.argmax([plane.std(dtype=np.float64) for plane in item]))


def cut_out(plane: Array, original: Array, side: int) -> Array:
    """At most ``side`` × ``side`` pixels of a plane, around where the original is brightest on the whole."""
    weights = original.astype(np.float64) - original.min()
    parts = []
    for axis in (0, 1):
        profile = weights.sum(1 - axis)
        centre = int(np.average(np.arange(len(profile)), weights=profile if profile.any() else None))
        start = min(max(0, centre - side // 2), max(0, len(profile) - side))
        parts.append(slice(start, start + side))
    return plane[tuple(parts)]


def original_plane(truth: Truth, plane: int) -> Array:
    """One plane of the original's first channel and time point; a picture as it is."""
    item: Array = truth.items[0]
    return item[plane] if item.ndim == 3 else item


def decoded_plane(result: Result, truth: Truth, plane: int) -> Array:
    """The same plane of a result; our own files decode no more than that."""
    solid = truth.items.ndim == 4
    if result.candidate.codec == TINC:
        item: Array = result.volume().decode_item(0, (slice(plane, plane + 1),) if solid else ())
        return item[0] if solid else item
    item = items_first(result.decode(), truth.axes)[0]
    return item[plane] if solid else item


def contrast(original: Array) -> tuple[float, float]:
    """Limits that saturate the brightest half percent, so that dim structures can be seen."""
    low, high = np.percentile(original, _ROBUST_PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1


def grey_png(plane: Array, limits: tuple[float, float]) -> bytes:
    """A plane as a grey PNG of its own size in pixels."""
    low, high = limits
    shown = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    return bytes(imagecodecs.png_encode(np.rint(255 * shown).astype(np.uint8)))


def octant_png(octants: Array, limits: tuple[float, float]) -> bytes:
    """The worst PSNR along z of the first item's octants, a pixel per octant; white where there is no error."""
    grid = octants[0]
    worst = grid.min(axis=0) if grid.ndim == 3 else grid
    low, high = limits
    colours = colormaps["viridis"](np.clip((worst - low) / max(high - low, 1e-9), 0, 1))[..., :3]
    colours[np.isposinf(worst)] = 1.0
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(np.rint(255 * colours).astype(np.uint8))))


def scale_png() -> bytes:
    """The colours of :func:`octant_png`, worst to best."""
    colours = colormaps["viridis"](np.linspace(0, 1, 128))[None, :, :3]
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(np.rint(255 * colours).astype(np.uint8))))


def _lines(axes: Axes, rows: pd.DataFrame, measure: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        points = rows[rows["candidate"] == name].sort_values("ratio")
        if points.empty:
            continue
        ours = bool((points["codec"] == TINC).all())
        axes.plot(
            points["ratio"], points[measure], _MARKERS[index % len(_MARKERS)], linestyle="-" if ours else "--",
            color=line_colour(index), markersize=4, linewidth=1.6 if ours else 1, label=name,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="ratio (raw bytes / file bytes)", ylabel=MEASURE_LABELS[measure])
    axes.set_xticks(sorted(set(rows["target_ratio"])))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(lambda value, position: "")
    axes.grid(alpha=0.3)


def _bars(axes: Axes, rows: pd.DataFrame, measure: str, names: list[str]) -> None:
    ordered = rows.sort_values(measure)
    colours = ["tab:blue" if codec == TINC else "0.65" for codec in ordered["codec"]]
    axes.barh(ordered["candidate"], ordered[measure], color=colours)
    if len(ordered):
        lowest, highest = ordered[measure].min(), ordered[measure].max()
        span = max(highest - lowest, 0.01 * abs(highest)) or 1.0
        axes.set_xlim(lowest - 0.25 * span, highest + 0.05 * span)
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel=f"{MEASURE_LABELS[measure]}\n(axis does not begin at 0)")


def line_colour(index: int) -> tuple[float, float, float, float]:
    """Colour of the candidate at a place among the names, RGBA in 0–1."""
    red, green, blue, alpha = colormaps["tab20"](index % 20)
    return red, green, blue, alpha
