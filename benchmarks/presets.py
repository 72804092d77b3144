"""What the presets take and give: CPU seconds and PSNR of real files, and whether networks paid.

    OMP_NUM_THREADS=1 python benchmarks/presets.py VOLUMES --volumes nuclei vessel_lightsheet --ratios 64 256

Seconds are of the processor, all threads together: what one thread takes on a machine that does nothing else. Every
row of ``benchmarks/results/presets.csv`` has the commit that made it; ``--table`` prints the latest row of each.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc import format as frames
from napari_tinc.core import metrics

RESULTS = Path(__file__).parent / "results" / "presets.csv"
COLUMNS = ["commit", "volume", "ratio", "preset", "bytes", "psnr_dB", "cpu_s", "networks"]
KEYS = ["volume", "ratio", "preset"]


def measured(volume: np.ndarray, ratio: float, preset: str) -> dict[str, object]:
    began = time.process_time()
    file = compress(volume, Target.ratio(ratio), preset=preset)
    took = time.process_time() - began
    data = file.to_bytes()
    psnr = metrics.psnr(volume, CompressedVolume(data).decode())
    kept = "no" if file.header.model == frames.MODEL_DETAIL else "yes"
    return {"bytes": len(data), "psnr_dB": f"{psnr:.3f}", "cpu_s": f"{took:.2f}", "networks": kept}


def table(commits: list[str]) -> None:
    """Print seconds and PSNR of every preset, of the latest run of each or of the commits given, side by side."""
    rows = pd.read_csv(RESULTS)
    rows = rows[rows.commit.isin(commits)] if commits else rows
    rows = rows.groupby(KEYS, sort=False).last().reset_index()
    presets = list(rows.preset.unique())
    print("| volume | ratio | " + " | ".join(presets) + " |\n|---|---|" + "---|" * len(presets))
    for (volume, ratio), some in rows.groupby(["ratio", "volume"], sort=False):
        cells = {r.preset: f"{r.psnr_dB:.2f} dB, {r.cpu_s:.1f} s" for r in some.itertuples()}
        print(f"| `{ratio}` | {volume:g} | " + " | ".join(cells.get(preset, "") for preset in presets) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="*", default=[], help="how their names begin; all if not given")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    parser.add_argument("--table", nargs="*", metavar="COMMIT", help="print what is there and run nothing")
    args = parser.parse_args()
    if args.table is not None:
        table(args.table)
        return
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    paths = [p for p in sorted(args.folder.glob("*.tif")) if not any(word in p.stem for word in ("mask", "clean"))]
    chosen = [p for p in paths if not args.volumes or any(p.stem.startswith(name) for name in args.volumes)]
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        compress(tifffile.imread(chosen[0])[:8, :16, :16], Target.ratio(8), preset="fast")  # compiles the kernels
        for ratio in args.ratios:
            for path in chosen:
                volume = tifffile.imread(path)
                for preset in args.presets:
                    found = measured(volume, ratio, preset)
                    said = {"commit": commit, "volume": path.stem, "ratio": ratio, "preset": preset}
                    writer.writerow(said | found)
                    file.flush()
                    print(path.stem, ratio, preset, found, flush=True)


if __name__ == "__main__":
    main()
