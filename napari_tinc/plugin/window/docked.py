"""A widget in a dock that scrolls, and follows the viewer's layers as long as it is there."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDockWidget,
    QFrame,
    QMainWindow,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_tinc.plugin.window.viewers import raw_viewer

_WIDTH = 340  # pixels that the fields and a scroll bar need; a dock in napari's right area starts as narrow as it may


def to_front(widget: QWidget) -> None:
    """Show the dock of a widget, in front of those that share its place; nothing without a dock."""
    dock = widget.parent()
    if isinstance(dock, QDockWidget):
        dock.show()  # or it would not come to the front
        dock.raise_()


class TabbedWidget(QWidget):
    """A widget that shares a place with the docks beside it, rather than the height of the window.

    napari puts what is opened from its menu below what is there, and has no setting for that.
    """

    viewer: Any

    def event(self, event: Any) -> bool:
        """Notice that the dock was opened or closed: napari then only puts the widget into it, or takes it out."""
        if event.type() == QEvent.Type.ParentChange:
            self._leave() if self.parent() is None else self._enter()
        return bool(super().event(event))

    def _enter(self) -> None:
        QTimer.singleShot(0, self._tab)  # when the dock has its place in the window

    def _leave(self) -> None:
        """Nothing is to be done."""

    def _tab(self) -> None:
        dock, window = self.parent(), self.window()
        if not isinstance(dock, QDockWidget) or not isinstance(window, QMainWindow) or dock.isFloating():
            return
        for widget in self.viewer.window.dock_widgets.values():
            other = getattr(widget, "native", widget).parent()
            beside = isinstance(other, QDockWidget) and window.dockWidgetArea(other) == window.dockWidgetArea(dock)
            if beside and other is not dock and not other.isFloating() and not other.isHidden():
                window.tabifyDockWidget(other, dock)
                to_front(self)
                return


class DockedWidget(TabbedWidget):
    """The form and what is below it, one under the other.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    form: Any
    area: QScrollArea

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = raw_viewer(viewer)

    def _stack(self, *parts: Any) -> None:
        """Lay widgets and layouts out below one another, in a scroll area."""
        inner = QFrame()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(4)  # all of a result fits a window of 860 pixels
        for part in parts:
            layout.addWidget(part) if isinstance(part, QWidget) else layout.addLayout(part)
        layout.addStretch()
        self._wheel = WheelScrolls(self)
        for kind in (QComboBox, QAbstractSpinBox, QSlider):
            for field in inner.findChildren(kind):
                self._wheel.guard(field)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setWidget(inner)
        self.area.setMinimumWidth(_WIDTH)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.area)

    def _enter(self) -> None:
        super()._enter()
        self._follow_viewer()

    def _viewer_events(self) -> list[tuple[Any, Any]]:
        """What the widget listens to: emitters and slots."""
        events, active = self.viewer.layers.events, self.viewer.layers.selection.events.active
        emitters = events.inserted, events.removed, events.reordered, events.renamed, active
        return [(emitter, self._layers_changed) for emitter in emitters]

    def _follow_viewer(self) -> None:
        for emitter, slot in self._viewer_events():
            emitter.connect(slot)

    def _leave(self) -> None:
        super()._leave()
        for emitter, slot in self._viewer_events():
            emitter.disconnect(slot)

    def _layers_changed(self) -> None:
        self.form.refresh_layers()
        self._read_form()

    def _read_form(self) -> None:
        """Bring the model up to date with the form, and show what comes of it."""
        raise NotImplementedError


class WheelScrolls(QObject):
    """Keeps the mouse wheel from changing fields that one only passes over: they need the focus first."""

    def guard(self, field: Any) -> None:
        """Let a field have the wheel only while it has the focus, which the wheel does not give it."""
        field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        field.installEventFilter(self)

    def eventFilter(self, field: Any, event: Any) -> bool:  # noqa: N802
        """Leave the wheel to what is around the field."""
        if event.type() == QEvent.Type.Wheel and not field.hasFocus():
            event.ignore()
            return True
        return bool(super().eventFilter(field, event))
