"""What the command line says of files that were compressed, one or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from napari_tinc.cli.terminal import display, print_result
from napari_tinc.encode.batch import Done, Job, Options, Step, compress_files
from napari_tinc.system.steps import complete
from napari_tinc.system.text import decibels_text


def said_of(done: Done) -> dict[str, Any]:
    """Return what is printed of a file that was compressed."""
    return {
        "output": str(done.job.output),
        "raw_bytes": done.raw_bytes,
        "file_bytes": done.file_bytes,
        "ratio": done.ratio,
        "psnr": done.psnr,
        "worst_octant_psnr": done.worst_octant_psnr,
        "seconds": done.seconds,
    }


def run_batch(jobs: Sequence[Job], options: Options, as_json: bool) -> None:
    """Compress files one by one, say what became of each, and exit with 1 if any failed."""
    with display(as_json) as show:

        def shown(step: Step) -> None:
            if step.progress is not None:
                show(step.progress)
            elif step.done is not None and not as_json:
                typer.echo(f"{step.number}/{step.total} {_line(step.done)}", err=True)

        results = complete(compress_files(jobs, options), shown)
    failed = [done for done in results if done.problem]
    if as_json:
        files = [
            {"source": str(done.job.source)} | ({"error": done.problem} if done.problem else said_of(done))
            for done in results
        ]
        print_result({"files": files, "done": len(results) - len(failed), "failed": len(failed)}, True)
    else:
        for done in results:
            typer.echo(_line(done))
        typer.echo(f"{len(results) - len(failed)} of {len(results)} volumes compressed, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)


def _line(done: Done) -> str:
    if done.problem:
        return f"failed: {done.job.source}: {done.problem}"
    return f"{done.job.output}: {done.file_bytes} bytes, {done.ratio:.4g} times smaller, {decibels_text(done.psnr, 2)}"
