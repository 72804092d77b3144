"""PSNR against time: every preset, and ``balanced`` under time limits; real files, decoded to be measured.

    OMP_NUM_THREADS=1 python benchmarks/lab/time_to_quality.py VOLUMES --volumes nuclei vessel_lightsheet --ratios 256

Seconds are of the processor, all threads together: what one thread takes on a machine that does nothing else. Appends
to ``benchmarks/lab/results/time_to_quality.csv``; ``--draw`` draws all of it beside, and prints it as a table.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot
from run import volumes

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.measures import metrics

RESULTS = Path(__file__).parent / "results" / "time_to_quality.csv"
COLUMNS = ["volume", "ratio", "preset", "time_limit_s", "bytes", "psnr_dB", "cpu_s", "wall_s"]
POINTS: list[tuple[str, float | None]] = [
    ("fast", None),
    ("balanced", 5),
    ("balanced", 15),
    ("balanced", 45),
    ("balanced", None),
    ("best", None),
]


def measured(volume: np.ndarray, ratio: float, preset: str, limit: float | None) -> dict[str, object]:
    processor, wall = time.process_time(), time.perf_counter()
    data = compress(volume, Target.ratio(ratio), preset=preset, time_limit=limit).to_bytes()
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    psnr = metrics.psnr(volume, CompressedVolume(data).decode())
    return {"bytes": len(data), "psnr_dB": f"{psnr:.3f}", "cpu_s": f"{processor:.2f}", "wall_s": f"{wall:.2f}"}


def draw(results: Path) -> None:
    table = pd.read_csv(results)
    groups = list(table.groupby(["volume", "ratio"], sort=False))
    figure, axes = pyplot.subplots(1, len(groups), figsize=(4 * len(groups), 3.4), squeeze=False, layout="constrained")
    for axis, ((volume, ratio), rows) in zip(axes[0], groups, strict=True):
        axis.plot(rows.cpu_s, rows.psnr_dB, color="0.8", zorder=0)
        for preset, some in rows.groupby("preset", sort=False):
            axis.scatter(some.cpu_s, some.psnr_dB, label=preset)
        axis.set(
            xscale="log", xlabel="processor seconds", ylabel="PSNR, dB", title=f"{volume.split('_')[0]}, {ratio:g}"
        )
        axis.legend(loc="upper left")
        print(
            f"\n{volume}, ratio {ratio:g}\n\n| preset | time limit, s | PSNR, dB | processor seconds |\n"
            "|---|---|---|---|"
        )
        for row in rows.itertuples():
            limit = "" if np.isnan(row.time_limit_s) else f"{row.time_limit_s:g}"
            print(f"| {row.preset} | {limit} | {row.psnr_dB:.2f} | {row.cpu_s:.1f} |")
    figure.savefig(results.with_suffix(".png"), dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="*", default=[], help="how their names begin; all if not given")
    parser.add_argument("--ratios", nargs="+", type=float, default=[256])
    parser.add_argument("--draw", action="store_true", help="draw what is there and run nothing")
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced", "best"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table to append to, or to draw")
    args = parser.parse_args()
    if args.draw:
        draw(args.results)
        return
    with args.results.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for key, volume in volumes(args.folder, args.volumes).items():
            compress(volume[:8, :16, :16], Target.ratio(8), preset="fast")  # kernels
            for ratio in args.ratios:
                for preset, limit in [point for point in POINTS if point[0] in args.presets]:
                    found = measured(volume, ratio, preset, limit)
                    said = {"volume": key, "ratio": ratio, "preset": preset, "time_limit_s": limit}
                    writer.writerow(said | found)
                    file.flush()
                    print(key, ratio, preset, limit, found, flush=True)


if __name__ == "__main__":
    main()
