"""The header: all that is known of a compressed volume but its parameters, and what makes it valid."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from reprlib import repr as shortened

from napari_tinc.arrays.metadata import LEADING, MAX_ITEMS, SPATIAL, Display, Metadata
from napari_tinc.choices import BETWEEN as ASKED_BETWEEN
from napari_tinc.choices import FAMILIES
from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import REMEDY, integer

# Codes 0, 1, ... of the strategies in a header.
BETWEEN = (*ASKED_BETWEEN[1:], "ratios")  # "auto" becomes one of the others
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "b1", "i8", "u8")  # dtype code 1, 2, ...
EXACT_DTYPES = ("b1", "i8", "u8")  # which no lossy model codes
MODEL_CONSTANT, MODEL_WAVELETS, MODEL_EXACT, MODEL_PREDICTIVE = 0, 2, 4, 32
MODELS = {
    MODEL_CONSTANT: "constant",
    MODEL_WAVELETS: "wavelet",
    MODEL_EXACT: "exact",
    MODEL_PREDICTIVE: "predictive",
} | {one.code: one.name for one in FAMILIES.values()}

MAX_SIZE = 2**31 - 1
MAX_VOXELS = 2**48
MAX_LEVELS = 16
MAX_LEAVES = 2**24
MAX_CONSTANT_LEAVES = 2**16
MAX_EXACT_BYTES = 2**30  # of one item, which is decoded as a whole
MAX_WHOLE = 2**61  # in value ranges: what a varint holds; integers of 64 bits may be larger


@dataclass(frozen=True, slots=True)
class ItemRange:
    """Value range of one item, and the normalisation of its model: value = offset + scale * f(x).

    Parameters
    ----------
    minimum, maximum : int or float
        Smallest and largest voxel of the original, in its dtype; finite.
    offset_code : int
        0..65535; offset = minimum + offset_code / 65535 * (maximum - minimum).
    scale_code : int
        0..255; scale = (maximum - minimum) * 2 ** (-scale_code / 16).
    """

    minimum: int | float
    maximum: int | float
    offset_code: int
    scale_code: int

    @property
    def span(self) -> float:
        """Maximum minus minimum."""
        return float(self.maximum) - float(self.minimum)

    @property
    def offset(self) -> float:
        """Intensity at which the model's output is 0."""
        return self.minimum + self.offset_code / 65535 * self.span

    @property
    def scale(self) -> float:
        """Intensity per unit of the model's output; 0 for an item of one value."""
        return float(self.span * 2 ** (-self.scale_code / 16))


@dataclass(frozen=True, slots=True)
class Header:
    """Everything about a compressed volume except its parameters.

    Parameters
    ----------
    shape : tuple of int
        Voxels along every axis of the array.
    dtype : str
        One of `DTYPES`: kind and bytes per voxel.
    metadata : Metadata
        Axes, voxel size, units and names.
    items : tuple of ItemRange
        One per (t, c) position, row-major in the array's axis order; a single one without such axes.
    splits : tuple of tuple of bool
        One per level below the root, and in it one per spatial axis: whether that level halves the axis.
    model : int
        One of `MODELS`: `MODEL_CONSTANT`, `MODEL_WAVELETS`, `MODEL_EXACT`, or the code of a family in
        `napari_tinc.choices`.
    plan : bytes
        How the model's parameters are laid out; only the model family can tell whether it is valid.
    between, within : int
        0..15; how the budget was spread between levels and within a level.
    provenance : Mapping of str to str, int, float or bool
        How the file was made.
    """

    shape: tuple[int, ...]
    dtype: str
    metadata: Metadata
    items: tuple[ItemRange, ...]
    splits: tuple[tuple[bool, ...], ...]
    model: int
    plan: bytes
    between: int
    within: int
    provenance: Mapping[str, str | int | float | bool]

    @property
    def spatial_axes(self) -> str:
        """The z, y and x letters, in the array's order."""
        return "".join(axis for axis in self.metadata.axes if axis in SPATIAL)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels along every spatial axis, in the array's order."""
        return sizes_of(self.metadata.axes, self.shape, SPATIAL)

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """Sizes of the t and c axes, in the array's order; their product is the number of items."""
        return sizes_of(self.metadata.axes, self.shape, LEADING)

    @property
    def raw_nbytes(self) -> int:
        """Bytes of the uncompressed array."""
        return math.prod(self.shape) * int(self.dtype[1])


def sizes_of(axes: str, shape: tuple[int, ...], letters: str) -> tuple[int, ...]:
    """Return the sizes of the axes that are among `letters`, in the array's order."""
    return tuple(size for axis, size in zip(axes, shape, strict=True) if axis in letters)


def validate(header: Header) -> None:
    """Check everything, before writing and after reading alike; raise `FormatError` for the first wrong thing."""
    validate_array(header.dtype, header.metadata.axes, header.shape)
    items = math.prod(header.leading_shape)
    if len(header.items) != items:
        raise FormatError(f"value ranges: expected {items}, one per item, got {len(header.items)}; {REMEDY}")
    for item in header.items:
        _validate_item(item, header.dtype)
    _validate_splits(header)
    if header.model not in MODELS:
        known = ", ".join(f"{code} ({name})" for code, name in sorted(MODELS.items()))
        raise FormatError(f"model: expected one of {known}, got {header.model}; update napari-tinc to read it")
    if header.model in (MODEL_WAVELETS, MODEL_EXACT, MODEL_PREDICTIVE) and header.plan:
        name = MODELS[header.model]
        raise FormatError(f"model {header.model} ({name}): expected no plan, got {len(header.plan)} bytes; {REMEDY}")
    _validate_exact(header)
    if header.model == MODEL_CONSTANT and any(item.minimum != item.maximum for item in header.items):
        raise FormatError(f"model 0 (constant): expected minimum = maximum in every item, got a range; {REMEDY}")
    integer("between-levels strategy", header.between, 0, 15)
    integer("within-level strategy", header.within, 0, 15)
    validate_metadata(header.metadata, dict(zip(header.metadata.axes, header.shape, strict=True)).get("c", 1))
    _validate_provenance(header.provenance)


def _validate_exact(header: Header) -> None:
    if header.model == MODEL_EXACT:
        integer("bytes of an exact item", header.raw_nbytes // len(header.items), 1, MAX_EXACT_BYTES)
        integer("levels of an exact volume", len(header.splits), 0, 0)
    elif header.dtype in EXACT_DTYPES and header.model != MODEL_CONSTANT:
        raise FormatError(f"dtype {header.dtype}: expected model {MODEL_EXACT} (exact), got {header.model}; {REMEDY}")


def validate_array(dtype: str, axes: str, shape: tuple[int, ...]) -> None:
    """Check what the size of all other fields depends on."""
    if dtype not in DTYPES:
        raise FormatError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}; convert the volume")
    integer("number of axes", len(axes), 2, 5)
    if len(set(axes)) != len(axes) or not set("yx") <= set(axes) <= set(LEADING + SPATIAL):
        raise FormatError(f"axes: expected y, x and others of t, c, z, each once, got {axes!r}; {REMEDY}")
    if len(shape) != len(axes):
        raise FormatError(f"shape: expected {len(axes)} sizes for axes {axes!r}, got {len(shape)}; {REMEDY}")
    for size in shape:
        integer("shape", size, 1, MAX_SIZE)
    integer("number of voxels", math.prod(shape), 1, MAX_VOXELS)
    integer("number of items (t x c)", math.prod(sizes_of(axes, shape, LEADING)), 1, MAX_ITEMS)


def _validate_item(item: ItemRange, dtype: str) -> None:
    for value in (item.minimum, item.maximum):
        if dtype[0] == "f":
            if not isinstance(value, float) or not math.isfinite(value):
                raise FormatError(f"value range: expected finite floats for {dtype}, got {value!r}; {REMEDY}")
        else:
            bits = 1 if dtype == "b1" else 8 * int(dtype[1])
            low = -(2 ** (bits - 1)) if dtype[0] == "i" else 0
            high = low + 2**bits - 1
            integer(f"value range of {dtype}", value, max(low, -MAX_WHOLE), min(high, MAX_WHOLE))
    if item.minimum > item.maximum:
        raise FormatError(
            f"value range: expected minimum <= maximum, got {item.minimum!r} and {item.maximum!r}; {REMEDY}"
        )
    if not math.isfinite(item.span):
        raise FormatError(f"value range: expected a finite maximum - minimum, got {item.span}; {REMEDY}")
    integer("offset code", item.offset_code, 0, 2**16 - 1)
    integer("scale code", item.scale_code, 0, 2**8 - 1)


def _validate_splits(header: Header) -> None:
    integer("levels below the root", len(header.splits), 0, MAX_LEVELS)
    for level in header.splits:
        if len(level) != len(header.spatial_axes) or not any(level):
            raise FormatError(
                f"splits: expected a flag for each of {header.spatial_axes!r}, at least one set, got {level}; {REMEDY}"
            )
    for index, size in enumerate(header.spatial_shape):
        parts = 2 ** sum(level[index] for level in header.splits)
        if parts > size:
            axis = header.spatial_axes[index]
            raise FormatError(f"splits: expected at most {size} parts along {axis}, got {parts}; {REMEDY}")
    leaves = len(header.items) * 2 ** sum(sum(level) for level in header.splits)
    # The leaves of a constant volume cost no bytes, so that a file's size does not bound them.
    largest = MAX_CONSTANT_LEAVES if header.model == MODEL_CONSTANT else MAX_LEAVES
    integer("number of leaves in all items", leaves, 1, largest)


def validate_metadata(metadata: Metadata, channels: int) -> None:
    """Check that there are as many sizes, units, names and colours as axes or channels; raises `FormatError`."""
    ndim = len(metadata.axes)
    if len(metadata.voxel_size) != ndim:
        raise FormatError(f"metadata voxel_size: expected {ndim} numbers, got {len(metadata.voxel_size)}; {REMEDY}")
    for axis, size in zip(metadata.axes, metadata.voxel_size, strict=True):
        if not _is_positive(size):
            raise FormatError(
                f"metadata voxel_size of {axis}: expected a finite positive number, got {shortened(size)}; {REMEDY}"
            )
    if len(metadata.units) != ndim:
        raise FormatError(f"metadata units: expected {ndim}, got {len(metadata.units)}; {REMEDY}")
    if len(metadata.channel_names) not in (0, channels):
        raise FormatError(
            f"metadata channel_names: expected none or {channels}, got {len(metadata.channel_names)}; {REMEDY}"
        )
    for text in (*metadata.units, *metadata.channel_names, metadata.name):
        _validate_text(text)
    _validate_display(metadata.display, ndim, channels)


def _validate_display(display: Display, ndim: int, channels: int) -> None:
    """Check what places and colours a volume: as many numbers as there are axes, as many colours as channels."""
    counts: list[tuple[str, int, tuple[int, ...]]] = [
        ("translate", len(display.translate), (0, ndim)),
        ("linear", len(display.linear), (0, ndim)),
    ]
    counts += [("linear", len(row), (ndim,)) for row in display.linear]
    counts += [("contrast_limits", len(display.contrast_limits), (0, 1, channels))]
    counts += [("contrast_limits", len(pair), (2,)) for pair in display.contrast_limits]
    counts += [("colors", len(display.colors), (0, 1, channels))]
    for key, got, allowed in counts:
        if got not in allowed:
            expected = " or ".join(map(str, sorted(set(allowed))))
            raise FormatError(f"metadata display {key}: expected {expected} entries, got {got}; {REMEDY}")
    for value in (*display.translate, *chain(*display.linear), *chain(*display.contrast_limits)):
        if not _is_number(value):
            raise FormatError(f"metadata display: expected finite numbers, got {shortened(value)}; {REMEDY}")
    for color in display.colors:
        _validate_text(color)


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_number(value: object) -> bool:
    # The comparison also keeps out NaN, infinity, and integers that no float can hold.
    largest = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def _validate_text(value: object) -> None:
    if not isinstance(value, str):
        raise FormatError(f"metadata: expected text, got {type(value).__name__}; {REMEDY}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, which no terminal can show
        raise FormatError(f"metadata: expected Unicode text, got {shortened(value)}; {REMEDY}") from error


def _validate_provenance(provenance: object) -> None:
    if not isinstance(provenance, Mapping):
        raise FormatError(f"metadata provenance: expected an object, got {type(provenance).__name__}; {REMEDY}")
    for key, value in provenance.items():
        _validate_text(key)
        if isinstance(value, str):
            _validate_text(value)
        elif not isinstance(value, bool | int | float):
            raise FormatError(
                f"metadata provenance {shortened(key)}: expected a str, int, float or bool, "
                f"got {type(value).__name__}; {REMEDY}"
            )
        elif not -sys.float_info.max <= value <= sys.float_info.max:
            raise FormatError(
                f"metadata provenance {shortened(key)}: expected a finite number, got one beyond 1.8e308; {REMEDY}"
            )
