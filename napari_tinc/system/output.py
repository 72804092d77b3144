"""Never a half-written file: checks before, a sibling while writing, one rename at the end."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_tinc.errors import InputError
from napari_tinc.system.working import working_folder

ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray")
# Of the hidden folders in which files are made, beside where they go: a rename cannot leave its disk.
PARTIAL_PREFIX = ".tinc-part-"
# Swapping the names of two files or folders in one step: renameat2 of Linux, renameatx_np of macOS, and their flags.
_SWAPS = {"linux": ("renameat2", -100, 2), "darwin": ("renameatx_np", -2, 2)}


def check_output(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse a path that could not be written, before any work is done for it.

    Parameters
    ----------
    path : str or PathLike
        Where a file, or a folder of a Zarr, is to be written; a symbolic link is followed.
    overwrite : bool
        An existing file, or an existing Zarr, may be replaced.

    Raises
    ------
    InputError
        The path exists and must not be replaced, or its folder is missing or cannot be written to.
    """
    target = _target(path)
    if os.path.lexists(target):
        try:
            kind = os.stat(target).st_mode
        except OSError as error:  # a circle of links, or a folder that may not be looked into
            raise _write_error(path, error) from error
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise InputError(f"expected a file to write, got the pipe or device {os.fspath(path)}; choose another name")
        if not overwrite:
            raise _exists_error(path)
        if target.is_dir() and not is_zarr(target):
            raise InputError(
                f"expected a file or a Zarr to overwrite, got the folder {os.fspath(path)}; choose another name"
            )
    if not target.parent.is_dir():
        raise InputError(f"expected an existing folder to write {os.fspath(path)} to, got none; create it first")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _write_error(path, error) from error


@contextmanager
def replacing(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a sibling path to write to; it takes the name of ``path`` when the block ends without an error.

    After an error or Ctrl-C the sibling is removed and what was at ``path`` is still there. After a kill it is the next
    one to write into the same folder that removes it, see :mod:`napari_tinc.system.working`. A file reaches the disk
    before it takes the name; the many files of a Zarr are left to the system, for they can be decoded again.

    Parameters
    ----------
    path : str or PathLike
        The file, or the folder of a Zarr, to write; a symbolic link is followed.
    overwrite : bool
        An existing file, or an existing Zarr, may be replaced. Without it, one that appears meanwhile is safe as well.

    Raises
    ------
    InputError
        As :func:`check_output`, or the disk is full, or writing failed otherwise.
    """
    check_output(path, overwrite)
    target = _target(path)
    try:
        with working_folder(target.parent, PARTIAL_PREFIX) as folder:
            partial = folder / target.name
            yield partial
            _sync(partial)
            _publish(partial, target, overwrite)
    except FileExistsError as error:
        raise _exists_error(path) from error
    except OSError as error:
        raise _write_error(path, error) from error
    _sync_folder(target.parent)


def publish_folder(partial: Path, path: Path, overwrite: bool) -> None:
    """Give a folder that is finished its name, in the place of another Zarr if ``overwrite``.

    Raises
    ------
    InputError
        The name is taken, or the folder cannot be written to.
    """
    target = _target(path)
    try:
        _publish(partial, target, overwrite)
    except OSError as error:
        raise (_exists_error(path) if target.exists() and not overwrite else _write_error(path, error)) from error
    if partial.exists():  # what was replaced
        shutil.rmtree(partial)
    _sync_folder(target.parent)


def write_atomic(path: str | os.PathLike[str], data: bytes, overwrite: bool) -> None:
    """Write a file whole or not at all; see :func:`replacing`.

    Parameters
    ----------
    path : str or PathLike
        The file to write.
    data : bytes
        All of its content.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    InputError
        The file exists and `overwrite` is false, or the operating system refuses to write.
    """
    with replacing(path, overwrite) as partial, open(partial, "xb") as file:
        file.write(data)


def folder_size(path: Path) -> int:
    """Bytes of all files in a folder; 0 if there is none."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((path / marker).is_file() for marker in ZARR_MARKERS)


def _target(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))


def _publish(partial: Path, target: Path, overwrite: bool) -> None:
    """Give what is finished its name."""
    folder = partial.is_dir() or target.is_dir()
    if overwrite and folder:
        _swap(partial, target)
    elif overwrite or folder:
        os.replace(partial, target)  # of folders it replaces empty ones alone
    else:
        _claim(partial, target)


def _swap(partial: Path, target: Path) -> None:
    """Put a folder in the place of another, or of a file; the old one is left where the new one was."""
    if not os.path.lexists(target):
        os.replace(partial, target)
        return
    if _exchanged(partial, target):
        return
    # In two steps: the old one steps aside until the new one is in place. Not into the working folder, which goes.
    aside = target.with_name(f"{target.name}.old-{secrets.token_hex(4)}")
    os.replace(target, aside)
    try:
        os.replace(partial, target)
    except BaseException:
        os.replace(aside, target)
        raise
    os.replace(aside, partial)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the disk cannot."""
    if sys.platform not in _SWAPS:
        return False
    name, here, flag = _SWAPS[sys.platform]
    swap = getattr(ctypes.CDLL(None), name, None)
    return swap is not None and swap(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(flag)) == 0


def _claim(partial: Path, target: Path) -> None:
    """Give a file a name that nobody has."""
    try:
        os.link(partial, target)  # unlike a rename, never replaces a file
    except FileExistsError:
        raise
    except OSError:
        # FAT and some network disks know no hard links: reserve the name, then replace one's own empty file.
        with open(target, "xb"):
            pass
        try:
            os.replace(partial, target)
        except BaseException:
            os.unlink(target)
            raise


def _sync(partial: Path) -> None:
    if partial.is_file():
        with open(partial, "r+b") as file:
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the operating system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exists_error(path: str | os.PathLike[str]) -> InputError:
    return InputError(
        f"expected a new file, got {os.fspath(path)}, which exists; choose another name or replace it with "
        "--overwrite (in Python: overwrite=True)"
    )


def _write_error(path: str | os.PathLike[str], error: OSError) -> InputError:
    # numpy says in a text without a number that not everything was written.
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
    advice = "free some space or choose another disk" if full else "choose a folder that you may write to"
    return InputError(f"expected to write {os.fspath(path)}, got {error.strerror or error}; {advice}")
