"""Open ``.tinc`` files as lazy layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari import current_viewer

from napari_tinc.plugin import engine
from napari_tinc.plugin.depth import follow_depth
from napari_tinc.plugin.layers import LayerData, layer_data
from napari_tinc.plugin.preferences import limit_cache, read
from napari_tinc.plugin.viewers import raw_viewer

SUFFIX = ".tinc"
Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return a reader if every path is a ``.tinc`` file, else ``None``."""
    paths = [path] if isinstance(path, str) else list(path)
    return open_files if paths and all(str(one).lower().endswith(SUFFIX) for one in paths) else None


def open_files(path: Paths) -> list[LayerData]:
    """Describe the layers of one or several files; nothing is decoded until it is shown.

    Raises
    ------
    InputError, FormatError
        If a file cannot be read, or is not a valid frame.
    """
    engine.load()
    from napari_tinc.volume import CompressedVolume

    limit_cache()
    viewer = current_viewer()  # which is about to get the layers
    if viewer is not None:
        viewer = raw_viewer(viewer)
        follow_depth(viewer)
    paths = [path] if isinstance(path, str) else list(path)
    device = read().device
    return [layer_data(CompressedVolume.open(one, device), name=Path(one).stem, viewer=viewer) for one in paths]


__all__ = ["get_reader", "open_files"]
