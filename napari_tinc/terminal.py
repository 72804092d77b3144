"""What the command line shows: progress, results, and errors in one line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from napari_tinc.core.steps import complete
from napari_tinc.core.text import printable
from napari_tinc.errors import TincError

if TYPE_CHECKING:
    from napari_tinc.core.training import Progress
    from napari_tinc.volume import CompressedVolume


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn an error, or Ctrl-C, into one line and an exit code."""
    try:
        yield
    except TincError as error:
        if as_json:
            print_result({"error": str(error)}, True)
        else:
            say(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        message = "interrupted: nothing was written"
        typer.echo(json.dumps({"error": message}) if as_json else message, err=not as_json)
        raise typer.Exit(130) from None


def print_result(said: Mapping[str, Any], as_json: bool) -> None:
    """Print a result on stdout, as a table or as one JSON object."""
    if as_json:
        typer.echo(json.dumps(_finite(said), allow_nan=False))
        return
    width = max(map(len, said))
    for key, value in said.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        say(f"{key.replace('_', ' '):{width}}  {shown}")


def say(line: str, err: bool = False) -> None:
    """Print one line; names in it, which come from files, cannot make it two, nor colour or ring the terminal."""
    typer.echo(printable(line), err=err)


def _finite(value: Any) -> Any:
    """Replace infinite and undefined numbers, which JSON does not know, by null."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_showing(steps: Generator[Progress, None, CompressedVolume], quiet: bool) -> CompressedVolume:
    """Drive a compression to its end, showing its progress on stderr unless quiet."""
    with _display(quiet) as show:
        return complete(steps, show)


@contextmanager
def _display(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows progress: a bar on a terminal, a line per tenth elsewhere, nothing when quiet."""
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("", note="")
            yield lambda p: bars.update(task, description=p.phase, completed=p.step, total=p.steps, note=_note(p))
    else:
        shown: set[tuple[str, int]] = set()

        def line(progress: Progress) -> None:
            tenth = (progress.phase, 10 * progress.step // max(1, progress.steps))
            if tenth not in shown:
                shown.add(tenth)
                typer.echo(f"{progress.phase} {10 * tenth[1]} %  {_note(progress)}", err=True)

        yield line


def _note(progress: Progress) -> str:
    quality = f"{progress.best_psnr:.2f} dB" if math.isfinite(progress.best_psnr) else ""
    return f"{quality}  {progress.eta:.0f} s left" if math.isfinite(progress.eta) else quality
