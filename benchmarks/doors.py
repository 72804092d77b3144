"""Every family through every door, on an image, a thin stack, channels and four million voxels.

    OMP_NUM_THREADS=1 python benchmarks/doors.py VOLUMES --time-limit 10
    OMP_NUM_THREADS=1 xvfb-run -a -s '-screen 0 1400x900x24' python benchmarks/doors.py VOLUMES --doors commands widget
    python benchmarks/doors.py --table

Library: compressed, written and opened again; decoded as a whole, in part, at a quarter of its size, and as a lazy
array. Commands: ``compress``, ``info`` and ``decompress``, each a process of its own. Widget: a button of the window is
pressed, the result saved by another one, and the file opened in napari. A row is written only if all of them agree, and
if no file is above its size. PSNR over the range, decoding in million voxels a second; ``encode_s`` is what a user
waits for the result, the start of a process and the report in the window included. Appends to
``benchmarks/results/doors.csv``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
from appending import appending

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES
from napari_tinc.lazy import lazy_levels
from napari_tinc.measures import metrics

Array = npt.NDArray[np.generic]

RESULTS = Path(__file__).parent / "results" / "doors.csv"
KEYS = ["door", "array", "shape", "ratio", "model", "limit_s"]
COLUMNS = [*KEYS, "bytes", "psnr_dB", "encode_s", "decode_Mvoxel_s", "region_s"]
NAMES = {"image": "neuron_somata", "thin stack": "tinc_demo", "channels": "neuron_brainbow",
         "4 Mvoxel": "neuron_phantom_64x256x256_u16"}  # fmt: skip
LONGEST = 600  # seconds in which the window must have a result


def array_of(folder: Path, name: str) -> tuple[str, Array]:
    """Axes and voxels of what the doors are tried on."""
    array = tifffile.imread(next(folder.glob(f"{NAMES[name]}*.tif")))
    if name == "image":
        return "yx", array[len(array) // 2]
    return "zyx" if array.ndim == 3 else "zcyx", array


def by_library(array: Array, axes: str, ratio: float, model: str, limit: float) -> dict[str, object]:
    """Compress and decode with calls of the library."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "a.tinc"
        metadata = Metadata(axes, (1.0,) * len(axes), ("",) * len(axes))
        began = time.perf_counter()
        compress(array, Target.ratio(ratio), model=model, time_limit=limit, metadata=metadata).save(packed)
        encoded = time.perf_counter() - began
        volume = CompressedVolume.open(packed)
        began = time.perf_counter()
        decoded = volume.decode()
        took = time.perf_counter() - began
        region = tuple(slice(n // 4, n // 4 + min(32, -(-n // 2))) for n in array.shape)
        began = time.perf_counter()
        part = CompressedVolume.open(packed).decode(region)
        of_part = time.perf_counter() - began
        for same in (part, np.asarray(lazy_levels(volume)[0][region])):
            assert np.abs(same.astype(float) - decoded[region]).max() <= 1
        assert volume.decode(scale=0.25).shape == volume.scaled_shape(0.25)
        times = {"decode_Mvoxel_s": f"{array.size / took / 1e6:.2f}", "region_s": f"{of_part:.2f}"}
        return found(array, volume, decoded, ratio, encoded) | times


def by_commands(array: Array, axes: str, ratio: float, model: str, limit: float) -> dict[str, object]:
    """Compress and decode with the command line."""
    with tempfile.TemporaryDirectory() as folder:
        source, packed, back = (Path(folder) / name for name in ("a.tif", "a.tinc", "b.tif"))
        tifffile.imwrite(source, array, photometric="minisblack")
        asked = ["--axes", axes, "--ratio", str(ratio), "--model", model, "--time-limit", str(limit)]
        began = time.perf_counter()
        command("compress", source, packed, *asked)
        encoded = time.perf_counter() - began
        told = command("info", packed)
        began = time.perf_counter()
        command("decompress", packed, back)
        took = time.perf_counter() - began
        volume, decoded = CompressedVolume.open(packed), tifffile.imread(back)
        assert (told["model"], told["axes"], tuple(told["shape"])) == (model, axes, array.shape), told
        assert told["file_bytes"] == packed.stat().st_size
        times = {"decode_Mvoxel_s": f"{array.size / took / 1e6:.2f}"}
        return found(array, volume, decoded, ratio, encoded) | times


def command(*words: object) -> dict[str, Any]:
    """Run a command and return what it prints."""
    line = [sys.executable, "-m", "napari_tinc", *map(str, words), "--json"]
    told: dict[str, Any] = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return told


def by_widget(array: Array, axes: str, ratio: float, model: str, limit: float) -> dict[str, object]:
    """Compress with the widget in a window, and open the file there."""
    from plugin_latency import PLUGIN, State, live, widget_on  # opens no window yet, but loads napari

    viewer, widget = widget_on(array)
    live(10, lambda: not widget.model.error())
    widget.form.write(preset="fast", model=model, axes=axes, target_value=ratio, time_limit=limit)
    began = time.perf_counter()
    widget.compress_button.click()
    live(LONGEST, lambda: not widget.model.running)
    encoded = time.perf_counter() - began
    assert widget.model.state is State.DONE, widget.model.message
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "a.tinc"
        with mock.patch("napari_tinc.plugin.compress.result.ask_path", return_value=packed):
            widget.save_button.click()
        (layer,) = viewer.open(packed, plugin=PLUGIN)
        shown = np.asarray(layer.data[0] if layer.multiscale else layer.data)
        viewer.close()
        return found(array, CompressedVolume.open(packed), shown, ratio, encoded)


def found(array: Array, volume: CompressedVolume, decoded: Array, ratio: float, encoded: float) -> dict[str, object]:
    """Check a file and what it was decoded to; return what was measured."""
    assert volume.shape == decoded.shape == array.shape, (volume.shape, decoded.shape)
    assert volume.nbytes <= array.nbytes / ratio
    psnr = metrics.psnr(array, decoded)
    assert abs(psnr - float(volume.provenance["psnr"])) < 0.02, (psnr, volume.provenance["psnr"])
    return {"bytes": volume.nbytes, "psnr_dB": f"{psnr:.2f}", "encode_s": f"{encoded:.1f}"}


DOORS: dict[str, Callable[[Array, str, float, str, float], dict[str, object]]] = {
    "library": by_library, "commands": by_commands, "widget": by_widget,
}  # fmt: skip


def table(results: Path) -> None:
    """Print PSNR, seconds and, where it was measured alone, the speed of decoding."""
    for (door, ratios), rows in pd.read_csv(results).groupby(["door", "ratio"], sort=False):
        names = list(dict.fromkeys(rows.array))
        print(f"\n{door}, ratio {ratios:g}\n\n| model | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
        for model, own in rows.groupby("model", sort=False):
            cells = {r.array: f"{r.psnr_dB:.1f} / {r.encode_s:.0f} s" for r in own.itertuples()}
            if door == "library":
                cells = {r.array: f"{cells[r.array]} / {r.decode_Mvoxel_s:.1f}" for r in own.itertuples()}
            print(f"| {model} | " + " | ".join(cells.get(name, "") for name in names) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--doors", nargs="+", choices=DOORS, default=["library"])
    parser.add_argument("--arrays", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--models", nargs="+", default=list(FAMILIES))
    parser.add_argument("--ratio", type=float, default=64.0)
    parser.add_argument("--time-limit", type=float, default=10.0)
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        table(args.results)
        return
    with appending(args.results, COLUMNS) as append:
        for name in args.arrays:
            axes, array = array_of(args.folder, name)
            shape = "x".join(map(str, array.shape))
            for door in args.doors:
                for model in args.models:
                    row = dict(zip(KEYS, (door, name, shape, args.ratio, model, args.time_limit), strict=True))
                    measured = DOORS[door](array, axes, args.ratio, model, args.time_limit)
                    append(row | measured)
                    print(*(row | measured).values(), flush=True)


if __name__ == "__main__":
    main()
