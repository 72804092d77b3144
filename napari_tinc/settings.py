"""How to compress: the choices a user has besides the target."""

from __future__ import annotations

from dataclasses import dataclass

from napari_tinc.core import allocation
from napari_tinc.errors import InputError

# Optimiser steps for a volume of 2**18 voxels; larger ones take more, see compression.schedule.
PRESETS = {"fast": 1500, "balanced": 6000, "best": 30000}
# What a file consists of: the network alone, the detail layer alone, both, or the best of these.
MODELS = ("auto", "tinc", "detail", "hybrid")


@dataclass(frozen=True)
class Settings:
    """How to compress; see :func:`napari_tinc.compression.compress_steps` for the meaning of every field.

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
        if self.preset not in PRESETS:
            raise InputError(f"expected a preset among {tuple(PRESETS)}, got {self.preset!r}")
        if self.model not in MODELS:
            raise InputError(f"expected a model among {MODELS}, got {self.model!r}")
        if isinstance(self.between, str) and self.between not in allocation.BETWEEN:
            raise InputError(f"expected a strategy between levels among {allocation.BETWEEN}, got {self.between!r}")
        if not isinstance(self.between, str):
            allocation.level_ratios(self.between, self.levels or len(self.between))
        if self.within not in allocation.WITHIN:
            raise InputError(f"expected a strategy within a level among {allocation.WITHIN}, got {self.within!r}")
        if self.levels is not None and not 1 <= self.levels <= allocation.MAX_DEPTH + 1:
            raise InputError(f"expected 1 to {allocation.MAX_DEPTH + 1} levels, got {self.levels}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise InputError(f"expected a time limit above 0 seconds, got {self.time_limit}")
