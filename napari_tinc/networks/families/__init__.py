"""Model families: what turns (leaf, local coordinates) into intensities, one family per file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_tinc.networks.families.tinc import Array


class Network(Protocol):
    """What training, quantisation, framing and decoding need to know of a model family.

    A network is pure structure; its parameters are a list of tensors that follows ``arrays``.
    """

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Name, owners and shape of every parameter tensor, root first."""

    @property
    def widths(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Width of every node, one array per level."""

    @property
    def parameters(self) -> int:
        """Number of parameters."""

    def initial(self, omega: Sequence[float], generator: torch.Generator) -> list[Tensor]:
        """Draw initial parameters."""

    def evaluate(self, parameters: Sequence[Tensor], coordinates: Tensor) -> Tensor:
        """Evaluate every leaf at shared local coordinates: (axes, points) to (rows, points)."""

    def node_parameters(self, level: int) -> npt.NDArray[np.int64]:
        """Number of parameters of every node at ``level``."""

    def restrict(self, leaves: npt.NDArray[np.int64]) -> tuple[Network, list[tuple[int, npt.NDArray[np.int64]]]]:
        """Keep some leaves; say which rows of which arrays they need."""
