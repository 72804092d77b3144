"""Speed of the detail layer on a simulated vessel stack: all of it, planes into new and into known blocks, memory.

Networks of a file of the same size decode in turn with it, with as many threads.

    python benchmarks/detail_speed.py --shape 256 256 256 --ratio 128
    OMP_NUM_THREADS=1 python benchmarks/detail_speed.py --processor    # where other work is done meanwhile

Encoding is ``fast``: the detail layer alone. Each decode starts from the file's bytes; kernels are compiled before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from speed import PEAK, synthetic

from napari_tinc import CompressedVolume, Target, compress, samples


def seconds_of(function: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 256))
    parser.add_argument("--times", type=int, default=1, help="the stack so many times on end, every other one mirrored")
    parser.add_argument("--ratio", type=float, default=128)
    parser.add_argument("--processor", action="store_true", help="seconds of the processor, not of the clock")
    args = parser.parse_args()
    clock = time.process_time if args.processor else time.perf_counter
    volume = np.asarray(samples.vessel_tree(tuple(args.shape)).noisy)
    volume = np.concatenate([volume[:: 1 - 2 * (number % 2)] for number in range(args.times)])
    compress(volume[:16, :32, :32], Target.ratio(16), preset="fast").decode()
    start = clock()
    compressed = compress(volume, Target.ratio(args.ratio), preset="fast")
    seconds = clock() - start
    data, million = compressed.to_bytes(), volume.size / 1e6
    print(f"encode {volume.shape} at {args.ratio:g}: {seconds:.1f} s, {seconds / million:.2f} s/Mvoxel")
    networks = synthetic(volume.shape, args.ratio).to_bytes()
    times = [[seconds_of(lambda d=d: CompressedVolume(d).decode(), clock) for d in (data, networks)] for _ in range(4)]
    own, theirs = np.min(times, axis=0)
    print(f"decode: {million / own:.1f} Mvoxel/s; networks of the same size {million / theirs:.1f} Mvoxel/s, "
          f"{own / theirs:.2f} of its time")  # fmt: skip
    opened = CompressedVolume(data)
    planes = [1000 * seconds_of(lambda p=p: opened.decode((p,)), clock) for p in range(args.shape[0])]
    known = np.median(planes)
    fresh = [plane for plane in planes[1:] if plane > 4 * known]
    print(f"first plane {planes[0]:.0f} ms; {len(fresh)} planes into new blocks, median {np.median(fresh):.0f} ms; "
          f"others, median {known:.0f} ms; all planes {sum(planes) / 1000:.1f} s")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.tinc"
        compressed.save(path)
        output = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        print(f"peak memory of decoding: {float(output.stdout):.2f} times the decoded array, itself included")


if __name__ == "__main__":
    main()
