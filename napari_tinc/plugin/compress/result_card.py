"""The result card: what a compression came to, what it cost, and what to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_tinc.pixels import error_colours, gray
from napari_tinc.plugin.compress.losses import Loss
from napari_tinc.plugin.compress.report import Report
from napari_tinc.plugin.compress.thumbnails import pixmap
from napari_tinc.plugin.layers.octants import MEASURES
from napari_tinc.plugin.window.plain import plain_label

BUTTONS = {
    "save": ("Save…", "Write the compressed volume to a .tinc file"),
    "zarr": ("Export OME-Zarr…", "Decode the volume and write it as OME-Zarr, for programs that cannot read .tinc"),
    "share": (
        "Share as web page…",
        "Write one HTML file that shows the volume in any browser, for people who have neither napari nor Python",
    ),
    "difference": ("Difference", "Show original minus decoded; press again to remove it"),
    "compare": ("Side by side", "Show original and result side by side; press again for the single view"),
    "table": ("Octant table", "List the octants, worst first; click a row to go there; press again to close the list"),
    "codecs": ("Compare codecs…", "Try other settings and codecs on the same layer, at the same ratio"),
}
NEEDS_ORIGINAL = ("difference", "compare", "codecs")
_ALWAYS = ("save", "zarr", "share")
_OVERLAY_TIP = "Show for each octant how well it is kept, or how many bytes it takes"
_PICTURE = 80  # pixels
_TITLES = ("original", "decoded", "error")


class ResultCard(QFrame):
    """Figures of a result, its worst octants, and buttons.

    ``pressed`` carries a key of :data:`BUTTONS`, ``measured`` a key of
    :data:`napari_tinc.plugin.layers.octants.MEASURES` or nothing, ``visited`` a
    :class:`napari_tinc.plugin.compress.losses.Loss`.
    """

    pressed = Signal(str)
    measured = Signal(str)
    visited = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._rows = QFormLayout()
        self._rows.setVerticalSpacing(2)
        self._rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.kept, self._note = plain_label(wrapped=True), plain_label(wrapped=True)
        self.worst = LossPictures()
        self.worst.visited.connect(self.visited.emit)
        self.overlay = QComboBox()
        self.overlay.setToolTip(_OVERLAY_TIP)
        self.overlay.addItem("off", "")
        for measure, title in MEASURES.items():
            self.overlay.addItem(title, measure)
        self.overlay.activated.connect(self._choose_overlay)
        choice = QFormLayout()
        choice.addRow("Overlay", self.overlay)
        grid = QGridLayout()
        self.buttons: dict[str, QPushButton] = {}
        for number, (key, (text, tip)) in enumerate(BUTTONS.items()):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.setObjectName(key)
            button.clicked.connect(self._press)
            self.buttons[key] = button
            grid.addWidget(button, number // 2, number % 2)
        layout = QVBoxLayout(self)
        layout.addLayout(self._rows)
        layout.addWidget(self.kept)
        layout.addWidget(self.worst)
        layout.addWidget(self._note)
        layout.addLayout(choice)
        layout.addLayout(grid)

    def enable(self, shown: bool, comparable: bool) -> None:
        """Offer what can be done: something with the layer if it is ``shown``, with the original if ``comparable``."""
        for key, button in self.buttons.items():
            button.setEnabled(key in _ALWAYS or (comparable if key in NEEDS_ORIGINAL else shown))
        self.overlay.setEnabled(shown)
        self.worst.setEnabled(shown)

    def show_measure(self, measure: str) -> None:
        """Say which overlay is shown; nothing is emitted."""
        self.overlay.setCurrentIndex(self.overlay.findData(measure))

    def _choose_overlay(self) -> None:
        self.measured.emit(str(self.overlay.currentData()))

    def _press(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.pressed.emit(sender.objectName())

    def show_report(self, report: Report, note: str) -> None:
        """Fill in the figures; ``note`` says what else to know, or is empty."""
        while self._rows.rowCount():
            self._rows.removeRow(0)
        for label, text in report.rows():
            value = plain_label(text, wrapped=True)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._rows.addRow(label, value)
        self.kept.setText(report.kept)
        self.kept.setVisible(bool(report.kept))
        self.worst.show_losses(report.losses)
        self._note.setText(note)
        self._note.setVisible(bool(note))


class LossPictures(QWidget):
    """The worst octants, each as it was, as it is, and what is between; a click takes the view there."""

    visited = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        self.buttons: list[QToolButton] = []
        self._losses: Sequence[Loss] = ()

    def show_losses(self, losses: Sequence[Loss]) -> None:
        """Show other octants."""
        while self._grid.count():
            item: Any = self._grid.takeAt(0)
            item.widget().deleteLater()
        self._losses, self.buttons = losses, []
        self.setVisible(bool(losses))
        if losses:
            self._grid.addWidget(QLabel("Worst octants (click to go there)"), 0, 0, 1, len(_TITLES))
        for column, title in enumerate(_TITLES if losses else ()):
            self._grid.addWidget(QLabel(title), 1, column)
        for number, loss in enumerate(losses):
            for column, pixels in enumerate(pictures_of(loss)):
                self._grid.addWidget(self._button(pixels, number), 2 * number + 2, column)
            place = ", ".join(map(str, loss.voxel))
            self._grid.addWidget(QLabel(f"{loss.psnr:.1f} dB around [{place}]"), 2 * number + 3, 0, 1, len(_TITLES))

    def _button(self, pixels: Any, number: int) -> QToolButton:
        button = QToolButton()
        button.setIcon(QIcon(pixmap(pixels, _PICTURE)))
        button.setIconSize(QSize(_PICTURE, _PICTURE))
        button.setAutoRaise(True)
        button.setToolTip("Move sliders and camera to this octant")
        button.setProperty("loss", number)
        button.clicked.connect(self._visit)
        self.buttons.append(button)
        return button

    def _visit(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.visited.emit(self._losses[sender.property("loss")])


def pictures_of(loss: Loss) -> tuple[Any, Any, Any]:
    """Draw original and decoded in one contrast, and their difference from blue (too bright) to orange (too dark).

    Returns
    -------
    three ndarrays of uint8, shape (rows, columns, 3)
    """
    low, high = float(loss.original.min()), float(loss.original.max())
    error = error_colours(loss.error, float(np.abs(loss.error).max()))
    return gray(loss.original, low, high), gray(loss.decoded, low, high), error


__all__ = ["BUTTONS", "NEEDS_ORIGINAL", "LossPictures", "ResultCard", "pictures_of"]
