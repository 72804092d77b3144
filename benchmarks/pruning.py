"""Does pruning pay at equal bytes? Smallify, variational dropout, masks and magnitudes, and latents as wavelets.

    OMP_NUM_THREADS=1 python benchmarks/pruning.py VOLUMES --volumes vessel_lightsheet nuclei --ratios 64
    python benchmarks/pruning.py --table

M. Bussler's thesis (TUM, 2023) prunes latent grids and reports 1.3 to 3 dB at equal counts of parameters. Here a file
is counted in bytes, and its coder takes next to nothing for a zero. Every variant trains for as many steps, which
cost nearly the same, in three phases as in the thesis: what is to be pruned is learnt in the first 60 %, then it is
0. A cell of a grid is pruned with all of its features; ``finer`` plans a grid of twice as many latents, half of which
are to go. ``rate`` is the family ``grid`` as it ships, ``plain`` the same without its penalty on bits. The first
volume is a made one, smooth as a simulation is: noise with the spectrum of turbulence. Appends to
``benchmarks/results/pruning.csv``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
import torch
from appending import appending
from families import measured
from strategies import middle
from torch import Tensor

from napari_tinc.networks.families import grid, siren
from napari_tinc.networks.protocol import Phase, Schedule

RESULTS = Path(__file__).parent / "results" / "pruning.csv"
COLUMNS = ["volume", "ratio", "model", "variant", "steps", "zeros", "bytes", "psnr_dB", "encode_s", "problem"]
LEARNT = 0.6  # of the training, until pruning
RATE, SMALL, LEVELS = 0.05, 0.05, 2  # of what says which cells stay; what is as good as 0; octaves of the wavelets
SMALLIFY, VARIATIONAL, MASK = 0.3, 0.1, 0.3  # weights of the penalties


def simulated(side: int = 96, seed: int = 0) -> npt.NDArray[np.float32]:
    """Noise with Kolmogorov's spectrum: amplitudes fall as k^(-11/6)."""
    noise = np.fft.fftn(np.random.default_rng(seed).standard_normal((side,) * 3))
    k = np.sqrt(sum(np.square(f) for f in np.meshgrid(*[np.fft.fftfreq(side, 1 / side)] * 3, indexing="ij")))
    decay = np.exp(-np.square(k / (side / 6)))  # viscosity
    return np.fft.ifftn(noise * decay / np.maximum(k, 1) ** (11 / 6)).real.astype(np.float32)


class Pruning:
    """Learns which cells of a network's tensors stay.

    Parameters
    ----------
    kind : str
        ``"magnitude"``, ``"smallify"``, ``"variational"`` or ``"mask"``.
    first : int
        Position of the first tensor to be pruned.
    share : float
        To be pruned, by magnitude.
    """

    def __init__(self, kind: str, first: int, share: float) -> None:
        self.kind, self.first, self.share = kind, first, share
        self.aside: list[Tensor] = []
        self.signs: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.kept: list[Tensor] | None = None
        self.optimiser: torch.optim.Optimizer | None = None

    def _cells(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        return list(parameters[self.first :])

    def _start(self, parameters: Sequence[Tensor]) -> None:
        begin = {"smallify": 1.0, "variational": -6.0, "mask": 1.0}[self.kind]
        shapes = [(len(cells), 1, *cells.shape[2:]) for cells in self._cells(parameters)]
        self.aside = [torch.full(shape, begin, requires_grad=True) for shape in shapes]
        self.signs, self.variances = ([torch.full(shape, x) for shape in shapes] for x in (1.0, 0.0))
        self.optimiser = torch.optim.Adam(self.aside, lr=RATE)

    def used(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters as the network is to use them."""
        if self.kept is not None or self.kind == "magnitude":
            return list(parameters)
        if not self.aside:
            self._start(parameters)
        pairs = zip(self._cells(parameters), self.aside, strict=True)
        if self.kind == "smallify":
            made = [cells * beta for cells, beta in pairs]
        elif self.kind == "variational":
            made = [cells + (0.5 * log).exp() * torch.randn_like(cells) for cells, log in pairs]
        else:
            made = [cells * (torch.sigmoid(m) + ((m >= 0).float() - torch.sigmoid(m)).detach()) for cells, m in pairs]
        return [*parameters[: self.first], *made]

    def penalty(self, parameters: Sequence[Tensor]) -> Tensor:
        """Return what is added to the loss, times the loss."""
        if not self.aside:
            return torch.zeros(())
        if self.kind == "smallify":
            return SMALLIFY * torch.cat([beta.abs().flatten() for beta in self.aside]).mean()
        if self.kind == "mask":
            return MASK * torch.cat([torch.sigmoid(m).flatten() for m in self.aside]).mean()
        ratios = [log - self._squares(cells) for cells, log in zip(self._cells(parameters), self.aside, strict=True)]
        log_alpha = torch.cat([ratio.flatten() for ratio in ratios])
        k1, k2, k3 = 0.63576, 1.8732, 1.48695  # Molchanov et al., 2017, arXiv 1701.05369
        gain = k1 * torch.sigmoid(k2 + k3 * log_alpha) - 0.5 * torch.nn.functional.softplus(-log_alpha) - k1
        return -VARIATIONAL * gain.mean()

    def _squares(self, cells: Tensor) -> Tensor:
        return torch.log(cells.square().mean(1, keepdim=True) + 1e-10)

    def learn(self, parameters: Sequence[Tensor]) -> None:
        """Move what says which cells stay."""
        if self.optimiser is None:
            return
        self.optimiser.step()
        self.optimiser.zero_grad()
        for beta, mean, variance in zip(self.aside, self.signs, self.variances, strict=True):
            off = torch.sign(beta) - mean
            mean += 0.025 * off
            variance.mul_(0.975).add_(0.975 * 0.025 * off.square())

    def prune(self, parameters: Sequence[Tensor]) -> None:
        """Set to 0 what does not stay."""
        if self.kept is None:
            cells = self._cells(parameters)
            if self.kind == "magnitude":
                sizes = [c.square().mean(1, keepdim=True) for c in cells]
                edge = torch.quantile(torch.cat([s.flatten() for s in sizes])[: 2**24], self.share)
                self.kept = [(s > edge).float() for s in sizes]
            elif self.kind == "smallify":
                pairs = zip(self.variances, self.aside, strict=True)
                self.kept = [((variance < 0.75) & (beta.abs() > SMALL)).float() for variance, beta in pairs]
                for c, beta in zip(cells, self.aside, strict=True):
                    c *= beta
            elif self.kind == "variational":
                pairs = zip(cells, self.aside, strict=True)
                self.kept = [(log - self._squares(c) < math.log(9)).float() for c, log in pairs]
            else:
                self.kept = [(m >= 0).float() for m in self.aside]
        for cells, stays in zip(self._cells(parameters), self.kept, strict=True):
            cells *= stays

    def zeros(self) -> float:
        """Share of the cells that were pruned."""
        return 1 - float(torch.cat([k.flatten() for k in self.kept or [torch.ones(1)]]).mean())


def pruned(network: type, pruning: Pruning, first: int) -> type:
    """Return a network of the same family that is pruned as it is trained."""

    class Pruned(network):  # type: ignore[misc]
        def schedule(self, *asked: Any) -> Schedule:
            usual: Schedule = super().schedule(*asked)
            phases = (
                Phase("learning", LEARNT, penalty=pruning.penalty, constrain=pruning.learn),
                Phase("training", 0.9, constrain=pruning.prune),
                Phase("quantising", 1.0, rounded=True, constrain=pruning.prune),
            )
            return replace(usual, phases=phases)

        def evaluate(self, parameters: Sequence[Tensor], inputs: Any) -> Tensor:
            return super().evaluate(pruning.used(parameters), inputs)

    return Pruned


def stepped(network: type, steps: int) -> type:
    """Return a network of the same family that is trained for so many steps."""

    class Stepped(network):  # type: ignore[misc]
        def schedule(self, *asked: Any) -> Schedule:
            return replace(super().schedule(*asked), steps=steps)

    return Stepped


class Plain(grid.GridNetwork):
    """Without a penalty on bits."""

    def schedule(self, *asked: Any) -> Schedule:
        usual = super().schedule(*asked)
        return replace(usual, phases=tuple(replace(phase, penalty=None) for phase in usual.phases))


class Wavelets(grid.GridNetwork):
    """Its parameters are Haar coefficients of the grids."""

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        return self._turned(super().initial(generator), back=False)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        return super().evaluate(self._turned(parameters), inputs)

    def decode(self, parameters: Any, item: int, *region: Any) -> npt.NDArray[np.float32]:
        tensors = self._turned(parameters.of(item, None, 1))
        return super().decode(mock.Mock(of=lambda *_: tensors, device=parameters.device), item, *region)

    def _turned(self, parameters: Sequence[Tensor], back: bool = True) -> list[Tensor]:
        found = list(parameters[: -len(self.grids)])
        for cells in parameters[-len(self.grids) :]:
            turned = cells
            with torch.autocast(cells.device.type, enabled=False):
                for axis in range(2, cells.ndim):
                    matrix = haar(cells.shape[axis])
                    turned = torch.movedim(torch.movedim(turned, axis, -1) @ (matrix if back else matrix.T), -1, axis)
            found.append(turned)
        return found


@cache
def haar(side: int) -> Tensor:
    """Orthonormal Haar transform of some octaves along an axis: coefficients (rows) to cells (columns)."""
    matrix, size = np.eye(side), side
    for _ in range(LEVELS):
        step, pairs = np.eye(side), size // 2
        step[:size] = 0
        for i in range(pairs):
            step[i, 2 * i : 2 * i + 2] = math.sqrt(0.5)
            step[size - pairs + i, 2 * i : 2 * i + 2] = math.sqrt(0.5), -math.sqrt(0.5)
        if size % 2:
            step[pairs, size - 1] = 1
        matrix, size = step @ matrix, size - pairs
    return torch.from_numpy(matrix.astype(np.float32))


VARIANTS = {
    "grid": ("rate", "plain", "magnitude 50 %", "magnitude 50 % finer", "smallify", "variational", "mask", "mask finer",
             "wavelets"),
    "siren": ("plain", "magnitude 25 %"),
}  # fmt: skip


def trained(volume: npt.NDArray[np.generic], ratio: float, model: str, variant: str, steps: int) -> dict[str, object]:
    """Compress with a variant of a family."""
    kind, *share = variant.removesuffix(" finer").removesuffix(" %").split(" ")
    module, name, first = (grid, "GridNetwork", 6) if model == "grid" else (siren, "SirenNetwork", 2)
    network = getattr(module, name)
    pruning = Pruning(kind, first, float(share[0]) / 100 if share else 0.0)
    if kind == "wavelets":
        network = Wavelets
    elif kind == "plain" and model == "grid":
        network = Plain
    elif kind not in ("rate", "plain"):
        network = pruned(network, pruning, first)
    bits = grid._BITS_PER_LATENT / (2 if variant.endswith("finer") else 1)
    with mock.patch.object(module, name, stepped(network, steps)), mock.patch.object(grid, "_BITS_PER_LATENT", bits):
        found = measured(volume, ratio, model, None)
        return {"zeros": f"{pruning.zeros():.2f}"} | found


def table(results: Path) -> None:
    """Print PSNR of every variant."""
    rows = pd.read_csv(results)
    for model, own in rows.groupby("model", sort=False):
        cells = own.assign(
            cell=[f"{p:.2f} ({z:.0%})" if z else f"{p:.2f}" for p, z in zip(own.psnr_dB, own.zeros, strict=True)]
        )
        print(f"\n{model}\n")
        variants = list(dict.fromkeys(own.variant))
        print("| volume | ratio | steps | " + " | ".join(variants) + " |\n|---|---|---|" + "---|" * len(variants))
        for (volume, ratio, steps), some in cells.groupby(["volume", "ratio", "steps"], sort=False):
            found = dict(zip(some.variant, some.cell, strict=True))
            print(f"| `{volume}` | {ratio:g} | {steps} | " + " | ".join(found.get(v, "") for v in variants) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="*", default=[], help="how their names begin")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--models", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--side", type=int, default=96, help="of the made volume; 0 leaves it out")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        table(args.results)
        return
    volumes = {f"simulated_{args.side}": simulated(args.side)} if args.side else {}
    for name in args.volumes:
        path = next(args.folder.glob(f"{name}*.tif"))
        volumes[path.stem] = middle(tifffile.imread(path), 2**20)
    with appending(args.results, COLUMNS, "ignore") as append:
        for name, volume in volumes.items():
            for ratio in args.ratios:
                for model in args.models:
                    for variant in VARIANTS[model]:
                        row = dict(zip(COLUMNS, (name, ratio, model, variant, args.steps), strict=False))
                        row |= trained(volume, ratio, model, variant, args.steps)
                        append(row)
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
