"""Never a half-written file: checks before, a sibling while writing, one rename at the end."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_tinc.errors import InputError

ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray")


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Refuse a path that could not be written, before any work is done for it.

    Parameters
    ----------
    path : str or Path
        Where a file, or a folder of a Zarr, is to be written.
    overwrite : bool
        An existing file, or an existing Zarr, may be replaced.

    Raises
    ------
    InputError
        The path exists and must not be replaced, or its folder is missing or cannot be written to.
    """
    path = Path(path)
    if os.path.lexists(path):
        if not overwrite:
            raise InputError(f"expected a new file, got {path} which exists; choose another name or pass --overwrite")
        if path.is_dir() and not is_zarr(path):
            raise InputError(f"expected a file or a Zarr to overwrite, got the folder {path}; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"expected an existing folder to write to, got {path.parent}; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _write_error(path, error) from error


@contextmanager
def replacing(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a sibling path to write to; it takes the name of ``path`` when the block ends without an error.

    After an error or Ctrl-C the sibling is removed and what was at ``path`` is still there.

    Raises
    ------
    InputError
        As :func:`check_output`, or the disk is full, or writing failed otherwise.
    """
    path = Path(path)
    check_output(path, overwrite)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        _move(partial, path)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        _remove(partial)


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((path / marker).is_file() for marker in ZARR_MARKERS)


def _move(partial: Path, path: Path) -> None:
    if not path.is_dir() and not partial.is_dir():
        os.replace(partial, path)
        return
    # A folder cannot be replaced in one step: the old one steps aside until the new one is in place.
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    if os.path.lexists(path):
        os.replace(path, aside)
    try:
        os.replace(partial, path)
    except BaseException:
        if os.path.lexists(aside):
            os.replace(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> InputError:
    advice = {
        errno.ENOSPC: "free some space or choose another disk",
        errno.EDQUOT: "free some space or choose another disk",
    }.get(error.errno or 0, "check the folder's permissions and free space, or choose another folder")
    return InputError(f"expected to write {path}, got {error.strerror or error}; {advice}")
