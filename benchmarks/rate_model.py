"""How well the bytes of wavelet coefficients are guessed before any is coded, and how many encodings that leaves.

    python benchmarks/rate_model.py VOLUMES --ratios 16 64 256

Per volume and ratio: by how much the first whole encoding misses the size its step was guessed for, in percent (where
there are many blocks, some were coded for the guess); how many whole encodings the search of `fast` takes; how full the
room is then; and, where axes may be split in several ways, what the way that was chosen costs above the best one at one
step (squared error and bytes at their exchange rate), in percent. No masks and no filters.
"""

from __future__ import annotations

import argparse
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import tifffile

from napari_tinc import Metadata
from napari_tinc.encode.original import Original
from napari_tinc.geometry.pyramid import dyadic_splits
from napari_tinc.quantiser import step_of
from napari_tinc.system.steps import complete
from napari_tinc.wavelets import search
from napari_tinc.wavelets.coding import Coding
from napari_tinc.wavelets.likely import LAMBDA
from napari_tinc.wavelets.residual import Residual


@contextmanager
def counted() -> Iterator[list[tuple[tuple[int, ...], int]]]:
    """List the shape and the bytes of everything that is encoded inside."""
    made: list[tuple[tuple[int, ...], int]] = []
    encode = search._whole

    def noted(codings: list[Coding], number: int) -> Generator[int, None, search.Fit]:
        fit = yield from encode(codings, number)
        made.append((fit.layers[0].head.pyramid.shape, fit.nbytes))
        return fit

    with mock.patch.object(search, "_whole", noted):
        yield made


def excess(residual: Residual, chosen: search.Fit) -> float:
    """What the way that was chosen to split axes costs above the best one, at its own step."""
    head = chosen.layers[0].head
    costs = {}
    for elongation in search.ELONGATIONS:
        splits = dyadic_splits(residual.shape, elongation)
        items = complete(search._transformed([residual], splits, head.pyramid.side))
        fit = complete(search._encode(items, head.step_code, 0))
        costs[splits] = fit.error + LAMBDA * step_of(head.step_code) ** 2 * 8 * fit.nbytes
    return costs[head.pyramid.splits] / min(costs.values()) - 1 if len(costs) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratios", nargs="+", type=float, default=[16.0, 64.0, 256.0])
    arguments = parser.parse_args()
    rows = []
    print("| volume | ratio | first guess off by, % | encodings | full, % | way of splitting, % above the best |")
    print("|---|---|---|---|---|---|")
    for path in sorted(arguments.folder.glob("*.tif")):
        volume = tifffile.imread(path)
        if volume.ndim != 3 or any(word in path.stem for word in ("mask", "clean")):
            continue
        residual = Original.prepare(volume, Metadata.default(3), None).residual(0)
        assert residual is not None
        for ratio in arguments.ratios:
            room = int(volume.nbytes / ratio)
            with counted() as made:
                fit = complete(search.fit([residual], room))
            assert fit is not None
            whole = [nbytes for shape, nbytes in made if shape == residual.shape]
            first = whole[0]
            row = (100 * (first / room - 1), len(whole), 100 * fit.nbytes / room, 100 * excess(residual, fit))
            rows.append(row)
            print(f"| `{path.stem}` | {ratio:g} | {row[0]:+.1f} | {row[1]} | {row[2]:.1f} | {row[3]:.2f} |", flush=True)
    table = np.array(rows)
    off, encodings, full, ways = table.T
    print(f"\nfirst guess: {np.median(np.abs(off)):.1f} % off (median), {np.abs(off).max():.0f} % at most")
    print(f"encodings: {encodings.mean():.1f} on average, {int(encodings.max())} at most")
    print(f"rooms: full to {full.mean():.1f} % on average")
    print(f"ways of splitting: {np.nanmean(ways):.2f} % above the best on average, {np.nanmax(ways):.2f} % at most")


if __name__ == "__main__":
    main()
