"""What the presets take and give: CPU seconds and PSNR of real files, and whether networks paid.

    OMP_NUM_THREADS=1 python benchmarks/presets.py VOLUMES --volumes nuclei vessel_lightsheet --ratios 64 256
    OMP_NUM_THREADS=1 python benchmarks/presets.py VOLUMES --presets trial   # only what the trial of balanced says

Seconds are of the processor, all threads together: what one thread takes on a machine that does nothing else. Every
row of ``benchmarks/results/presets.csv`` has the commit that made it; ``--table`` prints the latest row of each.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from appending import appending

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc import format as frames
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode.original import Original
from napari_tinc.encode.trial import TRAINING_STEPS, promised_gain
from napari_tinc.measures import metrics
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete

RESULTS = Path(__file__).parent / "results" / "presets.csv"
COLUMNS = ["commit", "volume", "ratio", "preset", "bytes", "psnr_dB", "cpu_s", "networks"]
KEYS = ["volume", "ratio", "preset"]


def tried(volume: np.ndarray, ratio: float) -> dict[str, object]:
    """Run the trial alone: ``networks`` is what it promises, in dB."""
    source = Original.prepare(volume, Metadata.default(volume.ndim), None)
    settings, steps = Settings("balanced"), TRAINING_STEPS["balanced"] - 2 * TRAINING_STEPS["fast"]
    began = time.process_time()
    gain = complete(promised_gain(source, settings, int(volume.nbytes / ratio), steps, None, None))
    return {"cpu_s": f"{time.process_time() - began:.2f}", "networks": f"{gain:.2f}"}


def measured(volume: np.ndarray, ratio: float, preset: str) -> dict[str, object]:
    began = time.process_time()
    file = compress(volume, Target.ratio(ratio), preset=preset)
    took = time.process_time() - began
    data = file.to_bytes()
    psnr = metrics.psnr(volume, CompressedVolume(data).decode())
    kept = "no" if file.header.model == frames.MODEL_WAVELETS else "yes"
    return {"bytes": len(data), "psnr_dB": f"{psnr:.3f}", "cpu_s": f"{took:.2f}", "networks": kept}


def table(results: Path, commits: list[str]) -> None:
    """Print the latest row of every preset, or that of the commits given, side by side."""
    rows = pd.read_csv(results)
    rows = rows[rows.commit.isin(commits)] if commits else rows
    rows = rows.groupby(KEYS, sort=False).last().reset_index()
    presets = list(rows.preset.unique())
    print("| volume | ratio | " + " | ".join(presets) + " |\n|---|---|" + "---|" * len(presets))
    for (ratio, volume), some in rows.groupby(["ratio", "volume"]):
        cells = {r.preset: _cell(r) for r in some.itertuples()}
        print(f"| `{volume}` | {ratio:g} | " + " | ".join(cells.get(preset, "") for preset in presets) + " |")


def _cell(row: Any) -> str:
    found = f"promises {row.networks} dB" if row.preset == "trial" else f"{row.psnr_dB:.2f} dB"
    return f"{found}, {row.cpu_s:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="*", default=[], help="how their names begin; all if not given")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    parser.add_argument("--table", nargs="*", metavar="COMMIT", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table to append to, or to print")
    args = parser.parse_args()
    if args.table is not None:
        table(args.results, args.table)
        return
    git = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    commit = subprocess.run(git, cwd=here, capture_output=True, text=True).stdout.strip() or "unknown"
    paths = [p for p in sorted(args.folder.glob("*.tif")) if not any(word in p.stem for word in ("mask", "clean"))]
    chosen = [p for p in paths if not args.volumes or any(p.stem.startswith(name) for name in args.volumes)]
    with appending(args.results, COLUMNS) as append:
        compress(tifffile.imread(chosen[0])[:8, :16, :16], Target.ratio(8), preset="fast")  # compiles the kernels
        for ratio in args.ratios:
            for path in chosen:
                volume = tifffile.imread(path)
                for preset in args.presets:
                    found = tried(volume, ratio) if preset == "trial" else measured(volume, ratio, preset)
                    said = {"commit": commit, "volume": path.stem, "ratio": ratio, "preset": preset}
                    append(said | found)
                    print(path.stem, ratio, preset, found, flush=True)


if __name__ == "__main__":
    main()
