"""The command that makes a web page of a .tinc file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tinc.cli.options import AsJson, Overwrite
from napari_tinc.cli.terminal import print_result, reporting

PAGE_SUFFIXES = (".html", ".htm")


def share(
    source: Annotated[Path, typer.Argument(metavar="IN.tinc", help="A .tinc file.")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.html | DIR", help="The page to write; or a folder for a web server, page and file in it."
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Option("--with", metavar="OTHER.tinc", help="A second file of the same shape, to compare with."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a web page that shows a .tinc file in any browser, without a network and without Python."""
    with reporting(as_json):
        from napari_tinc.share import Shareable, write_folder, write_page

        files = [Shareable.read(path) for path in (source, other) if path is not None]
        single = output.suffix.lower() in PAGE_SUFFIXES
        written = write_page(output, files, overwrite) if single else write_folder(output, files, overwrite)
        said: dict[str, object] = {"output": str(output), "bytes": written}
        unseen = [file.name for file in files if not file.decoded]
        if unseen:
            said["note"] = (
                f"holds a network, which pages do not decode: {', '.join(unseen)}; --model wavelet makes others"
            )
        print_result(said, as_json)
