"""Two layers in turn: what differs between them jumps to the eye."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QTimer

from napari_tinc.plugin.layers.difference import swap
from napari_tinc.plugin.layers.side_by_side import Titles, View, share_looks, stop_view
from napari_tinc.plugin.window.canvas import laid_out_once

_MILLISECONDS = 500


def toggle_flicker(viewer: Any, first: Any, second: Any) -> None:
    """Swap two layers twice a second; called again for the second one, stop."""
    if not stop_view(second, Flicker):
        Flicker(viewer, first, second)


class Flicker(View):
    """Two layers in turn in the looks of the first one, each with its name on the canvas, all others hidden.

    Stops when either is removed, and leaves the second to be seen.
    """

    def __init__(self, viewer: Any, first: Any, second: Any) -> None:
        super().__init__(viewer, [first, second])
        self._titles = Titles(self._layers)
        self._begin()
        with laid_out_once(viewer):
            share_looks(self._layers)
            self._titles.show()
            self._show_only(self._layers[1:])
        self._timer = QTimer()
        self._timer.timeout.connect(self._swap)
        self._timer.start(_MILLISECONDS)

    def _restore(self) -> None:
        self._timer.stop()
        self._titles.restore()
        super()._restore()
        self._layers[1].visible = True

    def _swap(self) -> None:
        swap(*self._layers)


__all__ = ["Flicker", "toggle_flicker"]
