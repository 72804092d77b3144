"""A small painted plot of PSNR over time: lighter than a plotting library, and redrawn ten times a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_tinc.plugin.compress.report import duration_text

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 8, 20  # pixels around the plot
_LINE = QColor("#4fa8d8")  # reads on napari's dark and light themes alike
_MOST_POINTS = 400


class PsnrCurve(QWidget):
    """PSNR in dB over seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._points: Sequence[tuple[float, float]] = ()
        self.setFixedHeight(110)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "PSNR of the network in training, estimated from its loss. It may be one try of several, and coefficients "
            "come on top of it: the file's own PSNR is measured at the end, and shown in the result card"
        )

    def set_points(self, points: Sequence[tuple[float, float]]) -> None:
        """Show (seconds, dB) pairs."""
        self._points = [point for point in points if math.isfinite(point[1])]
        self.update()

    def paintEvent(self, event: Any) -> None:  # noqa: N802
        """Draw axes, ticks and the line."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().windowText().color()
        frame = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        if len(self._points) < 2:
            painter.setPen(text)
            painter.drawText(frame, Qt.AlignmentFlag.AlignCenter, "PSNR will appear here")
            return
        low, high = plot_range([psnr for _, psnr in self._points])
        end = self._points[-1][0]
        self._draw_axes(painter, frame, (low, high), end, text)
        step = max(1, len(self._points) // _MOST_POINTS)
        shown = [*self._points[::step], self._points[-1]]
        line = QPolygonF(
            [
                QPointF(
                    frame.left() + frame.width() * t / end, frame.bottom() - frame.height() * (p - low) / (high - low)
                )
                for t, p in shown
            ]
        )
        painter.setPen(QPen(_LINE, 2))
        painter.drawPolyline(line)

    def _draw_axes(
        self, painter: QPainter, frame: QRectF, limits: tuple[float, float], end: float, text: QColor
    ) -> None:
        faint = QColor(text)
        faint.setAlpha(60)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for share in (0.0, 0.5, 1.0):
            y = frame.bottom() - share * frame.height()
            painter.setPen(faint)
            painter.drawLine(QPointF(frame.left(), y), QPointF(frame.right(), y))
            painter.setPen(text)
            value = limits[0] + share * (limits[1] - limits[0])
            painter.drawText(QRectF(0, y - 9, _LEFT - 4, 18), right, f"{value:.4g}")
        below = QRectF(frame.left(), frame.bottom() + 2, frame.width(), _BOTTOM - 2)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "0 s")
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, "network alone, dB")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, duration_text(end))


def plot_range(values: Sequence[float]) -> tuple[float, float]:
    """Whole even numbers around the values, at least 2 apart, so that the middle tick is whole, too."""
    low = 2 * math.floor(min(values) / 2)
    high = 2 * math.ceil(max(values) / 2)
    return float(low), float(max(high, low + 2))
