"""What a finished array says of itself: how it was made, and the bytes and errors of every chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_tinc.chunks.grid import Grid
from napari_tinc.chunks.shards import FIELDS, Stats
from napari_tinc.errors import FormatError, InputError
from napari_tinc.measures.metrics import psnr_from_mse

KEY = "napari-tinc"
GROUP = "napari-tinc"
VERSION = 1
# Suffix of the folder that an array is made in; it gets its name when it is finished.
UNFINISHED = ".unfinished"


@dataclass(frozen=True, eq=False)
class Manifest:
    """What is known of a finished array.

    Parameters
    ----------
    facts : dict
        Version, step, bytes, ratio, PSNR, and how it was made.
    levels : tuple of ndarray of float64, shape (fields, *chunks)
        What is known of every chunk of every level, see :data:`napari_tinc.chunks.shards.FIELDS`.
    chunks : tuple of tuple of int
        Shape of the chunks of every level.
    """

    facts: Mapping[str, Any]
    levels: tuple[Stats, ...]
    chunks: tuple[tuple[int, ...], ...]

    def field(self, name: str, level: int = 0) -> Stats:
        """Return one number of every chunk."""
        return np.asarray(self.levels[level][FIELDS.index(name)])

    def psnr(self, level: int = 0) -> npt.NDArray[np.float64]:
        """PSNR of every chunk in dB over the range of the whole level; infinite where nothing is lost."""
        span = float(self.field("high", level).max() - self.field("low", level).min())
        return np.asarray(psnr_from_mse(self.mse(level), span))

    def mse(self, level: int = 0) -> npt.NDArray[np.float64]:
        """Mean squared error of every chunk."""
        return np.asarray(self.field("squared", level) / np.maximum(self.field("voxels", level), 1))

    def dice(self, level: int = 0) -> npt.NDArray[np.float64]:
        """Dice of the foreground of every chunk; 1 where neither the original nor the decoded has any."""
        total = self.field("foreground", level) + self.field("decoded", level)
        dice: npt.NDArray[np.float64] = np.where(total > 0, 2 * self.field("both", level) / np.maximum(total, 1), 1.0)
        return dice


def totals(stats: Sequence[Stats]) -> dict[str, Any]:
    """Sum up the finest level: PSNR in dB over its range, largest error, chunks and exact ones, Dice.

    Parameters
    ----------
    stats : sequence of ndarray, shape (chunks, fields)
    """
    rows = np.concatenate(stats)
    by_name = dict(zip(FIELDS, rows.T, strict=True))
    span = float(by_name["high"].max() - by_name["low"].min())
    mse = float(by_name["squared"].sum() / by_name["voxels"].sum())
    foreground = float((by_name["foreground"] + by_name["decoded"]).sum())
    psnr = float(psnr_from_mse(mse, span))
    return {
        "psnr": psnr if np.isfinite(psnr) else "inf",
        "largest_error": float(by_name["largest"].max()),
        "dice": 2 * float(by_name["both"].sum()) / foreground if foreground else 1.0,
        "chunks": len(rows),
        "exact_chunks": int(by_name["exact"].sum()),
        "empty_chunks": int((by_name["nbytes"] == 0).sum()),
    }


def write_chunk_facts(folder: Path, grids: Sequence[Grid], stats: Sequence[Stats]) -> None:
    """Write what is known of every chunk.

    Parameters
    ----------
    folder : Path
        Of the image.
    grids : sequence of Grid
        Of every level.
    stats : sequence of ndarray, shape (chunks, fields)
        Of every level, shard after shard.
    """
    group = zarr.open_group(folder / GROUP, mode="w", zarr_format=3)
    for number, (grid, rows) in enumerate(zip(grids, stats, strict=True)):
        whole = np.zeros((len(FIELDS), *grid.chunks))
        cells = [cell for shard in range(grid.count) for _, cell in grid.chunks_of(shard)]
        whole[(slice(None), *np.array(cells).T)] = rows.T
        array = group.create_array(str(number), shape=whole.shape, chunks=whole.shape, dtype="float64")
        array[...] = whole
        array.attrs.put({"fields": list(FIELDS), "chunk": list(grid.chunk)})


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what is known of an array, last of all: it says that the array is finished."""
    image = zarr.open_group(folder, mode="r+")
    image.attrs.put(image.attrs.asdict() | {KEY: {"version": VERSION} | dict(facts)})


def read_manifest(path: Path) -> Manifest | None:
    """Read the manifest of an array of ours; None for any other Zarr.

    Raises
    ------
    InputError
        The array is unfinished.
    FormatError
        The manifest is damaged, or of a later version.
    """
    try:
        image = zarr.open_group(path, mode="r")
    except (FileNotFoundError, ValueError):  # zarr's for what is no group
        return None
    facts = image.attrs.asdict().get(KEY)
    if facts is None:
        if path.name.endswith(UNFINISHED):
            raise InputError(
                f"expected a finished array, got {path.name}, which is unfinished; run the command that makes it again"
            )
        return None
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise FormatError(f"expected a manifest of version {VERSION}, got {facts!r:.100}; update napari-tinc")
    try:
        members: list[Any] = [image[f"{GROUP}/{number}"] for number in range(int(facts["levels"]))]
        levels = tuple(np.asarray(member[...]) for member in members)
        chunks = tuple(tuple(int(n) for n in member.attrs["chunk"]) for member in members)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"expected what is known of every chunk in {path.name}/{GROUP}, got {error}") from error
    if any(len(level) != len(FIELDS) for level in levels):
        raise FormatError(f"expected {len(FIELDS)} numbers of every chunk in {path.name}/{GROUP}, got others")
    return Manifest(facts, levels, chunks)


__all__ = ["GROUP", "KEY", "UNFINISHED", "Manifest", "read_manifest", "totals", "write_chunk_facts", "write_facts"]
