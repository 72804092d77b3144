"""The rate–distortion plot in the dock: drawn in a thread, shown as a picture whose points can be clicked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_tinc.plugin.compare.worker import Aside

if TYPE_CHECKING:
    import pandas as pd

MEASURES = {"psnr": "PSNR", "ssim": "SSIM", "dice": "Dice"}
_DPI = 100
NARROWEST = 240  # pixels: names and numbers leave no room for a plot in less, which docks have only while they open
_NEAR = 14  # pixels from a point at which a click means it
_HEIGHTS = (180, 420)  # pixels, at least and at most
_PER_BAR, _AROUND_BARS = 15, 60
_RING = QColor("#ffb000")
_FONT = 7


@dataclass(frozen=True)
class Point:
    """Where a result lies in the picture, in its pixels; a bar answers along its whole width."""

    x: float
    y: float
    name: str
    ratio: float
    bar: bool

    def distance(self, x: float, y: float) -> float:
        """How far away a place is."""
        return abs(y - self.y) if self.bar else math.hypot(x - self.x, y - self.y)


@dataclass(frozen=True)
class Drawn:
    """A picture, RGBA of shape (height, width, 4), its points, and the candidates' colours where it has lines."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    points: list[Point]
    colours: dict[str, str]


def draw_plot(
    table: pd.DataFrame, names: Sequence[str], measure: str, size: tuple[int, int], zoom: float, colour: str
) -> Drawn:
    """Draw a measure against ratio, or as bars if there is one ratio; needs no window.

    Parameters
    ----------
    table : DataFrame
        See :func:`napari_tinc.compare.results.table`.
    names : sequence of str
        All candidates: they keep their colours when one is added.
    measure : str
        A key of :data:`MEASURES`.
    size : tuple of int
        Width and height in the window's pixels.
    zoom : float
        The screen's pixels per pixel of the window.
    colour : str
        Of text and axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    from napari_tinc.compare import pictures

    rows = table[(table["problem"] == "") & table[measure].notna()]
    figure = Figure((size[0] / _DPI, size[1] / _DPI), dpi=_DPI * zoom, layout="constrained", facecolor="none")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.subplots()
    pictures.draw(axes, rows, measure, list(names))
    _suit_dock(axes, colour)
    canvas.draw()
    placed = rows[np.isfinite(rows[measure].astype(float))]
    points = _points(axes, placed, measure, size[1], zoom)
    colours = {str(line.get_label()): to_hex(line.get_color()) for line in axes.lines}
    return Drawn(np.asarray(canvas.buffer_rgba()).copy(), points, colours)


def _suit_dock(axes: Any, colour: str) -> None:
    """Small letters in the colours of the window."""
    axes.set_facecolor("none")
    axes.tick_params(labelsize=_FONT, colors=colour, which="both")
    for label in (axes.title, axes.xaxis.label, axes.yaxis.label):
        label.set(color=colour, fontsize=_FONT)
    for spine in axes.spines.values():
        spine.set_edgecolor(colour)
    axes.locator_params(nbins=5, axis="x" if axes.patches else "y")


def _points(axes: Any, rows: pd.DataFrame, measure: str, height: int, zoom: float) -> list[Point]:
    bars = bool(axes.patches)
    ordered = rows.sort_values(measure) if bars else rows
    points = []
    for place, row in enumerate(ordered.to_dict("records")):
        value = (row[measure], place) if bars else (row["ratio"], row[measure])
        x, y = axes.transData.transform(value) / zoom
        points.append(Point(float(x), height - float(y), row["candidate"], row["target_ratio"], bars))
    return points


class PlotView(QWidget):
    """The plot; ``clicked`` carries the name and ratio of the point that was clicked, ``drawn`` the colours."""

    clicked = Signal(str, float)
    drawn = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._aside = Aside(self)
        self._drawn: Drawn | None = None
        self._image = QImage()
        self._wanted: tuple[pd.DataFrame, Sequence[str], str] | None = None
        self._stale = False
        self._selected: set[tuple[str, float]] = set()
        self.setFixedHeight(_HEIGHTS[0])
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setToolTip("Quality of the finished candidates; click a point or a bar to select its row and its layer")

    @property
    def points(self) -> list[Point]:
        """What can be clicked."""
        return [] if self._drawn is None else self._drawn.points

    @property
    def idle(self) -> bool:
        """Whether what is shown is the latest."""
        return not self._aside.busy

    def show_table(self, table: pd.DataFrame, names: Sequence[str], measure: str) -> None:
        """Draw a table as soon as the picture before it is finished."""
        self._wanted = table, names, measure
        bars = table["target_ratio"].nunique() < 2
        low, high = _HEIGHTS
        self.setFixedHeight(min(high, max(low, _AROUND_BARS + _PER_BAR * len(table))) if bars else low + 40)
        self._draw()

    def select(self, chosen: set[tuple[str, float]]) -> None:
        """Mark the points of these names and ratios."""
        self._selected = chosen
        self.update()

    def clear(self) -> None:
        """Draw nothing any more."""
        self._aside.clear()

    def _draw(self) -> None:
        self._stale = self._aside.busy
        if not self._stale:
            self._start()

    def _start(self) -> None:
        if self._wanted is None or self.width() < NARROWEST:
            return
        table, names, measure = self._wanted
        size, zoom = (self.width(), self.height()), self.devicePixelRatioF()
        colour = self.palette().windowText().color().name()
        self._stale = False
        self._aside.run("drawing", lambda: draw_plot(table, names, measure, size, zoom, colour), self._show)

    def _show(self, drawn: Drawn) -> None:
        self._drawn = drawn
        height, width, _ = drawn.pixels.shape
        self._image = QImage(drawn.pixels.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888).copy()
        self.update()
        self.drawn.emit(drawn.colours)
        if self._stale:
            self._start()

    def sizeHint(self) -> QSize:  # noqa: N802
        """As high as it is now."""
        return QSize(2 * _HEIGHTS[0], self.height())

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Draw again in the new size."""
        super().resizeEvent(event)
        self._draw()

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Show the picture, and rings around what is selected."""
        painter = QPainter(self)
        if self._drawn is None:
            painter.setPen(self.palette().windowText().color())
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "Finished candidates will appear here")
            return
        painter.drawImage(self.rect(), self._image)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(_RING, 2))
        for point in self.points:
            if (point.name, point.ratio) in self._selected:
                painter.drawEllipse(QPointF(point.x, point.y), 6, 6)

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802
        """Tell which point is meant."""
        place = event.position()
        nearest = min(self.points, key=lambda point: point.distance(place.x(), place.y()), default=None)
        if nearest is not None and nearest.distance(place.x(), place.y()) <= (_PER_BAR if nearest.bar else _NEAR):
            self.clicked.emit(nearest.name, nearest.ratio)


__all__ = ["MEASURES", "Drawn", "PlotView", "Point", "draw_plot"]
