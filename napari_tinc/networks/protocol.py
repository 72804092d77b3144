"""What a family of networks is: the protocol that training, quantisation, framing and decoding ask of it.

A family is one module in :mod:`napari_tinc.networks.families` and one line in :mod:`napari_tinc.choices`. Nothing above
knows which one it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_tinc.format import ItemRange
from napari_tinc.geometry.octree import Box, Octree
from napari_tinc.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Nodes = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]
Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Array:
    """One parameter tensor of a network; its first axis runs over the nodes that own its rows.

    Arrays of equal level and position make up one *tensor* of an item: they share a quantiser step and a model of
    symbols, and are coded one after the other.

    Parameters
    ----------
    level : int
        Level of the nodes: the parameters of an item's level are one segment of the frame.
    position : int
        Place of the tensor among those of its level.
    name : str
        For people.
    nodes : ndarray of int
        Numbers of the owning nodes on their level, ascending; those of an item are consecutive.
    shape : tuple of int
        Of any rank; the first entry is the number of nodes.
    """

    level: int
    position: int
    name: str
    nodes: Nodes
    shape: tuple[int, ...]

    @property
    def per_node(self) -> int:
        """Parameters of every node."""
        return int(np.prod(self.shape[1:], dtype=np.int64))


class TrainingVolume(Protocol):
    """What a family may know of the volume to be compressed."""

    @property
    def items(self) -> npt.NDArray[Any]:
        """Voxels, shape (items, *spatial)."""

    @property
    def spatial(self) -> tuple[int, ...]:
        """Spatial shape."""

    @property
    def ranges(self) -> tuple[ItemRange, ...]:
        """Value range and normalisation of every item."""

    @property
    def weights(self) -> npt.NDArray[Any] | None:
        """Weight of every voxel in the loss, shape (items or 1, *spatial)."""

    @property
    def value_range(self) -> float:
        """Maximum minus minimum over the whole array."""

    @property
    def consistency(self) -> float | None:
        """See :func:`napari_tinc.networks.allocation.global_consistency`."""

    def leaf_measure(self, tree: Octree, within: str) -> npt.NDArray[np.float64]:
        """Claim of every leaf of every item, see :func:`napari_tinc.measures.signal.leaf_measure`."""


@dataclass(frozen=True)
class Request:
    """What a network is planned for.

    Parameters
    ----------
    original : TrainingVolume
    settings : Settings
    budget : int
        Bytes of a file of this network and nothing else.
    octants : Octree
        The partition that a file without a network would have; a family may have one of its own.
    overhead : callable
        Bytes of the file besides its symbols, if it held the given network.
    """

    original: TrainingVolume
    settings: Settings
    budget: int
    octants: Octree
    overhead: Callable[[Network], int]

    def parameters(self, network: Network) -> float:
        """Parameters that the budget pays for, beside the overhead of a network like the given one."""
        return 8.0 * (self.budget - self.overhead(network)) / BITS_PER_PARAMETER


# Found to win at equal bytes: docs/quantization.md shows the curve.
BITS_PER_PARAMETER = 6.2


class Family(Protocol):
    """Plans networks, and stores and restores their plans."""

    def plan(self, request: Request) -> Network:
        """Spend a budget.

        Raises
        ------
        InputError
            If the settings ask for what the family does not have.
        """

    def least(self, original: TrainingVolume, settings: Settings, octants: Octree) -> Network:
        """Return the smallest network that is of any use; the same errors."""

    def pack(self, network: Any) -> bytes:
        """Store the structure of one of the family's own networks: the plan in the header of a frame."""

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> Network:
        """Invert :meth:`pack`; the partition is in the frame's header.

        Raises
        ------
        FormatError
            If the bytes are no plan, or one of more parameters than ``allowed``: before anything is made for them.
        """


class Network(Protocol):
    """The structure of one network for all items of a volume; its parameters are a list of tensors.

    They follow :attr:`arrays`. The items share nothing.
    """

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Owners and shape of every parameter tensor."""

    @property
    def items(self) -> int:
        """Volumes."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """Nodes of every level, all items together; those of an item are consecutive, and a power of two."""

    @property
    def parameters(self) -> int:
        """Number of parameters."""

    @property
    def tree(self) -> Octree:
        """The partition into octants of a file with this network."""

    @property
    def between(self) -> str:
        """Strategy between levels that was used, one of ``format.BETWEEN``; ``"even"`` where there are no levels."""

    @property
    def provenance(self) -> Mapping[str, float]:
        """What planning has found out about the volume, to be told in the file."""

    @property
    def parts(self) -> list[Box]:
        """Boxes of voxels that have parameters of their own."""

    def node_parameters(self, level: int) -> Nodes:
        """Count the parameters of every node of a level."""

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw initial parameters on the CPU."""

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Say how to train.

        Parameters
        ----------
        steps : int
            Optimiser steps for a volume of 2**18 voxels.
        growth : float
            By how much longer this volume is trained.
        time_limit : float or None
            Seconds.
        """

    def samples(self, original: TrainingVolume, device: torch.device) -> Samples:
        """Put the volume on a device in the form that the network is trained on."""

    def evaluate(self, parameters: Sequence[Tensor], inputs: Any) -> Tensor:
        """Return what the network says of the inputs of a batch, in the shape of its targets."""

    @property
    def leaf_count(self) -> int:
        """Leaves of an item that :meth:`leaves` numbers; parameters are needed by leaves."""

    def leaves(self, bounds: Bounds, scale: float) -> Nodes | None:
        """Return the leaves that a region needs, ascending; None for all of them."""

    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Evaluate a region of an item.

        Parameters
        ----------
        parameters : Parameters
        item : int
        bounds : tuple of (int, int)
            Start and stop of every spatial axis, in samples at ``scale``.
        scale : float
            Samples per voxel.
        """


class Parameters(Protocol):
    """The parameters of a file, which are entropy-decoded when they are asked for."""

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def of(self, item: int, leaves: Nodes | None, count: int) -> Sequence[Tensor]:
        """Return all tensors; valid in them are the rows that an item's leaves need.

        Parameters
        ----------
        item : int
        leaves : ndarray of int, or None
            Numbers of leaves among ``count``; None for all. Needed of every level is the same part of its nodes.
        count : int
            Leaves of an item.
        """


@dataclass(frozen=True)
class Batch:
    """What one step is trained on.

    Parameters
    ----------
    inputs : Tensor, or whatever the family evaluates
    targets : Tensor, shape (items * n, ...)
        Normalised intensities; each item owns as many consecutive entries of the first axis.
    weights : Tensor of the targets' shape, or None
        Weight of every target in the loss, mean 1; None if all are 1.
    """

    inputs: Any
    targets: Tensor
    weights: Tensor | None


class Samples(Protocol):
    """A volume on the training device, from which batches are drawn."""

    @property
    def points(self) -> int:
        """How many there are to draw."""

    @property
    def items(self) -> int:
        """Volumes."""

    @property
    def device(self) -> torch.device:
        """Where the batches are."""

    def batch(self, index: Tensor) -> Batch:
        """Return the batch of these points, numbers below :attr:`points` on the device."""

    def psnr(self, losses: Tensor) -> float:
        """PSNR in dB of the items' mean squared errors taken together."""


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Parameters
    ----------
    name : str
        Shown as the phase of the progress.
    until : float
        Share of the schedule at which it ends; 1 for the last.
    rounded : bool
        Whether the network is evaluated with parameters rounded to the steps of the file.
    penalty : callable, optional
        Maps the parameters to a scalar; times the loss as it is, it is added to the loss. Bits of the parameters over
        those of the budget, or an L1 norm that prunes, then mean the same for every volume and quality.
    constrain : callable, optional
        Changes the parameters in place after every step, such as a mask.
    """

    name: str
    until: float
    rounded: bool = False
    penalty: Callable[[Sequence[Tensor]], Tensor] | None = None
    constrain: Callable[[Sequence[Tensor]], None] | None = None


# Float weights first; then the network learns to live with the rounding.
PHASES = (Phase("training", 0.9), Phase("quantising", 1.0, rounded=True))


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    steps : int
    points : int
        Points of a batch.
    rate : float
        Peak learning rate of Adam.
    time_limit : float or None
        Seconds after which training must be over; the schedule is compressed to fit.
    phases : tuple of Phase
        One after the other; the last is rounded.
    fewest : int
        Points of the smallest batch that memory may force.
    """

    steps: int
    points: int
    rate: float
    time_limit: float | None = None
    phases: tuple[Phase, ...] = PHASES
    fewest: int = 64


__all__ = [
    "BITS_PER_PARAMETER",
    "PHASES",
    "Array",
    "Batch",
    "Bounds",
    "Family",
    "Floats32",
    "Network",
    "Nodes",
    "Parameters",
    "Phase",
    "Request",
    "Samples",
    "Schedule",
    "TrainingVolume",
]
