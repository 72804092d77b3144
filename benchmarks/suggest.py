"""How good the advice of ``napari-tinc suggest`` is, where the image without noise is known.

    OMP_NUM_THREADS=1 python benchmarks/suggest.py [--phantom NOISY CLEAN] [--only vessel]

Simulated neurons and vessels of several brightnesses, so of several amounts of noise, and a pair of TIFFs. A distance
is the mean squared error against the image without noise, over that of the noisy image: measured on the file that
``compress`` makes at that ratio, and as ``suggest`` estimates it without knowing the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_tinc import Target, compress, samples
from napari_tinc.advice.noise import estimate_noise
from napari_tinc.advice.suggest import advised, suggest_steps
from napari_tinc.system.steps import complete

RATIOS = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
REGION = (32, 64, 64)  # about the middle
SHAPE = (64, 128, 128)
# Expected photons, in those of the samples.
EXPOSURES = (0.25, 1.0, 4.0)
# Of the samples' camera: grey values of a dark pixel and of a photon, and its own noise.
OFFSET, GAIN, READ_NOISE = 100.0, 1.5, 4.0


def simulated(shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, make in (("neuron", samples.neuron_phantom), ("vessel", samples.vessel_tree)):
        clean = make(shape, seed=7).clean.astype(np.float64)
        for exposure in EXPOSURES:
            draw = np.random.default_rng(int(10 * exposure))
            photons = exposure * np.maximum(clean - OFFSET, 0) / GAIN
            truth = OFFSET + GAIN * photons
            noisy = OFFSET + GAIN * draw.poisson(photons) + draw.normal(0, READ_NOISE, shape)
            yield f"{name}, {exposure:g} of the light", np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), truth


def distance(decoded: np.ndarray, noisy: np.ndarray, clean: np.ndarray) -> float:
    return float(np.square(decoded - clean).mean() / np.square(noisy - clean).mean())


def rows_of(ratios: list[float], name: str, noisy: np.ndarray, clean: np.ndarray) -> list[dict[str, object]]:
    noise = estimate_noise([noisy])
    true_noise = np.square(noisy - clean).mean()
    began = time.process_time()
    sides = [min(n, side) for n, side in zip(noisy.shape, REGION, strict=True)]
    box = tuple(slice((n - side) // 2, (n + side) // 2) for n, side in zip(noisy.shape, sides, strict=True))
    tried = complete(suggest_steps(noisy, region=box, ratios=ratios))
    seconds = time.process_time() - began
    advice = advised(tried)
    rows = []
    for one in tried:
        assert one.here is not None
        assert one.everywhere is not None
        file = compress(noisy, Target.ratio(one.ratio))
        decoded = file.decode()
        rows.append(
            {
                "volume": name,
                "noise_found": noise.variance(clean).mean() / true_noise,
                "ratio": one.ratio,
                "distance_here": distance(decoded[box], noisy[box], clean[box]),
                "estimated_here": one.here.value,
                "limit_here": one.here.limit,
                "distance_everywhere": distance(decoded, noisy, clean),
                "estimated_everywhere": one.everywhere.value,
                "limit_everywhere": one.everywhere.limit,
                "verdict": str(one.verdict),
                "advised": advice is not None and one.ratio == advice.ratio,
                "psnr": float(file.provenance["psnr"]),
                "psnr_expected": one.psnr,
                "cpu_s": seconds,
            }
        )
    return rows


def summary(table: pd.DataFrame) -> Iterator[str]:
    yield "| volume | noise found | advised | here: at 1, 2 and 4 times that | everywhere: at 1, 2 and 4 times that |"
    yield "|---|---|---|---|---|"
    for name, rows in table.groupby("volume", sort=False):
        rows = rows.set_index("ratio")
        chosen = rows[rows.advised]
        noise = f"{100 * rows.noise_found.iloc[0]:.0f} %"
        if chosen.empty:
            yield f"| {name} | {noise} | less than {RATIOS[0]:g} | | |"
            continue
        ratio = chosen.index[0]
        cells = [
            ", ".join(f"{rows[column][k * ratio]:.2f}" if k * ratio in rows.index else "-" for k in (1, 2, 4))
            for column in ("distance_here", "distance_everywhere")
        ]
        yield f"| {name} | {noise} | {ratio:g} | " + " | ".join(cells) + " |"
    used = table[table.distance_here < 3]
    for column in ("here", "everywhere"):
        off = (used[f"estimated_{column}"] - used[f"distance_{column}"]).describe()
        yield f"{column}: estimated minus true distance {off['mean']:.3f} on average, {off['std']:.3f} of spread"
    off = (table.psnr_expected - table.psnr).describe()
    yield f"expected minus true PSNR {off['mean']:.2f} dB on average, from {off['min']:.2f} to {off['max']:.2f}"
    yield f"{table.cpu_s.mean() / table.ratio.nunique():.1f} CPU seconds a ratio"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantom", nargs=2, type=Path, metavar=("NOISY", "CLEAN"))
    parser.add_argument("--only", nargs="*", help="how the names of volumes begin; rows of others are kept")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "suggest.csv")
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    args = parser.parse_args()
    volumes = list(simulated(tuple(args.shape)))
    if args.phantom:
        noisy, clean = (tifffile.imread(path) for path in args.phantom)
        volumes.append((args.phantom[0].stem, noisy, clean.astype(np.float64)))
    if args.only is not None:
        volumes = [volume for volume in volumes if volume[0].startswith(tuple(args.only))]
    table = pd.read_csv(args.output) if args.output.exists() else pd.DataFrame()
    for volume in volumes:
        table = pd.concat([table, pd.DataFrame(rows_of(args.ratios, *volume))])
        table = table.drop_duplicates(["volume", "ratio"], keep="last")
        table.to_csv(args.output, index=False, float_format="%.4g")
        print(f"{volume[0]}: done", flush=True)
    print("\n".join(summary(table)))


if __name__ == "__main__":
    main()
