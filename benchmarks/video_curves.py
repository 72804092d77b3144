"""Rate–distortion curves of video codecs, and how files of ours stand beside them: differences and BD-rates.

    python benchmarks/video_curves.py VOLUMES --codecs av1 vvc
    python benchmarks/video_curves.py --table --ours benchmarks/results/coefficients.csv

A curve goes through films at quantisers six apart, from the first film larger than 1/14 of the array to the first
of less than 1/520, as *Compare codecs* makes them with 10 bits. PSNR in dB over the volume's own range, of what is
decoded and rounded. The table interpolates a curve at the bytes of every file of ours, piecewise cubic and monotone
(PCHIP), over the logarithm of the bytes.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from pathlib import Path

import numpy as np
import tifffile
from appending import appending
from scipy.interpolate import PchipInterpolator

from napari_tinc.compare import container, video
from napari_tinc.measures import metrics

sys.path.insert(0, str(Path(__file__).parent / "lab"))
from bd_rate import bd_rate

RESULTS = Path(__file__).parent / "results" / "video_curves.csv"
COLUMNS = ("volume", "codec", "quantiser", "array_bytes", "bytes", "psnr_dB")
START, STRIDE, COARSEST, LARGEST, SMALLEST = 28, 6, 63, 14, 520
Points = list[tuple[float, float]]


def film(array: np.ndarray, codec: str, quantiser: int) -> dict[str, object]:
    """Bytes and PSNR of one film."""
    data = container.pack(array, "zyx", codec, lambda item: video.encode(codec, 10, item, quantiser))
    decoded = container.unpack(data, lambda name: lambda film, shape: video.decode(name, film, shape))
    span = float(array.max()) - float(array.min())
    return {
        "codec": codec, "quantiser": quantiser, "array_bytes": array.nbytes, "bytes": len(data),
        "psnr_dB": round(float(metrics.psnr_from_mse(metrics.mse(array, decoded), span)), 3),
    }  # fmt: skip


def make(volumes: list[Path], codecs: list[str], results: Path) -> None:
    with appending(results, COLUMNS) as append:
        for path in volumes:
            array = tifffile.imread(path)
            for codec in codecs:
                finest = int(video.QUANTISERS[codec][0])
                for stride in (-STRIDE, STRIDE):
                    quantiser = START + max(0, stride)
                    while finest <= quantiser <= COARSEST:
                        row = {"volume": path.stem, **film(array, codec, quantiser)}
                        print(row, flush=True)
                        append(row)
                        ratio = array.nbytes / row["bytes"]
                        if (stride < 0 and ratio < LARGEST) or (stride > 0 and ratio > SMALLEST):
                            break
                        quantiser += stride


def table(ours: Path, results: Path, column: str) -> None:
    with results.open(newline="") as file:
        films = list(csv.DictReader(file))
    with ours.open(newline="") as file:
        files = list(csv.DictReader(file))
    for codec in dict.fromkeys(row["codec"] for row in films):
        ratios = sorted({float(row["ratio"]) for row in files})
        gaps: dict[float, list[float]] = {ratio: [] for ratio in ratios}
        rates = []
        print(f"\nOurs less {codec}, dB at equal bytes; BD-rate of ours, percent of its bytes\n")
        print(f"| volume | {' | '.join(f'{ratio:g}' for ratio in ratios)} | BD-rate |\n|{'---|' * (len(ratios) + 2)}")
        for volume in dict.fromkeys(row["volume"] for row in files):
            peer = [
                (float(r["bytes"]), float(r["psnr_dB"])) for r in films if (r["volume"], r["codec"]) == (volume, codec)
            ]
            mine = {
                float(r["ratio"]): (float(r["postfiltered_bytes"]), float(r[column]))
                for r in files
                if r["volume"] == volume
            }
            if not peer:
                continue
            cells = []
            for ratio in ratios:
                gap = math.nan
                if ratio in mine and min(b for b, _ in peer) <= mine[ratio][0] <= max(b for b, _ in peer):
                    gap = mine[ratio][1] - at(peer, mine[ratio][0])
                    gaps[ratio].append(gap)
                cells.append("-" if math.isnan(gap) else f"{gap:+.2f}")
            rate = bd_rate(peer, list(mine.values()))
            rates += [] if math.isnan(rate) else [rate]
            print(f"| `{volume}` | {' | '.join(cells)} | {'-' if math.isnan(rate) else f'{rate:+.1f}'} |")
        ahead = [f"{sum(g >= 0 for g in gaps[r])} of {len(gaps[r])}" for r in ratios]
        means = f"mean {statistics.mean(rates):+.1f}, median {statistics.median(rates):+.1f}" if rates else "-"
        print(f"| ahead in | {' | '.join(ahead)} | {means} |")


def at(points: Points, nbytes: float) -> float:
    """Quality of a curve at a number of bytes."""
    rates, qualities = np.array(sorted(dict(points).items())).T
    return float(PchipInterpolator(np.log(rates), qualities)(math.log(nbytes)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="*", type=Path)
    parser.add_argument("--codecs", nargs="+", default=["av1", "vvc"], choices=video.CODECS)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--ours", type=Path, help="what benchmarks/directions.py wrote")
    parser.add_argument("--column", default="postfiltered_dB", help="which of its qualities")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.table:
        table(given.ours, given.results, given.column)
    else:
        make(given.volumes, given.codecs, given.results)
