"""Open ``.tinc`` files, and Zarrs, as lazy layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari import current_viewer

from napari_tinc.files.units import shown_unit
from napari_tinc.plugin.compress import engine
from napari_tinc.plugin.layers.depth import follow_depth
from napari_tinc.plugin.layers.results import LayerData, color_of, layer_data, one_or_all
from napari_tinc.plugin.window.preferences import limit_cache, read
from napari_tinc.plugin.window.viewers import raw_viewer

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
    viewer = _viewer()
    paths = [path] if isinstance(path, str) else list(path)
    device = read().device
    return [layer_data(CompressedVolume.open(one, device), name=Path(one).stem, viewer=viewer) for one in paths]


def _viewer() -> Any:
    """Return the viewer that is about to get the layers, if there is one."""
    viewer = current_viewer()
    if viewer is None:
        return None
    viewer = raw_viewer(viewer)
    follow_depth(viewer)
    return viewer


def get_zarr_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """Return a reader if every path is the folder of a Zarr array or an OME-Zarr image, else ``None``."""
    from napari_tinc.system.output import is_zarr

    paths = [path] if isinstance(path, str) else list(path)
    return open_zarrs if paths and all(Path(one).is_dir() and is_zarr(Path(one)) for one in paths) else None


def open_zarrs(path: Paths) -> list[LayerData]:
    """Describe Zarrs as lazy layers, all resolutions of an OME-Zarr included; nothing is read until it is shown.

    Raises
    ------
    InputError
        If a group is no OME-Zarr image.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return [_zarr_layer(Path(one)) for one in paths]


def _zarr_layer(path: Path) -> LayerData:
    import dask.array as da

    from napari_tinc.chunks.view import CompressedArray

    compressed = CompressedArray.open(path)
    if compressed is not None:
        limit_cache()
        return layer_data(compressed, name=path.stem, viewer=_viewer())

    from napari_tinc.files.zarr import described

    arrays, letters, said = described(path)
    levels = [da.from_zarr(array) for array in arrays]  # type: ignore[no-untyped-call]
    data, multiscale = one_or_all(levels)
    steps = [said.steps.get(letter, (1.0, "")) for letter in letters]
    channels = levels[0].shape[letters.index("c")] if "c" in letters else 1
    display = said.display(letters, channels)
    options: dict[str, Any] = {
        "name": said.name,
        "axis_labels": tuple(letters),
        "scale": tuple(step for step, _ in steps),
        "units": tuple(shown_unit(unit) or "pixel" for _, unit in steps),
        "multiscale": multiscale,
    }
    if display.translate:
        options["translate"] = display.translate
    if display.contrast_limits:
        low, high = zip(*display.contrast_limits, strict=True)
        options["contrast_limits"] = (min(low), max(high))
    if len(display.colors) == 1:
        options["colormap"] = color_of(display.colors[0])
    return data, options, "image"


__all__ = ["get_reader", "get_zarr_reader", "open_files", "open_zarrs"]
