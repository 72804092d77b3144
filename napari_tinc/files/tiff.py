"""Volumes in TIFF files: OME-TIFF, ImageJ and plain stacks in, OME-TIFF out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile
from numpy.typing import NDArray

from napari_tinc.arrays.metadata import SPATIAL, Metadata
from napari_tinc.arrays.scratch import zeros
from napari_tinc.errors import InputError
from napari_tinc.files.layout import Description, Volume, assemble, positive_step, transposed
from napari_tinc.files.units import unit_name, unit_symbol

_log = logging.getLogger(__name__)

IMAGE_DESCRIPTION = 270
# Dots per inch say how large to print a picture, not how large a cell is, so they are not read.
MICROMETERS = {tifffile.RESUNIT.CENTIMETER: 1e4, tifffile.RESUNIT.MILLIMETER: 1e3, tifffile.RESUNIT.MICROMETER: 1.0}


def read_tiff(path: Path, axes: str | None) -> Volume:
    """Read the first image series of a TIFF file.

    Parameters
    ----------
    path : Path
        The file.
    axes : str or None
        Axis letters that count over the file's own.

    Raises
    ------
    InputError
        The image is RGB, its pages are incomplete, or its axes cannot be named.
    """
    with _complaints() as complaints, tifffile.TiffFile(path) as tif:
        if not tif.series:
            raise InputError(f"expected an image in {path.name}, got a TIFF without pages; check the file")
        series = tif.series[0]
        if len(tif.series) > 1:
            _log.warning("%s holds %d images; the first, %s, is read", path.name, len(tif.series), series.shape)
        letters, shape = series.get_axes(squeeze=False).lower(), series.get_shape(squeeze=False)
        samples = shape[letters.index("s")] if "s" in letters else 1
        if samples > 1 and axes is None:
            raise InputError(
                f"expected grey values, got an RGB image with {samples} samples per pixel in {path.name}; "
                "split the colours into channels, or if these are planes or channels say so with --axes"
            )
        _check_complete(tif, series, complaints, path)
        fields = _described(tif, path.stem)
        if tif.is_ome and shape[letters.index("z")] == 1 and "z" not in fields.steps:
            # OME names all of t, c, z; a single plane without a step in z is a picture
            letters = letters.replace("z", "q")
        data = series.asarray(out=zeros(series.shape, series.dtype)).reshape(shape)
    return assemble(data, letters, fields, axes)


def _check_complete(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, complaints: list[str], path: Path) -> None:
    """Refuse a cut file, where tifffile fills in zeros or finds fewer planes and only logs it."""
    pages = list(series.pages)
    present = [page for page in pages if page is not None]
    short = len(present) < len(pages)
    if series.dataoffset is not None:  # all pages lie together, and only the first may be described
        short = short or series.dataoffset + series.nbytes > tif.filehandle.size
    else:
        short = short or any(_lacks_parts(page) for page in present)
    for page in present:
        ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        short = short or max(ends, default=0) > page.parent.filehandle.size
    if short or complaints:
        reason = complaints[0] if complaints else "voxels are missing"
        raise InputError(f"expected a complete TIFF, got {path.name}, cut short or damaged ({reason}); copy it again")


def _lacks_parts(page: Any) -> bool:
    """Whether a page lists fewer strips or tiles than its shape needs, or empty ones: tifffile takes zeros for them."""
    like = page.keyframe  # which has what pages of a stack share
    needed, sizes = math.prod(like.chunked), page.databytecounts
    if len(page.dataoffsets) < needed or len(sizes) < needed or not all(sizes[:needed]):
        return True
    whole = like.compression == tifffile.COMPRESSION.NONE and like.bitspersample == 8 * like.dtype.itemsize
    return bool(whole and sum(sizes) < like.nbytes)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile only logs: lost pages and a lost description. Other broken tags do no harm here."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "TiffTag.fromfile" not in text or f"TiffTag {IMAGE_DESCRIPTION} " in text:
                found.append(text)

    collector = Collector(logging.ERROR)
    tifffile.logger().addHandler(collector)
    try:
        yield found
    finally:
        tifffile.logger().removeHandler(collector)


def _described(tif: tifffile.TiffFile, stem: str) -> Description:
    if tif.is_ome and tif.ome_metadata:
        return _described_by_ome(tif.ome_metadata, stem)
    page = tif.pages.first
    x, y = (_tag_step(page, name) for name in ("XResolution", "YResolution"))
    if tif.is_imagej and tif.imagej_metadata:
        return _described_by_imagej(tif.imagej_metadata, x, y, stem)
    unit = page.tags.valueof("ResolutionUnit", default=tifffile.RESUNIT.NONE)
    scale = MICROMETERS.get(unit)
    found = {} if scale is None else {"x": x, "y": y}
    return Description({k: (v * scale, "micrometer") for k, v in found.items() if v and scale}, name=stem)


def _tag_step(page: Any, tag: str) -> float | None:
    pixels, units = page.tags.valueof(tag, default=(0, 0))
    return positive_step(units / pixels) if pixels else None


def _described_by_imagej(fields: dict[str, Any], x: float | None, y: float | None, stem: str) -> Description:
    unit = unit_name(str(fields.get("unit", "")))
    steps = {"x": x, "y": y, "z": positive_step(fields.get("spacing"))}
    found = {letter: (step, unit) for letter, step in steps.items() if step}
    interval = positive_step(fields.get("finterval"))
    if interval:
        found["t"] = (interval, unit_name(str(fields.get("tunit", "second"))))
    return Description(found, name=stem)


def _described_by_ome(text: str, stem: str) -> Description:
    root = ElementTree.fromstring(text)
    for image in root.iter():
        pixels = next((child for child in image if _tag(child) == "Pixels"), None)
        if _tag(image) == "Image" and pixels is not None:
            break
    else:
        return Description({}, name=stem)
    fields = {letter: (f"PhysicalSize{letter.upper()}", "µm") for letter in SPATIAL} | {"t": ("TimeIncrement", "s")}
    steps = {}
    for letter, (attribute, default_unit) in fields.items():
        step = positive_step(pixels.get(attribute))
        if step is not None:
            steps[letter] = (step, unit_name(pixels.get(f"{attribute}Unit", default_unit)))
    channels = [child.get("Name", "") for child in pixels if _tag(child) == "Channel"]
    return Description(steps, tuple(channels) if any(channels) else (), image.get("Name") or stem)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def write_tiff(path: Path, array: NDArray[Any], metadata: Metadata) -> None:
    """Write an OME-TIFF with axes, physical sizes, channel names and the volume's name.

    Planes are YX, so an array with ``y`` and ``x`` elsewhere is transposed. A time step without a unit reads back in
    seconds, OME's own default.

    Parameters
    ----------
    path : Path
        A path that does not exist yet.
    array : ndarray
        The voxels; OME-TIFF holds booleans, integers of up to 32 bits, float32 and float64.
    metadata : Metadata
        One entry per axis.

    Raises
    ------
    InputError
        A unit or dtype that OME-TIFF does not know.
    """
    if array.dtype.name in ("float16", "int64", "uint64"):
        raise InputError(f"expected a dtype that OME-TIFF holds, got {array.dtype}; write a .zarr or .npy instead")
    leading = "".join(letter for letter in metadata.axes if letter not in "yx")
    array, metadata = transposed(array, metadata, leading + "yx")
    fields: dict[str, Any] = {"axes": metadata.axes.upper()}
    if metadata.name:
        fields["Name"] = metadata.name
    for letter, step, unit in zip(metadata.axes, metadata.voxel_size, metadata.units, strict=True):
        if letter in SPATIAL:
            fields[f"PhysicalSize{letter.upper()}"] = step
            fields[f"PhysicalSize{letter.upper()}Unit"] = unit_symbol(unit)
        elif letter == "t" and (unit or step != 1.0):
            fields["TimeIncrement"] = step
            if unit:
                fields["TimeIncrementUnit"] = unit_symbol(unit)
    if metadata.channel_names:
        fields["Channel"] = {"Name": list(metadata.channel_names)}
    # Said outright, for tifffile takes 3 or 4 planes or channels for colours.
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata=fields)
