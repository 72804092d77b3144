"""How far a compression is: what every step of it reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a compression.

    Parameters
    ----------
    phase : str
        ``"preparing"``, ``"coding"``, ``"trying"``, ``"training"``, ``"quantising"`` or ``"measuring"``.
    step, steps : int
        Optimiser steps done and planned.
    loss : float
        Running mean of the weighted squared error in units of the volume's variance.
    psnr, best_psnr : float
        Estimates in dB over the volume's own range, from the running loss.
    seconds, eta : float
        Time since the start and estimated time to the end.
    decode : callable, optional
        Decodes a region with the weights as they are now, like :meth:`napari_tinc.volume.CompressedVolume.decode`; only
        between two steps of the generator, in the thread that drives it.
    note : str
        What the user should know, such as that networks would not pay; mostly empty.
    """

    phase: str
    step: int
    steps: int
    loss: float
    psnr: float
    best_psnr: float
    seconds: float
    eta: float
    decode: Callable[..., Any] | None = field(default=None, repr=False, compare=False)
    note: str = ""

    @classmethod
    def unmeasured(cls, phase: str, step: int, steps: int, note: str = "") -> Progress:
        """Progress of a phase that knows neither loss nor time."""
        return cls(phase, step, steps, math.nan, math.nan, math.nan, math.nan, math.nan, note=note)


__all__ = ["Progress"]
