"""What several commands of the command line share."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from napari_tinc.arrays.metadata import SPATIAL
from napari_tinc.choices import DEVICES, MODELS, PRESETS, WITHIN
from napari_tinc.errors import InputError

DEFAULT_RATIO = 64.0

if TYPE_CHECKING:  # mypy knows only enums whose members are spelt out
    PresetName: TypeAlias = str
    ModelName: TypeAlias = str
    WithinName: TypeAlias = str
    DeviceName: TypeAlias = str
else:
    PresetName, ModelName, WithinName, DeviceName = (
        StrEnum(name, {choice: choice for choice in choices})
        for name, choices in {"Preset": PRESETS, "Model": MODELS, "Within": WITHIN, "Device": DEVICES}.items()
    )

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Preset = Annotated[
    PresetName,
    typer.Option(
        help="fast takes seconds; balanced and best also train networks where these may improve the file, for minutes."
    ),
]
DEFAULT_PRESET, DEFAULT_MODEL = PresetName("fast"), ModelName("auto")
DEFAULT_WITHIN, DEFAULT_DEVICE = WithinName("equal"), DeviceName("auto")
Axes = Annotated[
    str | None, typer.Option(help="Axes as letters of tczyx, if the file does not name them or names them wrongly.")
]
TimeLimit = Annotated[float | None, typer.Option(help="Seconds after which training stops.")]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        min=0,
        help="Larger arrays than this many MB are kept in files; an eighth of the free memory if not given.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Compress even if it looks like a label image.")]


def parse_region(text: str | None, axes: str, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Turn ``"0:16,:,5"`` into slices, one per axis; a single number keeps its axis.

    Parameters
    ----------
    text : str or None
        One part for every axis, or for every spatial axis; None is everything.
    axes : str
        The volume's axis letters.
    shape : tuple of int
        The volume's shape.

    Raises
    ------
    InputError
        The text is not a region of the volume.
    """
    whole = ",".join(":" for _ in axes)
    parts = (whole if text is None else text).split(",")
    wanted = axes if len(parts) == len(axes) else "".join(letter for letter in axes if letter in SPATIAL)
    if len(parts) != len(wanted):
        raise InputError(f"expected --region with a part for each of the axes {axes}, got {text!r}; such as {whole!r}")
    by_letter = dict(zip(wanted, parts, strict=True))
    return tuple(_slice(by_letter.get(letter, ":"), letter, size) for letter, size in zip(axes, shape, strict=True))


def _slice(text: str, letter: str, size: int) -> slice:
    first, colon, last = text.partition(":")
    try:
        start = int(first or 0) if colon else int(first)
        stop = int(last or size) if colon else start + 1
    except ValueError:
        start = stop = -1
    if not 0 <= start < stop <= size:
        raise InputError(f"expected --region to give {letter} as start:stop within 0:{size}, got {text!r}; correct it")
    return slice(start, stop)
