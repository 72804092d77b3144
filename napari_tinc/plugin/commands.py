"""What the menus and the command palette do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from napari import Viewer
from napari.layers import Image
from napari.utils.notifications import show_error, show_info

from napari_tinc.errors import InputError, TincError
from napari_tinc.plugin.compare import toggle_comparison
from napari_tinc.plugin.dialogs import ask_path
from napari_tinc.plugin.difference import add_difference, swap
from napari_tinc.plugin.flicker import toggle_flicker
from napari_tinc.plugin.layers import is_result, result_volume, source_layer_of
from napari_tinc.plugin.octant_table import OctantTable
from napari_tinc.plugin.overlays import add_quality


def _tell(command: Callable[[Any], None]) -> Callable[[Any], None]:
    """Show what the library refuses as a notification."""

    @functools.wraps(command)
    def telling(viewer: Any) -> None:
        try:
            command(viewer)
        except TincError as error:
            show_error(str(error))

    return telling


@_tell
def show_quality(viewer: Viewer) -> None:
    """Lay the octants' PSNR over the selected result."""
    add_quality(viewer, selected_result(viewer))


@_tell
def show_bytes(viewer: Viewer) -> None:
    """Lay the bytes that every octant took over the selected result."""
    add_quality(viewer, selected_result(viewer), "nbytes")


@_tell
def show_largest_error(viewer: Viewer) -> None:
    """Lay the octants' largest errors over the selected result."""
    add_quality(viewer, selected_result(viewer), "max_error")


@_tell
def show_dice(viewer: Viewer) -> None:
    """Lay over the selected result how well every octant's foreground is kept."""
    add_quality(viewer, selected_result(viewer), "dice")


@_tell
def show_octant_table(viewer: Viewer) -> None:
    """List the octants of the selected result."""
    result = selected_result(viewer)
    viewer.window.add_dock_widget(OctantTable(viewer, result), name=f"Octants of {result.name}", area="right")


@_tell
def show_difference(viewer: Viewer) -> None:
    """Show original minus decoded."""
    result = selected_result(viewer)
    add_difference(viewer, original_of(viewer, result), result)


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
def save_result(viewer: Viewer) -> None:
    """Ask for a name and write the selected result's bytes."""
    result = selected_result(viewer)
    name = result_volume(result).metadata.name or "volume"
    target = ask_path(None, "Save compressed volume", name, ".tinc", "TINC")
    if target is None:
        return
    result_volume(result).save(target, overwrite=True)
    show_info(f"saved {target}")


def selected_result(viewer: Any) -> Any:
    """Return the selected result layer, or the only one there is.

    Raises
    ------
    InputError
        If there is none, or several and none is selected.
    """
    selected = [layer for layer in viewer.layers if layer in viewer.layers.selection and is_result(layer)]
    candidates = selected or [layer for layer in viewer.layers if is_result(layer)]
    if not candidates:
        raise InputError("expected a compressed volume, got none: compress a layer, or open a .tinc file")
    if len(selected) != 1 and len(candidates) > 1:
        raise InputError(f"expected one compressed volume, got {len(candidates)}: select one in the layer list")
    return candidates[0]


def original_of(viewer: Any, result: Any) -> Any:
    """Return the original of a result: selected beside it, or the layer it was made from, or the only fitting one.

    Raises
    ------
    InputError
        If it cannot be told.
    """
    volume = result_volume(result)
    shapes = (volume.shape, tuple(result.data[0].shape if result.multiscale else result.data.shape))
    images = [layer for layer in viewer.layers if isinstance(layer, Image) and not layer.rgb and not is_result(layer)]
    fitting = [i for i in images if tuple(i.data[0].shape if i.multiscale else i.data.shape) in shapes]
    fitting = [layer for layer in fitting if not layer.metadata.get("tinc_derived")]
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
    "flicker",
    "original_of",
    "save_result",
    "selected_result",
    "show_bytes",
    "show_dice",
    "show_difference",
    "show_largest_error",
    "show_octant_table",
    "show_quality",
    "swap_original",
]
