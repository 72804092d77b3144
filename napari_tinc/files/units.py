"""Units of length and time: one name for each, however a file spells it."""

from __future__ import annotations

import logging

from napari_tinc.errors import InputError

_log = logging.getLogger(__name__)

# OME-Zarr's and pint's name -> OME-XML's symbol.
SYMBOLS = {
    "kilometer": "km",
    "meter": "m",
    "centimeter": "cm",
    "millimeter": "mm",
    "micrometer": "µm",
    "nanometer": "nm",
    "picometer": "pm",
    "angstrom": "Å",
    "inch": "in",
    "day": "d",
    "hour": "h",
    "minute": "min",
    "second": "s",
    "millisecond": "ms",
    "microsecond": "µs",
    "nanosecond": "ns",
}
_NAMES = {symbol: name for name, symbol in SYMBOLS.items()} | {
    # the Greek letter mu, the letter u, and ImageJ's way to write the micro sign in ASCII
    "\u03bcm": "micrometer",
    "um": "micrometer",
    "\\u00b5m": "micrometer",
    "\\u00B5m": "micrometer",
    "micron": "micrometer",
    "\u03bcs": "microsecond",
    "us": "microsecond",
    "sec": "second",
    "\u212b": "angstrom",
}
_UNKNOWN = {"", "pixel", "px", "voxel", "reference frame", "none", "null"}


def unit_name(text: str | None) -> str:
    """Return the name of a unit as used in :class:`~napari_tinc.arrays.metadata.Metadata`.

    Parameters
    ----------
    text : str or None
        A unit as found in a file: ``"µm"``, ``"um"``, ``"microns"``, ``"micrometer"``…

    Returns
    -------
    str
        A key of ``SYMBOLS``; ``""`` for pixels and for a unit that is not known (which is logged).
    """
    stripped = (text or "").strip()
    singular = stripped.lower().removesuffix("s") if len(stripped) > 3 else stripped
    for spelling in (stripped, singular, stripped.lower()):
        if spelling in _UNKNOWN:
            return ""
        if spelling in _NAMES:
            return _NAMES[spelling]
        if spelling in SYMBOLS:
            return spelling
    _log.warning("unit %s is not known; the voxel size is kept without a unit", ascii(stripped[:80]))
    return ""


def shown_unit(name: str) -> str:
    """Return a unit's name if it is one of ``SYMBOLS``, else ``""`` (which is logged unless it is none).

    Viewers take a unit for an expression and compute it: what a file says must not get there.
    """
    if name and name not in SYMBOLS:
        _log.warning("the unit %s is not known; lengths are shown in pixels", ascii(name[:80]))
        return ""
    return name


def unit_symbol(name: str) -> str:
    """Return OME-XML's symbol for a unit, ``"pixel"`` where the unit is unknown.

    Raises
    ------
    InputError
        The unit is not one of ``SYMBOLS``.
    """
    if not name:
        return "pixel"
    if name not in SYMBOLS:
        raise InputError(f"expected a unit among {', '.join(SYMBOLS)}, got {name!r}; convert the voxel size to one")
    return SYMBOLS[name]
