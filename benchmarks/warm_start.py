"""Does the base network of ``coinpp`` help others to start? A SIREN of its shape, at equal bytes and steps.

    OMP_NUM_THREADS=1 python benchmarks/warm_start.py VOLUMES --volumes nuclei mri_gd vessel_lightsheet brain_hipct
    python benchmarks/warm_start.py --table

Of all families only ``siren`` can have the base's tensors: four sine layers of 64, which make a file of ``--bytes``.
``random`` draws them as the family does. ``base`` takes them from the base, its first layer scaled so that a voxel is
as far from the next one as in a patch; ``stretched`` lays the patch over the whole volume. The output layer is drawn,
for the base's own says nothing beyond its patch. ``base, slow`` trains at a third of the rate, which a start that is
worth keeping may want, and ``random, slow`` is there to compare it with. Of a volume larger than ``--voxels`` its
middle is taken. Appends to ``benchmarks/results/warm_start.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from appending import appending
from strategies import middle_of
from torch import Tensor

from napari_tinc import Target, compress
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.measures import metrics
from napari_tinc.networks.families import siren
from napari_tinc.networks.families.coinpp import SIDE, shipped
from napari_tinc.networks.protocol import Request, Schedule

RESULTS = Path(__file__).parent / "results" / "warm_start.csv"
KEYS = ["volume", "voxels", "bytes", "start", "steps", "seed"]
STARTS = ("random", "base", "stretched", "random, slow", "base, slow")


class Started(siren.SirenNetwork):
    """A SIREN of the base's shape, and how it starts."""

    start = "random"

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw, and take the hidden layers of the base instead."""
        drawn, kind, base = super().initial(generator), self.start.removesuffix(", slow"), shipped()
        if kind == "random":
            return drawn
        sides = self.tree.shape if kind == "base" else (SIDE,) * len(self.tree.shape)
        first, *others = base.weights[:-1]
        weights = [first * torch.tensor([side / SIDE for side in sides]), *others]
        pairs = zip(weights, base.biases[:-1], strict=True)
        return [tensor[None].clone() for weight, bias in pairs for tensor in (weight, bias[:, None])] + drawn[-2:]

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Train slower if it is to."""
        usual = super().schedule(steps, growth, time_limit)
        return replace(usual, rate=usual.rate / 3) if self.start.endswith("slow") else usual


def planned(start: str) -> Callable[[object, Request], Started]:
    """Return what plans such a network, whatever the budget."""

    def plan(_: object, request: Request) -> Started:
        base = shipped()
        network = Started(request.octants, 1, len(base.biases[0]), len(base.weights) - 1)
        network.start = start
        return network

    return plan


def trained(volume: npt.NDArray[np.generic], size: int, start: str, steps: int, seed: int) -> float:
    """PSNR of a file."""
    with (
        mock.patch.object(type(siren.FAMILY), "plan", planned(start)),
        mock.patch.dict(TRAINING_STEPS, {"fast": steps}),
    ):
        made = compress(volume, Target.size(size), model="siren", seed=seed)
    assert made.nbytes <= size
    return metrics.psnr(volume, made.decode())


def table(results: Path) -> None:
    """Print the mean of the seeds, and the median gain on what is drawn."""
    rows = pd.read_csv(results).groupby(["volume", "steps", "start"], sort=False).psnr_dB.mean().unstack()
    print("| volume | steps | " + " | ".join(STARTS) + " |\n|---|---|" + "---|" * len(STARTS))
    for (volume, steps), own in rows.iterrows():
        print(f"| `{volume}` | {steps} | " + " | ".join(f"{own[start]:.2f}" for start in STARTS) + " |")
    for steps, some in rows.groupby(level="steps"):
        best = some[["random", "random, slow"]].max(axis=1)
        gains = [f"{start} {(some[start] - best).median():+.2f}" for start in STARTS if not start.startswith("random")]
        print(f"\n{steps} steps, median gain on the better of the drawn ones, dB: " + "; ".join(gains))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="+", default=[""], help="how their names begin")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--steps", nargs="+", type=int, default=[150, 1500], help="for 2**18 voxels")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--voxels", type=int, default=2**17)
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        table(args.results)
        return
    with appending(args.results, [*KEYS, "psnr_dB"]) as append:
        for begin in args.volumes:
            name, volume = middle_of(args.folder, begin, args.voxels)
            for steps in args.steps:
                for start in args.starts:
                    for seed in range(args.seeds):
                        row = dict(zip(KEYS, (name, volume.size, args.bytes, start, steps, seed), strict=True))
                        row["psnr_dB"] = f"{trained(volume, args.bytes, start, steps, seed):.2f}"
                        append(row)
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
