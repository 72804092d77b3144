"""Parts of the compare widget: its buttons, and what is found (plot and words)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_tinc.plugin.compare.export import EXPORTS, Legend
from napari_tinc.plugin.compare.plot import MEASURES, PlotView
from napari_tinc.plugin.layers.overlays import BAD_TO_GOOD
from napari_tinc.plugin.window.plain import plain_label

BUTTONS = {
    "compare": ("Compare", "Run what is ticked, every file within the same size; earlier results are shown at once"),
    "stop": ("Stop", "Stop now; finished results stay"),
    "show": ("Show", "Add the selected candidates to the viewer (or double-click a row)"),
    "grid": ("Grid", "Original and selected candidates side by side; without a selection, with the three best"),
    "flicker": ("Flicker", "Alternate two selected candidates, or one and the original"),
    "split": ("Split", "Original left and selected candidate right of a line; the slider moves the line"),
    "best": ("Best per octant", "Map which of the selected candidates (or of all) has the highest PSNR in each octant"),
    "single": ("Single view", "End grid, flicker or split"),
}
_EXPORT_TIP = "Write table, plot, picture or report to a file"
_OCTANT_TIP = "In the grid, colour every candidate by its octants' PSNR, and the original by the best codec"
_STEPS = 1000


class Controls(QObject):
    """Buttons above and below the table; ``pressed`` carries a key of :data:`BUTTONS`."""

    pressed = Signal(str)
    exported = Signal(str)
    split_moved = Signal(float)
    octants_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self.buttons = {key: self._button(key) for key in BUTTONS}
        self.export = QPushButton("Export")
        self.export.setToolTip(_EXPORT_TIP)
        menu = QMenu(self.export)
        for key, text, _, _ in EXPORTS:
            action: Any = menu.addAction(text)
            action.setData(key)
        menu.triggered.connect(self._on_export)
        self.export.setMenu(menu)
        self.expected, self.status, self.task = (plain_label(wrapped=True) for _ in range(3))
        self.legend = QLabel()
        self.legend.setWordWrap(True)
        self.task.hide()
        self.legend.hide()
        self.explained: Legend = ()  # what the legend says
        self.bar = QProgressBar()
        self.octants = QCheckBox("Octants")
        self.octants.setToolTip(_OCTANT_TIP)
        self.octants.toggled.connect(self._on_octants)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _STEPS)
        self.slider.setValue(_STEPS // 2)
        self.slider.setToolTip("Position of the line in the split view")
        self.slider.valueChanged.connect(self._on_slider)
        self.top, self.bottom = self._above(), self._below()

    def _button(self, key: str) -> QPushButton:
        text, tip = BUTTONS[key]
        button = QPushButton(text)
        button.setToolTip(tip)
        button.setObjectName(key)
        button.clicked.connect(self._on_press)
        return button

    def _above(self) -> QWidget:
        above = QWidget()
        layout, row = QVBoxLayout(above), QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        for button in (self.buttons["compare"], self.buttons["stop"], self.export):
            row.addWidget(button)
        layout.addLayout(row)
        for part in (self.expected, self.status, self.bar):
            layout.addWidget(part)
        return above

    def _below(self) -> QWidget:
        below = QWidget()
        grid = QGridLayout(below)
        grid.setContentsMargins(0, 0, 0, 0)
        for column, key in enumerate(("show", "grid", "flicker")):
            grid.addWidget(self.buttons[key], 0, column)
        for column, key in enumerate(("split", "best", "single")):
            grid.addWidget(self.buttons[key], 1, column)
        grid.addWidget(self.octants, 2, 0)
        grid.addWidget(self.slider, 2, 1, 1, 2)
        grid.addWidget(self.legend, 3, 0, 1, 3)
        grid.addWidget(self.task, 4, 0, 1, 3)
        return below

    @property
    def share(self) -> float:
        """Where the split view is to be cut, 0 to 1."""
        return float(self.slider.value() / _STEPS)

    def enable(self, ready: bool, active: bool, ok: bool, present: bool, chosen: int) -> None:
        """Offer what can be done now.

        Parameters
        ----------
        ready, active : bool
            Whether a comparison can start; whether one runs.
        ok : bool
            Whether any candidate has a file.
        present : bool
            Whether the source is still in the viewer, which everything is looked at beside.
        chosen : int
            How many candidates with a file are selected.
        """
        self.buttons["compare"].setEnabled(ready)
        self.buttons["stop"].setEnabled(active)
        for key in ("show", "flicker", "split"):
            self.buttons[key].setEnabled(present and chosen > 0)
        for key in ("grid", "best", "single"):
            self.buttons[key].setEnabled(present and ok)
        self.export.setEnabled(ok)

    def show_expected(self, text: str) -> None:
        """Say how long a comparison will take; nothing if that is empty."""
        self.expected.setText(text)
        self.expected.setVisible(bool(text))

    def show_progress(self, text: str, done: int, total: int, active: bool, failed: bool) -> None:
        """Say where the comparison stands."""
        self.status.setText(text)
        self.status.setStyleSheet("color: #e8795a" if failed else "")
        self.bar.setVisible(active)
        self.bar.setRange(0, total)  # 0 of 0: busy
        self.bar.setValue(done)

    def explain(self, legend: Legend) -> None:
        """Say what the colours on the canvas mean, see :func:`legend_of`; nothing if that is empty.

        Here and not on the canvas, where a colour bar would lie on the image.
        """
        lines = []
        for colours, text in legend:
            squares = "".join(f'<span style="color:{colour}">■</span>' for colour in colours)
            lines.append(f"{squares} {escape(text)}" if colours else f"<b>{escape(text)}</b>")
        self.explained = legend
        self.legend.setText("<br>".join(lines))
        self.legend.setVisible(bool(legend))

    def show_task(self, saying: str) -> None:
        """Say what is being done beside the comparison; nothing if that is empty."""
        self.task.setText(f"{saying}…")
        self.task.setVisible(bool(saying))

    def _on_press(self) -> None:
        sender = self.sender()
        assert sender is not None
        self.pressed.emit(sender.objectName())

    def _on_export(self, action: Any) -> None:
        self.exported.emit(action.data())

    def _on_octants(self, shown: bool) -> None:
        self.octants_toggled.emit(shown)

    def _on_slider(self) -> None:
        self.split_moved.emit(self.share)


class Findings(QWidget):
    """What to use, the plot, how the candidates did, and what is advised for networks."""

    measure_changed = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.plot, self.measures = PlotView(), QComboBox()
        self.answer, self.words = QLabel(), QLabel()
        for label in (self.answer, self.words):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for key, text in MEASURES.items():
            self.measures.addItem(text, key)
        self.measures.setToolTip("What the plot shows")
        self.measures.currentIndexChanged.connect(self._on_measure)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.answer, self.measures, self.plot, self.words):
            layout.addWidget(part)

    @property
    def measure(self) -> str:
        """What is plotted, a column of the table."""
        return str(self.measures.currentData())

    def show_words(self, answer: str, verdict: str, advice: str) -> None:
        """Show what to use first; below the plot how the candidates did, and last what is advised for networks."""
        self.answer.setText("".join(f"<p><b>{escape(line)}</b></p>" for line in answer.splitlines()))
        self.answer.setVisible(bool(answer))
        paragraphs = [escape(line) for line in verdict.splitlines()]
        paragraphs += [f"To use a network (model tinc): {escape(advice)}"] * bool(advice)
        self.words.setText("".join(f"<p>{paragraph}</p>" for paragraph in paragraphs))

    def _on_measure(self) -> None:
        self.measure_changed.emit(self.measure)


def legend_of(
    found: Sequence[tuple[str, str, float]], ratio: float, limits: tuple[float, float] | None = None
) -> Legend:
    """List the colours of a map of the best: name, colour and share of the octants; and of the grid's PSNR."""
    legend: list[tuple[Sequence[str], str]] = [((), f"{ratio:g} times smaller")] * bool(found)
    legend += [((colour,), f"{name}: best in {share:.0%} of the octants") for name, colour, share in found]
    if limits is not None:
        colours = [f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}" for r, g, b in BAD_TO_GOOD]
        legend.append((colours, f"{limits[0]:.1f} to {limits[1]:.1f} dB, PSNR of the octants"))
    return legend


__all__ = ["BUTTONS", "Controls", "Findings", "legend_of"]
