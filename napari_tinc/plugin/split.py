"""One image, left of a line the original and right of it the decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Vectors

from napari_tinc.plugin.compare import stop_views
from napari_tinc.plugin.compress_model import full_resolution
from napari_tinc.plugin.layers import LOOKS

_KEY = "tinc_split"
_LINE = "#ffb000"


class Split:
    """A layer made of two, cut across the last axis; all others are hidden meanwhile.

    It is for slices: it ends when the viewer goes to 3-D or turns its axes, or when one of the layers is removed.

    Parameters
    ----------
    viewer : ViewerModel
    original : array
        Without channel axis, in the shape of the decoded.
    decoded : Image
        The layer on the right.
    share : float
        Where the cut is, 0 to 1 of the width.
    """

    def __init__(self, viewer: Any, original: Any, decoded: Any, share: float) -> None:
        stop_views(viewer)
        self._viewer, self._decoded = viewer, decoded
        self.running = True
        self._halves = Halves(original, full_resolution(decoded), share)
        place = {name: getattr(decoded, name) for name in ("scale", "translate", "units", "axis_labels")}
        looks = {name: getattr(decoded, name) for name in (*LOOKS, "contrast_limits", "colormap", "blending")}
        self._visible = [(layer, layer.visible) for layer in viewer.layers]
        for layer in viewer.layers:
            layer.visible = False
        title = f"original | {decoded.name}"
        self.image = Image(self._halves, name=title, metadata={_KEY: self}, multiscale=False, **place, **looks)
        plane = {"scale": decoded.scale[-2:], "translate": decoded.translate[-2:], "units": decoded.units[-2:]}
        self.line = Vectors(
            self._cut(), name="split", edge_color=_LINE, vector_style="line", metadata={"tinc_derived": True},
            edge_width=max(self._halves.shape[-2:]) / 400, **plane,
        )  # fmt: skip
        viewer.add_layer(self.image)
        viewer.add_layer(self.line)
        viewer.layers.selection.active = self.image
        viewer.dims.events.ndisplay.connect(self.stop)
        viewer.dims.events.order.connect(self.stop)
        viewer.layers.events.removed.connect(self._removed)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Copy nothing: a duplicate of the layer is a picture of the moment."""

    def move(self, share: float) -> None:
        """Put the cut somewhere else; what is shown is not decoded again."""
        self._halves.share = share
        self.line.data = self._cut()
        self.image.refresh()

    def stop(self) -> None:
        """Go back to what was shown before."""
        self.running = False
        self._viewer.dims.events.ndisplay.disconnect(self.stop)
        self._viewer.dims.events.order.disconnect(self.stop)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self.image.metadata.pop(_KEY, None)
        for layer in (self.image, self.line):
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        for layer, visible in self._visible:
            layer.visible = visible

    def _removed(self, event: Any) -> None:
        if event.value in (self.image, self.line, self._decoded):
            self.stop()

    def _cut(self) -> Any:
        height = self._halves.shape[-2]
        return np.array([[[0, self._halves.column - 0.5], [height - 1, 0]]])


class Halves:
    """An array whose columns come from one array up to a cut, and from another behind it.

    Both are read only where they are looked at, and what was read last is kept: moving the cut reads nothing.
    """

    def __init__(self, left: Any, right: Any, share: float) -> None:
        self._left, self._right, self.share = left, right, share
        self.shape, self.dtype, self.ndim = tuple(right.shape), np.dtype(right.dtype), len(right.shape)
        self._last: tuple[Any, ...] = ()

    @property
    def column(self) -> int:
        """The first column of the right half."""
        width: int = self.shape[-1]
        return round(self.share * width)

    def __getitem__(self, index: Any) -> Any:
        key = repr(index)
        if not self._last or self._last[0] != key:
            self._last = key, np.asarray(self._left[index]), np.asarray(self._right[index])
        _, left, right = self._last
        entries = index if isinstance(index, tuple) else (index,)
        columns = np.arange(self.shape[-1])
        if len(entries) == self.ndim:
            columns = columns[entries[-1]]
        return np.where(columns < self.column, left, right)


__all__ = ["Halves", "Split"]
