"""One image, left of a line the original and right of it the decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image

from napari_tinc.plugin.compress.model import full_resolution
from napari_tinc.plugin.layers.place import coarser, linear_of, place_of
from napari_tinc.plugin.layers.side_by_side import SHARED_LOOKS, View
from napari_tinc.plugin.window.canvas import laid_out_once

_LINE = (255, 176, 0, 255)  # RGBA, of an image of one pixel a plane
_THIN = 400  # the line takes one such part of the width


class Split(View):
    """A layer made of two, cut across the last axis; all others are hidden meanwhile.

    It is for slices: it ends when the viewer goes to 3-D or turns its axes, or when one of the layers is removed.

    Parameters
    ----------
    viewer : ViewerModel
    source : Image
        The original's layer, whose looks are shown; of the same shape as the decoded.
    decoded : Image
        The layer on the right.
    share : float
        Where the cut is, 0 to 1 of the width.
    """

    def __init__(self, viewer: Any, source: Any, decoded: Any, share: float) -> None:
        self._halves = Halves(full_resolution(source), full_resolution(decoded), share)
        self._place = place_of(decoded)
        looks = {name: getattr(source, name) for name in SHARED_LOOKS}
        title = f"original | {decoded.name}"
        self.image = Image(self._halves, name=title, multiscale=False, **self._place, **looks)
        pixel = np.broadcast_to(np.array(_LINE, np.uint8), (*self._halves.shape[:-2], 1, 1, len(_LINE)))
        self.line = Image(pixel, rgb=True, name="split", metadata={"tinc_derived": True}, **self._at_cut())
        super().__init__(viewer, [decoded, self.image, self.line], [self.image, self.line])
        self._begin()
        with laid_out_once(viewer):
            self._show_only([])
            viewer.add_layer(self.image)
            viewer.add_layer(self.line)
        viewer.layers.selection.active = self.image
        viewer.dims.events.ndisplay.connect(self.stop)
        viewer.dims.events.order.connect(self.stop)

    def move(self, share: float) -> None:
        """Put the cut somewhere else; what is shown is not decoded again."""
        self._halves.share = share
        self.line.translate = self._at_cut()["translate"]
        self.image.refresh()

    def _restore(self) -> None:
        self._viewer.dims.events.ndisplay.disconnect(self.stop)
        self._viewer.dims.events.order.disconnect(self.stop)
        super()._restore()

    def _at_cut(self) -> dict[str, Any]:
        """Place a pixel as high as the image, and thin, on the cut."""
        *leading, height, width = self._halves.shape
        thin = width / _THIN
        place = coarser(self._place, [*(1 for _ in leading), height, thin])
        shift = np.zeros(self._halves.ndim)
        shift[-1] = self._halves.column - thin / 2  # from the left edge of the image to the cut
        return {**place, "translate": place["translate"] + linear_of(self._place) @ shift}


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
