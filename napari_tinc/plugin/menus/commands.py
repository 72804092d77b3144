"""What the menus and the command palette do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from napari import Viewer
from napari.layers import Image
from napari.utils.notifications import show_error, show_info

from napari_tinc.errors import InputError, TincError
from napari_tinc.plugin.compress import lost
from napari_tinc.plugin.compress.model import full_resolution
from napari_tinc.plugin.layers.channels import toggle_channels
from napari_tinc.plugin.layers.depth import show_depth
from napari_tinc.plugin.layers.difference import swap, toggle_difference
from napari_tinc.plugin.layers.flicker import toggle_flicker
from napari_tinc.plugin.layers.octant_table import close_table, toggle_table
from napari_tinc.plugin.layers.overlays import toggle_quality
from napari_tinc.plugin.layers.results import is_result, result_volume, source_layer_of
from napari_tinc.plugin.layers.side_by_side import stop_views, toggle_comparison
from napari_tinc.plugin.menus import arrays
from napari_tinc.plugin.window.dialogs import ask_path
from napari_tinc.plugin.window.layer_form import is_original
from napari_tinc.plugin.window.viewers import raw_viewer


def _tell(command: Callable[[Any], None]) -> Callable[[Any], None]:
    """Hand a command the viewer behind napari's proxy, and show what the library refuses as a notification."""

    @functools.wraps(command)
    def telling(viewer: Any) -> None:
        try:
            command(raw_viewer(viewer))
        except TincError as error:
            show_error(str(error))

    return telling


@_tell
def show_quality(viewer: Viewer) -> None:
    """Lay the octants' PSNR over the selected result, or take it away again."""
    toggle_quality(viewer, selected_result(viewer), "psnr")


@_tell
def show_bytes(viewer: Viewer) -> None:
    """Lay the bytes that every octant took over the selected result, or take them away again."""
    toggle_quality(viewer, selected_result(viewer), "nbytes")


@_tell
def show_largest_error(viewer: Viewer) -> None:
    """Lay the octants' largest errors over the selected result, or take them away again."""
    toggle_quality(viewer, selected_result(viewer), "max_error")


@_tell
def show_dice(viewer: Viewer) -> None:
    """Lay over the selected result how well every octant's foreground is kept, or take it away again."""
    toggle_quality(viewer, selected_result(viewer), "dice")


@_tell
def show_octant_table(viewer: Viewer) -> None:
    """List the octants of the selected result, or close the list."""
    toggle_table(viewer, selected_result(viewer))


@_tell
def show_difference(viewer: Viewer) -> None:
    """Show original minus decoded, or remove it again."""
    result = selected_result(viewer)
    toggle_difference(viewer, original_of(viewer, result), result)


@_tell
def show_lost(viewer: Viewer) -> None:
    """Show what the selected result has lost: its worst octants, and what became of the bright structure."""
    result = selected_result(viewer)
    lost.show_lost(viewer, original_of(viewer, result), result)


@_tell
def compare(viewer: Viewer) -> None:
    """Show original and decoded side by side, until the command is given again."""
    result = selected_result(viewer)
    toggle_comparison(viewer, original_of(viewer, result), result)


@_tell
def swap_original(viewer: Viewer) -> None:
    """Show the original instead of the decoded, or the other way round."""
    result = selected_result(viewer)
    swap(original_of(viewer, result), result)


@_tell
def flicker(viewer: Viewer) -> None:
    """Swap original and decoded twice a second, until the command is given again."""
    result = selected_result(viewer)
    toggle_flicker(viewer, original_of(viewer, result), result)


@_tell
def show_channels(viewer: Viewer) -> None:
    """Show the channels of the selected result together in colour, or one after the other again."""
    toggle_channels(viewer, selected_result(viewer))


@_tell
def full_resolution_3d(viewer: Viewer) -> None:
    """Show the selected result at full resolution in 3-D, whatever memory it takes."""
    result = selected_result(viewer)
    viewer.dims.ndisplay = 3
    show_depth(viewer, result, force=True)


@_tell
def remove_extras(viewer: Viewer) -> None:
    """Remove everything of this plugin but its results: overlays, differences, views and the octant table."""
    stop_views(viewer)
    for layer in [layer for layer in viewer.layers if layer.metadata.get("tinc_derived")]:
        if layer in viewer.layers:  # an overlay goes as a whole
            viewer.layers.remove(layer)
    close_table(viewer)


@_tell
def save_result(viewer: Viewer) -> None:
    """Ask for a name and write the selected result's bytes."""
    result = selected_result(viewer)
    name = result_volume(result).metadata.name or "volume"
    target = ask_path(None, "Save compressed volume", name, ".tinc", "TINC")
    if target is None:
        return
    result_volume(result).save(target, overwrite=True)
    show_info(f"saved {target}")


@_tell
def compress_into_zarr(viewer: Viewer) -> None:
    """Ask for a name, and compress the selected layer into an OME-Zarr in the background."""
    arrays.compress_into_zarr(viewer)


def selected_result(viewer: Any) -> Any:
    """Return the selected result layer, or the one that a selected overlay is of, or the only one there is.

    Raises
    ------
    InputError
        If there is none, or several and none is selected.
    """
    chosen = [_result_of(layer) for layer in viewer.layers if layer in viewer.layers.selection]
    selected = list(dict.fromkeys(layer for layer in chosen if layer is not None))
    candidates = selected or [layer for layer in viewer.layers if is_result(layer)]
    if not candidates:
        raise InputError("expected a compressed volume, got none: compress a layer, or open a .tinc file")
    if len(candidates) > 1:
        raise InputError(f"expected one compressed volume, got {len(candidates)}: select one in the layer list")
    return candidates[0]


def _result_of(layer: Any) -> Any:
    overlay = layer.metadata.get("tinc_overlay")
    return layer if is_result(layer) else None if overlay is None else overlay.model.layer


def original_of(viewer: Any, result: Any) -> Any:
    """Return the original of a result: selected beside it, or the layer it was made from, or the only fitting one.

    Raises
    ------
    InputError
        If it cannot be told.
    """
    shape = tuple(result_volume(result).shape)
    images = [layer for layer in viewer.layers if isinstance(layer, Image) and is_original(layer)]
    fitting = [layer for layer in images if tuple(full_resolution(layer).shape) == shape]
    selected = [layer for layer in fitting if layer in viewer.layers.selection]
    made_from = source_layer_of(viewer, result)
    candidates = selected or ([made_from] if made_from is not None else fitting)
    if len(candidates) != 1:
        raise InputError(
            f"expected the original of {result.name!r}, got {len(candidates)} layers of its shape: select both"
        )
    return candidates[0]


__all__ = [
    "compare",
    "compress_into_zarr",
    "flicker",
    "full_resolution_3d",
    "original_of",
    "remove_extras",
    "save_result",
    "selected_result",
    "show_bytes",
    "show_channels",
    "show_dice",
    "show_difference",
    "show_largest_error",
    "show_lost",
    "show_octant_table",
    "show_quality",
    "swap_original",
]
