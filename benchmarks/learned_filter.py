"""What a small convolutional network after decoding would add: trained for one file, its coded bytes counted.

    python benchmarks/learned_filter.py VOLUMES vessel neuron --ratios 64 256 --output results/learned_filter.csv

For the files of ``fast`` and ``balanced`` (before it tries networks): PSNR in dB over the volume's own range of the
file that fills the budget, and of a smaller file with the network, of no more bytes in all. The network takes the
decoded voxels, filtered (``after``) or not (``instead`` of the restoration filter), and says what is to be added to
them. ``vessel`` and ``neuron`` are the samples of these names, simulated with 17 million voxels and more;
``vessel-clean`` and ``neuron-clean`` are without noise.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch import Tensor
from torch.nn import functional

from napari_tinc import Metadata, Target, samples
from napari_tinc.arrays.scratch import boxes
from napari_tinc.encode import framing, masking
from napari_tinc.encode.attempts import Attempt
from napari_tinc.encode.directing import with_directions
from napari_tinc.encode.original import Original
from napari_tinc.kernels import compiled
from napari_tinc.layers import to_intensities
from napari_tinc.networks.entropy import bucket_code, encode_symbols
from napari_tinc.networks.quantization import round_straight_through, step_codes, step_sizes
from napari_tinc.settings import Settings
from napari_tinc.system.steps import complete

CROP, BATCH, RATE, ROUNDED = 32, 4, 1e-2, 0.3
BITS, HEAD = 4.5, 24  # bytes set aside: bits of a parameter, and the table's row, the steps and the scale
Parameters = list[Tensor]


def initial(channels: int, layers: int, seen: int) -> Parameters:
    """Weights and biases; the last layer says 0."""
    widths = [seen, *[channels] * (layers - 1), 1]
    made: Parameters = []
    for number, (before, behind) in enumerate(pairwise(widths)):
        spread = 0 if number == layers - 1 else math.sqrt(2 / (27 * before))
        made += [spread * torch.randn(behind, before, 3, 3, 3), torch.zeros(behind)]
    return made


def evaluate(parameters: Parameters, values: Tensor, inputs: str) -> Tensor:
    """What is to be added, in units of the error: values (batch, 1, z, y, x) lose a voxel a layer on every side."""
    result = features(values, inputs).contiguous(memory_format=torch.channels_last_3d)
    for layer in range(0, len(parameters), 2):
        weights = balanced(parameters[0], inputs) if layer == 0 else parameters[layer]
        result = functional.conv3d(
            functional.relu(result) if layer else result,
            weights.contiguous(memory_format=torch.channels_last_3d),
            parameters[layer + 1],
        )
    return result


def features(values: Tensor, inputs: str) -> Tensor:
    """What the first layer sees."""
    compressed = torch.asinh(values)
    return torch.cat({"linear": [values], "asinh": [compressed], "both": [values, compressed]}[inputs], 1)


def balanced(weights: Tensor, inputs: str) -> Tensor:
    """Of both inputs, the first layer sees differences of voxels, and how bright they are."""
    if inputs != "both":
        return weights
    return torch.cat([weights[:, :1] - weights[:, :1].mean((2, 3, 4), keepdim=True), weights[:, 1:]], 1)


def coded(parameters: Parameters, steps: list[Tensor]) -> int:
    """Bytes of the parameters by the coder that all networks share."""
    symbols = [torch.round(p / s).detach().numpy().astype(np.int32) for p, s in zip(parameters, steps, strict=True)]
    shapes = [[(len(s), s.size // len(s))] for s in symbols]
    flat = [s.ravel() for s in symbols]
    return len(encode_symbols(flat, shapes, [bucket_code(s) for s in flat])) + HEAD


def fitting_steps(parameters: Parameters, outputs: Callable[[], Tensor], room: int) -> list[Tensor]:
    """Finest steps that fit, in proportion to the root of what the output depends on a tensor."""
    square = [0.0] * len(parameters)
    for _ in range(8):
        output = outputs()
        signs = torch.randint(0, 2, output.shape) * 2.0 - 1
        gradients = torch.autograd.grad((output * signs).sum(), parameters)
        square = [s + float(g.square().mean()) for s, g in zip(square, gradients, strict=True)]
    shape = -0.5 * np.log2(np.maximum(square, 1e-12))
    low, high = -20.0, 40.0
    for _ in range(20):
        middle = (low + high) / 2
        steps = [torch.tensor(s) for s in step_sizes(step_codes(shape + middle))]
        low, high = (middle, high) if coded(parameters, steps) > room else (low, middle)
    return [torch.tensor(s) for s in step_sizes(step_codes(shape + high))]


def trained(
    decoded: np.ndarray, wanted: np.ndarray, inside: np.ndarray, given: argparse.Namespace, room: int
) -> tuple[Parameters, float, int]:
    """Train on random crops for some seconds of the processor; return rounded parameters, the scale, their bytes."""
    torch.manual_seed(0)
    rng, halo = np.random.default_rng(0), given.layers
    scale = float(np.sqrt(np.square(wanted - decoded, dtype=np.float64).mean(where=inside)))
    padded = np.pad(decoded / np.float32(scale), halo, mode="edge")
    missing = (wanted - decoded) * (inside / np.float32(scale))
    parameters = initial(given.channels, given.layers, 2 if given.inputs == "both" else 1)
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam(parameters, RATE, betas=(0.9, 0.98))
    sides = [min(CROP, n + 2 * halo) for n in decoded.shape]
    batch = max(1, BATCH * CROP**3 // math.prod(sides))

    def crops() -> tuple[Tensor, Tensor]:
        values, targets = [], []
        for _ in range(batch):
            at = [rng.integers(0, n - side + 1) for n, side in zip(padded.shape, sides, strict=True)]
            values.append(padded[tuple(slice(a, a + side) for a, side in zip(at, sides, strict=True))])
            inner = tuple(slice(a, a + side - 2 * halo) for a, side in zip(at, sides, strict=True))
            targets.append(missing[inner])
        return torch.from_numpy(np.stack(values))[:, None], torch.from_numpy(np.stack(targets))[:, None]

    begun, steps = time.process_time(), None
    while (spent := (time.process_time() - begun) / given.seconds) < 1:
        if steps is None and spent > 1 - ROUNDED:
            steps = fitting_steps(parameters, lambda: evaluate(parameters, crops()[0], given.inputs), room)
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, 20 * spent + 0.01) * (0.5 + 0.5 * math.cos(math.pi * spent))
        values, targets = crops()
        used = parameters if steps is None else round_straight_through(parameters, steps)
        loss = (evaluate(used, values, given.inputs) - targets).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
    with torch.no_grad():
        # Training goes on after the steps are chosen: what is coded is measured again, and made to fit.
        while coded(parameters, steps) > room:
            steps = [s * 1.05 for s in steps]
        return round_straight_through(parameters, steps), scale, coded(parameters, steps)


@compiled
def convolve(values, weights, biases, out, rectified):  # type: ignore[no-untyped-def]
    """Convolve (channels, z, y, x), a row at a time, in an order that no machine may change."""
    for channel in range(out.shape[0]):
        for z in range(out.shape[1]):
            for y in range(out.shape[2]):
                row = out[channel, z, y]
                row[:] = biases[channel]
                for source in range(values.shape[0]):
                    for dz in range(3):
                        for dy in range(3):
                            line, three = values[source, z + dz, y + dy], weights[channel, source, dz, dy]
                            left, middle, right = three[0], three[1], three[2]
                            for x in range(row.size):
                                row[x] += left * line[x] + middle * line[x + 1] + right * line[x + 2]
                if rectified:
                    for x in range(row.size):
                        row[x] = max(row[x], np.float32(0))


@torch.no_grad()
def applied(
    decoded: np.ndarray, parameters: Parameters, scale: float, given: argparse.Namespace
) -> tuple[np.ndarray, float]:
    """Decoded voxels with what the network adds, and million voxels a second."""
    padded, result = np.pad(decoded / np.float32(scale), given.layers, mode="edge"), decoded.copy()
    weights = [p.numpy() for p in (balanced(parameters[0], given.inputs), *parameters[1:])]
    seconds = 0.0
    for box in boxes(tuple((0, n) for n in decoded.shape), 2**18):
        values = padded[tuple(slice(a, b + 2 * given.layers) for a, b in box)]
        begun = time.process_time()
        hidden = features(torch.from_numpy(values)[None, None], given.inputs)[0].numpy()
        for layer in range(0, len(weights), 2):
            out = np.empty((len(weights[layer]), *(n - 2 for n in hidden.shape[1:])), np.float32)
            convolve(hidden, weights[layer], weights[layer + 1], out, layer + 2 < len(weights))
            hidden = out
        result[tuple(slice(a, b) for a, b in box)] += np.float32(scale) * hidden[0]
        seconds += time.process_time() - begun
    return result, decoded.size / max(seconds, 1e-9) / 1e6


class Base:
    """A file as the decoder sees it before intensities."""

    def __init__(self, attempt: Attempt, original: Original) -> None:
        self._original, self._decoder = original, framing.decoders(attempt.plan, attempt.content)(0)
        self.bounds = tuple((0, n) for n in original.spatial)
        self.nbytes = framing.size(attempt.plan, attempt.content) + framing.PROVENANCE_SLACK
        self.kind = "directions" if attempt.content.directions else "wavelets"
        self.filtered, self.plain = (self._whole(say) for say in (self._decoder.normalised, self._decoder.unrestored))
        mask = self._decoder.mask
        self.inside = np.ones(original.spatial, bool) if mask is None else mask.states(self.bounds, 1.0) != 0
        self._outside = None if mask is None else mask.background

    def _whole(self, say: Callable[..., np.ndarray]) -> np.ndarray:
        whole = np.empty(self._original.spatial, np.float32)
        for box in boxes(self.bounds, 2**20):
            whole[tuple(slice(a, b) for a, b in box)] = say(box, 1.0)
        return whole

    def psnr(self, values: np.ndarray) -> float:
        """PSNR of normalised values as intensities."""
        voxels, limits = self._original.items[0], self._original.ranges[0]
        shown = to_intensities(values.copy(), limits, np.dtype(np.float64), voxels.dtype)
        if self._outside is not None:
            shown[~self.inside] = self._outside
        mse = np.square(voxels.astype(np.float64) - shown).mean()
        return float(10 * np.log10(limits.span**2 / mse))


def rows(name: str, voxels: np.ndarray, ratio: float, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    original = Original.prepare(voxels, Metadata.default(voxels.ndim), None)
    settings, budget = Settings(preset="balanced"), Target.ratio(ratio).budget(voxels.nbytes, voxels.size)
    limits = original.ranges[0]
    wanted = ((voxels - np.float64(limits.offset)) / limits.scale).astype(np.float32)
    count = sum(p.numel() for p in initial(given.channels, given.layers, 2 if given.inputs == "both" else 1))
    room = math.ceil(count * given.bits / 8) + HEAD
    made: dict[str, list[Base]] = {"fast": [], "balanced": []}
    for size in (budget, budget - room):
        plain = complete(masking.with_wavelets(original, settings, size))
        made["fast"].append(Base(plain, original))
        if "balanced" in given.bases:
            directed = complete(with_directions(original, settings, size, plain))
            made["balanced"].append(Base(directed, original))
    for base in given.bases:
        whole, smaller = made[base]
        for place in given.places:
            decoded = smaller.filtered if place == "after" else smaller.plain
            begun = time.process_time()
            parameters, scale, taken = trained(decoded, wanted, smaller.inside, given, room)
            seconds = time.process_time() - begun
            values, speed = applied(decoded, parameters, scale, given)
            found = smaller.psnr(values)
            before = whole.psnr(whole.filtered)
            assert smaller.nbytes + taken <= budget
            yield {
                "volume": name, "ratio": ratio, "base": base, "kind": whole.kind, "network": place,
                "channels": given.channels, "layers": given.layers, "inputs": given.inputs, "budget": budget,
                "bytes": whole.nbytes, "bytes_with": smaller.nbytes + taken, "network_bytes": taken,
                "dB": round(before, 3), "smaller_dB": round(smaller.psnr(smaller.filtered), 3),
                "with_dB": round(found, 3), "gain_dB": round(found - before, 3), "training_s": round(seconds),
                "decode_Mvoxel_s": round(speed, 1),
            }  # fmt: skip


def read(name: str) -> np.ndarray:
    """A file, or a large simulated sample."""
    sample, _, clean = name.partition("-")
    if sample == "vessel":
        phantom = samples.vessel_tree((256, 256, 256))
    elif sample == "neuron":
        phantom = samples.neuron_phantom((128, 384, 384))
    else:
        return tifffile.imread(name)
    return np.rint(phantom.clean).astype(np.uint16) if clean else phantom.noisy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", help="files, or samples: vessel, neuron, vessel-clean, neuron-clean")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--bases", nargs="+", choices=["fast", "balanced"], default=["fast", "balanced"])
    parser.add_argument("--places", nargs="+", choices=["after", "instead"], default=["after"])
    parser.add_argument("--inputs", choices=["linear", "asinh", "both"], default="both")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--bits", type=float, default=BITS, help="of a parameter")
    parser.add_argument("--seconds", type=float, default=30, help="of training, of the processor")
    parser.add_argument("--output", type=Path, help="a table that rows are added to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    applied(
        np.zeros((1, 1, 1), np.float32), initial(1, 1, 2), 1.0, argparse.Namespace(layers=1, inputs="both")
    )  # compiles
    for name in given.volumes:
        for ratio in given.ratios:
            for row in rows(Path(name).stem, read(name), ratio, given):
                print(json.dumps(row), flush=True)
                if given.output:
                    new = not given.output.exists()
                    with given.output.open("a", newline="") as file:
                        table = csv.DictWriter(file, row)
                        if new:
                            table.writeheader()
                        table.writerow(row)
