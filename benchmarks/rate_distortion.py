"""PSNR at equal bytes: napari-tinc against the peers of ``napari-tinc compare``, TTHRESH from a table of earlier runs.

    python benchmarks/rate_distortion.py VOLUMES_FOLDER --ratios 128 --preset balanced --time-limit 60

Writes ``rate_distortion.csv`` and ``rate_distortion.png`` into ``benchmarks/results``. Volumes are the TIFF files of
the folder with three axes, masks and ``clean`` ones left out; ``peers.csv`` beside them adds the TTHRESH points.
``--no-tinc`` or ``--peers none`` leave out what was measured already.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from matplotlib.figure import Figure

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.compare import peers
from napari_tinc.core import metrics
from napari_tinc.errors import BudgetError

RESULTS = Path(__file__).parent / "results"
COLUMNS = ["volume", "target_ratio", "codec", "ratio", "psnr_dB", "encode_s", "decode_s"]


def volumes(folder: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    paths = [p for p in sorted(folder.glob("*.tif")) if not any(word in p.stem for word in ("mask", "clean"))]
    loaded = {p.stem: tifffile.imread(p) for p in paths if not wanted or p.stem in wanted}
    return {name: volume for name, volume in loaded.items() if volume.ndim == 3}


@dataclass(frozen=True)
class Point:
    """One file of one codec."""

    codec: str
    nbytes: int
    psnr: float
    encode_seconds: float
    decode_seconds: float


def theirs(name: str, volume: np.ndarray, budget: int) -> list[Point]:
    """Search a peer's best file within the budget; none if its coarsest one does not fit."""
    try:
        best = peers.fit(peers.named(name), volume, "zyx", budget)
    except BudgetError as error:
        print(error, flush=True)
        return []
    psnr = metrics.psnr(volume, peers.unpack(best.data))
    return [Point(name, len(best.data), psnr, best.encode_seconds, best.decode_seconds)]


def ours(volume: np.ndarray, budget: int, preset: str, time_limit: float | None) -> Point:
    """Compress, write the file, and measure what another reader gets from it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.tinc"
        started = time.perf_counter()
        compress(volume, Target.size(budget), preset=preset, time_limit=time_limit).save(path)
        encode = time.perf_counter() - started
        started = time.perf_counter()
        decoded = CompressedVolume.open(path).decode()
        decode = time.perf_counter() - started
        return Point(f"tinc-{preset}", path.stat().st_size, metrics.psnr(volume, decoded), encode, decode)


def earlier(folder: Path, name: str, ratio: float) -> list[dict[str, object]]:
    """TTHRESH points of an earlier run."""
    table = folder / "peers.csv"
    if not table.exists():
        return []
    with table.open() as file:
        rows = [r for r in csv.DictReader(file) if r["codec"] == "tthresh" and r["volume"] == name]
    return [
        dict(
            zip(
                COLUMNS,
                [
                    name,
                    ratio,
                    "tthresh (table)",
                    float(r["ratio"]),
                    float(r["psnr_range_dB"]),
                    float(r["encode_s"]),
                    float(r["decode_s"]),
                ],
                strict=True,
            )
        )
        for r in rows
        if float(r["target_ratio"]) == ratio
    ]


def measure(folder: Path, args: argparse.Namespace) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, volume in volumes(folder, args.volumes).items():
        for ratio in args.ratios:
            budget = int(volume.nbytes / ratio)
            points = [] if args.no_tinc else [ours(volume, budget, args.preset, args.time_limit)]
            points += [point for codec in args.peers if codec != "none" for point in theirs(codec, volume, budget)]
            for p in points:
                values = [name, ratio, p.codec, volume.nbytes / p.nbytes, p.psnr, p.encode_seconds, p.decode_seconds]
                rows.append(dict(zip(COLUMNS, values, strict=True)))
                print(f"{name:28} {ratio:5g} {p.codec:14} {volume.nbytes / p.nbytes:7.1f} {p.psnr:6.2f} dB "
                      f"{p.encode_seconds:7.1f} s", flush=True)  # fmt: skip
            rows += earlier(folder, name, ratio)
        write(rows, args.output)
    return rows


def write(rows: list[dict[str, object]], stem: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{stem}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def plot(rows: list[dict[str, object]], stem: str) -> None:
    names = list(dict.fromkeys(str(row["volume"]) for row in rows))
    columns = min(3, len(names))
    figure = Figure(figsize=(4.2 * columns, 3.2 * -(-len(names) // columns)), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // columns), columns, index + 1)
        for codec in dict.fromkeys(str(row["codec"]) for row in rows):
            points = sorted(
                (float(str(r["ratio"])), float(str(r["psnr_dB"])))
                for r in rows
                if r["volume"] == name and r["codec"] == codec
            )
            if points:
                axes.plot(*zip(*points, strict=True), "o-", label=codec, linewidth=2 if "tinc" in codec else 1)
        axes.set(title=name, xscale="log", xlabel="ratio", ylabel="PSNR (range), dB")
        if index == 0:
            axes.legend(fontsize=7)
    figure.savefig(RESULTS / f"{stem}.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volumes", nargs="*", default=[])
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 128, 256, 512])
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--no-tinc", action="store_true")
    parser.add_argument("--peers", nargs="+", default=list(peers.PEERS))
    parser.add_argument("--output", default="rate_distortion")
    arguments = parser.parse_args()
    plot(measure(arguments.folder, arguments), arguments.output)
