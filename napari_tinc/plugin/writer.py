"""Save layers as ``.tinc`` files."""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from napari.utils import progress

from napari_tinc.core.steps import complete
from napari_tinc.plugin.compress_model import full_resolution, source_of
from napari_tinc.plugin.layers import is_result, result_volume
from napari_tinc.plugin.preferences import read


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer: a result as the bytes it has, any other image compressed with the last settings.

    Parameters
    ----------
    path : str
        An existing file is replaced: napari has asked.
    data, attributes
        Data and keyword arguments of the layer.

    Returns
    -------
    list of str
        The file.

    Raises
    ------
    TincError
        If the image cannot be compressed, or the file cannot be written.
    """
    layer = Image(data, **attributes)
    if is_result(layer):
        result_volume(layer).save(path, overwrite=True)
    else:
        _compress(layer).save(path, overwrite=True)
    return [path]


def _compress(layer: Any) -> Any:
    """Compress with a progress bar in napari's activity dock, which keeps the window alive meanwhile."""
    from napari_tinc.compression import compress_steps

    preferences, source = read(), source_of(layer)
    steps = compress_steps(
        full_resolution(layer),
        preferences.target,
        metadata=source.metadata,
        preset=preferences.preset,
        device=preferences.device,
    )
    with progress(total=100, desc=f"compressing {layer.name}") as bar:
        return complete(steps, lambda state: bar.update(max(0, round(100 * state.step / state.steps) - bar.n)))


__all__ = ["write_image"]
