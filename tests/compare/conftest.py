"""One small comparison that most tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.engine import Comparison

RATIOS = (12.0, 24.0)
SHAPE = (24, 30, 27)


def quick(strategy: str = "even/equal@1") -> Candidate:
    """One of ours that trains for a moment."""
    return Candidate.tinc(strategy, "fast", device="cpu", time_limit=0.3)


@pytest.fixture(scope="session")
def volume() -> np.ndarray:
    return blobs(SHAPE)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(volume, cache) -> Comparison:
    """Two strategies of ours, two peers, two ratios."""
    chosen = [quick(), quick("shallow/importance@2"), Candidate("sperr"), Candidate("av1-10")]
    comparison = Comparison(volume, candidates=chosen, ratios=RATIOS, mask=volume > 2000, cache=cache)
    for _ in comparison.run(jobs=2):
        pass
    return comparison
