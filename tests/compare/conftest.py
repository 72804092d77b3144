"""One small comparison that most tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from comparisons import RATIOS, SHAPE, quick
from synthetic import blobs

from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.engine import Comparison


@pytest.fixture(scope="session")
def volume() -> np.ndarray:
    return blobs(SHAPE)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(volume, cache) -> Comparison:
    """Two strategies of ours, two peers, two ratios."""
    chosen = [quick(), quick("shallow/importance@2"), Candidate("sperr"), Candidate("av1")]
    comparison = Comparison(volume, candidates=chosen, ratios=RATIOS, mask=volume > 2000, cache=cache)
    for _ in comparison.run(jobs=2):
        pass
    return comparison
