"""Put files into the page template, or beside it."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from napari_tinc import format as frames
from napari_tinc.errors import InputError
from napari_tinc.share.array import ShareableArray
from napari_tinc.system.output import check_output, replacing, write_atomic

# The only marks of the template that are left for Python; all are replaced at once, so what a file says is never one.
_MARK = re.compile("@@(TITLE|FILES|DATA|CONNECT)@@")
_PAGE = "index.html"
# A page of more than this may not open, for a browser holds it several times; a folder has no such limit.
MOST_EMBEDDED = 2**28
_DECODED = (frames.MODEL_CONSTANT, frames.MODEL_WAVELETS, frames.MODEL_EXACT, frames.MODEL_PREDICTIVE)


@dataclass(frozen=True, slots=True)
class Shareable:
    """A compressed volume that a page can be made of; `of` checks it.

    Parameters
    ----------
    name : str
        What the page calls the file.
    data : bytes
        The frame.
    title : str
        The name of the volume, or that of the file.
    decoded : bool
        False if it holds a network, which pages do not decode.
    """

    name: str
    data: bytes
    title: str
    decoded: bool

    @property
    def nbytes(self) -> int:
        """Size of the frame."""
        return len(self.data)

    @classmethod
    def of(cls, name: str, data: bytes) -> Shareable:
        """Check a frame in memory; raises `FormatError` where it is damaged."""
        header = frames.parse(data).header
        return cls(name, data, header.metadata.name or name, header.model in _DECODED)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Shareable:
        """Read a ``.tinc`` file; raises `FormatError` where it is damaged, `InputError` where it cannot be read."""
        return cls.of(Path(path).name, frames.read(path))


def write_page(path: str | os.PathLike[str], files: Sequence[Shareable], overwrite: bool = False) -> int:
    """Write one HTML file that shows volumes in any current browser: from disk, and without a network.

    Parameters
    ----------
    path : str or PathLike
        The page to write, whole or not at all.
    files : sequence of Shareable
        One volume, or two of the same shape that are to be compared.
    overwrite : bool
        Whether an existing page may be replaced.

    Returns
    -------
    int
        Its size in bytes.

    Raises
    ------
    InputError
        The files are too large to be embedded, or the page cannot be written.
    """
    check_output(path, overwrite)
    size = sum(file.nbytes for file in files)
    if size > MOST_EMBEDDED:
        raise InputError(
            f"expected files of at most {MOST_EMBEDDED} bytes in one page, got {size}; share into a folder instead"
        )
    listed = [{"name": file.name, "bytes": file.nbytes, "element": f"data-{i}"} for i, file in enumerate(files)]
    data = "\n".join(
        f'<script type="application/octet-stream" id="data-{i}">{base64.b64encode(file.data).decode("ascii")}</script>'
        for i, file in enumerate(files)
    )
    page = _filled(files[0].title, listed, data, "'none'")
    write_atomic(path, page, overwrite)
    return len(page)


def write_folder(
    folder: str | os.PathLike[str], files: Sequence[Shareable | ShareableArray], overwrite: bool = False
) -> int:
    """Write a folder for a web server: the page, and the files beside it, of which it fetches what a view needs.

    Parameters
    ----------
    folder : str or PathLike
        The folder to write into; it is made if there is none.
    files : sequence of Shareable or ShareableArray
        As for `write_page`. An array that lies in the folder is left as it is.
    overwrite : bool
        Whether existing files may be replaced.

    Returns
    -------
    int
        Size of all files in bytes.

    Raises
    ------
    InputError
        Two files have one name, or the folder cannot be written to.
    """
    place = Path(folder)
    names = [_PAGE, *(file.name for file in files)]
    if len(set(names)) < len(names):
        raise InputError(f"expected files of different names, got {' and '.join(names[1:])}; rename one")
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"expected to make the folder {place}, got {error.strerror}; choose another name") from error
    missing = [file for file in files if not (isinstance(file, ShareableArray) and _same(place / file.name, file.path))]
    for name in (_PAGE, *(file.name for file in missing)):
        check_output(place / name, overwrite)
    for file in missing:
        if isinstance(file, Shareable):
            write_atomic(place / file.name, file.data, overwrite)
        else:
            with replacing(place / file.name, overwrite) as partial:
                shutil.copytree(file.path, partial)
    page = _filled(files[0].title, [_listed(file) for file in files], "", "'self'")
    write_atomic(place / _PAGE, page, overwrite)
    return len(page) + sum(file.nbytes for file in files)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _listed(file: Shareable | ShareableArray) -> dict[str, object]:
    """Say what the page is told of a file beside it."""
    if isinstance(file, Shareable):
        return {"name": file.name, "bytes": file.nbytes, "url": quote(file.name)}
    return {"name": file.name, "bytes": file.nbytes, "url": f"{quote(file.name)}/", "array": file.description}


def _filled(title: str, files: Sequence[Mapping[str, object]], data: str, connect: str) -> bytes:
    """Fill in the template. What files say of themselves is text: no character of it ends a tag or a script."""
    listed = json.dumps(files).replace("<", "\\u003c")
    values = {"TITLE": html.escape(title), "FILES": listed, "DATA": data, "CONNECT": connect}
    template = resources.files("napari_tinc.share").joinpath("page.html").read_text(encoding="utf-8")
    return _MARK.sub(lambda mark: values[mark[1]], template).encode("utf-8")
