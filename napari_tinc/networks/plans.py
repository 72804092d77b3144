"""What families share to plan themselves and to parse their plans."""

from __future__ import annotations

from napari_tinc.errors import FormatError, InputError
from napari_tinc.format.cursor import Cursor
from napari_tinc.geometry.octree import Splits, choose_splits
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


def asked_splits(spatial: tuple[int, ...], settings: Settings, depth: int) -> Splits:
    """Split a volume; a depth that the user asked for must be possible.

    Raises
    ------
    InputError
        If it is not.
    """
    splits = choose_splits(spatial, depth)
    asked = settings.levels is not None or not isinstance(settings.between, str)
    if len(splits) < depth and asked:
        raise InputError(f"expected at most {len(splits) + 1} levels for a volume of {spatial}, got {depth + 1}")
    return splits


__all__ = ["MAX_PARAMETERS_PER_BYTE", "allowed_parameters", "asked_splits", "check_end", "check_size"]
