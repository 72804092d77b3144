"""A widget in a dock that scrolls, and follows the viewer's layers as long as it is there."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_tinc.plugin.viewers import raw_viewer

_WIDTH = 340  # pixels that the fields and a scroll bar need; a dock in napari's right area starts as narrow as it may


class DockedWidget(QWidget):
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
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setWidget(inner)
        self.area.setMinimumWidth(_WIDTH)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.area)

    def event(self, event: Any) -> bool:
        """Notice that the dock was closed: napari then only takes the widget out of it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                self._leave()
            else:
                self._follow_viewer()
        return bool(super().event(event))

    def _viewer_events(self) -> list[tuple[Any, Any]]:
        """What the widget listens to: emitters and slots."""
        events = self.viewer.layers.events
        return [(emitter, self._layers_changed) for emitter in (events.inserted, events.removed, events.reordered)]

    def _follow_viewer(self) -> None:
        for emitter, slot in self._viewer_events():
            emitter.connect(slot)

    def _leave(self) -> None:
        for emitter, slot in self._viewer_events():
            emitter.disconnect(slot)

    def _layers_changed(self) -> None:
        self.form.refresh_layers()
        self._read_form()

    def _read_form(self) -> None:
        """Bring the model up to date with the form, and show what comes of it."""
        raise NotImplementedError
