"""The result card: what a compression came to, and what to do with it."""

from __future__ import annotations

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QFrame, QGridLayout, QPushButton, QSizePolicy, QVBoxLayout

from napari_tinc.plugin.plain import plain_label
from napari_tinc.plugin.report import Report

BUTTONS = {
    "save": ("Save…", "Write the compressed volume to a .tinc file"),
    "quality": ("Octant quality", "Show the PSNR of every octant on the result"),
    "difference": ("Difference", "Add a layer with original minus decoded, computed where you look"),
    "compare": ("Side by side", "Show original and result side by side; press again for the single view"),
    "table": ("Octant table", "List the octants, worst first; a row takes you there"),
    "codecs": ("Compare codecs…", "Try other settings and codecs on the same layer, at the same ratio"),
}


class ResultCard(QFrame):
    """Figures of a result, and buttons; ``pressed`` carries a key of :data:`BUTTONS`."""

    pressed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._rows = QFormLayout()
        self._rows.setVerticalSpacing(2)
        self._rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self._note = plain_label(wrapped=True)
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
        layout.addWidget(self._note)
        layout.addLayout(grid)

    def _press(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.pressed.emit(sender.objectName())

    def show_report(self, report: Report, note: str) -> None:
        """Fill in the figures; ``note`` says what else to know, or is empty."""
        while self._rows.rowCount():
            self._rows.removeRow(0)
        for label, text in report.rows():
            value = plain_label(text)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._rows.addRow(label, value)
        self._note.setText(note)
        self._note.setVisible(bool(note))
