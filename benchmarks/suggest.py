"""How good the advice of ``napari-tinc suggest`` is, where the image without noise is known.

    OMP_NUM_THREADS=1 python benchmarks/suggest.py [--phantom NOISY CLEAN] [--output table.csv]

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
from napari_tinc.core.noise import estimate_noise
from napari_tinc.core.steps import complete
from napari_tinc.suggest import advised, suggest_steps

RATIOS = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
SHAPE = (64, 128, 128)
# Expected photons, in those of the samples.
EXPOSURES = (0.1, 0.4, 1.0, 4.0)
# Of the samples' camera: grey values of a dark pixel and of a photon, and its own noise.
OFFSET, GAIN, READ_NOISE = 100.0, 1.5, 4.0


def simulated() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name, make in (("neuron", samples.neuron_phantom), ("vessel", samples.vessel_tree)):
        clean = make(SHAPE, seed=7).clean.astype(np.float64)
        for exposure in EXPOSURES:
            draw = np.random.default_rng(int(10 * exposure))
            photons = exposure * np.maximum(clean - OFFSET, 0) / GAIN
            truth = OFFSET + GAIN * photons
            noisy = OFFSET + GAIN * draw.poisson(photons) + draw.normal(0, READ_NOISE, SHAPE)
            yield f"{name}, {exposure:g} of the light", np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), truth


def distance(decoded: np.ndarray, noisy: np.ndarray, clean: np.ndarray) -> float:
    return float(np.square(decoded - clean).mean() / np.square(noisy - clean).mean())


def rows_of(name: str, noisy: np.ndarray, clean: np.ndarray) -> list[dict[str, object]]:
    noise = estimate_noise([noisy])
    true_noise = np.square(noisy - clean).mean()
    began = time.process_time()
    tried = complete(suggest_steps(noisy, region=tuple(slice(0, n) for n in noisy.shape), ratios=RATIOS))
    seconds = time.process_time() - began
    advice = advised(tried)
    rows = []
    for one in tried:
        assert one.everywhere is not None
        file = compress(noisy, Target.ratio(one.ratio))
        rows.append(
            {
                "volume": name,
                "noise_found": noise.variance(clean).mean() / true_noise,
                "ratio": one.ratio,
                "distance": distance(file.decode(), noisy, clean),
                "estimated": one.everywhere.value,
                "limit": one.everywhere.limit,
                "verdict": str(one.verdict),
                "advised": advice is not None and one.ratio == advice.ratio,
                "psnr": float(file.provenance["psnr"]),
                "psnr_expected": one.psnr,
                "cpu_s": seconds,
            }
        )
    return rows


def summary(table: pd.DataFrame) -> Iterator[str]:
    yield "| volume | noise found | advised | distance there | twice that | four times | CPU s |"
    yield "|---|---|---|---|---|---|---|"
    for name, rows in table.groupby("volume", sort=False):
        by_ratio = rows.set_index("ratio").distance
        chosen = rows[rows.advised]
        noise, seconds = f"{100 * rows.noise_found.iloc[0]:.0f} %", f"{rows.cpu_s.iloc[0]:.0f}"
        if chosen.empty:
            yield f"| {name} | {noise} | none | - | {by_ratio.iloc[0]:.2f} (16) | - | {seconds} |"
            continue
        ratio = chosen.ratio.iloc[0]
        cells = [f"{by_ratio[k * ratio]:.2f}" if k * ratio in by_ratio else "-" for k in (1, 2, 4)]
        yield f"| {name} | {noise} | {ratio:g} | " + " | ".join(cells) + f" | {seconds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantom", nargs=2, type=Path, metavar=("NOISY", "CLEAN"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "suggest.csv")
    args = parser.parse_args()
    volumes = list(simulated())
    if args.phantom:
        noisy, clean = (tifffile.imread(path) for path in args.phantom)
        volumes.append((args.phantom[0].stem, noisy, clean.astype(np.float64)))
    rows: list[dict[str, object]] = []
    for volume in volumes:
        rows += rows_of(*volume)
        print(f"{volume[0]}: done", flush=True)
        pd.DataFrame(rows).to_csv(args.output, index=False, float_format="%.4g")
    print("\n".join(summary(pd.DataFrame(rows))))


if __name__ == "__main__":
    main()
