"""Original and decoded side by side, in one camera and one contrast."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from napari.experimental import link_layers, unlink_layers

_LINKED = ("contrast_limits", "gamma", "colormap", "rendering", "interpolation2d", "interpolation3d")
_KEY = "tinc_comparison"


def toggle_comparison(viewer: ViewerModel, source_layer: Any, result_layer: Any) -> None:
    """Show original and decoded side by side; called again for this result, go back to the single view.

    Parameters
    ----------
    viewer : ViewerModel
    source_layer : Image
        The original.
    result_layer : Image
        A result layer, see :func:`napari_tinc.plugin.layers.add_result`.
    """
    running = result_layer.metadata.get(_KEY)
    if running is not None:
        running.stop()
        return
    for layer in viewer.layers:
        if other := layer.metadata.get(_KEY):
            other.stop()
    result_layer.metadata[_KEY] = Comparison(viewer, source_layer, result_layer)


class Comparison:
    """Two layers in napari's grid, titled and linked; all others are hidden meanwhile.

    It ends when either is removed or the user leaves the grid, and leaves the viewer as it was.
    """

    def __init__(self, viewer: Any, source: Any, result: Any) -> None:
        self._viewer, self._source, self._result = viewer, source, result
        grid = viewer.canvas.grid
        self._visible = [(layer, layer.visible) for layer in viewer.layers]
        self._titled = [(layer, layer.name_overlay.visible) for layer in (source, result)]
        self._grid = grid.stride, grid.shape
        if flicker := result.metadata.get("tinc_flicker"):
            flicker.stop()
        for layer in viewer.layers:
            layer.visible = layer is source or layer is result
        for layer in (source, result):
            layer.name_overlay.visible = True
        link_layers((source, result), _LINKED)
        grid.stride, grid.shape, grid.enabled = 1, (1, 2), True
        viewer.reset_view()
        viewer.layers.events.removed.connect(self._removed)
        grid.events.enabled.connect(self._left)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copy nothing: a duplicate of the layer is not compared."""

    def stop(self) -> None:
        """Go back to the single view."""
        grid = self._viewer.canvas.grid
        self._viewer.layers.events.removed.disconnect(self._removed)
        grid.events.enabled.disconnect(self._left)
        self._result.metadata.pop(_KEY, None)
        unlink_layers((self._source, self._result), _LINKED)
        for layer, titled in self._titled:
            layer.name_overlay.visible = titled
        grid.enabled = False
        grid.stride, grid.shape = self._grid
        for layer, visible in self._visible:
            layer.visible = visible
        for layer, _ in self._visible:
            if overlay := layer.metadata.get("tinc_overlay"):
                overlay.switch()  # the display may have gone from 2-D to 3-D meanwhile
        self._viewer.reset_view()

    def _removed(self, event: Any) -> None:
        if event.value in (self._source, self._result):
            self.stop()

    def _left(self) -> None:
        if not self._viewer.canvas.grid.enabled:
            self.stop()


__all__ = ["Comparison", "toggle_comparison"]
