"""A synthesis that is learnt for one file, at one scale or at three, and coefficients that are trained through it.

    OMP_NUM_THREADS=1 python benchmarks/learned_synthesis.py VOLUMES --output benchmarks/results/learned_synthesis.csv

Everything starts as the inverse wavelet transform: corrections are 0 before training. ``one scale`` corrects the
decoded voxels by a small convolutional network, as a post-filter does; ``three scales`` corrects the coarse ones first,
and every finer one with what the coarser one says. ``trained coefficients`` takes the network of one scale and trains
what is encoded, too, through the real encoder. It weighs bits against the squared distance from what it is given; so it
is given the decoded voxels less the slope of the error behind the network, half of the way, at the same bytes
(straight-through: the slope is that of decoded voxels). Files are real; weights are counted with four bits each, and
come out of the budget.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch import nn
from torch.nn import functional

from napari_tinc import CompressedVolume, Target, compress

Floats = np.ndarray
# Side of the boxes that are drawn; how often coefficients are trained, and how far of the way.
SIDE, ROUNDS, RATE = 40, 4, 0.5


class Corrections(nn.Module):
    """Two layers at every scale, coarse to fine; those of a scale see the voxels and the coarser correction.

    Parameters
    ----------
    scales : int
    channels : int
    error : float
        Root mean squared error before; differences and corrections are seen in units of it.
    """

    def __init__(self, scales: int, channels: int, error: float) -> None:
        super().__init__()
        self.error = error
        self.first = nn.ModuleList(nn.Conv3d(3, channels, 3, padding=1) for _ in range(scales))
        self.last = nn.ModuleList(nn.Conv3d(channels, 1, 3, padding=1) for _ in range(scales))
        for layer in self.last:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, voxels: list[torch.Tensor]) -> torch.Tensor:
        """Voxels of every scale, the finest first, shape (1, 1, z, y, x); the corrected finest ones."""
        correction = torch.zeros_like(voxels[-1])
        for number in reversed(range(len(voxels))):
            seen = voxels[number]
            if correction.shape != seen.shape:
                correction = functional.interpolate(correction, seen.shape[2:], mode="trilinear", align_corners=False)
            around = functional.avg_pool3d(functional.pad(seen, (1,) * 6, mode="replicate"), 3, 1)
            inputs = torch.cat([(seen - around) / self.error, torch.tanh(4 * around), correction / self.error], 1)
            correction = correction + self.error * self.last[number](torch.relu(self.first[number](inputs)))
        return voxels[0] + correction

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, four bits each."""
        return -(-sum(p.numel() for p in self.parameters()) // 2)


def scales_of(volume: CompressedVolume, scales: int, low: float, span: float) -> list[torch.Tensor]:
    decoded = [volume.decode(scale=0.5**k) for k in range(scales)]
    return [torch.from_numpy((values.astype(np.float32) - low) / span)[None, None] for values in decoded]


def train(network: Corrections, voxels: list[torch.Tensor], wanted: torch.Tensor, seconds: float, rate: float) -> None:
    """Minimise the squared error on boxes drawn at random."""
    optimiser = torch.optim.Adam(network.parameters(), rate)
    draw, started, coarsest = np.random.default_rng(0), time.process_time(), 2 ** (len(voxels) - 1)
    while (spent := time.process_time() - started) < seconds:
        optimiser.param_groups[0]["lr"] = rate * (1 - spent / seconds)
        shape = wanted.shape[2:]
        starts = [int(draw.integers(0, max(1, (n - SIDE) // coarsest + 1))) * coarsest for n in shape]
        boxes = [
            (..., *(slice(a >> k, min(a + SIDE, n) >> k or 1) for a, n in zip(starts, shape, strict=True)))
            for k in range(len(voxels))
        ]
        boxes[0] = (..., *(slice(a, min(a + SIDE, n)) for a, n in zip(starts, shape, strict=True)))
        found = network([v[b] for v, b in zip(voxels, boxes, strict=True)])
        loss = functional.mse_loss(found / network.error, wanted[boxes[0]] / network.error)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def psnr(wanted: torch.Tensor, decoded: torch.Tensor) -> float:
    """Of values whose range is 1."""
    return round(-10 * float(torch.log10(functional.mse_loss(decoded, wanted))), 3)


def rows_of(name: str, array: np.ndarray, ratio: float, seconds: float) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    budget, low, span = int(array.nbytes / ratio), float(array.min()), float(np.ptp(array))
    values = (array.astype(np.float32) - low) / span
    wanted = torch.from_numpy(values)[None, None]

    def encoded(target: Floats, nbytes: int) -> CompressedVolume:
        return compress(target, Target.size(budget - nbytes), preset="fast")

    rows: list[dict[str, Any]] = []

    def add(what: str, volume: CompressedVolume, nbytes: int, decoded: torch.Tensor) -> None:
        rows.append({
            "volume": name, "ratio": ratio, "what": what, "budget": budget, "file_bytes": volume.nbytes,
            "weight_bytes": nbytes, "psnr_dB": psnr(wanted, decoded),
        })  # fmt: skip
        print(rows[-1], flush=True)

    plain = encoded(values, 0)
    add("wavelets", plain, 0, scales_of(plain, 1, 0, 1)[0])
    for what, scales, channels in (("three scales", 3, 5), ("one scale", 1, 8)):
        network = Corrections(scales, channels, 10 ** (-rows[0]["psnr_dB"] / 20))
        volume = encoded(values, network.nbytes)
        voxels = scales_of(volume, scales, 0, 1)
        train(network, voxels, wanted, seconds, 0.01)
        with torch.no_grad():
            add(what, volume, network.nbytes, network(voxels))
    longer = copy.deepcopy(network)
    train(longer, voxels, wanted, ROUNDS * seconds / 3, 0.003)
    with torch.no_grad():
        add("one scale, trained as long as with coefficients", volume, network.nbytes, longer(voxels))
    for number in range(1, ROUNDS + 1):
        decoded = voxels[0].requires_grad_()
        functional.mse_loss(network([decoded]), wanted, reduction="sum").backward()
        slope, plain_slope = decoded.grad[0, 0].numpy() / 2, decoded.detach()[0, 0].numpy() - values
        target = (values - RATE * (slope - plain_slope)).astype(np.float32)
        volume = encoded(target, network.nbytes)
        voxels = scales_of(volume, 1, 0, 1)
        train(network, voxels, wanted, seconds / 3, 0.003)
        with torch.no_grad():
            add(f"trained coefficients, round {number}", volume, network.nbytes, network(voxels))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--volumes", nargs="+", default=["vessel_lightsheet_100_u16", "vessel_2p_lowres_u8"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[256])
    parser.add_argument("--seconds", type=float, default=30, help="of training")
    parser.add_argument("--voxels", type=int, default=1_000_000, help="of larger volumes, the middle")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.volumes:
        array = tifffile.imread(args.folder / f"{name}.tif")
        shrink = min(1.0, (args.voxels / array.size) ** 0.5)
        sides = [array.shape[0], *(int(n * shrink) // 4 * 4 for n in array.shape[1:])]
        array = array[tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(array.shape, sides, strict=True))]
        for ratio in args.ratios:
            rows += rows_of(name, array, ratio, args.seconds)
    if args.output:
        with args.output.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
