"""The frame: the bytes of one compressed volume, specified in ``docs/format.md``.

A frame is a header that describes itself, followed by segments; each has its own CRC-32C. A ``.tinc`` file is
exactly one frame. `parse` trusts nothing: it checks every number before it uses it, holds no more memory than a small
multiple of the bytes it was given, and raises `FormatError` for whatever is wrong.
"""

from napari_tinc.choices import WITHIN
from napari_tinc.format.fields import pack_metadata
from napari_tinc.format.frame import MAGIC, VERSION, Frame, SegmentReport, check, pack, packed_size, parse, read
from napari_tinc.format.header import (
    BETWEEN,
    DTYPES,
    EXACT_DTYPES,
    MAX_EXACT_BYTES,
    MAX_WHOLE,
    MODEL_CONSTANT,
    MODEL_EXACT,
    MODEL_PREDICTIVE,
    MODEL_WAVELETS,
    MODELS,
    Header,
    ItemRange,
    validate_metadata,
)
from napari_tinc.format.ranged import RangedSegment, RangedStreams, open_ranged
from napari_tinc.format.table import (
    KIND_CORRECTIONS,
    KIND_DIRECTIONAL,
    KIND_EXACT,
    KIND_MASK,
    KIND_PARAMETERS,
    KIND_POSTFILTER,
    KIND_PREDICTED,
    KIND_QUALITY,
    KIND_RESTORATION,
    KIND_WAVELETS,
    Segment,
)
from napari_tinc.system.output import write_atomic

__all__ = [
    "BETWEEN",
    "DTYPES",
    "EXACT_DTYPES",
    "KIND_CORRECTIONS",
    "KIND_DIRECTIONAL",
    "KIND_EXACT",
    "KIND_MASK",
    "KIND_PARAMETERS",
    "KIND_POSTFILTER",
    "KIND_PREDICTED",
    "KIND_QUALITY",
    "KIND_RESTORATION",
    "KIND_WAVELETS",
    "MAGIC",
    "MAX_EXACT_BYTES",
    "MAX_WHOLE",
    "MODELS",
    "MODEL_CONSTANT",
    "MODEL_EXACT",
    "MODEL_PREDICTIVE",
    "MODEL_WAVELETS",
    "VERSION",
    "WITHIN",
    "Frame",
    "Header",
    "ItemRange",
    "RangedSegment",
    "RangedStreams",
    "Segment",
    "SegmentReport",
    "check",
    "open_ranged",
    "pack",
    "pack_metadata",
    "packed_size",
    "parse",
    "read",
    "validate_metadata",
    "write_atomic",
]
