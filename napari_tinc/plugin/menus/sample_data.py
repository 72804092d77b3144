"""The samples in napari's File menu."""

from __future__ import annotations

from importlib import resources
from typing import Any

from napari_tinc.plugin.layers.results import LayerData, layer_data

COMPRESSED_BRAIN = "brain_hipct_64.tinc"


def neuron() -> list[LayerData]:
    """Return a simulated neuron."""
    return _sample("neuron")


def vessel() -> list[LayerData]:
    """Return a simulated vessel tree."""
    return _sample("vessel")


def brain() -> list[LayerData]:
    """Return a block of a human brain, measured by X-ray phase-contrast tomography."""
    return _sample("brain")


def compressed_brain() -> list[LayerData]:
    """Return the brain as a file that was compressed before; ``scripts/make_sample_tinc.py`` makes it."""
    from napari_tinc.volume import CompressedVolume

    file = resources.files("napari_tinc").joinpath("data", COMPRESSED_BRAIN)
    return [layer_data(CompressedVolume(file.read_bytes()), name="brain")]


def _sample(name: str) -> list[LayerData]:
    from napari_tinc.samples import load

    array, metadata = load(name)
    options: dict[str, Any] = {
        "name": metadata.name,
        "scale": metadata.voxel_size,
        "units": tuple(unit or "pixel" for unit in metadata.units),
        "axis_labels": tuple(metadata.axes),
    }
    return [(array, options, "image")]
