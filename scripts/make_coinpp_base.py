"""Make the base network that the family ``coinpp`` ships.

    OMP_NUM_THREADS=1 python scripts/make_coinpp_base.py

Another base makes other files: write its BASE, which is printed, into the family, and make the golden file again.

It sees nothing but what this package holds or makes: its sample of a brain, simulated neurons and vessels, and
random fields. Meta-learning: of every batch of patches the modulations are solved for on some voxels (the network made
linear where they are 0, least squares), and the error on other voxels, through the network as it is, is what the base
learns from. Every batch keeps another number of modulations, so that the first ones say the most (Rippel et al., 2014,
arXiv 1402.0915).
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from napari_tinc import samples
from napari_tinc.networks.families.coinpp import SIDE, Base, patch_coordinates

PATH = Path(__file__).parents[1] / "napari_tinc" / "data" / "coinpp.npz"
MODULATIONS, WIDTH, LAYERS = 96, 64, 4
PATCHES, SOLVED, JUDGED, RATE = 24, 2048, 512, 5e-3
FEWEST = 4  # modulations
RIDGE = 1e-2
Floats = npt.NDArray[np.float32]


def fields(draw: np.random.Generator) -> list[Floats]:
    """Volumes of no particular kind: noise with power-law spectra, some of it cut into two phases."""
    found = []
    frequencies = np.sqrt(sum(np.square(f) for f in np.meshgrid(*[np.fft.fftfreq(64)] * 3, indexing="ij")))
    for number in range(12):
        slope = draw.uniform(1.2, 3.0)
        spectrum = np.fft.fftn(draw.standard_normal((64, 64, 64))) / np.maximum(frequencies, 1 / 64) ** slope
        field = np.fft.ifftn(spectrum).real
        if number % 2:
            field = gaussian_filter((field > np.quantile(field, draw.uniform(0.3, 0.8))).astype(float), 0.7)
        found.append(field.astype(np.float32))
    return found


def volumes(seed: int, grown: int) -> list[Floats]:
    """Return what a base may see, standardised, at three magnifications; simulated ones have their own seeds."""
    draw = np.random.default_rng(seed)
    made: list[npt.NDArray[np.generic]] = [*fields(draw), *[samples.load("brain")[0]] * 3]
    for number in range(grown, grown + 4):
        neuron = samples.neuron_phantom((64, 96, 96), seed=number)
        vessel = samples.vessel_tree((64, 64, 64), seed=number)
        made += [neuron.noisy, neuron.clean, vessel.noisy, vessel.clean]
    standard = [((v - v.mean(dtype=float)) / v.std(dtype=float)).astype(np.float32) for v in made]
    coarse = [v.reshape(v.shape[0] // 2, 2, v.shape[1] // 2, 2, v.shape[2] // 2, 2).mean((1, 3, 5)) for v in standard]
    fine = [zoom(v[:32, :32, :32], 2, order=1) for v in standard]
    return standard + coarse + fine


def patches(seen: list[Floats], count: int, draw: np.random.Generator) -> Tensor:
    """Draw patches, turned and mirrored, brighter or darker; of two the busier one. Shape (patches, voxels)."""
    found = []
    while len(found) < count:
        volume = seen[draw.integers(len(seen))]
        pair = []
        for _ in range(2):
            corner = [draw.integers(n - SIDE + 1) for n in volume.shape]
            pair.append(volume[tuple(slice(c, c + SIDE) for c in corner)])
        cut = max(pair, key=np.std).transpose(draw.permutation(3))
        cut = np.flip(cut, [axis for axis in range(3) if draw.integers(2)])
        found.append(cut.ravel() * draw.uniform(0.5, 1.5) + draw.normal(0, 0.2))
    return torch.from_numpy(np.stack(found).astype(np.float32))


def fresh(seed: int) -> list[Tensor]:
    """Draw a SIREN, and weak modulations."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    bound = math.sqrt(6 / WIDTH)
    weights = [uniform(WIDTH, 3) * 4.0, *[uniform(WIDTH, WIDTH) * bound for _ in range(LAYERS - 1)]]
    weights.append(uniform(1, WIDTH) * bound / 4)
    biases = [*[uniform(WIDTH) * math.pi for _ in range(LAYERS)], torch.zeros(1)]
    turns = torch.randn(LAYERS * WIDTH, MODULATIONS, generator=generator) / math.sqrt(LAYERS * WIDTH)
    return [tensor.requires_grad_() for tensor in (*weights, *biases, turns)]


def base_of(tensors: list[Tensor]) -> Base:
    """Sort tensors into a base."""
    return Base(tuple(tensors[: LAYERS + 1]), tuple(tensors[LAYERS + 1 : -1]), tensors[-1])


def left(base: Base, cut: Tensor, kept: int, solved: Tensor, judged: Tensor) -> Tensor:
    """Mean squared error of patches on some voxels, with modulations that are solved for on others."""
    coordinates = patch_coordinates((SIDE,) * 3)
    said, slopes = base.linear(coordinates[solved], differentiable=True)
    gram = gram_of(slopes)[:kept, :kept]
    along = slopes[:, :kept].T @ (cut[:, solved] - said).T / len(slopes)
    shifts = torch.linalg.solve(gram, along).T @ base.turns[:, :kept].T
    return (base.values(coordinates[judged], shifts[:, None]) - cut[:, judged]).square().mean()


def gram_of(slopes: Tensor) -> Tensor:
    """Mean products of slopes, and on the diagonal what holds those back that say little."""
    gram = slopes.T @ slopes / len(slopes)
    return gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def turned(base: Base) -> Base:
    """Turn the modulations so that :func:`gram_of` is 1, every one by those before it."""
    slopes = base.linear(patch_coordinates((SIDE,) * 3))[1].double()
    triangle = torch.linalg.cholesky(gram_of(slopes), upper=True)
    turns = torch.linalg.solve_triangular(triangle, base.turns.double(), upper=True, left=False)
    return replace(base, turns=turns.float())


def main() -> None:
    """Learn a base, show how well it does on patches that it does not learn from, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=PATH)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    draw = np.random.default_rng(args.seed)
    seen, tensors, began = volumes(args.seed, 1), fresh(args.seed), time.perf_counter()
    held_out = patches(volumes(args.seed + 100, 90), 64, draw)
    optimiser = torch.optim.Adam(tensors, lr=RATE)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=args.steps, pct_start=0.05)
    for step in range(args.steps):
        kept = round(math.exp(draw.uniform(math.log(FEWEST), math.log(MODULATIONS + 0.5))))
        order = torch.randperm(SIDE**3)
        error = left(
            base_of(tensors), patches(seen, PATCHES, draw), kept, order[:SOLVED], order[SOLVED : SOLVED + JUDGED]
        )
        if torch.isfinite(error):
            optimiser.zero_grad()
            error.clamp(max=4).backward()
            torch.nn.utils.clip_grad_norm_(tensors, 1.0)
            optimiser.step()
        plan.step()
        if step % 250 == 0 or step == args.steps - 1:
            order = torch.randperm(SIDE**3)
            parts = order[:3072], order[3072:]
            now = base_of([tensor.detach() for tensor in tensors])
            errors = [float(left(now, held_out, k, *parts)) for k in (8, 32, MODULATIONS)]
            print(step, f"{time.perf_counter() - began:.0f} s", *(f"{e:.4f}" for e in errors), flush=True)
    base = turned(base_of([tensor.detach() for tensor in tensors]))
    arrays = {f"weight_{i}": w.numpy() for i, w in enumerate(base.weights)}
    arrays |= {f"bias_{i}": b.numpy() for i, b in enumerate(base.biases)}
    np.savez_compressed(args.output, **arrays, turns=base.turns.numpy())
    content = args.output.read_bytes()
    print(f"{args.output}: {len(content)} bytes, BASE {hashlib.sha256(content).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
