"""How good the advice of ``napari-tinc advise`` is, where the image without noise is known.

    OMP_NUM_THREADS=1 python benchmarks/advice.py [--phantom NOISY CLEAN] [--mask VOLUME MASK] [--only vessel]

Simulated neurons and vessels of several seeds and amounts of light, so of several densities and amounts of noise, and
pairs of TIFFs. A distance is the mean squared error against the image without noise, over that of the noisy image, in
the file that ``compress`` makes; of structure alone, it is taken over the dilated true foreground. Centreline Dice is
that of the volume blurred by a voxel, above the threshold that ``advise`` takes: of the file against the original, and
of both against the image without noise, or the mask.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.filters import threshold_triangle

from napari_tinc import Target, compress, samples
from napari_tinc.advice.advise import advise_steps
from napari_tinc.advice.trials import Tried
from napari_tinc.measures.centreline import centreline_dice
from napari_tinc.measures.metrics import otsu_threshold
from napari_tinc.system.steps import complete

SHAPE = (64, 128, 128)
# Expected photons, in those of the samples, and seeds of the structures.
EXPOSURES = (0.25, 1.0, 4.0)
SEEDS = (7, 11, 12)
# Of the samples' camera: grey values of a dark pixel and of a photon, and its own noise.
OFFSET, GAIN, READ_NOISE = 100.0, 1.5, 4.0


def simulated(
    shape: tuple[int, ...], seeds: Sequence[int], exposures: Sequence[float]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, make in (("neuron", samples.neuron_phantom), ("vessel", samples.vessel_tree)):
        for seed in seeds:
            clean = make(shape, seed=seed).clean.astype(np.float64)
            for exposure in exposures:
                draw = np.random.default_rng(int(10 * exposure) + seed)
                photons = exposure * np.maximum(clean - OFFSET, 0) / GAIN
                truth = OFFSET + GAIN * photons
                noisy = OFFSET + GAIN * draw.poisson(photons) + draw.normal(0, READ_NOISE, shape)
                noisy = np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)
                yield f"{name} {seed}, {exposure:g} of the light", noisy, truth


def distance(decoded: np.ndarray, noisy: np.ndarray, clean: np.ndarray, where: Any = ...) -> float:
    return float(np.square(decoded - clean)[where].mean() / np.square(noisy - clean)[where].mean())


def measured(name: str, noisy: np.ndarray, clean: np.ndarray | None, mask: np.ndarray | None) -> list[dict[str, Any]]:
    """What is true of the files at the advised ratio and at twice that, and at the last where the loss is noise."""
    began = time.perf_counter()
    advice = complete(advise_steps(noisy))
    seconds = time.perf_counter() - began

    def smooth(volume: np.ndarray) -> np.ndarray:
        return gaussian_filter(volume.astype(np.float32), 1)

    threshold = float(threshold_triangle(smooth(noisy)))
    bright = otsu_threshold(noisy)
    before = smooth(noisy) >= threshold
    truth = mask if clean is None else smooth(clean) >= threshold
    near = ... if clean is None or truth is None else binary_dilation(truth, iterations=2)
    rows = []
    chosen: list[tuple[str, Tried | None, float]] = [
        ("advised", advice.advised, 1),
        ("twice the advised", advice.advised, 2),
        ("last of noise", advice.last_of_noise, 1),
        ("twice the last of noise", advice.last_of_noise, 2),
    ]
    for which, one, times in chosen:
        row: dict[str, Any] = {"volume": name, "which": which, "seconds": seconds, "advice": advice.text}
        if one is not None:
            decoded = compress(noisy, Target.ratio(times * one.ratio), preset="fast").decode()
            after = smooth(decoded) >= threshold
            row |= {"ratio": times * one.ratio, "centreline": centreline_dice(before, after)}
            row |= {"centreline_bright": centreline_dice(noisy >= bright, decoded >= bright)}
            if clean is not None:
                row |= {"distance": distance(decoded, noisy, clean)}
                row |= {"distance_structure": distance(decoded, noisy, clean, near)}
            if truth is not None:
                row |= {"centreline_truth": centreline_dice(truth, after)}
                row |= {"centreline_truth_before": centreline_dice(truth, before)}
        rows.append(row)
    return rows


def table(rows: pd.DataFrame) -> Iterator[str]:
    """The table of docs/advise.md."""
    heads = "volume, advised, D² of all and of structure, at twice that, last of noise, at twice that"
    titles = [*heads.split(", "), "clDice to the original", "clDice to the truth: file, original"]
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"
    for name, part in rows.groupby("volume", sort=False):
        by = {row["which"]: row for row in part.to_dict("records")}

        def both(row: dict[str, Any]) -> str:
            cells = (row.get("distance"), row.get("distance_structure"))
            return ", ".join("-" if value is None or np.isnan(value) else f"{value:.2f}" for value in cells)

        one, last = by["advised"], by["last of noise"]
        cells = [f"{row.get('ratio', np.nan):g}".replace("nan", "none") for row in (one, last)]
        course = [
            f"{one.get(key, np.nan):.3f}" for key in ("centreline", "centreline_truth", "centreline_truth_before")
        ]
        yield (
            f"| {name} | {cells[0]} | {both(one)} | {both(by['twice the advised'])} | {cells[1]} | "
            f"{both(by['twice the last of noise'])} | {course[0]} | {course[1]}, {course[2]} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantom", nargs=2, type=Path, metavar=("NOISY", "CLEAN"))
    parser.add_argument("--mask", nargs=2, type=Path, metavar=("VOLUME", "MASK"))
    parser.add_argument("--only", nargs="*", help="how the names of volumes begin; rows of others are kept")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "advice.csv")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--exposures", type=float, nargs="+", default=EXPOSURES)
    args = parser.parse_args()
    volumes: list[tuple[str, np.ndarray, np.ndarray | None, np.ndarray | None]] = []
    if args.phantom:
        noisy, clean = (tifffile.imread(path) for path in args.phantom)
        volumes.append((args.phantom[0].stem, noisy, clean.astype(np.float64), None))
    if args.mask:
        volume, mask = (tifffile.imread(path) for path in args.mask)
        volumes.append((args.mask[0].stem, volume, None, mask != 0))
    volumes += [(*one, None) for one in simulated(tuple(args.shape), args.seeds, args.exposures)]
    if args.only is not None:
        volumes = [volume for volume in volumes if volume[0].startswith(tuple(args.only))]
    found = pd.read_csv(args.output) if args.output.exists() else pd.DataFrame()
    for one in volumes:
        found = pd.concat([found, pd.DataFrame(measured(*one))])
        found = found.drop_duplicates(["volume", "which"], keep="last")
        found.to_csv(args.output, index=False, float_format="%.4g")
        print(f"{one[0]}: {found.iloc[-1]['advice']}", flush=True)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
