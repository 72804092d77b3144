"""What several commands of the command line share."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_tinc.errors import InputError

DEFAULT_RATIO = 64.0
DEFAULT_PRESET = "fast"
PRESETS = ("fast", "balanced", "best")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Preset = Annotated[
    str,
    typer.Option(help=f"{', '.join(PRESETS)}. fast takes seconds; the others also train networks where they may pay."),
]
Axes = Annotated[str | None, typer.Option(help="Axis letters of tczyx, where the file is silent or wrong.")]
TimeLimit = Annotated[float | None, typer.Option(help="Seconds after which training stops.")]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        min=0,
        help="MB of the largest array kept in memory; an eighth of what is free.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Accept what looks like a label image.")]


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices of an option.

    Raises
    ------
    InputError
        With the choices.
    """
    if value not in choices:
        raise InputError(f"expected {option} to be one of {', '.join(choices)}, got {value!r}; choose one")
