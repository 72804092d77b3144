"""What the note on noise costs that every file gets, and how near it is to the estimate from all voxels.

    OMP_NUM_THREADS=1 python benchmarks/noise_cost.py VOLUMES...

Seconds are of the processor; *share* is that of the time of ``fast``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import tifffile

from napari_tinc import Target, compress
from napari_tinc.measures.noise import estimate_noise, note_of, note_text, sampled_noise

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path, metavar="VOLUMES")
    parser.add_argument("--ratio", type=float, default=64)
    args = parser.parse_args()
    compress(tifffile.imread(args.volumes[0])[:16], Target.ratio(4))  # the coder is compiled
    print("| volume | fast, s | noise, ms | share | noted | deviation at the median: noted, from all voxels |")
    print("|---" * 6 + "|")
    for path in args.volumes:
        volume = tifffile.imread(path)
        began = time.process_time()
        compress(volume, Target.ratio(args.ratio))
        fast = time.process_time() - began
        began = time.process_time()
        for _ in range(ROUNDS):
            noise = sampled_noise(volume)
        seconds = (time.process_time() - began) / ROUNDS
        median = np.median(volume)
        noted, whole = (float(np.sqrt(one.variance(median))) for one in (noise, estimate_noise([volume])))
        cells = f"{fast:.2f} | {1000 * seconds:.1f} | {seconds / fast:.1%} | {note_text(note_of([noise]))}"
        print(f"| {path.stem} | {cells} | {noted:.3g}, {whole:.3g} |", flush=True)


if __name__ == "__main__":
    main()
