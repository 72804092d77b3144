"""What bfloat16 products in the first phase of training cost and save.

    python benchmarks/autocast.py VOLUME.tif

The default uses them where they are native (CUDA from compute capability 8, CPUs with AVX-512 BF16); this compresses
with and without. Quantisation-aware training and decoding are in float32 in both.
"""

import argparse
import time
from pathlib import Path
from unittest import mock

import tifffile

from napari_tinc import Target, compress
from napari_tinc.measures import metrics
from napari_tinc.networks import training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--ratio", type=float, default=64)
    parser.add_argument("--preset", default="fast")
    args = parser.parse_args()
    volume = tifffile.imread(args.volume)
    for name, reduced in (("float32", False), ("bfloat16", True)):
        with mock.patch.object(training, "has_fast_bfloat16", return_value=reduced):
            started = time.perf_counter()
            result = compress(volume, Target.ratio(args.ratio), preset=args.preset, model="tinc")
            seconds = time.perf_counter() - started
        print(f"{name}: {seconds:.0f} s, {metrics.psnr(volume, result.decode()):.2f} dB", flush=True)


if __name__ == "__main__":
    main()
