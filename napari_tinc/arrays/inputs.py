"""The checks a volume has to pass before minutes are spent on it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.axes import item_count
from napari_tinc.arrays.metadata import LEADING, MAX_ITEMS, MAX_JSON_BYTES, SPATIAL, Metadata
from napari_tinc.arrays.scratch import slabs
from napari_tinc.errors import InputError

AXIS_LETTERS = LEADING + SPATIAL
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
# The largest piece looked at in one go: temporaries stay below a few tens of megabytes, whatever the volume's size.
BLOCK_VOXELS = 1 << 22
# In a label image only the voxels on an object's border differ from their neighbour; counts and sums of counts, the
# other common content of 32-bit integers, differ nearly everywhere above their background.
LABEL_RUN_FRACTION = 0.9
# The same for 8 and 16 bits: of the volumes this was tried on, real ones have at most half of their neighbours equal,
# or most of the others next to each other; simulated labels have neither.
_FEWEST_LABELS, _SAME_SHARE, _NEXT_SHARE = 8, 0.7, 0.3
# For voxel sizes, provenance and the names of the JSON's keys.
_SPARE_JSON_BYTES = 2048


def ome_order(axes: str) -> str:
    """Put axis letters in the order time, channel, space, which OME-Zarr demands."""
    return "".join(letter for letter in AXIS_LETTERS if letter in axes)


def check_array(array: object) -> None:
    """Refuse what is no array, and an array that hides some of its values.

    Raises
    ------
    InputError
        With what makes an array of it.
    """
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        raise InputError(
            f"expected a numpy, dask or zarr array, got {type(array).__name__}; make one of it with numpy.asarray"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("expected an array without a mask, got a masked one; fill it, for example with filled(0)")


def check_volume(array: NDArray[Any], metadata: Metadata) -> None:
    """Refuse an array that cannot be compressed faithfully.

    Parameters
    ----------
    array : ndarray
        2 to 5 axes, one of the dtypes in ``DTYPES``, at least one voxel, finite.
    metadata : Metadata
        One entry per axis of the array.

    Raises
    ------
    InputError
        For a dtype, shape, axis string or value that cannot be used; the text says what to do about it.
    """
    check_array(array)
    check_dtype(array.dtype)
    if not isinstance(metadata, Metadata) or not isinstance(metadata.axes, str):
        raise InputError(f"expected Metadata with axes such as 'zyx', got {metadata!r:.200}; make one")
    check_axes(metadata.axes, array.ndim)
    if array.size == 0:
        raise InputError(f"expected at least one voxel, got the empty shape {array.shape}; check the crop or the file")
    _check_metadata(array, metadata)
    if array.dtype.kind == "f":
        _check_finite(array)


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse a dtype that is not an integer of up to 32 bits or a float of up to 64 bits.

    Raises
    ------
    InputError
        With the conversion that helps.
    """
    if dtype.name in DTYPES and dtype.names is None:
        return
    advice = {
        "b": "convert a mask to uint8, or leave it uncompressed, for lossy compression moves its border",
        "c": "store magnitude and phase, or real and imaginary part, as two volumes",
        "i": "64-bit integers exceed what a float holds exactly; if the values fit, convert to int32 or less",
        "u": "64-bit integers exceed what a float holds exactly; if the values fit, convert to uint32 or less",
        "f": "convert to float64 or less after checking the range",
    }.get(dtype.kind, "convert to one of these after checking the range")
    raise InputError(f"expected voxels of {', '.join(DTYPES)}, got {dtype}; {advice}")


def check_axes(axes: str, ndim: int) -> None:
    """Refuse an axis string that does not name every axis of an array once.

    Parameters
    ----------
    axes : str
        Letters of ``tczyx`` in the array's order, such as ``"zcyx"``.
    ndim : int
        Number of array axes, 2 to 5.

    Raises
    ------
    InputError
        Too few or too many axes, an unknown or repeated letter, or ``y`` or ``x`` missing.
    """
    if not 2 <= ndim <= len(AXIS_LETTERS):
        raise InputError(f"expected 2 to 5 axes (yx to tczyx), got {ndim}; select or squeeze axes until they fit")
    if len(axes) != ndim:
        raise InputError(f"expected one axis letter for each of the {ndim} axes, got {axes!r}; name all, such as 'zyx'")
    unknown = set(axes) - set(AXIS_LETTERS)
    if unknown or len(set(axes)) != ndim or not {"y", "x"} <= set(axes):
        raise InputError(f"expected letters of 'tczyx', each once, with y and x among them, got {axes!r}; rename them")


def check_not_labels(array: NDArray[Any], is_labels: bool = False) -> None:
    """Refuse a label image: lossy compression turns object numbers into other objects' numbers.

    Known are images the caller calls labels, and integer arrays in which most voxels above the minimum equal their next
    neighbour along the last axis, as they do inside objects: 9 of 10 in arrays of 32 bits. Cameras and scanners give 8
    and 16 bits, and an image of few grey levels has such runs, too. There 7 of 10 are enough, without the voxels of the
    largest value (which may be saturated), but where neighbours differ they must not be next to each other among the
    values there are: in images most are, the numbers of objects are not. Masks of a few values are not refused.
    Whoever means it can skip this check.

    Parameters
    ----------
    array : ndarray
        The voxels, any shape and dtype.
    is_labels : bool
        The caller knows that the array holds labels, for example from the napari layer's type.

    Raises
    ------
    InputError
        The array holds labels.
    """
    if is_labels or looks_like_labels(array):
        raise InputError(
            "expected an intensity image, got what looks like a label image (object numbers in long constant runs); "
            "keep labels in a lossless format, or pass --force if these are intensities"
        )


def _check_metadata(array: NDArray[Any], metadata: Metadata) -> None:
    ndim = array.ndim
    if len(metadata.voxel_size) != ndim or len(metadata.units) != ndim:
        raise InputError(
            f"expected a voxel size and a unit for each of the {ndim} axes, got {len(metadata.voxel_size)} and "
            f"{len(metadata.units)}; give one of each per axis"
        )
    if not all(_is_step(step) for step in metadata.voxel_size):
        raise InputError(f"expected positive voxel sizes, got {metadata.voxel_size!r:.200}; use 1.0 where unknown")
    _check_texts([*metadata.units, *metadata.channel_names, metadata.name])
    names = len(metadata.channel_names)
    channels = array.shape[metadata.axes.index("c")] if "c" in metadata.axes else 1
    if names not in (0, channels):
        raise InputError(f"expected {channels} channel names or none, got {names}; name every channel or none")
    items = item_count(metadata.axes, array.shape)
    if items > MAX_ITEMS:
        raise InputError(f"expected at most {MAX_ITEMS} channels times time points, got {items}; split the volume")


def _is_step(step: object) -> bool:
    if not isinstance(step, Real) or isinstance(step, bool):
        return False
    try:
        return 0 < float(step) <= sys.float_info.max
    except OverflowError:
        return False


def _check_texts(texts: list[str]) -> None:
    """Refuse names and units that a file cannot hold."""
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"expected names and units as text, got {texts!r:.200}; use '' where unknown")
    try:
        fits = fits_file(texts)
    except UnicodeEncodeError as error:
        raise InputError(f"expected names and units in Unicode, got {error.object!a:.200}; rename it") from error
    if not fits:
        raise InputError(f"expected names and units of less than {MAX_JSON_BYTES} bytes, got more; shorten them")


def fits_file(texts: list[str]) -> bool:
    """Whether a file has room for these names and units; UnicodeEncodeError if they are no Unicode."""
    return len(json.dumps(texts, ensure_ascii=False).encode()) <= MAX_JSON_BYTES - _SPARE_JSON_BYTES


def _check_finite(array: NDArray[Any]) -> None:
    bad = 0
    first: tuple[int, ...] = ()
    for slab in slabs(array.shape, BLOCK_VOXELS):
        finite = np.isfinite(array[slab])
        count = finite.size - int(np.count_nonzero(finite))
        if count and not bad:
            local = np.unravel_index(int(np.argmin(finite)), finite.shape)
            origin = (part.start for part in (*slab, *(slice(0, 0),) * (array.ndim - len(slab))))
            first = tuple(start + int(i) for start, i in zip(origin, local, strict=True))
        bad += count
    if bad:
        raise InputError(
            f"expected finite voxels, got {bad} NaN or infinite, the first at index {first}; "
            "replace them, for example with numpy.nan_to_num"
        )


def looks_like_labels(array: NDArray[Any]) -> bool:
    """Tell whether an array of integers looks like a label image; see :func:`check_not_labels`."""
    if array.dtype.kind not in "iu":
        return False
    if array.dtype.itemsize == 4:
        return _has_label_runs(array)
    return array.dtype.itemsize < 4 and _has_labels_of_few_bits(array)


def _has_labels_of_few_bits(array: NDArray[Any]) -> bool:
    """Tell the numbers of objects from grey levels, both of at most 16 bits."""
    low = int(np.iinfo(array.dtype).min)
    present = np.zeros(2 ** (8 * array.dtype.itemsize), bool)
    for block in _pieces(array) if array.size else ():
        present[np.ravel(block).astype(np.int64) - low] = True
    if present.sum() < _FEWEST_LABELS:
        return False
    rank = np.cumsum(present) - 1
    inside = same = differ = next_to = 0
    for block in _pieces(array):
        ranks = rank[block.astype(np.int64) - low]
        here, there = ranks[..., :-1], ranks[..., 1:]
        counted = (here > 0) & (here < rank[-1])
        inside += int(np.count_nonzero(counted))
        same += int(np.count_nonzero(counted & (here == there)))
        differ += int(np.count_nonzero(here != there))
        next_to += int(np.count_nonzero(np.abs(here - there) == 1))
    return inside > 0 and same >= _SAME_SHARE * inside and next_to < _NEXT_SHARE * differ


def _has_label_runs(array: NDArray[Any]) -> bool:
    if array.size == 0:
        return False
    background = min(int(block.min()) for block in _pieces(array))
    above = same = 0
    for block in _pieces(array):
        inside = block[..., :-1] != background
        above += int(np.count_nonzero(inside))
        same += int(np.count_nonzero(inside & (block[..., :-1] == block[..., 1:])))
    return above > 0 and same >= LABEL_RUN_FRACTION * above


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of bounded size."""
    return (array[slab] for slab in slabs(array.shape, BLOCK_VOXELS))
