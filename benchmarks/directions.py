"""What directions and a post-filter add to wavelets: files of preset ``balanced``, before networks are trained.

    python benchmarks/directions.py VOLUMES --ratios 64 256 --output results/directions.csv

PSNR in dB over the volume's own range, measured on what the file decodes to, of the file of wavelets (that of preset
``fast``), of the one that is kept, and of that with a post-filter, or again without if it does not pay; seconds of the
processor, without the time to load or compile.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_tinc import CompressedVolume, Metadata, Target
from napari_tinc.encode import framing, masking, measuring
from napari_tinc.encode.attempts import Attempt
from napari_tinc.encode.directing import with_directions
from napari_tinc.encode.original import Original
from napari_tinc.encode.postfiltering import with_postfilters
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete


def decoded(attempt: Attempt, original: Original) -> tuple[int, np.ndarray, float]:
    """Bytes of the file, what it decodes to, and seconds of decoding."""

    def framed() -> Generator[Any, None, bytes]:
        decoders = framing.decoders(attempt.plan, attempt.content)
        psnr, quality, _ = yield from measuring.measure(decoders, original, attempt.plan.tree)
        return framing.frame(attempt.plan, attempt.content, psnr, quality)

    data = complete(framed())
    begun = time.process_time()
    return len(data), CompressedVolume(data).decode(), time.process_time() - begun


def row(name: str, voxels: np.ndarray, ratio: float) -> dict[str, Any]:
    original = Original.prepare(voxels, Metadata.default(voxels.ndim), None)
    settings, budget = Settings(preset="balanced"), Target.ratio(ratio).budget(voxels.nbytes, voxels.size)

    def psnr(values: np.ndarray) -> float:
        wanted = voxels.astype(np.float64)
        return round(10 * np.log10((wanted.max() - wanted.min()) ** 2 / np.square(wanted - values).mean()), 3)

    started = time.process_time()
    plain = complete(masking.with_wavelets(original, settings, budget))
    between = time.process_time()
    best = complete(with_directions(original, settings, budget, plain))
    ended = time.process_time()
    filtered = complete(with_postfilters(settings, budget, best))
    finished = time.process_time()
    nbytes, values, seconds = decoded(best, original)
    filtered_bytes, filtered_values, filtered_seconds = decoded(filtered, original)
    layouts = [coded.layout for coded in best.content.directions if coded is not None]
    return {
        "volume": name,
        "ratio": ratio,
        "wavelets_dB": psnr(decoded(plain, original)[1]),
        "kept_dB": psnr(values),
        "kept": "directions" if best.content.directions else "wavelets",
        "mask": bool(best.plan.original.masks),
        "budget": budget,
        "bytes": nbytes,
        "root_block": "x".join(str(2**code) for code in layouts[0].root_codes) if layouts else "",
        "wavelets_s": round(between - started, 1),
        "directions_s": round(ended - between, 1),
        "decode_s": round(seconds, 2),
        "postfilter": any(filtered.content.postfilters),
        "postfiltered_dB": psnr(filtered_values),
        "postfiltered_bytes": filtered_bytes,
        "postfilter_s": round(finished - ended, 1),
        "postfiltered_decode_s": round(filtered_seconds, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path)
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    small = np.random.default_rng(0).normal(size=(24, 40, 40)).astype("f4")
    small[:, 10:30] += np.arange(40) / 4
    row("", small, 16)  # loads or compiles
    rows = []
    for path in given.volumes:
        volume = tifffile.imread(path)
        for ratio in given.ratios:
            rows.append(row(path.stem, volume, ratio))
            print(json.dumps(rows[-1]), flush=True)
    if given.output:
        with given.output.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
