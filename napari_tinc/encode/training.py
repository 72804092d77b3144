"""The network of a file: planned by its family, trained, and rounded so that it fills its bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_tinc.choices import FAMILIES, family_of
from napari_tinc.encode import framing
from napari_tinc.encode.framing import Content, Payloads, Plan
from napari_tinc.encode.original import Original
from napari_tinc.encode.plan import ShouldStop, growth, octants
from napari_tinc.errors import BudgetError
from napari_tinc.layers import ItemDecoder
from napari_tinc.networks import payload, quantization
from napari_tinc.networks.device import resolve_device
from napari_tinc.networks.families import load
from napari_tinc.networks.layer import NetworkLayer, layers_of
from napari_tinc.networks.parameters import LiveParameters
from napari_tinc.networks.protocol import BITS_PER_PARAMETER, Network, Request
from napari_tinc.networks.quantization import TENSOR_OVERHEAD_BITS, Codes, Layout
from napari_tinc.networks.training import Trainer
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings

# Coder byte and the coder's last words; every further block has a length and last words of its own.
_SEGMENT_OVERHEAD, _BLOCK_OVERHEAD = 7, 9
_FILL = 0.985
_FILL_TRIES = 8


@dataclass(frozen=True)
class NetworkPlan(Plan):
    """The plan of a file with a network.

    Parameters
    ----------
    family : str
    network : Network
    """

    family: str
    network: Network

    @classmethod
    def of(cls, original: Original, settings: Settings, family: str, network: Network) -> NetworkPlan:
        """Plan a file of this network."""
        return cls(original, settings, network.tree, family, network)

    @property
    def model(self) -> int:  # type: ignore[override]
        """Code of the family."""
        return FAMILIES[self.family].code

    @property
    def between(self) -> str:  # type: ignore[override]
        """Strategy between levels that the network follows."""
        return self.network.between

    @cached_property
    def packed(self) -> bytes:
        """The family's plan."""
        return load(self.family).pack(self.network)

    @property
    def provenance(self) -> Mapping[str, float]:
        """What the family has found out about the volume."""
        return self.network.provenance

    @cached_property
    def layout(self) -> Layout:
        """Which tensor every parameter belongs to."""
        return Layout(self.network)

    def networks(self, payloads: Payloads) -> Callable[[int], NetworkLayer]:
        """Return what makes the network layer of an item from parameter segments."""
        return layers_of(self.network, lambda item, level: payloads[item, level], self.settings.device)

    def overhead(self) -> int:
        """Bytes of a file of the network alone, besides its coded symbols."""
        items, levels = range(self.network.items), range(len(self.network.nodes))
        empty = {
            (item, level): bytes(_SEGMENT_OVERHEAD + _BLOCK_OVERHEAD * (self.layout.blocks(item, level) - 1))
            for item in items
            for level in levels
        }
        lengths = 2 * len(items) * len(levels)  # varints that the real lengths may need
        return framing.size(self, Content(empty)) + lengths + framing.PROVENANCE_SLACK


def plan_network(original: Original, settings: Settings, family: str, budget: int) -> NetworkPlan:
    """Let a family spend the bytes of a file.

    Raises
    ------
    InputError
        If the settings ask for what the family does not have.
    """

    def overhead(network: Network) -> int:
        return NetworkPlan.of(original, settings, family, network).overhead()

    request = Request(original, settings, budget, octants(original, settings, budget), overhead)
    return NetworkPlan.of(original, settings, family, load(family).plan(request))


def smallest_network_budget(original: Original, settings: Settings) -> int:
    """Bytes of the smallest file of a network alone."""
    family = family_of(settings.model)
    assert family is not None
    network = load(family).least(original, settings, octants(original, settings, 0))
    plan = NetworkPlan.of(original, settings, family, network)
    tensors = network.items * len(plan.layout.tensors)
    bits = network.parameters * BITS_PER_PARAMETER + tensors * TENSOR_OVERHEAD_BITS
    return plan.overhead() + math.ceil(bits / 8)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, which can be rounded to any number of bytes.

    Parameters
    ----------
    plan : NetworkPlan
    parameters : list of Tensor
        Not rounded.
    codes : ndarray of int, shape (items, tensors)
        Step codes they were trained with.
    sensitivities : ndarray, shape (items, tensors)
        See :func:`napari_tinc.networks.quantization.sensitivity`.
    bits : float
        Bits of symbols that the step codes were chosen for.
    """

    plan: NetworkPlan
    parameters: list[Tensor]
    codes: Codes
    sensitivities: quantization.Floats
    bits: float

    def fill(self, budget: int) -> Payloads:
        """Round the parameters so that a file of them alone fills the budget: the steps move until few bytes are left.

        Raises
        ------
        BudgetError
            If even the coarsest symbols do not fit.
        """
        plan, room, bits, codes = self.plan, budget - framing.PROVENANCE_SLACK, self.bits, self.codes
        estimate = bits
        best, best_size, best_codes = None, -1, codes
        for _ in range(_FILL_TRIES):
            payloads = payload.pack_parameters(plan.layout, self.parameters, codes)
            size = framing.size(plan, Content(payloads))
            if best_size < size <= room:
                best, best_size, best_codes = payloads, size, codes
            if _FILL * room <= size <= room:
                break
            # What is too much is taken from the estimate: the budget may be above it by more than that.
            bits = (estimate if size > room else bits) + 8 * (0.995 * room - size)
            codes, estimate = quantization.fit_steps(plan.layout, self.parameters, self.sensitivities, bits)
        if best is None:
            raise BudgetError(f"the parameters do not fit in {room} bytes even coarsely rounded: raise the budget")
        steps = np.argwhere(best_codes > 0)  # a small file has few tensors: refine them one by one
        for tensor in np.resize(steps, (max(len(steps), _FILL_TRIES), 2)) if len(steps) else ():
            if best_size >= _FILL * room:
                break
            codes = best_codes.copy()
            codes[tuple(tensor)] -= 1
            payloads = payload.pack_parameters(plan.layout, self.parameters, codes)
            if best_size < (size := framing.size(plan, Content(payloads))) <= room:
                best, best_size, best_codes = payloads, size, codes
        return best


def prepare_training(plan: NetworkPlan, bits: float, steps: int, should_stop: ShouldStop | None = None) -> Trainer:
    """Put the volume and the initial network on the device."""
    network, original, settings = plan.network, plan.original, plan.settings
    device = resolve_device(settings.device)
    generator = torch.Generator().manual_seed(settings.seed)
    initial = [p.to(device) for p in network.initial(generator)]
    samples = network.samples(original, device)
    schedule = network.schedule(steps, growth(original), settings.time_limit)
    return Trainer(network, initial, samples, schedule, bits, generator, should_stop)


def train(
    plan: NetworkPlan, budget: int, steps: int, should_stop: ShouldStop | None, shown: Callable[..., Any] | None
) -> Generator[Progress, None, Trained]:
    """Train the network of a plan for a file of a number of bytes.

    Parameters
    ----------
    plan : NetworkPlan
    budget : int
        Bytes of a file of the network alone.
    steps : int
        Optimiser steps for a volume of 2**18 voxels.
    should_stop : callable, optional
        Asked before every step.
    shown : callable, optional
        What a preview decodes, such as the best file so far; by default the network in training.
    """
    bits = 8.0 * (budget - plan.overhead())
    trainer = prepare_training(plan, bits, steps, should_stop)
    original, live = plan.original, LiveParameters(trainer.state.parameters)

    def decoder(item: int) -> ItemDecoder:
        return ItemDecoder(original.spatial, original.ranges[item], [NetworkLayer(plan.network, live, item)], None)

    trainer.decode = shown or framing.array_decoder(original, decoder)
    parameters, codes = yield from trainer.run()
    assert trainer.sensitivities is not None
    return Trained(plan, parameters, codes, trainer.sensitivities, bits)


__all__ = ["NetworkPlan", "Trained", "plan_network", "prepare_training", "smallest_network_budget", "train"]
