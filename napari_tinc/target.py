"""What a compression aims at: a size, or a quality."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from napari_tinc.errors import BudgetError, InputError

_SIZES = ("ratio", "bytes", "bits_per_voxel")
_KINDS = (*_SIZES, "psnr", "ssim", "step", "max_error")


@dataclass(frozen=True, slots=True)
class Target:
    """A byte budget in one of three units, a quality to reach with the smallest file, or the quantiser's step.

    Use the constructors :meth:`ratio`, :meth:`size`, :meth:`bits_per_voxel`, :meth:`psnr`, :meth:`ssim`, :meth:`step`
    and :meth:`max_error`.

    Parameters
    ----------
    kind : str
        ``"ratio"``, ``"bytes"``, ``"bits_per_voxel"``, ``"psnr"``, ``"ssim"``, ``"step"`` or ``"max_error"``.
    value : float
        Positive and finite; a largest error may be 0, and an SSIM is below 1.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise InputError(f"expected a target of {', '.join(_KINDS)}, got {self.kind!r}: choose one")
        if not (_is_positive(self.value) or (self.kind == "max_error" and self.value == 0)):
            raise InputError(
                f"expected a positive target, got {self.kind} = {self.value!r:.40}: give a number above 0"
                + ", or 0 for no loss" * (self.kind == "max_error")
            )
        if self.kind == "ssim" and self.value >= 1:
            raise InputError(
                f"expected an SSIM below 1, got {self.value!r:.40}; for no loss ask for a largest error of 0"
            )

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
    def ssim(cls, value: float) -> Target:
        """Aim at a structural similarity, see :func:`napari_tinc.measures.metrics.ssim`, with the smallest file."""
        return cls("ssim", value)

    @classmethod
    def step(cls, value: float) -> Target:
        """Quantise wavelet coefficients with a step in intensity units: the same fidelity whatever the content.

        The root mean squared error is about a third of the step where there is detail or noise, less where a volume is
        smooth, and never more than half: where float32 has too few digits for that, the step is refused.
        """
        return cls("step", value)

    @classmethod
    def max_error(cls, value: float) -> Target:
        """Keep every voxel within an error, in intensity units, on every machine; 0 loses nothing.

        For integers of up to 32 bits and floats of up to 32: the smallest file that keeps to it.
        """
        return cls("max_error", value)

    @property
    def is_size(self) -> bool:
        """Whether it is a budget of bytes, in one unit or another, and no quality."""
        return self.kind in _SIZES

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
        if not self.is_size:
            raise BudgetError(f"expected a target that is a size, got {self.kind}: use ratio, bytes or bits per voxel")
        budget = {
            "ratio": nbytes / self.value,
            "bytes": self.value,
            "bits_per_voxel": self.value * voxels / 8,
        }[self.kind]
        if budget >= nbytes:
            raise BudgetError(
                f"expected a file smaller than the volume ({nbytes} bytes), got {budget:.0f}: raise the ratio"
            )
        return int(budget)


def _is_positive(value: object) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return 0 < float(value) < math.inf
    except OverflowError:  # an integer beyond all floats
        return False
