"""Two layers in turn: what differs between them jumps to the eye."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QTimer

from napari_tinc.plugin.compare import stop_views
from napari_tinc.plugin.difference import swap

_MILLISECONDS = 500
_KEY = "tinc_flicker"


def toggle_flicker(viewer: Any, first: Any, second: Any) -> None:
    """Swap two layers twice a second; called again for the second one, stop."""
    running = second.metadata.get(_KEY)
    if running is not None:
        running.stop()
        return
    Flicker(viewer, first, second)


class Flicker:
    """Two layers in turn, all others hidden. Stops when either is removed, and leaves the second to be seen."""

    def __init__(self, viewer: Any, first: Any, second: Any) -> None:
        stop_views(viewer)
        self._viewer, self._first, self._second = viewer, first, second
        self._visible = [(layer, layer.visible) for layer in viewer.layers]
        for layer in viewer.layers:
            layer.visible = layer is second
        second.metadata[_KEY] = self
        self._timer = QTimer()
        self._timer.timeout.connect(self._swap)
        viewer.layers.events.removed.connect(self._removed)
        self._timer.start(_MILLISECONDS)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copy nothing: a duplicate of the layer does not flicker."""

    def stop(self) -> None:
        """End it."""
        self._timer.stop()
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._second.metadata.pop(_KEY, None)
        for layer, visible in self._visible:
            layer.visible = visible
        self._second.visible = True

    def _swap(self) -> None:
        swap(self._first, self._second)

    def _removed(self, event: Any) -> None:
        if event.value in (self._first, self._second):
            self.stop()


__all__ = ["Flicker", "toggle_flicker"]
