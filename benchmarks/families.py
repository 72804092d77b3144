"""Every family of networks at equal bytes, and the wavelets that it must beat.

    OMP_NUM_THREADS=1 python benchmarks/families.py VOLUMES --ratios 64 256 --time-limit 15
    python benchmarks/families.py VOLUMES --ratios 64 256 --steps 1500
    python benchmarks/families.py --table --time-limit 15
    python benchmarks/families.py --draw nuclei mri_gd_brain --steps 1500 --ratios 16 32 64 128 256 512

Trains every family for ``--time-limit`` seconds, which are of the clock: on a busy machine they are worth less. With
``--steps`` it trains for so many steps per 2¹⁸ voxels instead, as presets do (``fast`` has 1500), which no load of the
machine changes. Of a volume larger than ``--voxels`` its middle is taken. Appends to
``benchmarks/results/families.csv``, where ``limit_s`` or ``steps`` is 0, and goes on where it was stopped. ``--table``
prints the rows of a setting, ``--draw`` draws their PSNR against ratio into ``families.png`` beside it.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import time
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
import torch
from appending import appending
from matplotlib import pyplot
from strategies import middle

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES, WAVELET
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.errors import TincError
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.measures import metrics

RESULTS = Path(__file__).parent / "results" / "families.csv"
KEYS = ["volume", "voxels", "ratio", "model", "limit_s", "steps"]
SEED = 0
COLUMNS = [
    *KEYS, "bytes", "psnr_dB", "worst_octant_dB", "encode_s", "decode_Mvoxel_s", "problem", "commit", "threads", "seed"
]  # fmt: skip


def worst_octant(volume: npt.NDArray[np.generic], decoded: npt.NDArray[np.generic]) -> float:
    """PSNR of the worst of 64 octants or fewer, over the range of the whole."""
    span, psnrs = float(np.ptp(volume)), []
    spatial = Octree(volume.shape[-3:], choose_splits(volume.shape[-3:], 2))
    for box in spatial.boxes(spatial.depth):
        error = np.square(volume[(..., *box)].astype(float) - decoded[(..., *box)]).mean()
        psnrs.append(10 * np.log10(span**2 / max(error, 1e-30)))
    return float(min(psnrs))


def measured(
    volume: npt.NDArray[np.generic], ratio: float, model: str, limit: float | None, steps: int | None = None
) -> dict[str, object]:
    """Compress, decode and compare; ``steps`` are those of the preset ``fast`` if not given."""
    axes = "zcyx" if volume.ndim == 4 else "zyx"
    metadata = Metadata(axes, (1.0,) * volume.ndim, ("",) * volume.ndim)
    began = time.perf_counter()
    try:
        with mock.patch.dict(TRAINING_STEPS, {"fast": steps} if steps else {}):
            made = compress(volume, Target.ratio(ratio), model=model, time_limit=limit, metadata=metadata, seed=SEED)
    except TincError as error:
        return {"problem": str(error)}
    encoded = time.perf_counter() - began
    file = CompressedVolume(made.to_bytes())
    began = time.perf_counter()
    decoded = file.decode()
    took = time.perf_counter() - began
    items = [volume, decoded] if volume.ndim < 4 else [np.moveaxis(array, 1, 0) for array in (volume, decoded)]
    return {
        "bytes": made.nbytes,
        "psnr_dB": f"{metrics.psnr(volume, decoded):.2f}",
        "worst_octant_dB": f"{worst_octant(*items):.1f}",
        "encode_s": f"{encoded:.1f}",
        "decode_Mvoxel_s": f"{volume.size / took / 1e6:.2f}",
    }


def circumstances() -> dict[str, object]:
    """Return what else decides a row: the commit (or what is nearest), threads and seed."""
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    return {"commit": commit, "threads": torch.get_num_threads(), "seed": SEED}


def of_setting(results: Path, ratios: list[float], limit: float, steps: int) -> pd.DataFrame:
    """Return the rows of one length of training, the last one where there are several."""
    rows = pd.read_csv(results)
    return (
        rows[rows.ratio.isin(ratios) & (rows.limit_s == limit) & (rows.steps == steps)]
        .groupby(KEYS, sort=False)
        .last()
        .reset_index()
    )


def draw(rows: pd.DataFrame, volumes: list[str], path: Path) -> None:
    """Draw PSNR against ratio, a panel per volume."""
    figure, panels = pyplot.subplots(
        1, len(volumes), figsize=(4 * len(volumes), 3.6), squeeze=False, layout="constrained"
    )
    for panel, name in zip(panels[0], volumes, strict=True):
        own = rows[rows.volume.str.startswith(name)].sort_values("ratio")
        for number, model in enumerate([WAVELET, *FAMILIES]):
            curve = own[own.model == model]
            if curve.empty:
                continue
            style = "k-o" if model == WAVELET else f"C{number - 1}-"
            panel.plot(curve.ratio, curve.psnr_dB, style, markersize=3, linewidth=1.2, label=model)
        ratios = own.ratio.unique()
        panel.set_xscale("log", base=2)
        panel.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        panel.set(title=name, xlabel="ratio", ylabel="PSNR (dB)")
        panel.grid(alpha=0.3)
    panels[0][-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    print(path)


def table(rows: pd.DataFrame) -> None:
    """Print PSNR and worst octant of every model, what it takes, who is ahead, and which smaller files are better."""
    models = sorted(rows.model.unique(), key=lambda model: model != WAVELET)
    for ratio, some in rows.groupby("ratio", sort=False):
        print(f"\nRatio {ratio:g}:\n\n| volume | " + " | ".join(models) + " |")
        print("|---|" + "---|" * len(models))
        for volume, own in some.groupby("volume", sort=False):
            cells = {r.model: f"{r.psnr_dB:.2f} / {r.worst_octant_dB:.1f}" for r in own.itertuples()}
            print(f"| `{volume}` | " + " | ".join(cells.get(model, "") for model in models) + " |")
    print("\n| model | encode s | decode Mvoxel/s |\n|---|---|---|")
    for model in models:
        own = rows[rows.model == model]
        print(f"| {model} | {own.encode_s.median():.1f} | {own.decode_Mvoxel_s.median():.1f} |")
    print("\n| model | best family | ahead of wavelets | median | ahead of siren | median |\n|---|---|---|---|---|---|")
    cells = rows.pivot_table(index=["volume", "ratio"], columns="model", values="psnr_dB")
    best = cells[[name for name in FAMILIES if name in cells]].idxmax(axis=1)
    for model in models:
        more = [(cells[model] - cells[other]).dropna() for other in (WAVELET, "siren") if other in cells]
        said = [f"{(gain > 0).sum()} of {gain.size} | {gain.median():+.2f} dB" for gain in more]
        print(f"| {model} | {(best == model).sum()} | {' | '.join(said)} |")
    curves = rows[rows.model.isin(FAMILIES)].pivot_table(index=["volume", "model"], columns="ratio", values="psnr_dB")
    for large, small in itertools.pairwise(curves):
        both = curves[[large, small]].dropna()
        worse = both[both[large] < both[small]]
        print(f"\nWorse at {large:g} than at {small:g}: {len(worse)} of {len(both)}")
        for (volume, model), (low, high) in worse.iterrows():
            print(f"- `{volume}` {model}: {low:.2f}, {high:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="*", default=[], help="how their names begin; all if not given")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64.0, 256.0])
    parser.add_argument("--models", nargs="+", default=[WAVELET, *FAMILIES])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--time-limit", type=float, default=15.0)
    length.add_argument("--steps", type=int, default=0, help="for 2**18 voxels, whatever time they take")
    parser.add_argument("--voxels", type=int, default=2**22)
    parser.add_argument("--draw", nargs="+", metavar="VOLUME", help="draw these and run nothing")
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    limit = 0.0 if args.steps else args.time_limit
    if args.table or args.draw:
        rows = of_setting(args.results, args.ratios, limit, args.steps)
        if args.table:
            table(rows)
        else:
            draw(rows, args.draw, args.results.with_suffix(".png"))
        return
    paths = [p for p in sorted(args.folder.glob("*.tif")) if not any(word in p.stem for word in ("mask", "clean"))]
    chosen = [p for p in paths if not args.volumes or any(p.stem.startswith(name) for name in args.volumes)]
    known = pd.read_csv(args.results)[KEYS].astype(str).agg("|".join, axis=1) if args.results.exists() else []
    done = set(known)
    with appending(args.results, COLUMNS) as append:
        for path in chosen:
            whole = tifffile.imread(path)
            volume = whole if whole.ndim == 4 else middle(whole, args.voxels)
            for ratio in args.ratios:
                for model in args.models:
                    row = dict(zip(KEYS, (path.stem, volume.size, ratio, model, limit, args.steps), strict=True))
                    if "|".join(map(str, row.values())) in done:
                        continue
                    found = measured(volume, ratio, model, limit or None, args.steps)
                    append(row | found | circumstances())
                    print(path.stem, ratio, model, found, flush=True)


if __name__ == "__main__":
    main()
