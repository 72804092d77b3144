"""Which step size wins at equal bytes, and what quantisation costs.

    python benchmarks/step_sizes.py VOLUME.tif --ratio 64

One budget, networks of different size: the more parameters, the coarser the steps must be for the file to fit. Then
the default network: in float32 (its own PSNR before any rounding), rounded after training, and trained with the
rounding. Last a float32 tree of the same file size, trained alike. All sizes are bytes on disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from napari_tinc import Metadata, Target, compress
from napari_tinc.encode import training
from napari_tinc.encode.original import Original
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.measures import metrics
from napari_tinc.networks import protocol, quantization
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.layer import open_network
from napari_tinc.networks.leafwise import LeafSamples
from napari_tinc.settings import Settings


def compressed(volume: np.ndarray, ratio: float, preset: str, bits: float) -> tuple[int, int, float]:
    """Parameters, bytes and PSNR of a file whose network is planned for ``bits`` per parameter."""
    planned, protocol.BITS_PER_PARAMETER = protocol.BITS_PER_PARAMETER, bits
    try:
        result = compress(volume, Target.ratio(ratio), preset=preset, model="tinc")
    finally:
        protocol.BITS_PER_PARAMETER = planned
    network = open_network(result._frame, "tinc", result.tree)
    return network.parameters, result.nbytes, metrics.psnr(volume, result.decode())


def float_psnr(volume: np.ndarray, budget: int, preset: str, bits: float) -> tuple[int, float, float]:
    """Parameters, float32 PSNR and PSNR after plain rounding of a network that never met the rounding."""
    planned, protocol.BITS_PER_PARAMETER = protocol.BITS_PER_PARAMETER, bits
    try:
        source = Original.prepare(volume, Metadata.default(volume.ndim), None)
        draft = training.plan_network(source, Settings(preset=preset), "tinc", budget)
        trainer = training.prepare_training(draft, 8.0 * (budget - draft.overhead()), TRAINING_STEPS[preset])
        trainer.schedule = replace(trainer.schedule, phases=(protocol.Phase("training", 1.0),))
        parameters, codes = exhaust(trainer.run())
    finally:
        protocol.BITS_PER_PARAMETER = planned
    rounded = quantization.dequantise(trainer.layout, quantization.quantise(trainer.layout, parameters, codes), codes)
    return (
        draft.network.parameters,
        leaf_psnr(draft.network, parameters, trainer.data),
        leaf_psnr(draft.network, rounded, trainer.data),
    )


def exhaust(steps: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@torch.no_grad()
def leaf_psnr(network: TincNetwork, parameters: list[torch.Tensor], data: LeafSamples) -> float:
    """PSNR of the network's float output over all voxels."""
    error, weight = 0.0, 0.0
    for start in range(0, data.points, 2048):
        points = slice(start, start + 2048)
        squared = (network.evaluate(parameters, data.coordinates[:, points]) - data.values[points].T).square()
        inside = torch.ones_like(squared) if data.weights is None else (data.weights[points].T > 0).float()
        error, weight = error + float((squared * inside).sum()), weight + float(inside.sum())
    return data.psnr(torch.tensor([error / weight]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--ratio", type=float, default=64)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--bits", nargs="+", type=float, default=[4, 5, 6.2, 7.5, 9, 11])
    args = parser.parse_args()
    volume = tifffile.imread(args.volume)
    budget = int(volume.nbytes / args.ratio)
    print("planned bits, parameters, bytes, real bits per parameter, PSNR dB")
    for bits in args.bits:
        count, size, psnr = compressed(volume, args.ratio, args.preset, bits)
        print(f"{bits:5.1f} {count:8d} {size:8d} {8 * size / count:6.2f} {psnr:7.2f}", flush=True)
    count, exact, rounded = float_psnr(volume, budget, args.preset, protocol.BITS_PER_PARAMETER)
    print(f"default network of {count} parameters, trained in float32 only: {exact:.2f} dB")
    print(f"the same, rounded to the budget: {rounded:.2f} dB")
    count, exact, _ = float_psnr(volume, budget, args.preset, 32.0)
    print(f"float32 tree of the same file size ({count} parameters): {exact:.2f} dB")


if __name__ == "__main__":
    main()
