"""What a compression aims at: a size, or a quality."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from napari_tinc.errors import BudgetError, InputError

_KINDS = ("ratio", "bytes", "bits_per_voxel", "psnr", "step")


@dataclass(frozen=True, slots=True)
class Target:
    """A byte budget in one of three units, a PSNR to reach with the smallest file, or the quantiser's step.

    Use the constructors :meth:`ratio`, :meth:`size`, :meth:`bits_per_voxel`, :meth:`psnr` and :meth:`step`.

    Parameters
    ----------
    kind : str
        ``"ratio"``, ``"bytes"``, ``"bits_per_voxel"`` or ``"psnr"``.
    value : float
        Positive and finite.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"expected a target of {', '.join(_KINDS)}, got {self.kind!r}: choose one")
        number = isinstance(self.value, Real) and not isinstance(self.value, bool)
        if not (number and math.isfinite(self.value) and self.value > 0):
            raise InputError(f"expected a positive target, got {self.kind} = {self.value!r}: give a number above 0")

    @classmethod
    def ratio(cls, value: float) -> Target:
        """Aim at ``array.nbytes / file size``."""
        return cls("ratio", value)

    @classmethod
    def size(cls, value: int) -> Target:
        """Aim at a file size in bytes."""
        return cls("bytes", value)

    @classmethod
    def bits_per_voxel(cls, value: float) -> Target:
        """Aim at a number of bits for every voxel of the array."""
        return cls("bits_per_voxel", value)

    @classmethod
    def psnr(cls, value: float) -> Target:
        """Aim at a PSNR in dB over the volume's own range, with the smallest file."""
        return cls("psnr", value)

    @classmethod
    def step(cls, value: float) -> Target:
        """Quantise wavelet coefficients with a step in intensity units: the same fidelity whatever the content.

        The root mean squared error is at most about a third of the step, and less where a volume is smooth.
        """
        return cls("step", value)

    def budget(self, nbytes: int, voxels: int) -> int:
        """Bytes that the whole file may take.

        Parameters
        ----------
        nbytes : int
            Size of the array in bytes.
        voxels : int
            Elements of the array.

        Raises
        ------
        BudgetError
            If the target is a PSNR, or asks for a file that is not smaller than the array.
        """
        budgets = {
            "ratio": nbytes / self.value,
            "bytes": self.value,
            "bits_per_voxel": self.value * voxels / 8,
        }
        if self.kind not in budgets:
            raise BudgetError(f"expected a target that is a size, got {self.kind}: use ratio, bytes or bits per voxel")
        budget = budgets[self.kind]
        if budget >= nbytes:
            raise BudgetError(
                f"expected a file smaller than the volume ({nbytes} bytes), got {budget:.0f}: raise the ratio"
            )
        return int(budget)
