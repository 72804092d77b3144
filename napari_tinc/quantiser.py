"""Steps of quantisers, as wavelet and directional segments store them."""

from __future__ import annotations

import math

# Steps from 2**-40 to 2**24: symbols times steps stay far inside float32.
STEP_CODES = 64 * 256


def step_of(code: int) -> float:
    """Quantisation step, in units of the model's output, that a code stands for."""
    return float(2.0 ** (code / 256 - 40))


def code_of(step: float) -> int:
    """Code of the step nearest to a number, however small or large that is."""
    within = min(max(step, step_of(0)), step_of(STEP_CODES - 1))
    return round(256 * (math.log2(within) + 40))


__all__ = ["STEP_CODES", "code_of", "step_of"]
