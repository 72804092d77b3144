"""All channels of a result at once, each in its own colour and contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from napari_tinc.arrays.metadata import LEADING
from napari_tinc.errors import InputError
from napari_tinc.plugin.layers.place import place_of
from napari_tinc.plugin.layers.results import apart, color_of, levels_of, one_or_all, result_volume
from napari_tinc.system.text import printable

if TYPE_CHECKING:  # these import torch, which takes seconds
    from napari_tinc.lazy import Bounds, Compressed, Source

_KEY = "tinc_channels_of"
_COLORS = {1: ("gray",), 2: ("magenta", "green")}
_MANY_COLORS = ("cyan", "yellow", "magenta", "red", "green", "blue")


def toggle_channels(viewer: Any, result_layer: Any) -> None:
    """Show the channels of a result together, added up in colour, in the place of the result; or go back.

    They have the result's axes and are there wherever the channel slider stands.

    Parameters
    ----------
    viewer : ViewerModel
    result_layer : Image

    Raises
    ------
    InputError
        If the result has no channels.
    """
    present = [layer for layer in viewer.layers if layer.metadata.get(_KEY) == result_layer.unique_id]
    for layer in present:
        viewer.layers.remove(layer)
    if not present:
        for layer in channel_layers(viewer, result_layer):
            viewer.add_layer(layer)
            layer.visible = True
    result_layer.visible = bool(present)


def channel_layers(viewer: Any, result_layer: Any) -> list[Image]:
    """Make a layer for each channel of a result."""
    volume = result_volume(result_layer)
    if "c" not in volume.metadata.axes:
        raise InputError(f"expected a volume with channels, got {result_layer.name!r} with axes {volume.metadata.axes}")
    layers = []
    for channel, color in enumerate(_colors(volume)):
        levels = levels_of(volume, viewer, lambda source: AtEveryChannel(source, volume), channel)
        data, multiscale = one_or_all(levels)
        names = volume.metadata.channel_names
        name = names[channel] if names else f"channel {channel}"
        layers.append(
            Image(
                data,
                multiscale=multiscale,
                name=f"{printable(name)}: {result_layer.name}",
                contrast_limits=_limits(volume, channel),
                colormap=color,
                # The first one covers what lies below, the others are added to it.
                blending="additive" if channel else "translucent_no_depth",
                metadata={"tinc_derived": True, _KEY: result_layer.unique_id, "tinc_channels": volume},
                visible=False,
                **place_of(result_layer),
            )
        )
    return layers


def _colors(volume: Compressed) -> list[Any]:
    count = volume.shape[volume.metadata.axes.index("c")]
    said = volume.metadata.display.colors
    if len(said) == count > 1:
        return [color_of(color) for color in said]
    usual = _COLORS.get(count, _MANY_COLORS)
    return [usual[channel % len(usual)] for channel in range(count)]


def _limits(volume: Compressed, channel: int) -> tuple[float, float]:
    limits = volume.metadata.display.contrast_limits
    if len(limits) > 1:
        return apart(*limits[channel])
    leading = [axis for axis in volume.metadata.axes if axis in LEADING]
    ranges = np.array(volume.value_ranges).reshape(*volume.leading_shape, 2)
    own = ranges.take(channel, leading.index("c"))
    return apart(own[..., 0].min(), own[..., 1].max())


@dataclass(frozen=True, eq=False)
class AtEveryChannel:
    """One channel of a volume, with a channel axis along which it is everywhere the same.

    Parameters
    ----------
    channel : Source
        Without the channel axis.
    volume : Compressed
    """

    channel: Source
    volume: Compressed

    @property
    def name(self) -> str:
        """Starts the key of every chunk."""
        return f"{self.channel.name}-everywhere"

    @property
    def axes(self) -> str:
        """Those of the volume."""
        return self.volume.metadata.axes

    @property
    def _axis(self) -> int:
        return self.axes.index("c")

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the volume, at the resolution of the channel."""
        sides = self.channel.shape
        return (*sides[: self._axis], self.volume.shape[self._axis], *sides[self._axis :])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """That of the channel."""
        return self.channel.dtype

    def version(self, bounds: Bounds) -> int:
        """Return the version of the channel's chunk."""
        return self.channel.version(self._without(bounds))

    def read(self, bounds: Bounds) -> npt.NDArray[np.generic]:
        """Return a region, the same for every channel that it spans."""
        array, bound = self.channel.read(self._without(bounds)), bounds[self._axis]
        if isinstance(bound, int):
            return array
        before = sum(isinstance(one, slice) for one in bounds[: self._axis])
        return np.repeat(np.expand_dims(array, before), bound.stop - bound.start, axis=before)

    def _without(self, bounds: Bounds) -> Bounds:
        return bounds[: self._axis] + bounds[self._axis + 1 :]


__all__ = ["AtEveryChannel", "channel_layers", "toggle_channels"]
