"""The authors' recipe against ours at equal file bytes, in one run.

    python benchmarks/against_authors.py VOLUME.tif --ratio 64 --steps 6000

Prints the recipe's best PSNR with one and with two levels and when it was reached, then how soon ours is there.
Evaluation time is not counted for either.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import recursion
import tifffile

from napari_tinc import Target, compress
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.measures import metrics


def authors(volume, ratio: float, levels: int, steps: int, batch: int) -> tuple[float, float]:
    """Best PSNR of the recipe and the training seconds it took."""
    tree = Octree(volume.shape, choose_splits(volume.shape, levels - 1))
    best, reached, seconds, mark = 0.0, 0.0, 0.0, time.perf_counter()
    for step, psnr in recursion.train_authors(volume, tree, volume.nbytes / ratio / 4, steps, batch=batch):
        pass_seconds = time.perf_counter() - mark
        seconds += pass_seconds
        if psnr > best:
            best, reached = psnr, seconds
        if step % 1000 == 0:
            print(f"  recipe, {levels} level(s), step {step}: {psnr:.2f} dB after {seconds:.0f} s", flush=True)
        mark = time.perf_counter()
    return best, reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--ratio", type=float, default=64)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--levels", nargs="+", type=int, default=[2, 1])
    parser.add_argument("--batch", type=int, default=262144, help="coordinates a step of the recipe")
    parser.add_argument("--limits", nargs="*", type=float, default=[2, 4, 8, 16, 32], help="of ours, seconds")
    args = parser.parse_args()
    volume = tifffile.imread(args.volume)
    recipes = {levels: authors(volume, args.ratio, levels, args.steps, args.batch) for levels in args.levels}
    best, reached = max(recipes.values())
    for levels, (psnr, seconds) in recipes.items():
        print(f"recipe, {levels} level(s): best {psnr:.2f} dB after {seconds:.0f} s")
    for limit in (*args.limits, None):
        started = time.perf_counter()
        result = compress(volume, Target.ratio(args.ratio), preset=args.preset, time_limit=limit, model="tinc")
        seconds = time.perf_counter() - started
        psnr = metrics.psnr(volume, result.decode())
        name = args.preset if limit is None else f"limit {limit:g} s"
        print(f"ours, {name}: {psnr:.2f} dB in {seconds:.1f} s, whole compression ({psnr - best:+.2f} dB, "
              f"{reached / seconds:.1f} times sooner), {result.nbytes} bytes", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
