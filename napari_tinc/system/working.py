"""Working folders that do not outlive their process: what one that was killed has left, the next one removes.

Each is locked as long as its process works in it. The system gives the lock back however the process ends, so that a
folder whose lock can be had is nobody's any more. Where the system or the disk knows no such locks, nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TOKEN = "[0-9a-f]{16}"


@contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder for as long as the block runs, after removing those that killed processes have left.

    Parameters
    ----------
    parent : Path
        Where it is made.
    prefix : str
        Of its name; what it begins with must be nobody else's.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    _remove_abandoned(parent, prefix)
    folder, lock = _make(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _make(parent: Path, prefix: str) -> tuple[Path, int | None]:
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        if fcntl is None:
            return folder, None
        # Until it is locked, another process may take it for abandoned, and remove it.
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            try:
                lock = _lock(folder)
            except (FileNotFoundError, BlockingIOError):
                raise
            except OSError:
                return folder, None
            if folder.is_dir():
                return folder, lock
            os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder; BlockingIOError if another process has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(parent: Path, prefix: str) -> None:
    if fcntl is None:
        return
    name = re.compile(re.escape(prefix) + _TOKEN)
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        found = [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]
        for folder in found:
            with contextlib.suppress(OSError):
                if folder.lstat().st_uid == os.geteuid():
                    _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    lock = _lock(folder)
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


__all__ = ["working_folder"]
