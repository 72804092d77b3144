"""Coding the chunks of one shard, measuring what each has lost, and writing them as one file: a task of any worker."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr

from napari_tinc.arrays.scratch import ArrayLike
from napari_tinc.chunks.frames import SETTINGS, code_chunk, encode_chunk
from napari_tinc.chunks.grid import Grid
from napari_tinc.errors import InputError, TincError
from napari_tinc.files.pyramid import means
from napari_tinc.settings import Settings
from napari_tinc.target import Target

Array = npt.NDArray[Any]
Stats = npt.NDArray[np.float64]

# What is known of every chunk: bytes, 0 for one of nothing but the fill value; sum of squared errors and largest error,
# of finite voxels; range of the voxels; how many are foreground in the original, decoded, and in both; whether exact.
FIELDS = ("nbytes", "squared", "largest", "low", "high", "foreground", "decoded", "both", "exact", "voxels")
_MISSING = 2**64 - 1


@dataclass(frozen=True)
class Coding:
    """How chunks are coded.

    Parameters
    ----------
    target : Target
        The step of the quantiser, or the largest error.
    threshold : float
        Where the foreground begins, in intensity units.
    settings : Settings
        Where they ask for networks, these get as many bytes as the wavelets of that step take.
    """

    target: Target
    threshold: float
    settings: Settings = SETTINGS


@dataclass(frozen=True)
class Level:
    """One resolution of an image that is being written.

    Parameters
    ----------
    source : array-like
        The voxels.
    folder : str
        Of the Zarr array that is written.
    grid : Grid
    axes : str
        One letter per axis.
    aside : str
        Folder, on the same disk, for files that are being written: what a kill leaves of one is not in the array.
    coarser : str or None
        Folder of a Zarr array that gets the means of these voxels; None if there is no coarser one to be made.
    """

    source: ArrayLike
    folder: str
    grid: Grid
    axes: str
    aside: str
    coarser: str | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether a file holds more than one chunk."""
        return self.grid.shard != self.grid.chunk

    def read(self, region: tuple[slice, ...]) -> Array:
        """Return voxels in the machine's byte order.

        Raises
        ------
        InputError
            The source cannot be read there.
        """
        try:
            part = self.source[region]
            # A dask array is computed here: not by the workers that wait for this task, nor by still more threads.
            voxels = np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)
        except TincError:
            raise
        except Exception as error:  # damaged bytes, and lost connections, make storage libraries raise nearly anything
            where = ",".join(f"{side.start}:{side.stop}" for side in region)
            raise InputError(
                f"expected voxels {where} of the source, got {type(error).__name__}: {error}; mend it, then run the "
                "same command again: it goes on from here"
            ) from error
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def write_shard(level: Level, number: int, coding: Coding, note: str | None = None) -> Stats:
    """Code a shard and write it, whole or not at all.

    Parameters
    ----------
    level : Level
    number : int
        Of the shard.
    coding : Coding
    note : str, optional
        A file for the result, written last: while there is none, the shard is not finished.

    Returns
    -------
    ndarray of float64, shape (chunks, fields)
        See `FIELDS`.
    """
    grid = level.grid
    coarse = None if level.coarser is None else zarr.open_array(level.coarser, mode="r+")
    factors = () if coarse is None else halved_axes(grid.shape, coarse.shape)
    region = grid.shard_region(number)
    block = None if coarse is None else np.empty(_halved(region, factors), coarse.dtype)
    rows, frames = [], {}
    for index, cell in grid.chunks_of(number):
        place = grid.chunk_region(cell)
        voxels = level.read(place)
        frame, row = _coded(voxels, level.axes, coding)
        rows.append(row)
        if frame is not None:
            frames[index] = frame
        if block is not None:
            part = means(voxels, factors)
            first = [(a.start - b.start) // f for a, b, f in zip(place, region, factors, strict=True)]
            block[tuple(slice(i, i + n) for i, n in zip(first, part.shape, strict=True))] = part
    if coarse is not None and block is not None:
        begin = [side.start // f for side, f in zip(region, factors, strict=True)]
        with writing(Path(str(level.coarser))):
            coarse[tuple(slice(i, i + n) for i, n in zip(begin, block.shape, strict=True))] = block
    path = Path(level.folder, "c", *map(str, grid.shard_cell(number)))
    if frames:
        data = _packed(frames, int(np.prod(grid.inside))) if level.is_sharded else frames[0]
        write_file(path, data, level.aside)
    elif path.exists():
        path.unlink()
    stats = np.array(rows, np.float64)
    if note is not None:
        write_file(Path(note), stats.tobytes(), level.aside)
    return stats


def probe_chunk(level: Level, cell: tuple[int, ...], halves: tuple[int, ...] | None, step: float) -> tuple[int, int]:
    """Return the bytes that a chunk takes at a step, and those of its means over so many voxels along every axis."""
    voxels = level.read(level.grid.chunk_region(cell))
    if not voxels.any():
        return 0, 0
    size = len(encode_chunk(voxels, level.axes, Target.step(step)))
    return size, 0 if halves is None else len(encode_chunk(means(voxels, halves), level.axes, Target.step(step)))


def _coded(voxels: Array, axes: str, coding: Coding) -> tuple[bytes | None, list[float]]:
    """Code a chunk and compare; no bytes for one of zeros, which an array's readers see where there is no chunk."""
    finite = voxels[np.isfinite(voxels)] if voxels.dtype.kind == "f" else voxels
    span = [float(finite.min()), float(finite.max())] if finite.size else [0.0, 0.0]
    inside = voxels >= coding.threshold
    if not voxels.any():
        count = float(inside.sum())
        return None, [0, 0, 0, *span, count, count, count, 0, voxels.size]
    data, decode = code_chunk(voxels, axes, coding.target)
    if not coding.settings.is_wavelets_alone:
        data, decode = code_chunk(voxels, axes, Target.size(len(data)), coding.settings)
    decoded = voxels if decode is None else decode()
    difference = 0.0 if decode is None else np.abs(np.subtract(decoded, voxels, dtype=np.float64))
    errors = [float(np.vdot(difference, difference)), float(np.max(difference))]
    there = decoded >= coding.threshold
    counts = [float(inside.sum()), float(there.sum()), float((inside & there).sum())]
    return data, [len(data), *errors, *span, *counts, decode is None, voxels.size]


def halved_axes(fine: tuple[int, ...], coarse: tuple[int, ...]) -> tuple[int, ...]:
    """Voxels along every axis that a voxel of the coarser level is the mean of."""
    return tuple(1 if a == b else 2 for a, b in zip(fine, coarse, strict=True))


def _halved(region: tuple[slice, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-(side.stop - side.start) // f) for side, f in zip(region, factors, strict=True))


def _packed(frames: Mapping[int, bytes], count: int) -> bytes:
    """Put chunks in a shard as Zarr does: one after another, then where they are, then the CRC-32C of that."""
    index, offset = np.full((count, 2), _MISSING, "<u8"), 0
    for number, data in frames.items():
        index[number] = offset, len(data)
        offset += len(data)
    ends = index.tobytes()
    return b"".join([*frames.values(), ends, struct.pack("<I", google_crc32c.value(ends))])


def write_file(path: Path, data: bytes, aside: str | Path) -> None:
    """Write a file so that it is there whole, or not at all; until then it is in the folder ``aside``.

    Raises
    ------
    InputError
        The disk is full, or the folder cannot be written to.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(aside, f"{path.name}-{secrets.token_hex(8)}")
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where the operating system refuses to write.

    Raises
    ------
    InputError
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"expected to write {path}, got {error.strerror or error}; make room or choose another disk, then run the "
            "same command again: it goes on from here"
        ) from error


__all__ = ["FIELDS", "Coding", "Level", "Stats", "halved_axes", "probe_chunk", "write_file", "write_shard", "writing"]
