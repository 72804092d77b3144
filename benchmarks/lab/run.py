"""Run recipes and peers over volumes and ratios; append to one table.

    python benchmarks/lab/run.py VOLUMES --recipes fast balanced sperr hevc av1 --ratios 64 128 256 512

Bytes are those of the real file, decoded from it by another object; seconds of a peer are those of the file that is
kept, without the search for its setting. Every row of ``benchmarks/lab/results/results.csv`` has the commit that made
it. Volumes are TIFF files with three axes, masks and ``clean`` ones left out. TTHRESH is not run: its rows are copied
with ``--recipes tthresh`` from a ``peers.csv`` of earlier runs beside the volumes, which is not in this repository.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from recipes import RECIPES

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.compare import peers
from napari_tinc.measures import metrics

RESULTS = Path(__file__).parent / "results" / "results.csv"
COLUMNS = ["commit", "recipe", "volume", "ratio", "bytes", "psnr_dB", "iou", "encode_s", "decode_s"]


def volumes(folder: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    paths = [p for p in sorted(folder.glob("*.tif")) if not any(word in p.stem for word in ("mask", "clean"))]
    chosen = [p for p in paths if not wanted or any(p.stem.startswith(name) for name in wanted)]
    return {p.stem: volume for p in chosen if (volume := tifffile.imread(p)).ndim == 3}


def ours(name: str, volume: np.ndarray, budget: int, time_limit: float | None) -> tuple[int, np.ndarray, float, float]:
    recipe = RECIPES[name]
    with tempfile.TemporaryDirectory() as folder, recipe.applied():
        path = Path(folder) / "v.tinc"
        start = time.perf_counter()
        compress(volume, Target.size(budget), time_limit=time_limit, **recipe.settings).save(path)
        encoded = time.perf_counter()
        decoded = CompressedVolume.open(path).decode()
        return path.stat().st_size, decoded, encoded - start, time.perf_counter() - encoded


def peer(name: str, volume: np.ndarray, budget: int) -> tuple[int, np.ndarray, float, float]:
    fitted = peers.fit(peers.named(name), volume, "zyx", budget)
    return len(fitted.data), peers.unpack(fitted.data), fitted.encode_seconds, fitted.decode_seconds


def earlier(folder: Path, volume: str, ratio: float) -> dict[str, object]:
    """A row of TTHRESH from an earlier run; its IoU was not measured."""
    with (folder / "peers.csv").open() as file:
        for row in csv.DictReader(file):
            if (row["codec"], row["volume"], float(row["target_ratio"])) == ("tthresh", volume, ratio):
                return {"psnr_dB": row["psnr_range_dB"], "encode_s": row["encode_s"], "decode_s": row["decode_s"]}
    return {}


def measured(args: argparse.Namespace, name: str, key: str, volume: np.ndarray, ratio: float) -> dict[str, object]:
    if name == "tthresh":
        return earlier(args.folder, key, ratio)
    budget = int(volume.nbytes / ratio)
    try:
        done = ours(name, volume, budget, args.time_limit) if name in RECIPES else peer(name, volume, budget)
    except peers.BudgetError as error:
        print(f"{key:30} {ratio:5g} {name:18} {error}", flush=True)
        return {}
    size, decoded, encode, decode = done
    iou = metrics.binary_scores(volume, decoded, metrics.otsu_threshold(volume)).iou
    numbers = {"psnr_dB": metrics.psnr(volume, decoded), "iou": iou, "encode_s": encode, "decode_s": decode}
    return {"bytes": size} | {column: f"{value:.3f}" for column, value in numbers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["fast"], help=f"{', '.join(RECIPES)}, tthresh, or a peer")
    parser.add_argument("--volumes", nargs="*", default=[], help="how their names begin; all if not given")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 128, 256, 512])
    parser.add_argument("--time-limit", type=float, help="seconds of training a compression may take")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table to append to")
    args = parser.parse_args()
    git = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    commit = subprocess.run(git, cwd=here, capture_output=True, text=True).stdout.strip() or "unknown"
    with args.results.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for key, volume in volumes(args.folder, args.volumes).items():
            for ratio in args.ratios:
                for name in args.recipes:
                    found = measured(args, name, key, volume, ratio)
                    if found:
                        writer.writerow({"commit": commit, "recipe": name, "volume": key, "ratio": ratio} | found)
                        file.flush()
                        print(
                            f"{key:30} {ratio:5g} {name:18} {found['psnr_dB']:>8} dB {found['encode_s']:>8} s",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
