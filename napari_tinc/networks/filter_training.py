"""Train a post-filter on what was decoded of an item, with rounded weights at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from napari_tinc.networks.device import resolve_device
from napari_tinc.postfilter import CENTRE, LARGEST_WEIGHT, REACH, TAPS, PostFilter

Floats32 = npt.NDArray[np.float32]

CROP, BATCH, RATE = 32, 4, 1e-2
# Of the training, the part whose weights are rounded.
_ROUNDED = 0.3
# Where training is looked at first, and what the error must have fallen by until then, as a share.
_LOOK, _PROMISING = 0.25, 0.005
_AVERAGE = 0.98
# Steps that are tried for a channel's weights, over the one that reaches its largest weight.
_SHARES = torch.linspace(0.4, 1, 13)


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of an item to train on.

    Parameters
    ----------
    values : ndarray of float32, shape (z + 4, y + 4, x + 4)
        As for :meth:`napari_tinc.postfilter.PostFilter.apply`.
    wanted : ndarray of float32, shape (z, y, x)
    weights : ndarray of float32, same shape
        Of the squared errors.
    """

    values: Floats32
    wanted: Floats32
    weights: Floats32


def train_filter(
    pieces: Sequence[Piece], channels: int, steps: int, seed: int, device: str, spent: Callable[[], float]
) -> Generator[float, None, PostFilter | None]:
    """Train a post-filter.

    Parameters
    ----------
    pieces : sequence of Piece
    channels : int
    steps : int
        Of the optimiser.
    seed : int
    device : str
    spent : callable
        Share of the time allowed that is over; from 1 on training ends.

    Yields
    ------
    float
        Share of the training that is done.

    Returns
    -------
    PostFilter or None
        None where it soon shows that the error does not fall.
    """
    generator, on = torch.Generator().manual_seed(seed), resolve_device(device)
    rng = np.random.default_rng(seed)
    inner = (slice(REACH, -REACH),) * 3
    total = sum(float(np.vdot(p.weights, np.square(p.wanted - p.values[inner]))) for p in pieces)
    scale = math.sqrt(total / max(sum(float(p.weights.sum(dtype=np.float64)) for p in pieces), 1e-30))
    if not scale > 0:
        return None
    sizes = np.array([p.wanted.size for p in pieces], np.float64)
    sides = [min(CROP, min(p.wanted.shape[axis] for p in pieces)) for axis in range(3)]
    batch = max(1, BATCH * CROP**3 // math.prod(sides))
    spread = math.sqrt(1 / TAPS)
    parameters = [
        (spread * torch.randn((channels, 2, TAPS), generator=generator)).to(on),
        torch.zeros(channels, device=on),
        torch.zeros((1, channels, TAPS), device=on),
        torch.zeros(1, device=on),
    ]
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam(parameters, RATE, betas=(0.9, 0.98))

    def crops() -> tuple[Tensor, Tensor, Tensor]:
        values, targets, weights = [], [], []
        for number in rng.choice(len(pieces), batch, p=sizes / sizes.sum()):
            piece = pieces[number]
            at = [rng.integers(0, n - side + 1) for n, side in zip(piece.wanted.shape, sides, strict=True)]
            here = tuple(slice(a, a + side) for a, side in zip(at, sides, strict=True))
            around = tuple(slice(a, a + side + 2 * REACH) for a, side in zip(at, sides, strict=True))
            values.append(piece.values[around])
            targets.append(piece.wanted[here] - values[-1][inner])
            weights.append(piece.weights[here])
        made = (torch.from_numpy(np.stack(parts)).to(on)[:, None] for parts in (values, targets, weights))
        shown, missing, important = made
        return shown / scale, missing / scale, important

    first_step = last_step = torch.zeros(0)
    fallen = 0.0
    for step in range(steps):
        done = max(step / steps, spent())
        if done >= 1:
            break
        rounded = done > 1 - _ROUNDED
        if rounded and not first_step.numel():
            first_step = _best_steps(parameters[0].detach().reshape(channels, -1))
            last_step = _best_steps(parameters[2].detach().reshape(1, -1))
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, 20 * done + 0.01) * (0.5 + 0.5 * math.cos(math.pi * done))
        values, targets, weights = crops()
        first, last = parameters[0], parameters[2]
        if rounded:
            first, last = _straight(first, first_step[:, None, None]), _straight(last, last_step[:, None, None])
        moved = _evaluate(values, first, parameters[1], last, parameters[3])
        loss = (weights * (moved - targets).square()).sum()
        before = (weights * targets.square()).sum().clamp_min(1e-20)
        optimiser.zero_grad()
        (loss / before).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        fallen += (1 - _AVERAGE) * (1 - float((loss / before).detach()) - fallen)
        if done >= _LOOK and step >= 2 / (1 - _AVERAGE) and fallen < _PROMISING:
            return None
        yield done
    if not first_step.numel():
        return None
    return _made(scale, [p.detach().cpu() for p in parameters], first_step.cpu(), last_step.cpu())


def _evaluate(values: Tensor, first: Tensor, biases: Tensor, last: Tensor, bias: Tensor) -> Tensor:
    """What is to be added, in units of the scale: values (batch, 1, z, y, x) lose two voxels on every side."""
    seen = torch.cat([values, values / (1 + values.abs()) ** 0.75], 1)
    others = torch.cat([first[:, 0, :CENTRE], first[:, 0, CENTRE + 1 :]], 1)
    linear = torch.cat([others[:, :CENTRE], -others.sum(1, keepdim=True), others[:, CENTRE:]], 1)
    weights = torch.stack([linear, first[:, 1]], 1).reshape(-1, 2, 3, 3, 3)
    hidden = functional.relu(functional.conv3d(_last(seen), _last(weights), biases))
    return functional.conv3d(hidden, _last(last.reshape(1, -1, 3, 3, 3)), bias)


def _last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last_3d)


def _straight(weights: Tensor, steps: Tensor) -> Tensor:
    """Round to multiples of a step; gradients pass as if nothing were rounded."""
    return weights + (_symbols(weights, steps) * steps - weights).detach()


def _symbols(weights: Tensor, steps: Tensor) -> Tensor:
    return torch.round(weights / steps).clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)


def _best_steps(rows: Tensor) -> Tensor:
    """Step of every row whose rounding has the least squared error."""
    largest = rows.abs().amax(1).clamp_min(1e-8) / LARGEST_WEIGHT
    steps = largest[None] * _SHARES.to(rows.device)[:, None]
    errors = (_symbols(rows[None], steps[..., None]) * steps[..., None] - rows).square().sum(2)
    return steps.gather(0, errors.argmin(0)[None])[0]


def _made(scale: float, parameters: list[Tensor], first_step: Tensor, last_step: Tensor) -> PostFilter:
    first, biases, last, bias = parameters
    symbols = _symbols(first, first_step[:, None, None]).to(torch.int8).numpy()
    symbols[:, 0, CENTRE] = 0
    return PostFilter(
        float(np.float32(scale)),
        first_step.numpy().astype(np.float32),
        biases.numpy().astype(np.float32),
        symbols,
        float(last_step),
        float(bias),
        _symbols(last, last_step[:, None, None])[0].to(torch.int8).numpy(),
    )


__all__ = ["Piece", "train_filter"]
