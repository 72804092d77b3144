"""The table of the compare widget: a row per candidate and ratio, sorted by any column."""

from __future__ import annotations

import math
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor, QStandardItem, QStandardItemModel
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_tinc.plugin.compare.model import CompareModel, Row
from napari_tinc.plugin.window.plain import plain_tip

# Column of the engine's table, title, format, what it means.
COLUMNS = (
    ("candidate", "Candidate", "", "Strategy and preset, or codec. Double-click a row to add it to the viewer."),
    ("target_ratio", "for", "g", "The ratio you asked for: times smaller"),
    ("psnr", "PSNR", ".2f", "dB over the volume's own range"),
    ("ssim", "SSIM", ".4f", "Structural similarity, 1 is equal"),
    ("dice", "Dice", ".3f", "Dice of the foreground at the threshold"),
    ("worst_octant_psnr", "worst", ".1f", "PSNR in dB of the worst octant"),
    ("octants_below_bar", "below", ".0%", "Share of octants below the PSNR wanted"),
    ("bytes", "bytes", ",.0f", "Size of the whole file"),
    ("ratio", "ratio", ".1f", "Raw bytes over file bytes"),
    ("cldice", "clDice", ".3f", "Centreline Dice at the threshold"),
    ("dice_mask", "Dice, mask", ".3f", "Dice against the true mask"),
    ("cldice_mask", "clDice, mask", ".3f", "Centreline Dice against the true mask"),
    ("max_error", "max. error", ".4g", "Largest error, in the volume's units"),
    ("encode_seconds", "encode", ".2f", "Seconds to encode; for other codecs the final run only"),
    ("decode_seconds", "decode", ".2f", "Seconds"),
    ("peak_bytes", "memory", ".3g", "Growth of the process in memory"),
)
_RATIO, _PSNR = 1, 2
_HEIGHT = 190
_NAME_WIDTH = 105  # pixels: PSNR, SSIM and Dice fit beside it in a dock as narrow as napari makes it
_MOST_LETTERS = 22  # of a problem; the tooltip has all of it


class CandidateTable(QTableView):
    """Rows of a :class:`CompareModel`; ``chosen`` carries its row numbers on every double click."""

    chosen = Signal(int)
    selected = Signal()

    def __init__(self, model: CompareModel) -> None:
        super().__init__()
        self._model = model
        self._rows = _Rows(model, self)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSortRole(Qt.ItemDataRole.UserRole)
        self._sorted.setSourceModel(self._rows)
        self.setModel(self._sorted)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setSortingEnabled(True)
        self.sortByColumn(_PSNR, Qt.SortOrder.DescendingOrder)
        self.setMinimumHeight(_HEIGHT)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        rows: Any = self.verticalHeader()
        rows.hide()
        rows.setDefaultSectionSize(20)
        titles: Any = self.horizontalHeader()
        titles.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        titles.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)  # long names are cut, numbers are not
        titles.resizeSection(0, _NAME_WIDTH)
        model.reset.connect(self._on_reset)
        model.row_changed.connect(self._on_row)
        self.doubleClicked.connect(self._on_double_click)
        selection: Any = self.selectionModel()
        self._selection = selection
        self._selection.selectionChanged.connect(self._on_selection)

    def chosen_rows(self) -> list[int]:
        """Numbers of the selected rows in the model, as they stand in the table."""
        return [self._sorted.mapToSource(index).row() for index in self._selection.selectedRows()]

    def show_colours(self, colours: dict[str, str]) -> None:
        """Show the candidates' colours in the plot beside their names."""
        self._rows.show_colours(colours)

    def choose(self, row: int) -> None:
        """Select a row of the model and scroll to it."""
        shown = self._sorted.mapFromSource(self._rows.index(row, 0))
        self.selectRow(shown.row())
        self.scrollTo(shown)

    def _on_reset(self) -> None:
        """Leave out the ratio that was asked for where it is the same everywhere: the form says it."""
        self.setColumnHidden(_RATIO, len({row.ratio for row in self._model.rows}) == 1)

    def _on_row(self) -> None:
        """Keep the best in sight while nobody has chosen anything."""
        if not self._selection.hasSelection():
            self.scrollToTop()

    def _on_double_click(self, index: QModelIndex) -> None:
        self.chosen.emit(self._sorted.mapToSource(index).row())

    def _on_selection(self) -> None:
        self.selected.emit()


class _Rows(QStandardItemModel):
    """What the table shows of the model's rows.

    The cells are kept on Qt's side. A model in Python is asked for every cell and count, hundreds of times for each
    change, and every time waits for Python's lock while a thread draws the plot.
    """

    def __init__(self, model: CompareModel, parent: Any) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self._model = model
        for column, (_, title, _, meaning) in enumerate(COLUMNS):
            head = QStandardItem(title)
            head.setToolTip(meaning)
            self.setHorizontalHeaderItem(column, head)
        model.reset.connect(self._reset)
        model.row_changed.connect(self._changed)

    def show_colours(self, colours: dict[str, str]) -> None:
        """Put the candidates' colours beside their names."""
        for number, row in enumerate(self._model.rows):
            if row.name in colours:
                self._cell(number, 0).setData(QColor(colours[row.name]), Qt.ItemDataRole.DecorationRole)

    def _cell(self, number: int, column: int) -> QStandardItem:
        item = self.item(number, column)
        assert item is not None
        return item

    def _reset(self) -> None:
        self.setRowCount(0)
        for row in self._model.rows:
            self.appendRow([_filled(QStandardItem(), row, column) for column in range(len(COLUMNS))])

    def _changed(self, number: int) -> None:
        row = self._model.rows[number]
        # A row that has not finished changes in what it is at.
        changed = range(len(COLUMNS)) if row.result is not None else range(_PSNR, _PSNR + 1)
        self.blockSignals(True)  # one for the row, not one for every property of every cell
        for column in changed:
            _filled(self._cell(number, column), row, column)
        self.blockSignals(False)
        self.dataChanged.emit(self.index(number, changed[0]), self.index(number, changed[-1]))


def _filled(item: QStandardItem, row: Row, column: int) -> QStandardItem:
    value = _value(row, column)
    item.setEditable(False)
    item.setText(_text(row, column))
    # Qt would put what is empty before the largest.
    item.setData(-math.inf if value is None else value, Qt.ItemDataRole.UserRole)
    item.setToolTip(plain_tip(f"{row.title()}\n{row.status}".strip()))
    item.setData(None if row.ok else QColor("#999999"), Qt.ItemDataRole.ForegroundRole)
    if column and row.ok:
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item


def _text(row: Row, column: int) -> str:
    form = COLUMNS[column][2]
    value = _value(row, column)
    if value is not None:
        return "exact" if value == math.inf else format(value, form)
    if column != _PSNR:
        return ""
    return row.status if len(row.status) <= _MOST_LETTERS else row.status[:_MOST_LETTERS] + "…"


def _value(row: Row, column: int) -> Any:
    """The cell's value for sorting; None where there is none (yet)."""
    name = COLUMNS[column][0]
    if name == "candidate":
        return row.name if row.result is None else row.result.label
    if name == "target_ratio":
        return row.ratio
    value = row.values.get(name, math.nan)
    return None if math.isnan(value) else float(value)


__all__ = ["COLUMNS", "CandidateTable"]
