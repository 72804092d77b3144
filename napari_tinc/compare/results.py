"""What a comparison found: one result per candidate and ratio, and all of them as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_tinc.compare import peers
from napari_tinc.compare.candidates import TINC, Candidate
from napari_tinc.compare.measures import MEASURES, Measures
from napari_tinc.errors import InputError
from napari_tinc.volume import CompressedVolume

DEFAULT_BAR = 30.0  # dB

COLUMNS = (
    "candidate", "same_as", "codec", "target_ratio", "budget", "bytes", "ratio", *MEASURES, "octants_below_bar",
    "encode_seconds", "decode_seconds", "peak_bytes", "problem",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one candidate at one ratio.

    Parameters
    ----------
    candidate : Candidate
    target_ratio : float
        Raw bytes over file bytes that were asked for.
    budget : int
        Bytes that the file might take.
    path : Path or None
        The file in the cache; None if there is none.
    nbytes : int
        Size of the file; 0 if there is none.
    costs : dict
        ``encode_seconds``, ``decode_seconds`` and ``peak_bytes``.
    measures : Measures or None
    octants : ndarray of float64 or None, shape (items, *grid)
        PSNR of every octant in dB, see :attr:`Comparison.truth`.
    problem : str
        Why there is no file: the codec is not installed, cannot reach the budget, or failed; empty if there is one.
    stored : bool
        Whether it was found in the cache.
    same_as : str
        Name of the candidate whose file this is, if the candidate stands for another one (``auto``); else empty.
    """

    candidate: Candidate
    target_ratio: float
    budget: int
    path: Path | None = None
    nbytes: int = 0
    costs: dict[str, float] | None = None
    measures: Measures | None = None
    octants: NDArray[np.float64] | None = None
    problem: str = ""
    stored: bool = False
    same_as: str = ""

    @property
    def label(self) -> str:
        """Both names of the candidate, if it stands for another one; else its name."""
        return f"{self.candidate.name} = {self.same_as}" if self.same_as else self.candidate.name

    @property
    def ok(self) -> bool:
        """Whether there is a file, and with it measures."""
        return self.measures is not None

    def decode(self) -> NDArray[Any]:
        """Decode the whole volume from the file in the cache.

        Raises
        ------
        InputError
            If there is no file, or it was removed meanwhile.
        """
        if self.candidate.codec == TINC:
            return self.volume().decode()
        return peers.unpack(self.to_bytes())

    def volume(self) -> CompressedVolume:
        """Open our own file: it decodes in parts and at any scale, and knows its octants.

        Raises
        ------
        InputError
            If it is a peer's, or there is no file.
        """
        if self.candidate.codec != TINC:
            raise InputError(f"expected one of our own files, got one of {self.candidate.codec}: use decode()")
        return CompressedVolume(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's content.

        Raises
        ------
        InputError
            If there is none.
        """
        if self.path is None:
            raise InputError(f"expected a file of {self.candidate.name}, got none: {self.problem}")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(
                f"expected the file {self.path} in the cache, got {error.strerror}; compare again"
            ) from error


def table(results: Iterable[Result], raw_nbytes: int, bar: float = DEFAULT_BAR) -> pd.DataFrame:
    """Put results into a tidy table, one row each.

    Parameters
    ----------
    results : iterable of Result
    raw_nbytes : int
        Size of the volume.
    bar : float
        PSNR in dB below which an octant is not good enough.

    Returns
    -------
    DataFrame
        Columns as in :data:`COLUMNS`; numbers that do not apply are nan.
    """
    rows = [_row(result, raw_nbytes, bar) for result in results]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(result: Result, raw_nbytes: int, bar: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    row |= {
        "candidate": result.candidate.name,
        "same_as": result.same_as,
        "codec": result.candidate.codec,
        "problem": result.problem,
    }
    row |= {"target_ratio": result.target_ratio, "budget": result.budget}
    if result.measures is not None and result.octants is not None:
        row |= {"bytes": result.nbytes, "ratio": raw_nbytes / result.nbytes}
        row |= {**asdict(result.measures), **(result.costs or {})}
        row["octants_below_bar"] = float((result.octants < bar).mean())
    return row
