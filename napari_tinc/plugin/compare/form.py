"""The form of the compare widget: fields, their tooltips, and what is ticked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from magicgui.widgets import ComboBox, FloatSpinBox, Label, LineEdit
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_tinc.choices import FAMILIES, PRESETS
from napari_tinc.compare.candidates import EXTRA_STRATEGIES, OF_FAMILIES, STRATEGIES
from napari_tinc.compare.peers import PEERS
from napari_tinc.plugin.compare.model import DEFAULT_BAR, Choice
from napari_tinc.plugin.window.layer_form import LayerForm, rows_of

TOOLTIPS = {
    "source": "The image to compare on. Multiscale layers are compared at full resolution.",
    "ratios": "How many times smaller every file has to be; several numbers give curves, such as 64, 256.",
    "size": "Size of the volume, and the largest size allowed for the files.",
    "preset": "How long our own strategies train: balanced takes 4 times as long as fast, best 20 times.",
    "mask": "The true foreground (not 0), if you have it: Dice and centreline Dice are also measured against it.",
    "bar": "PSNR in dB that every octant should reach; the table shows the share of octants below it.",
}
_LABELS = {
    "source": "Source", "ratios": "Times smaller", "size": "Bytes", "preset": "Preset", "mask": "True mask",
    "bar": "PSNR wanted",
}  # fmt: skip
_STRATEGY_TIPS = {
    "default": "The default settings of Compress: wavelets, and a network where it makes the file better.",
    "wavelet": "The wavelet layer without a network: a second or two.",
} | {family.name: f"{family.summary[0].upper()}{family.summary[1:]}." for family in FAMILIES.values()}
_NETWORK_TIP = "A tree of networks alone; {} between levels, {} within a level."
_TICK_TIPS = {"Families": "Tick one of each kind of network, and the wavelets that they must beat"}
_PEER_TIP = "{}, at the best setting whose file fits the size."


class CompareForm(LayerForm):
    """The form of the compare widget."""

    labels = _LABELS
    tooltips = TOOLTIPS

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        rows = rows_of(
            self._field("source", ComboBox, choices=self._images, nullable=True),
            self._field("ratios", LineEdit, value="64"),
            self._field("size", Label, value=""),
            self._field("preset", ComboBox, choices=PRESETS, value="fast"),
            self._field("mask", ComboBox, choices=self._masks, nullable=True),
            self._field("bar", FloatSpinBox, min=0, max=200, value=DEFAULT_BAR, step=1),
        )
        self.fields["bar"].native.setSuffix(" dB")
        strategies = [*STRATEGIES, *EXTRA_STRATEGIES]
        self.boxes = {name: self._box(name) for name in (*strategies, *PEERS)}
        self.tick(STRATEGIES)
        self.folded = QCollapsible("Strategies and codecs")
        for title, names, columns in (("Our strategies", strategies, 2), ("Codecs", tuple(PEERS), 3)):
            self.folded.addWidget(self._group(title, names, columns))
        layouts: Any = self.folded.layout(), self.folded.content().layout()
        for layout in layouts:
            layout.setContentsMargins(0, 0, 0, 0)  # or the names of the strategies would widen the dock
        self._lay_out(rows, self.folded)

    def _box(self, name: str) -> QCheckBox:
        box = QCheckBox(name)
        between, _, within = name.partition("/")
        known = _STRATEGY_TIPS.get(name) or (_PEER_TIP.format(name) if name in PEERS else "")
        box.setToolTip(known or _NETWORK_TIP.format(between, within))
        box.toggled.connect(self._tell)
        return box

    def _group(self, title: str, names: Sequence[str], columns: int) -> QWidget:
        """A title with All and None beside it, and the boxes below."""
        group = QWidget()
        head, grid = QHBoxLayout(), QGridLayout()
        head.addWidget(QLabel(title))
        head.addStretch()
        presets: dict[str, Sequence[str]] = {"All": names, "None": ()}
        if OF_FAMILIES[0] in names:
            presets = {"Families": OF_FAMILIES} | presets
        for text, ticked in presets.items():
            button = QPushButton(text)
            button.setToolTip(_TICK_TIPS.get(text, f"Tick {text.lower()} of them"))
            button.setFixedWidth(70 if text in _TICK_TIPS else 50)
            button.clicked.connect(lambda _=False, ticked=ticked, names=names: self._tick_group(names, ticked))
            head.addWidget(button)
        for number, name in enumerate(names):
            grid.addWidget(self.boxes[name], number // columns, number % columns)
        grid.setVerticalSpacing(2)
        grid.setHorizontalSpacing(4)
        layout = QVBoxLayout(group)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(head)
        layout.addLayout(grid)
        return group

    def _tick_group(self, names: Sequence[str], ticked: Sequence[str]) -> None:
        for name in names:
            self.boxes[name].setChecked(name in ticked and self.boxes[name].isEnabled())

    def tick(self, names: Sequence[str]) -> None:
        """Tick these and no others."""
        for name, box in self.boxes.items():
            box.setChecked(name in names)

    def show_missing(self, reasons: Mapping[str, str]) -> None:
        """Grey out the codecs that cannot be used here; the tooltip says why."""
        for name, reason in reasons.items():
            self.boxes[name].setChecked(False)
            self.boxes[name].setEnabled(False)
            self.boxes[name].setToolTip(f"Not available: {reason}")

    def read(self) -> Choice:
        """Return what the user has entered."""
        ticked = [name for name, box in self.boxes.items() if box.isChecked()]
        return Choice(
            ratios=self.fields["ratios"].value,
            preset=self.fields["preset"].value,
            strategies=tuple(name for name in ticked if name not in PEERS),
            peers=tuple(name for name in ticked if name in PEERS),
            bar=self.fields["bar"].value,
        )
