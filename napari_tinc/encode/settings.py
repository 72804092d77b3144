"""How to compress: the choices a user has besides the target."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from napari_tinc.errors import InputError
from napari_tinc.networks import allocation
from napari_tinc.networks.device import resolve_device

# Optimiser steps for a volume of 2**18 voxels; larger ones take more, see compression.schedule.
PRESETS = {"fast": 1500, "balanced": 6000, "best": 30000}
# What a file consists of: the network alone, the detail layer alone, both, or the best of these.
MODELS = ("auto", "tinc", "detail", "hybrid")


@dataclass(frozen=True)
class Settings:
    """How to compress; see :func:`napari_tinc.encode.compression.compress_steps` for the meaning of every field.

    Raises
    ------
    InputError
        If a value is not among those that are possible.
    """

    preset: str = "fast"
    between: str | tuple[float, ...] = "auto"
    within: str = "equal"
    levels: int | None = None
    device: str = "auto"
    seed: int = 0
    time_limit: float | None = None
    model: str = "auto"
    promised: float | None = None  # what a trial of networks found, in dB; nobody's choice

    def __post_init__(self) -> None:
        if self.preset not in tuple(PRESETS):
            raise InputError(f"expected a preset among {tuple(PRESETS)}, got {self.preset!r}")
        if self.model not in MODELS:
            raise InputError(f"expected a model among {MODELS}, got {self.model!r}")
        if isinstance(self.between, str) and self.between not in allocation.BETWEEN:
            raise InputError(f"expected a strategy between levels among {allocation.BETWEEN}, got {self.between!r}")
        if self.within not in allocation.WITHIN:
            raise InputError(f"expected a strategy within a level among {allocation.WITHIN}, got {self.within!r}")
        if self.levels is not None:
            self._check_whole("levels", 1, allocation.MAX_DEPTH + 1)
        self._check_whole("seed", -(2**63), 2**63 - 1)
        if self.time_limit is not None and not (_is_number(self.time_limit) and self.time_limit > 0):
            raise InputError(f"expected a time limit above 0 seconds, got {self.time_limit!r}")
        if not isinstance(self.between, str):
            self._check_ratios()
        resolve_device(self.device)

    def _check_whole(self, name: str, low: int, high: int) -> None:
        """Refuse what is no whole number in these bounds; make an int of one of numpy's."""
        value: Any = getattr(self, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) <= high:
            raise InputError(f"expected {name} as a whole number from {low} to {high}, got {value!r}")
        object.__setattr__(self, name, int(value))

    def _check_ratios(self) -> None:
        ratios: Any = self.between
        if not isinstance(ratios, list | tuple) or not all(_is_number(ratio) for ratio in ratios):
            raise InputError(
                f"expected a strategy between levels among {allocation.BETWEEN}, or a number per level, got {ratios!r}"
            )
        allocation.level_ratios(ratios, self.levels or len(ratios))
        object.__setattr__(self, "between", tuple(float(ratio) for ratio in ratios))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
