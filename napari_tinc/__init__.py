"""napari-tinc: 3-D image volumes in files a hundredth of their size, from wavelets and small neural networks.

The public names load on first use, so that ``import napari_tinc`` loads neither torch nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tinc.arrays.metadata import Metadata
    from napari_tinc.arrays.scratch import memory_limit
    from napari_tinc.chunks.codec import TincCodec
    from napari_tinc.compare.candidates import Candidate
    from napari_tinc.compare.engine import Comparison
    from napari_tinc.encode.compression import compress, compress_steps
    from napari_tinc.encode.cutting import cut, cut_steps
    from napari_tinc.errors import BudgetError, FormatError, InputError, TincError, TrainingError
    from napari_tinc.files import read_volume, write_volume
    from napari_tinc.progress import Progress
    from napari_tinc.target import Target
    from napari_tinc.volume import CompressedVolume, Octant

_HOMES = {
    "Candidate": "compare.candidates",
    "Comparison": "compare.engine",
    "compress": "encode.compression",
    "compress_steps": "encode.compression",
    "cut": "encode.cutting",
    "cut_steps": "encode.cutting",
    "Metadata": "arrays.metadata",
    "memory_limit": "arrays.scratch",
    "Progress": "progress",
    "BudgetError": "errors",
    "FormatError": "errors",
    "InputError": "errors",
    "TincError": "errors",
    "TrainingError": "errors",
    "read_volume": "files",
    "write_volume": "files",
    "Target": "target",
    "TincCodec": "chunks.codec",
    "CompressedVolume": "volume",
    "Octant": "volume",
}

__all__ = [
    "BudgetError",
    "Candidate",
    "Comparison",
    "CompressedVolume",
    "FormatError",
    "InputError",
    "Metadata",
    "Octant",
    "Progress",
    "Target",
    "TincCodec",
    "TincError",
    "TrainingError",
    "compress",
    "compress_steps",
    "cut",
    "cut_steps",
    "memory_limit",
    "read_volume",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'napari_tinc' has no attribute {name!r}")
    value = getattr(import_module(f"napari_tinc.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
