"""Files with a largest error, and lossless ones, beside those of other codecs that promise the same.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/bounds.py VOLUMES

One row per volume and bound: ours, SPERR and SZ3 at 0.1, 0.5, 1, 2 and 5 % of the volume's range; without loss ours,
JPEG XL (planes, effort 7) and Zstandard (level 19) of differences along x. Every file is decoded, and every error
looked at. For integers the peers get half an intensity more, since their floats are rounded afterwards. Seconds are of
the processor. Rows are appended to ``benchmarks/results/bounds.csv``; those that are there are not measured again.
``--table`` prints what the documentation shows. ``--found`` asks for the size of each lossless file, whether it is
found, and for nine and five tenths of it: how much longer the search in vain takes than without it.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from napari_tinc import CompressedVolume, Target, compress

RESULTS = Path(__file__).parent / "results" / "bounds.csv"
COLUMNS = [
    "volume",
    "percent",
    "bound",
    "codec",
    "bytes",
    "largest_error",
    "encode_s",
    "decode_s",
    "voxels",
    "raw_bytes",
]
PERCENT = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
Volume = np.ndarray[Any, Any]


def ours(volume: Volume, bound: float) -> tuple[bytes, Callable[[bytes], Volume]]:
    made = compress(volume, Target.max_error(bound)).to_bytes()
    return made, lambda data: CompressedVolume(data).decode()


def _rounded(volume: Volume, decoded: Volume) -> Volume:
    return decoded if volume.dtype.kind == "f" else np.rint(decoded).astype(np.float64)


def _for_floats(volume: Volume, bound: float) -> float:
    return bound if volume.dtype.kind == "f" else bound + 0.499


def sperr(volume: Volume, bound: float) -> tuple[bytes, Callable[[bytes], Volume]]:
    data = imagecodecs.sperr_encode(volume.astype(np.float32), level=_for_floats(volume, bound), mode="pwe")
    return data, lambda data: _rounded(
        volume, imagecodecs.sperr_decode(data, shape=volume.shape, dtype=np.float32).reshape(volume.shape)
    )


def sz3(volume: Volume, bound: float) -> tuple[bytes, Callable[[bytes], Volume]]:
    data = imagecodecs.sz3_encode(volume.astype(np.float32), abs=_for_floats(volume, bound), mode="abs")
    return data, lambda data: _rounded(
        volume, imagecodecs.sz3_decode(data, shape=volume.shape, dtype=np.float32).reshape(volume.shape)
    )


def jpeg_xl(volume: Volume, bound: float) -> tuple[bytes, Callable[[bytes], Volume]]:
    unsigned = volume if volume.dtype.kind != "i" else (volume.astype(np.int64) - volume.min()).astype(np.uint16)
    planes = [imagecodecs.jpegxl_encode(plane, lossless=True, effort=7) for plane in np.ascontiguousarray(unsigned)]
    low = 0 if volume.dtype.kind != "i" else int(volume.min())
    return b"".join(planes), lambda _: np.stack([imagecodecs.jpegxl_decode(plane) for plane in planes]) + low


def zstd(volume: Volume, bound: float) -> tuple[bytes, Callable[[bytes], Volume]]:
    bits = np.ascontiguousarray(volume).view(f"u{volume.itemsize}")
    differences = np.diff(bits, axis=2, prepend=bits.dtype.type(0))
    data = imagecodecs.zstd_encode(differences.tobytes(), 19)

    def decode(data: bytes) -> Volume:
        read = np.frombuffer(imagecodecs.zstd_decode(data), bits.dtype).reshape(volume.shape)
        return np.cumsum(read, axis=2, dtype=bits.dtype).view(volume.dtype)

    return data, decode


LOSSLESS = {"ours": ours, "jpeg-xl": jpeg_xl, "zstd-delta": zstd}
BOUNDED = {"ours": ours, "sperr": sperr, "sz3": sz3}


def measure(volume: Volume, bound: float, codec: Callable[..., Any]) -> dict[str, Any]:
    begun = time.process_time()
    data, decode = codec(volume, bound)
    encoded = time.process_time()
    decoded = decode(data)
    done = time.process_time()
    largest = float(np.abs(decoded.astype(np.float64) - volume.astype(np.float64)).max())
    return {
        "bytes": len(data), "largest_error": largest, "encode_s": round(encoded - begun, 3),
        "decode_s": round(done - encoded, 3),
    }  # fmt: skip


def bounds_of(volume: Volume) -> dict[float, float]:
    """Bounds by percent of the range; those of integers are whole, and no bound is there twice."""
    span = float(volume.max()) - float(volume.min())
    found: dict[float, float] = {}
    for percent in PERCENT:
        bound = span * percent / 100
        if volume.dtype.kind != "f" and percent:
            bound = float(max(1, round(bound)))
        if bound not in found.values():
            found[percent] = bound
    return found


def run(paths: list[Path], results: Path) -> None:
    known = {(row["volume"], float(row["percent"]), row["codec"]) for row in rows(results)}
    compress(np.arange(4096, dtype=np.uint16).reshape(16, 16, 16), Target.max_error(0)).decode()  # loads or compiles
    for path in paths:
        volume = tifffile.imread(path)
        for percent, bound in bounds_of(volume).items():
            for name, codec in (BOUNDED if bound else LOSSLESS).items():
                if (path.stem, percent, name) in known or (name == "jpeg-xl" and volume.dtype.kind == "f"):
                    continue
                row = {"volume": path.stem, "percent": percent, "bound": bound, "codec": name, "voxels": volume.size}
                row |= {"raw_bytes": volume.nbytes} | measure(volume, bound, codec)
                print(row, flush=True)
                new = not results.exists()
                with results.open("a", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS)
                    if new:
                        writer.writeheader()
                    writer.writerow(row)


def found(paths: list[Path]) -> None:
    """Print whether a file without loss is found where it fits, and what the search costs where it does not."""
    print("| volume | times smaller | found | seconds at 0.9 | at 0.5 |\n|---|---|---|---|---|")
    for path in paths:
        volume = tifffile.imread(path)
        size = compress(volume, Target.max_error(0)).nbytes
        same = compress(volume, Target.size(size)).decode()
        times = []
        for share in (0.9, 0.5):
            seconds = []
            for model in ("wavelet", "auto"):
                begun = time.process_time()
                compress(volume, Target.size(int(share * size)), model=model)
                seconds.append(time.process_time() - begun)
            times.append(f"{seconds[1] / seconds[0]:.2f}")
        is_found = "yes" if (same == volume).all() else "no"
        print(f"| `{path.stem}` | {volume.nbytes / size:.2f} | {is_found} | {' | '.join(times)} |", flush=True)


def rows(results: Path) -> list[dict[str, str]]:
    if not results.exists():
        return []
    with results.open() as file:
        return list(csv.DictReader(file))


def table(results: Path) -> None:
    """Print how many times smaller every file is, per volume and bound, and what ours takes of the best other one."""
    by_place: dict[tuple[str, float], dict[str, dict[str, str]]] = {}
    for row in rows(results):
        by_place.setdefault((row["volume"], float(row["percent"])), {})[row["codec"]] = row
    for title, codecs, wanted in (
        ("Without loss", ("jpeg-xl", "zstd-delta"), lambda percent: percent == 0),
        ("With a largest error", ("sperr", "sz3"), lambda percent: percent > 0),
    ):
        print(
            f"\n{title}: times smaller\n\n| volume | % of the range | ours | {' | '.join(codecs)} | ours / best other |"
        )
        print("|---|" + "---|" * (3 + len(codecs)))
        shares = []
        for (volume, percent), found in sorted(by_place.items()):
            if not wanted(percent) or "ours" not in found:
                continue
            sizes = {name: int(row["bytes"]) for name, row in found.items()}
            raw = int(found["ours"]["raw_bytes"])
            share = sizes["ours"] / min(sizes.get(name, math.inf) for name in codecs)
            shares.append(share)
            others = " | ".join(f"{raw / sizes[name]:.2f}" if name in sizes else "" for name in codecs)
            print(f"| `{volume}` | {percent:g} | **{raw / sizes['ours']:.2f}** | {others} | {share:.2f} |")
        if shares:
            print(
                f"\nours is smaller in {sum(share < 1 for share in shares)} of {len(shares)}; "
                f"median {np.median(shares):.2f}"
            )
    for codec in ("ours", "sperr", "sz3", "jpeg-xl"):
        chosen = [row for row in rows(results) if row["codec"] == codec]
        if chosen:
            speeds = [
                np.median([float(row["voxels"]) / max(float(row[f"{way}_s"]), 1e-3) for row in chosen]) / 1e6
                for way in ("encode", "decode")
            ]
            print(f"{codec}: {speeds[0]:.2f} Mvoxel/s encoding, {speeds[1]:.2f} decoding (median)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--found", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.folder:
        names = sorted(path for path in given.folder.glob("*.tif") if not {"mask", "clean"} & set(path.stem.split("_")))
        volumes = [path for path in names if tifffile.TiffFile(path).series[0].ndim == 3]
        found(volumes) if given.found else run(volumes, given.results)
    if given.table:
        table(given.results)
