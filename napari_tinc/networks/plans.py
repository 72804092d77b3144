"""What families share to parse their plans."""

from __future__ import annotations

from napari_tinc.choices import BETWEEN
from napari_tinc.errors import FormatError, InputError
from napari_tinc.format.cursor import Cursor, integer, varint
from napari_tinc.settings import Settings

# A network may not claim more parameters than this per byte of its segments: the symbols of an honest file take
# several bits each, and a decoder must be able to refuse before it allocates. What any machine can hold is always
# allowed: an item of one value may get its share of the parameters and need no bits for them.
MAX_PARAMETERS_PER_BYTE = 64
_HARMLESS_PARAMETERS = 2**20


def allowed_parameters(nbytes: int) -> int:
    """Parameters that a network of so many bytes of segments may claim."""
    return max(_HARMLESS_PARAMETERS, MAX_PARAMETERS_PER_BYTE * nbytes)


def check_size(parameters: int, allowed: int) -> None:
    """Raise `FormatError` if a plan claims more parameters than are allowed."""
    if parameters > allowed:
        raise FormatError(
            f"expected at most {allowed} parameters in a file of this size, got {parameters}: damaged or hostile file"
        )


def check_end(cursor: Cursor) -> None:
    """Raise `FormatError` if a plan goes on where it should end."""
    if cursor.remaining:
        raise FormatError(f"expected the plan to end after its last level, got {cursor.remaining} bytes more: damaged")


def pack_sizes(count: int, width: int) -> bytes:
    """Store a plan of two numbers: how many layers or blocks, and how wide they are."""
    return bytes([count]) + varint(width)


def parse_sizes(plan: bytes, what: str, counts: tuple[int, int], widest: int) -> tuple[int, int]:
    """Invert :func:`pack_sizes`.

    Parameters
    ----------
    plan : bytes
    what : str
        Is counted, for the text of errors.
    counts : tuple of int
        The fewest and the most there may be.
    widest : int

    Raises
    ------
    FormatError
        If the numbers are out of bounds, or the plan goes on.
    """
    cursor = Cursor(plan, 0, "the plan")
    count = integer(what, cursor.u8(f"the {what}"), *counts)
    width = integer("width", cursor.varint("the width"), 1, widest)
    check_end(cursor)
    return count, width


def check_no_strategy(name: str, settings: Settings) -> None:
    """Raise `InputError` if the settings spread parameters over octants, of which a family knows nothing."""
    if settings.between not in BETWEEN[:2] or settings.within != "equal":
        raise InputError(
            f"expected no strategy for {name}, which is one for all octants, got {settings.between} between levels "
            f"and {settings.within} within a level: leave them out, or take model 'tinc'"
        )


__all__ = [
    "MAX_PARAMETERS_PER_BYTE",
    "allowed_parameters",
    "check_end",
    "check_no_strategy",
    "check_size",
    "pack_sizes",
    "parse_sizes",
]
