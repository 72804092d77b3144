"""A table of octants; choosing a row moves the view there."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QVBoxLayout, QWidget

from napari_tinc.plugin.layers.octants import MEASURES, OctantModel, go_to_octant
from napari_tinc.plugin.layers.results import is_result
from napari_tinc.plugin.window.docked import TabbedWidget, to_front
from napari_tinc.plugin.window.plain import plain_label
from napari_tinc.plugin.window.viewers import raw_viewer

TABLE_NAME = "Octant table"
_HINT = "Select a compressed volume: its octants are listed here."
_NARROWEST = 440  # all columns of a common volume
_FORMATS = {"psnr": "{:.1f}", "nbytes": "{:.0f}", "max_error": "{:.4g}", "dice": "{:.3f}"}


class OctantTable(TabbedWidget):
    """Octants of a result layer, the lowest PSNR first.

    Parameters
    ----------
    napari_viewer : ViewerModel
    result_layer : Image, optional
        By default the active layer, as soon as it shows a compressed volume.
    """

    def __init__(self, napari_viewer: ViewerModel, result_layer: Any = None) -> None:
        super().__init__()
        self.viewer = raw_viewer(napari_viewer)
        self.model: OctantModel | None = None
        self.title = plain_label(_HINT, wrapped=True)
        self.table: Any = QTableView()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setSortingEnabled(True)
        self.table.setToolTip("Choose a row to move the view to the octant; click a title to sort by it.")
        self.table.setMinimumWidth(_NARROWEST)
        layout = QVBoxLayout(self)
        layout.addWidget(self.title)
        layout.addWidget(self.table)
        self.show_octants(result_layer)
        self.viewer.layers.selection.events.active.connect(self._on_active)
        self.viewer.layers.events.removed.connect(self._on_removed)

    def _on_active(self) -> None:
        self.show_octants(self.viewer.layers.selection.active)

    def _on_removed(self) -> None:
        if self.model is not None and self.model.layer not in self.viewer.layers:
            self.model = None
            self.table.setModel(None)
            self.title.setText(_HINT)

    def show_octants(self, layer: Any) -> None:
        """List the octants of a layer if it shows a compressed volume; else keep the list."""
        layer = layer or self.viewer.layers.selection.active
        if layer not in self.viewer.layers or not is_result(layer):
            return
        if self.model is not None and self.model.layer is layer:
            return
        self.model = OctantModel(layer)
        self.title.setText(f"{len(self.model.starts)} octants of {layer.name}")
        self.table.setModel(_Rows(self.model, self))
        self.table.verticalHeader().hide()
        self.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)

    def _on_row(self, current: QModelIndex) -> None:
        if self.model is not None and current.isValid():
            go_to_octant(self.viewer, self.model, self.table.model().octant(current.row()))


def toggle_table(viewer: Any, result_layer: Any) -> None:
    """List the octants of a result in the viewer's one table; if that is what it shows, close it.

    Parameters
    ----------
    viewer : napari.Viewer
    result_layer : Image
    """
    table = _table_in(viewer)
    if table is None:
        viewer.window.add_dock_widget(OctantTable(viewer, result_layer), name=TABLE_NAME, area="right", tabify=True)
    elif _in_front(table) and table.model is not None and table.model.layer is result_layer:
        close_table(viewer)
    else:
        table.show_octants(result_layer)
        to_front(table)


def close_table(viewer: Any) -> None:
    """Close the viewer's table of octants, if there is one."""
    table = _table_in(viewer)
    if table is not None:
        viewer.window.remove_dock_widget(table.parent())


def _in_front(table: QWidget) -> bool:
    """Whether the user sees the table, or would if the window were shown; not if it is behind another tab."""
    window = table.window()
    return not table.visibleRegion().isEmpty() or window is None or not window.isVisible()


def _table_in(viewer: Any) -> OctantTable | None:
    docked = (widget for widget in viewer.window.dock_widgets.values())
    return next((widget for widget in docked if isinstance(widget, OctantTable)), None)


class _Rows(QAbstractTableModel):
    """One row per octant: its measures, then where it lies."""

    def __init__(self, octants: OctantModel, parent: QWidget) -> None:
        super().__init__(parent)
        self._octants = octants
        self._order: npt.NDArray[np.intp] = np.arange(len(octants.starts))
        self._columns = list(MEASURES)
        self._titles = [*MEASURES.values(), f"voxels ({octants.axes})"]

    def octant(self, row: int) -> int:
        """Return the number of the octant in a row."""
        return int(self._order[row])

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        return 0 if parent is not None and parent.isValid() else len(self._titles)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:  # noqa: N802
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._titles[section]
        return None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() < len(self._columns):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        octant = self.octant(index.row())
        if index.column() < len(self._columns):
            name = self._columns[index.column()]
            return _FORMATS[name].format(self._octants.values[name][octant])
        spans = zip(self._octants.starts[octant], self._octants.stops[octant], strict=True)
        return ", ".join(f"{start}-{stop - 1}" for start, stop in spans)

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self.layoutAboutToBeChanged.emit()
        if column < len(self._columns):
            self._order = np.argsort(self._octants.values[self._columns[column]], kind="stable")
        else:
            self._order = np.lexsort(self._octants.starts.T[::-1])
        if order == Qt.SortOrder.DescendingOrder:
            self._order = self._order[::-1]
        self.layoutChanged.emit()


__all__ = ["TABLE_NAME", "OctantTable", "close_table", "toggle_table"]
