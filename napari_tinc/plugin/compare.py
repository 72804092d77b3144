"""Original and decoded, one or several, side by side in one camera and one contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.components import ViewerModel
from napari.experimental import link_layers, unlink_layers

_LINKED = ("contrast_limits", "gamma", "colormap", "rendering", "interpolation2d", "interpolation3d")
_KEY = "tinc_comparison"
# Under these a layer's metadata holds what shows it together with others for a while: each has a method ``stop``.
_VIEWS = (_KEY, "tinc_flicker", "tinc_split")


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
    Comparison(viewer, [[source_layer], [result_layer]])


def stop_views(viewer: ViewerModel) -> None:
    """End every grid, flicker and split view there is."""
    for layer in list(viewer.layers):
        for key in _VIEWS:
            if running := layer.metadata.get(key):
                running.stop()


class Comparison:
    """Layers in napari's grid, titled and linked; all others are hidden meanwhile.

    It ends when one of them is removed or the user leaves the grid, and leaves the viewer as it was.

    Parameters
    ----------
    viewer : ViewerModel
    cells : sequence of sequences of layers
        Per cell an image, the original's first, and what lies over it; all cells have equally many layers.
    temporary : bool
        Whether what lies over the images was added for the grid and is removed with it.
    overlays : bool
        Whether what lies over the images is shown.
    """

    def __init__(
        self, viewer: Any, cells: Sequence[Sequence[Any]], temporary: bool = False, overlays: bool = False
    ) -> None:
        stop_views(viewer)
        self._viewer, self._cells, self._temporary = viewer, cells, temporary
        self.running, self._switching = True, False
        self._images = [cell[0] for cell in cells]
        grid = viewer.canvas.grid
        self._order = list(viewer.layers)
        self._visible = [(layer, layer.visible) for layer in viewer.layers]
        self._titled = [(layer, layer.name_overlay.visible) for layer in self._images]
        self._grid = grid.stride, grid.shape
        for layer in viewer.layers:
            layer.visible = layer in self._images
        self._show(overlays)
        for layer in self._images:
            layer.name_overlay.visible = True
        for layer in self._images[1:]:  # the original stays the user's own layer
            layer.metadata[_KEY] = self
        link_layers(self._images, _LINKED)
        # napari counts all layers into cells, from the first on, hidden ones as well.
        _reorder(viewer, [layer for cell in cells for layer in cell])
        grid.stride, grid.shape, grid.enabled = len(cells[0]), (-1, -1), True
        viewer.reset_view()
        viewer.layers.events.removed.connect(self._removed)
        grid.events.enabled.connect(self._left)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copy nothing: a duplicate of the layer is not compared."""

    def show_overlays(self, shown: bool) -> None:
        """Show or hide what lies over the images."""
        # In a grid, napari 0.9 lays all cells out anew for each layer that is shown or hidden: a tenth of a second.
        self._switching, self._viewer.canvas.grid.enabled = True, False
        try:
            self._show(shown)
        finally:
            self._switching, self._viewer.canvas.grid.enabled = False, True

    def _show(self, shown: bool) -> None:
        for cell in self._cells:
            for layer in cell[1:]:
                layer.visible = shown

    def picture(self) -> tuple[Any, list[tuple[float, float, str]]]:
        """Take a picture without titles; see :meth:`napari_tinc.plugin.compare_views.CandidateViews.picture`."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        rows, columns = grid.actual_shape(layers)
        titles = []
        for layer in self._images:
            row, column = grid.position(layers.index(layer), layers)
            titles.append((column / columns, row / rows, layer.name))
            layer.name_overlay.visible = False
        try:
            return self._viewer.screenshot(flash=False), titles
        finally:
            for layer in self._images:
                layer.name_overlay.visible = True

    def stop(self) -> None:
        """Go back to the single view."""
        self.running = False
        grid = self._viewer.canvas.grid
        self._viewer.layers.events.removed.disconnect(self._removed)
        grid.events.enabled.disconnect(self._left)
        for layer in self._images:
            layer.metadata.pop(_KEY, None)
        unlink_layers(self._images, _LINKED)
        for layer, titled in self._titled:
            layer.name_overlay.visible = titled
        grid.enabled = False
        grid.stride, grid.shape = self._grid
        _reorder(self._viewer, self._order)
        for layer, visible in self._visible:
            layer.visible = visible
        if self._temporary:
            for layer in [layer for cell in self._cells for layer in cell[1:]]:
                if layer in self._viewer.layers:
                    self._viewer.layers.remove(layer)
        for layer, _ in self._visible:
            if overlay := layer.metadata.get("tinc_overlay"):
                overlay.switch()  # the display may have gone from 2-D to 3-D meanwhile
        self._viewer.reset_view()

    def _removed(self, event: Any) -> None:
        if any(event.value in cell for cell in self._cells):
            self.stop()

    def _left(self) -> None:
        if not self._viewer.canvas.grid.enabled and not self._switching:
            self.stop()


def _reorder(viewer: Any, wanted: Sequence[Any]) -> None:
    """Put layers first, in this order; those that are not in the viewer any more are skipped."""
    present = [layer for layer in wanted if layer in viewer.layers]
    for place, layer in enumerate(present):
        if viewer.layers.index(layer) != place:
            viewer.layers.move(viewer.layers.index(layer), place)


__all__ = ["Comparison", "stop_views", "toggle_comparison"]
