"""3-D at the resolution of the original, where memory allows it.

napari shows the coarsest level of a multiscale layer in 3-D. Beside an original at full resolution, thin structures of
a result would then be missing for no fault of the file.
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakSet, ref

import psutil

from napari_tinc.arrays.metadata import LEADING

# Of the memory that is free: the voxels are held decoded, as a texture, and as what napari makes of them on the way.
_SHARE_OF_MEMORY = 0.2
_LOCKED = "tinc_locked"
_following: WeakSet[Any] = WeakSet()


def follow_depth(viewer: Any) -> None:
    """Show the results of a viewer at full resolution when it goes to 3-D; may be called again and again."""
    if viewer in _following:
        return
    _following.add(viewer)
    known = ref(viewer)

    def follow() -> None:
        there = known()
        for layer in () if there is None else there.layers:
            if "tinc" in layer.metadata:
                show_depth(there, layer)

    viewer.dims.events.ndisplay.connect(follow)
    viewer.layers.events.inserted.connect(follow)
    follow()


def show_depth(viewer: Any, layer: Any, force: bool = False) -> None:
    """Choose the level of a result for 2-D or 3-D; say so if it has to be a coarse one.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Image
        A result layer.
    force : bool
        Take the finest level in 3-D whatever memory it takes.
    """
    if not layer.multiscale:
        return
    deep = viewer.dims.ndisplay == 3
    fits = force or _bytes(layer) <= _SHARE_OF_MEMORY * psutil.virtual_memory().available
    ours = layer.metadata.get(_LOCKED, False)  # and not what the user has locked
    if deep and fits and layer.locked_data_level is None:
        layer.locked_data_level, layer.metadata[_LOCKED] = 0, True
    elif not deep and ours:
        layer.locked_data_level, layer.metadata[_LOCKED] = None, False
    if deep and not fits and layer.locked_data_level is None:
        viewer.status = (
            f"{layer.name}: shown at 1/{2 ** (len(layer.data) - 1)} of its resolution, because memory is short; "
            "Layers > Visualize > Full resolution in 3-D shows all of it"
        )


def _bytes(layer: Any) -> int:
    """Size of what 3-D shows: one channel at one time."""
    volume = layer.metadata["tinc"]
    sides = [side for side, axis in zip(volume.shape, volume.metadata.axes, strict=True) if axis not in LEADING]
    return int(math.prod(sides) * volume.dtype.itemsize)


__all__ = ["follow_depth", "show_depth"]
