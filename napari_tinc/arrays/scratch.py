"""Arrays that may be larger than memory, and how to go through them piece by piece.

What is too large for memory is kept in a file that has no name any more: the system takes its pages in and out, and
nothing is left of it when the process ends, however it ends.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from itertools import accumulate, pairwise, product
from numbers import Integral
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil

from napari_tinc.errors import InputError
from napari_tinc.system.steps import complete

Array = npt.NDArray[Any]
Bounds = tuple[tuple[int, int], ...]

# A compression holds the volume, its coefficients twice and pieces of both.
_SHARE_OF_FREE = 8
_ZEROS = bytes(2**22)
# What is read at a time, and how often the reader can be stopped meanwhile.
_BLOCK_BYTES, _BLOCK_CHUNKS, _READ_SECONDS = 2**25, 2**14, 0.1
_limit: ContextVar[int | None] = ContextVar("limit", default=None)


class ArrayLike(Protocol):
    """What dask, zarr and others have in common with an ndarray."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> Any: ...  # noqa: D102
    def __getitem__(self, key: Any, /) -> Any: ...


@contextmanager
def memory_limit(nbytes: int) -> Iterator[None]:
    """Keep every working array of more than ``nbytes`` in a file while the block runs.

    By default the limit is an eighth of the memory that is free. The files are in the folder that ``TMPDIR`` names, by
    default in ``/var/tmp`` or where the system keeps temporary files, and vanish with the process.

    Parameters
    ----------
    nbytes : int
        Bytes of one array.
    """
    token = _limit.set(nbytes)
    try:
        yield
    finally:
        _limit.reset(token)


def fits_memory(nbytes: int) -> bool:
    """Whether an array of so many bytes is kept in memory."""
    return nbytes <= _allowed()


def _allowed() -> int:
    """Bytes of the largest array that is kept in memory."""
    limit = _limit.get()
    return psutil.virtual_memory().available // _SHARE_OF_FREE if limit is None else limit


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Make an array of zeros, in memory or in a file.

    Raises
    ------
    InputError
        If the disk has no room for it.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if fits_memory(nbytes):
        return np.zeros(shape, dtype)
    folder = _folder()
    try:
        if nbytes > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), nbytes)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"expected {nbytes / 1e9:.1f} GB of working space in {folder}, got: {error.strerror}; "
            "make room, name another folder in TMPDIR, or do it in parts"
        ) from error


def read_steps(source: ArrayLike, copy: bool = False) -> Generator[tuple[int, int], None, Array]:
    """Read a dask, zarr or similar array block by block; return an ndarray as it is, or copy it likewise.

    Blocks meet where chunks do and hold many small ones. They are read in a thread, and there is a step at least every
    tenth of a second: whoever closes the generator need not wait for a slow disk.

    Parameters
    ----------
    source : ndarray or array-like
        Anything with ``shape``, ``dtype`` and slicing that gives arrays.
    copy : bool
        Whether an ndarray is copied, too.

    Yields
    ------
    blocks read, all blocks

    Raises
    ------
    InputError
        If the shape is not known, or a block is masked.
    """
    if isinstance(source, np.ndarray) and not copy:
        return np.asarray(source)  # not a matrix, whose slices have two axes
    if not all(isinstance(side, Integral) for side in source.shape):
        raise InputError(f"expected an array of known shape, got {source.shape}; compute its chunk sizes first")
    dtype = np.dtype(source.dtype)
    copied = zeros(tuple(map(int, source.shape)), dtype.newbyteorder("="))
    pieces, total = blocks(source, min(_BLOCK_BYTES, _allowed()) // max(1, dtype.itemsize))
    pool = ThreadPoolExecutor(1, thread_name_prefix="tinc-blocks")
    try:
        for number, block in enumerate(pieces):
            read = pool.submit(copy_context().run, _read_into, copied, source, block)
            while wait([read], _READ_SECONDS).not_done:
                yield number, total
            read.result()
            yield number + 1, total
    finally:
        pool.shutdown(wait=False)
    return copied


def _read_into(copied: Array, source: ArrayLike, block: tuple[slice, ...]) -> None:
    read = source[block]
    if hasattr(read, "compute"):  # dask, and what is made of it
        read = read.compute()
    if isinstance(read, np.ma.MaskedArray):
        raise InputError("expected an array without a mask, got a masked one; fill it, for example with filled(0)")
    copied[block] = read


def blocks(source: ArrayLike, voxels: int) -> tuple[Iterator[tuple[slice, ...]], int]:
    """Cut an array where its chunks meet into blocks of at most ``voxels``, but of one chunk at least; and count them.

    The chunks themselves, of which there may be billions, are not listed.
    """
    known = getattr(source, "shards", None) or getattr(source, "chunks", None)
    chunks = known or (1,) * len(source.shape)
    chunk = math.prod(max(1, max(side) if isinstance(side, tuple) else side) for side in chunks)
    left = min(voxels // chunk, _BLOCK_CHUNKS) if known else voxels
    axes: list[list[slice]] = []
    for stop, side in reversed(list(zip(source.shape, chunks, strict=True))):
        starts: Sequence[int] = [0, *accumulate(side[:-1])] if isinstance(side, tuple) else range(0, stop, side)
        count = min(max(1, len(starts)), max(1, left))
        left //= count
        axes.append([slice(a, b) for a, b in pairwise([*starts[::count], stop])])
    return product(*reversed(axes)), math.prod(map(len, axes))


def to_array(source: ArrayLike) -> Array:
    """Run :func:`read_steps` to its end."""
    return complete(read_steps(source))


def boxes(bounds: Bounds, voxels: int) -> Iterator[Bounds]:
    """Cut a region into boxes of at most ``voxels``, as near to cubes as it allows, in row-major order.

    They meet at multiples of their sides, powers of two, wherever the region begins: blocks are not cut in two.
    """
    left, ranges = voxels, list[Sequence[tuple[int, int]]]([()] * len(bounds))
    by_length = sorted(range(len(bounds)), key=lambda axis: bounds[axis][1] - bounds[axis][0])
    for position, axis in enumerate(by_length):
        start, stop = bounds[axis]
        root = left ** (1 / (len(bounds) - position)) * (1 + 1e-9)
        side = stop - start if stop - start <= root else 2 ** int(math.log2(max(1.0, root)))
        left //= max(1, side)
        ranges[axis] = spans(start, stop, side) if side < stop - start else [(start, stop)]
    return product(*ranges)


def spans(start: int, stop: int, side: int) -> list[tuple[int, int]]:
    """Cut a range at the multiples of a side, wherever it begins; an empty one is one span."""
    return list(pairwise([start, *range((start // side + 1) * side, stop, side), stop]))


def slabs(shape: tuple[int, ...], voxels: int) -> Iterator[tuple[slice, ...]]:
    """Cut a shape along its first axis into slabs of at most ``voxels``; a row that is more, along its own first axis.

    Unlike boxes, they follow one another in a C-contiguous array. The last axis stays whole, but in 1-D.
    """
    row = math.prod(shape[1:])
    if row > voxels and len(shape) > 2:
        for index in range(shape[0]):
            yield from ((slice(index, index + 1), *rest) for rest in slabs(shape[1:], voxels))
        return
    yield from ((slice(*span),) for span in spans(0, shape[0], max(1, voxels // row)))


def middle(shape: tuple[int, ...], share: float) -> Bounds:
    """Bounds of the middle of a shape, of about this share of its voxels and the same proportions."""
    sides = [max(1, round(share ** (1 / len(shape)) * n)) for n in shape]
    return tuple(((n - side) // 2, (n - side) // 2 + side) for n, side in zip(shape, sides, strict=True))


def halton(points: int, axes: int) -> npt.NDArray[np.float64]:
    """First points of the Halton sequence (Halton, *Numerische Mathematik* 2, 1960), which fill a cube evenly.

    SciPy has it, too, in a part that takes half a second to load.

    Parameters
    ----------
    points : int
    axes : int
        1 to 3.

    Returns
    -------
    ndarray of float64, shape (points, axes)
        0 to 1; the first is a corner.
    """
    found = np.zeros((points, axes))
    for axis, base in enumerate((2, 3, 5)[:axes]):
        number, digit = np.arange(points), 1.0
        while number.any():
            digit /= base
            found[:, axis] += number % base * digit
            number //= base
    return found


def _folder() -> str:
    """Where working files are: not in /tmp if that can be helped, for it is often memory too."""
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return tempfile.gettempdir()


def _reserve(file: int, nbytes: int) -> None:
    """Take the disk space now: a full disk must raise here, and not kill the process when a page is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, nbytes)
        return
    for start in range(0, nbytes, len(_ZEROS)):
        os.write(file, _ZEROS[: nbytes - start])


__all__ = [
    "ArrayLike",
    "blocks",
    "boxes",
    "fits_memory",
    "halton",
    "memory_limit",
    "middle",
    "read_steps",
    "slabs",
    "spans",
    "to_array",
    "zeros",
]
