"""Volumes in NPY files: the voxels and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.inputs import check_axes
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.arrays.scratch import fits_memory
from napari_tinc.files.layout import Description, Volume, assemble


def read_npy(path: Path, axes: str | None) -> Volume:
    """Read an NPY file; pickled objects are refused, for unpickling runs what the file says.

    Parameters
    ----------
    path : Path
        The file.
    axes : str or None
        Axis letters; without them 2-D is YX, 3-D ZYX, 4-D CZYX, 5-D TCZYX.
    """
    data = np.load(path, None if fits_memory(path.stat().st_size) else "r", allow_pickle=False)
    if axes is None:
        check_axes("tczyx"[-data.ndim :], data.ndim)
        axes = Metadata.default(data.ndim).axes
    return assemble(data, axes.lower(), Description({}, name=path.stem), axes)


def write_npy(path: Path, array: NDArray[Any], metadata: Metadata) -> None:
    """Write the voxels; an NPY file has no place for the metadata."""
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)
