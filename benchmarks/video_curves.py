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
from collections import defaultdict
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
START, STRIDE, LARGEST, SMALLEST = 28, 6, 14, 520
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
                finest, coarsest = map(int, video.QUANTISERS[codec])
                for stride in (-STRIDE, STRIDE):
                    quantiser = START + max(0, stride)
                    while finest <= quantiser <= coarsest:
                        row = {"volume": path.stem, **film(array, codec, quantiser)}
                        print(row, flush=True)
                        append(row)
                        ratio = array.nbytes / row["bytes"]
                        if (stride < 0 and ratio < LARGEST) or (stride > 0 and ratio > SMALLEST):
                            break
                        quantiser += stride


def table(ours: Path, results: Path, column: str) -> None:
    with ours.open(newline="") as file:
        files = list(csv.DictReader(file))
    curves: dict[str, dict[str, Points]] = defaultdict(lambda: defaultdict(list))
    with results.open(newline="") as file:
        for row in csv.DictReader(file):
            curves[row["codec"]][row["volume"]].append((float(row["bytes"]), float(row["psnr_dB"])))
    for row in files:  # made in the same run; both files are taken to have as many bytes as they may have
        curves["fast"][row["volume"]].append((float(row["budget"]), float(row["wavelets_dB"])))
    ratios = sorted({float(row["ratio"]) for row in files})
    for codec, of_volume in curves.items():
        print(f"\nOurs less {codec}, dB at equal bytes; BD-rate of ours, percent of its bytes\n")
        print(f"| volume | {' | '.join(f'{ratio:g}' for ratio in ratios)} | BD-rate |\n|{'---|' * (len(ratios) + 2)}")
        gaps: dict[tuple[str, float], float] = {}
        rates = []
        nbytes = "budget" if codec == "fast" else "postfiltered_bytes"
        for volume in [volume for volume in of_volume if any(row["volume"] == volume for row in files)]:
            mine = {
                float(row["ratio"]): (float(row[nbytes]), float(row[column]))
                for row in files if row["volume"] == volume
            }  # fmt: skip
            for ratio, (size, quality) in mine.items():
                gaps[volume, ratio] = quality - at(of_volume[volume], size)
            rates.append(bd_rate(of_volume[volume], list(mine.values())))
            cells = [shown(gaps.get((volume, ratio), math.nan), 2) for ratio in ratios]
            print(f"| `{volume}` | {' | '.join(cells)} | {shown(rates[-1], 1)} |")
        ahead = []
        for ratio in ratios:
            known = [gap for (_, of), gap in gaps.items() if of == ratio and not math.isnan(gap)]
            ahead.append(f"{sum(gap >= 0 for gap in known)} of {len(known)}")
        known = [rate for rate in rates if not math.isnan(rate)]
        mean = f"mean {statistics.mean(known):+.1f}, median {statistics.median(known):+.1f}" if known else "-"
        print(f"| ahead in | {' | '.join(ahead)} | {mean} |")


def shown(number: float, digits: int) -> str:
    return "-" if math.isnan(number) else f"{number:+.{digits}f}"


def at(points: Points, nbytes: float) -> float:
    """Quality of a curve at a number of bytes; not a number beyond its ends."""
    rates, qualities = np.array(sorted(dict(points).items())).T
    if len(rates) < 2:
        return float(qualities[0]) if nbytes == rates[0] else math.nan
    return float(PchipInterpolator(np.log(rates), qualities, extrapolate=False)(math.log(nbytes)))


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
