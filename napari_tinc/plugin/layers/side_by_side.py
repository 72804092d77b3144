"""Original and decoded, one or several, side by side in one camera and one contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.components import ViewerModel
from napari.experimental import link_layers, unlink_layers
from qtpy.QtCore import QTimer

from napari_tinc.plugin.layers.results import LOOKS
from napari_tinc.plugin.window.canvas import laid_out_once

SHARED_LOOKS = ("contrast_limits", *LOOKS)
_KEY = "tinc_view"  # in a layer's metadata: the view that shows it together with others for a while
_FITS = 1.01  # a camera whose zoom is at most so many times the one that shows everything shows everything


def toggle_comparison(viewer: ViewerModel, source_layer: Any, result_layer: Any) -> None:
    """Show original and decoded side by side; called again for this result, go back to the single view.

    Parameters
    ----------
    viewer : ViewerModel
    source_layer : Image
        The original.
    result_layer : Image
        A result layer, see :func:`napari_tinc.plugin.layers.results.add_result`.
    """
    if not stop_view(result_layer, Comparison):
        Comparison(viewer, [[source_layer], [result_layer]])


def stop_view(layer: Any, kind: type[View]) -> bool:
    """End the view of this kind that a layer is shown in; tell whether there was one."""
    running = layer.metadata.get(_KEY)
    if not isinstance(running, kind):
        return False
    running.stop()
    return True


def stop_views(viewer: ViewerModel) -> None:
    """End the view there is, of whatever kind."""
    for layer in list(viewer.layers):
        stop_view(layer, View)


class View:
    """Some layers shown in a way of their own, all others hidden; at most one in a viewer.

    It ends when one of its layers is removed, and leaves the others as visible as they were.

    Parameters
    ----------
    viewer : ViewerModel
    layers : sequence of layers
        The original's, which stays the user's own, and others, which keep the view alive.
    temporary : sequence of layers
        Those that are there for the view alone, and removed with it.
    """

    def __init__(self, viewer: Any, layers: Sequence[Any], temporary: Sequence[Any] = ()) -> None:
        stop_views(viewer)
        self._viewer, self._layers = viewer, list(layers)
        self._temporary = list(temporary)
        self._visible = [(layer, layer.visible) for layer in viewer.layers]
        self.running = True

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copy nothing: a duplicate of the layer is an ordinary one."""

    def _begin(self) -> None:
        """Be found by :func:`stop_views`, and be told when a layer goes."""
        for layer in self._layers[1:]:
            layer.metadata[_KEY] = self
        self._viewer.layers.events.removed.connect(self._removed)

    def stop(self) -> None:
        """Go back to what was shown before."""
        if self.running:
            self._end()
            self._clear()

    def _end(self) -> None:
        self.running = False
        self._viewer.layers.events.removed.disconnect(self._removed)
        for layer in self._layers[1:]:
            layer.metadata.pop(_KEY, None)
        with laid_out_once(self._viewer):
            self._restore()

    def _clear(self) -> None:
        left = [layer for layer in self._temporary if layer in self._viewer.layers]
        if left:
            with laid_out_once(self._viewer, removing=True):
                for layer in left:
                    self._viewer.layers.remove(layer)

    def _show_only(self, shown: Sequence[Any]) -> None:
        for layer in self._viewer.layers:
            layer.visible = layer in shown

    def _restore(self) -> None:
        for layer, visible in self._visible:
            if layer in self._viewer.layers:
                layer.visible = visible

    def _removed(self, event: Any) -> None:
        if event.value in [*self._layers, *self._temporary]:
            self._end()
            if self._temporary:  # not now: the user may be about to remove them, too
                QTimer.singleShot(0, self._clear)


class Comparison(View):
    """Layers in napari's grid, titled, in the looks of the original; all others are hidden meanwhile.

    It ends when one of them is removed or the user leaves the grid. Looks that are changed meanwhile stay; so does
    where the camera was moved.

    Parameters
    ----------
    viewer : ViewerModel
    cells : sequence of sequences of layers
        Per cell an image, the original's first, and what lies over it; all cells have equally many layers.
    temporary : bool
        Whether what lies over the images was made for the grid: it is added when it is shown, and removed with the
        grid.
    overlays : bool
        Whether what lies over the images is shown.
    """

    def __init__(
        self, viewer: Any, cells: Sequence[Sequence[Any]], temporary: bool = False, overlays: bool = False
    ) -> None:
        self._cells = cells
        self._over = [layer for cell in cells for layer in cell[1:]]
        super().__init__(viewer, [cell[0] for cell in cells], self._over * temporary)
        self._order = list(viewer.layers)
        self._titles = Titles(self._layers)
        grid = viewer.canvas.grid
        self._grid = grid.stride, grid.shape
        self._zoom = _Zoom(viewer)
        self._begin()
        with laid_out_once(viewer):
            self._show_only(self._layers)
            self._titles.show()
            share_looks(self._layers)
            link_layers(self._layers, SHARED_LOOKS)
            self._arrange(overlays)
            grid.shape, grid.enabled = (-1, -1), True
        self._zoom.suit()
        grid.events.enabled.connect(self._left)

    def show_overlays(self, shown: bool) -> None:
        """Show or hide what lies over the images."""
        with laid_out_once(self._viewer):
            self._arrange(shown)

    def _arrange(self, overlays: bool) -> None:
        """Put each image into a cell, and over it what lies over it if that is to be shown."""
        active = self._viewer.layers.selection.active
        for layer in self._temporary * overlays:
            if layer not in self._viewer.layers:
                self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active
        for layer in self._over:
            layer.visible = overlays
        # napari counts all layers into cells, from the first on; cells of hidden layers alone are left out.
        cells = self._cells if overlays else [cell[:1] for cell in self._cells]
        _reorder(self._viewer, [layer for cell in cells for layer in cell])
        self._viewer.canvas.grid.stride = len(cells[0])

    def picture(self) -> tuple[Any, list[tuple[float, float, str]]]:
        """Take a picture without titles; see :meth:`napari_tinc.plugin.compare.views.CandidateViews.picture`."""
        layers, grid = self._viewer.layers, self._viewer.canvas.grid
        rows, columns = grid.actual_shape(layers)
        titles = []
        for layer in self._layers:
            row, column = grid.position(layers.index(layer), layers)
            titles.append((column / columns, row / rows, layer.name))
            layer.name_overlay.visible = False
        try:
            return self._viewer.screenshot(flash=False), titles
        finally:
            self._titles.show()

    def _restore(self) -> None:
        grid = self._viewer.canvas.grid
        grid.events.enabled.disconnect(self._left)
        unlink_layers(self._layers, SHARED_LOOKS)
        grid.enabled = False
        grid.stride, grid.shape = self._grid
        self._titles.restore()
        _reorder(self._viewer, self._order)
        super()._restore()
        for layer, _ in self._visible:
            if overlay := layer.metadata.get("tinc_overlay"):
                overlay.switch()  # the display may have gone from 2-D to 3-D meanwhile
        self._zoom.restore()

    def _left(self) -> None:
        if not self._viewer.canvas.grid.enabled:
            self.stop()


class Titles:
    """The names of layers on the canvas."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._before = [(layer, layer.name_overlay.visible) for layer in layers]

    def show(self) -> None:
        """Show them."""
        for layer, _ in self._before:
            layer.name_overlay.visible = True

    def restore(self) -> None:
        """Show those that were shown before."""
        for layer, visible in self._before:
            layer.name_overlay.visible = visible


class _Zoom:
    """The camera on its way into smaller cells and back: it stays where it was, unless it saw everything."""

    def __init__(self, viewer: Any) -> None:
        self._viewer, self._factor = viewer, 1.0
        self._fit = self._fitting()
        self._sees_all = viewer.scene.camera.zoom <= _FITS * self._fit

    def suit(self) -> None:
        """Go back from what was seen as a whole as far as the cells ask for."""
        if self._sees_all:
            self._factor = self._fitting() / self._fit
            self._viewer.scene.camera.zoom *= self._factor

    def restore(self) -> None:
        """Come as near again; what the user has changed since is kept."""
        self._viewer.scene.camera.zoom /= self._factor

    def _fitting(self) -> float:
        """The zoom that shows everything."""
        camera = self._viewer.scene.camera
        before = camera.center, camera.zoom
        self._viewer.fit_to_view()
        fit = float(camera.zoom)
        camera.center, camera.zoom = before
        return fit


def share_looks(layers: Sequence[Any]) -> None:
    """Give all images the looks of the first one."""
    for layer in layers[1:]:
        for look in SHARED_LOOKS:
            setattr(layer, look, getattr(layers[0], look))


def _reorder(viewer: Any, wanted: Sequence[Any]) -> None:
    """Put layers first, in this order; those that are not in the viewer any more are skipped."""
    present = [layer for layer in wanted if layer in viewer.layers]
    for place, layer in enumerate(present):
        if viewer.layers.index(layer) != place:
            viewer.layers.move(viewer.layers.index(layer), place)


__all__ = ["Comparison", "Titles", "View", "share_looks", "stop_view", "stop_views", "toggle_comparison"]
