"""The table of the compare widget: a row per candidate and ratio, sorted by any column."""

from __future__ import annotations

import math
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_tinc.plugin.compare_model import CompareModel, Row

# Column of the engine's table, title, format, what it means.
COLUMNS = (
    ("candidate", "Candidate", "", "Strategy and preset, or codec. Double-click a row to put it into the viewer."),
    ("target_ratio", "for", "g", "Times smaller that was asked for"),
    ("psnr", "PSNR", ".2f", "dB over the volume's own range"),
    ("ssim", "SSIM", ".4f", "Structural similarity, 1 is equal"),
    ("dice", "Dice", ".3f", "Dice of the foreground at the threshold"),
    ("worst_octant_psnr", "worst", ".1f", "PSNR in dB of the worst octant"),
    ("octants_below_bar", "below", ".0%", "Share of octants below the PSNR wanted"),
    ("bytes", "bytes", ",.0f", "Size of the file, all of it"),
    ("ratio", "ratio", ".1f", "Raw bytes over file bytes"),
    ("cldice", "clDice", ".3f", "Centreline Dice at the threshold"),
    ("dice_mask", "Dice, mask", ".3f", "Dice against the true mask"),
    ("cldice_mask", "clDice, mask", ".3f", "Centreline Dice against the true mask"),
    ("max_error", "max. error", ".4g", "Largest error, in the volume's units"),
    ("encode_seconds", "encode", ".2f", "Seconds; a codec's final run only"),
    ("decode_seconds", "decode", ".2f", "Seconds"),
    ("peak_bytes", "memory", ".3g", "Bytes that the process grew by"),
)
_PSNR = 2
_HEIGHT = 190
_MOST_LETTERS = 22  # of a problem; the tooltip has all of it


class CandidateTable(QTableView):
    """Rows of a :class:`CompareModel`; ``chosen`` carries its row numbers on every double click."""

    chosen = Signal(int)
    selected = Signal()

    def __init__(self, model: CompareModel) -> None:
        super().__init__()
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
        self._rows.colours = colours
        self._rows.dataChanged.emit(self._rows.index(0, 0), self._rows.index(self._rows.rowCount() - 1, 0))

    def choose(self, row: int) -> None:
        """Select a row of the model and scroll to it."""
        shown = self._sorted.mapFromSource(self._rows.index(row, 0))
        self.selectRow(shown.row())
        self.scrollTo(shown)

    def _on_row(self) -> None:
        """Keep the best in sight while nobody has chosen anything."""
        if not self._selection.hasSelection():
            self.scrollToTop()

    def _on_double_click(self, index: QModelIndex) -> None:
        self.chosen.emit(self._sorted.mapToSource(index).row())

    def _on_selection(self) -> None:
        self.selected.emit()


class _Rows(QAbstractTableModel):
    """What the table shows of the model's rows."""

    def __init__(self, model: CompareModel, parent: Any) -> None:
        super().__init__(parent)
        self._model = model
        self.colours: dict[str, str] = {}
        model.reset.connect(self._reset)
        model.row_changed.connect(self._changed)

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        return 0 if parent is not None and parent.isValid() else len(self._model.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:  # noqa: N802
        if orientation != Qt.Orientation.Horizontal:
            return None
        shown = {Qt.ItemDataRole.DisplayRole: COLUMNS[section][1], Qt.ItemDataRole.ToolTipRole: COLUMNS[section][3]}
        return shown.get(Qt.ItemDataRole(role))

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        row, column = self._model.rows[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return _text(row, column)
            case Qt.ItemDataRole.UserRole:
                value = _value(row, column)
                return -math.inf if value is None else value  # Qt would put what is empty before the largest
            case Qt.ItemDataRole.DecorationRole if not column and row.name in self.colours:
                return QColor(self.colours[row.name])
            case Qt.ItemDataRole.ToolTipRole:
                return row.status or row.title()
            case Qt.ItemDataRole.ForegroundRole if not row.ok:
                return QColor("#999999")
            case Qt.ItemDataRole.TextAlignmentRole if column and row.ok:
                return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def _reset(self) -> None:
        self.beginResetModel()
        self.endResetModel()

    def _changed(self, row: int) -> None:
        self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))


def _text(row: Row, column: int) -> str:
    form = COLUMNS[column][2]
    value = _value(row, column)
    if value is not None:
        return format(value, form)
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
