"""What the command line shows: progress, results, and errors in one line."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from napari_tinc.errors import TincError
from napari_tinc.system.steps import complete
from napari_tinc.system.text import printable

if TYPE_CHECKING:
    from napari_tinc.progress import Progress

Result = TypeVar("Result")


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): like Ctrl-C, by somebody else."""


class _UnprintedError(TincError):
    """Nobody can be told the result."""


_WORDS = {KeyboardInterrupt: ("interrupted", signal.SIGINT), Terminated: ("terminated", signal.SIGTERM)}
# Whether a command runs that reports what becomes of it; and the signals that have asked it to end.
_commands: list[str] = []
_asked: list[type[KeyboardInterrupt]] = []


def listen() -> None:
    """Unwind at Ctrl-C and at SIGTERM, so that unfinished files and working folders are removed."""
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: object) -> None:
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    if not _commands:  # what reads the command line would end without a word
        typer.echo(f"{_WORDS[kind][0]}: nothing was started", err=True)
        raise SystemExit(128 + number)
    _asked.append(kind)
    raise kind


def end_if_asked() -> None:
    """Unwind now if that was asked for: an exception does not get through the compiler's callbacks, for example."""
    if _asked:
        raise _asked[-1]


class _Said(logging.Handler):
    """Show what the library logs on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


def _tell_of_compiling() -> None:
    """Say on stderr when the coder has to be compiled first, lest it seem to hang."""
    log = logging.getLogger("napari_tinc.kernels")  # which is not loaded before it is needed
    if not log.handlers:
        log.setLevel(logging.INFO)
        log.addHandler(_Said())


@contextmanager
def reporting(as_json: bool, kept: str = "no unfinished file is left") -> Iterator[None]:
    """Turn an error, Ctrl-C or SIGTERM into one line and an exit code; ``kept`` says what the command leaves then."""
    _commands.append(kept)
    if not as_json:
        _tell_of_compiling()
    try:
        yield
    except TincError as error:
        _tell({"error": str(error)}, f"error: {error}", as_json and not isinstance(error, _UnprintedError))
        raise typer.Exit(1) from None
    except KeyboardInterrupt as error:
        word, number = _WORDS[type(error)]
        _tell({"error": f"{word}: {kept}"}, f"{word}: {kept}", as_json)
        raise typer.Exit(128 + number) from None
    finally:
        _commands.pop()


def _tell(said: Mapping[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_result(said, True)
    else:
        say(line, err=True)


def print_result(said: Mapping[str, Any], as_json: bool) -> None:
    """Print a result on stdout, as a table or as one JSON object."""
    if as_json:
        say(json.dumps(_finite(said), allow_nan=False))
        return
    width = max(map(len, said))
    for key, value in said.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        say(f"{key.replace('_', ' '):{width}}  {shown}")


def say(line: str, err: bool = False) -> None:
    """Print one line; names in it, which come from files, cannot make it two, nor colour or ring the terminal.

    Raises
    ------
    TincError
        If what stdout goes to is full.
    """
    try:
        typer.echo(printable(line), err=err)
    except BrokenPipeError:
        raise  # whoever reads has seen enough
    except OSError as error:
        if err:
            raise
        # What could not be written waits in a buffer, and would raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _UnprintedError(f"expected to print the result, got: {error.strerror}; the work is done") from error


def _finite(value: Any) -> Any:
    """Replace infinite and undefined numbers, which JSON does not know, by null."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_showing(steps: Generator[Progress, None, Result], quiet: bool) -> Result:
    """Drive a compression to its end, showing its progress, and what is to be known, on stderr unless quiet."""
    with display(quiet) as show:

        def show_or_end(progress: Progress) -> None:
            end_if_asked()
            show(progress)

        return complete(steps, show_or_end)


@contextmanager
def display(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows progress: a bar on a terminal, a line per tenth elsewhere, nothing when quiet.

    What a progress has to say in words is a line of its own.
    """
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

            def moved(p: Progress) -> None:
                if p.note:
                    bars.console.print(p.note)
                bars.update(task, description=p.phase, completed=p.step, total=p.steps, note=_note(p))

            yield moved
    else:
        shown: set[tuple[str, int]] = set()

        def line(progress: Progress) -> None:
            if progress.note:
                typer.echo(progress.note, err=True)
            tenth = (progress.phase, 10 * progress.step // max(1, progress.steps))
            if tenth not in shown:
                shown.add(tenth)
                typer.echo(f"{progress.phase} {10 * tenth[1]} %  {_note(progress)}", err=True)

        yield line


def _note(progress: Progress) -> str:
    quality = f"{progress.best_psnr:.2f} dB" if math.isfinite(progress.best_psnr) else ""
    return f"{quality}  {progress.eta:.0f} s left" if math.isfinite(progress.eta) else quality
