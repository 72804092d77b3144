"""The command that makes a web page of a .tinc file, or of an OME-Zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tinc.cli.options import AsJson, Overwrite
from napari_tinc.cli.terminal import print_result, reporting
from napari_tinc.errors import InputError

PAGE_SUFFIXES = (".html", ".htm")


def share(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A .tinc file, or an OME-Zarr that compress has made.")],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.html | DIR",
            help="The page to write; or a folder for a web server, page and file in it. An OME-Zarr needs a folder.",
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Option("--with", metavar="OTHER", help="A second one of the same shape, to compare with."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a web page that shows a compressed volume in any browser, without Python."""
    with reporting(as_json):
        from napari_tinc.share import Shareable, ShareableArray, write_folder, write_page

        paths = [path for path in (source, other) if path is not None]
        files = [ShareableArray.read(path) if path.is_dir() else Shareable.read(path) for path in paths]
        if output.suffix.lower() in PAGE_SUFFIXES:
            single = [file for file in files if isinstance(file, Shareable)]
            if len(single) < len(files):
                raise InputError(
                    f"expected a folder for the page of an OME-Zarr, got {output}; name one that a web server shows"
                )
            written = write_page(output, single, overwrite)
        else:
            written = write_folder(output, files, overwrite)
        said: dict[str, object] = {"output": str(output), "bytes": written}
        unseen = [file.name for file in files if not file.decoded]
        if unseen:
            said["note"] = (
                f"holds a network, which pages do not decode: {', '.join(unseen)}; --model wavelet makes others"
            )
        print_result(said, as_json)
