"""The live preview: which plane the user looks at, and a layer that shows it as the network has learnt it so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.plugin.layers.place import coarser, cropped, place_of, to_world

Image = np.ndarray[Any, Any]

# A plane of 512 × 512 at full resolution; larger ones are decoded coarser.
MAX_SAMPLES = 1 << 18
PREVIEW = "tinc_preview"
_PLANES_AROUND = 8
_COPIED = ("contrast_limits", "colormap", "gamma", "interpolation2d")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a source layer lies in the world, kept in case that it is deleted while its volume is compressed."""

    name: str
    axes: str
    shape: tuple[int, ...]
    place: dict[str, Any]
    look: dict[str, Any]

    @classmethod
    def of(cls, layer: Any, axes: str, shape: tuple[int, ...], region: tuple[slice, ...] | None = None) -> Placement:
        """Read it from a layer, or from a region of one."""
        look = {name: getattr(layer, name) for name in _COPIED}
        place = place_of(layer)
        return cls(layer.name, axes, shape, place if region is None else cropped(place, region), look)

    def voxel_at(self, point: Any) -> Any:
        """Return the index of a voxel, a float per axis, from a position in a world of any number of axes."""
        ndim = len(self.shape)
        padded = np.pad(np.asarray(point, float), (max(0, ndim - len(point)), 0))  # a viewer that is closing has fewer
        return to_world(self.place).inverse(padded[-ndim:])


@dataclass(frozen=True, slots=True)
class View:
    """What is on the screen: a region counted in samples at ``scale``, as ``CompressedVolume.decode`` takes it."""

    region: tuple[int | slice, ...]
    scale: float

    @classmethod
    def of(cls, dims: Any, placement: Placement) -> View:
        """Find the plane (or the box, in 3-D) that a viewer shows.

        Parameters
        ----------
        dims : napari.components.Dims
        placement : Placement
        """
        ndim = len(placement.shape)
        displayed = {axis - (dims.ndim - ndim) for axis in dims.displayed}
        spatial = [a for a in displayed if a >= 0 and placement.axes[a] not in LEADING]
        samples = math.prod(placement.shape[a] for a in displayed if a >= 0)
        scale = min(1.0, (MAX_SAMPLES / samples) ** (1 / max(1, len(spatial))))
        here = placement.voxel_at(dims.point)
        region: list[int | slice] = []
        for axis, side in enumerate(placement.shape):
            if axis in displayed:
                region.append(slice(None))
                continue
            fine = min(max(round(float(here[axis])), 0), side - 1)
            region.append(fine if placement.axes[axis] in LEADING else int((fine + 0.5) * scale))
        return cls(tuple(region), scale)


def around_view(dims: Any, placement: Placement) -> tuple[slice, ...]:
    """Return the neighbourhood of what a viewer shows: some planes before and after, of one channel and time."""
    here, first = placement.voxel_at(dims.point), dims.ndim - len(placement.shape)
    region = []
    for axis, side in enumerate(placement.shape):
        middle = min(max(round(float(here[axis])), 0), side - 1)
        reach = 0 if placement.axes[axis] in LEADING else _PLANES_AROUND
        shown = axis + first in dims.displayed and placement.axes[axis] not in LEADING
        region.append(slice(0, side) if shown else slice(max(0, middle - reach), min(side, middle + reach + 1)))
    return tuple(region)


def preview_layer(image: Image, view: View, placement: Placement) -> dict[str, Any]:
    """Return data, and the place, of a layer that shows a decoded view where it lies.

    Along the axes that are sliced away the one plane stands for all, without memory: the layer has the source's
    extent, and shows the latest plane until the next one arrives.
    """
    shape, size = [], []
    sides = iter(image.shape)
    for axis, entry in enumerate(view.region):
        sliced = isinstance(entry, int)
        shape.append(placement.shape[axis] if sliced else next(sides))
        size.append(1.0 if sliced or placement.axes[axis] in LEADING else 1 / view.scale)
    index = tuple(slice(None) if isinstance(entry, slice) else None for entry in view.region)
    return {"data": np.broadcast_to(image[index], shape), **coarser(placement.place, size)}


class Preview:
    """The preview layer of one compression in one viewer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    placement : Placement
    """

    def __init__(self, viewer: Any, placement: Placement) -> None:
        self.viewer, self.placement = viewer, placement
        self.layer: Any = None

    def show(self, image: Image, view: View) -> None:
        """Bring the layer up to date; once the user has deleted it, it stays away."""
        content = preview_layer(image, view, self.placement)
        if self.layer is None:
            self._add(content)
        elif self.layer in self.viewer.layers:
            self.layer.data = content["data"]
            for name in ("scale", "translate"):
                if not np.allclose(getattr(self.layer, name), content[name]):
                    setattr(self.layer, name, content[name])

    def _add(self, content: dict[str, Any]) -> None:
        selected = set(self.viewer.layers.selection)
        name = f"{self.placement.name} (learning)"
        self.layer = self.viewer.add_image(name=name, metadata={PREVIEW: True}, **content, **self.placement.look)
        self.viewer.layers.selection = selected

    def remove(self) -> None:
        """Take the layer away, if it is still there."""
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
