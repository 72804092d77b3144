"""Made-up volumes for tests, and the one file that no setting asks for: network and detail layer together."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import compression as story
from napari_tinc.core.metadata import Metadata
from napari_tinc.settings import Settings
from napari_tinc.source import Source
from napari_tinc.volume import CompressedVolume

Array = npt.NDArray[np.generic]


def blobs(shape: tuple[int, ...], seed: int = 0, dtype: str = "u2", low: float = 300.0, high: float = 4000.0) -> Array:
    """Blurred spots on a noisy background: something a network can learn in a few steps."""
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    volume = draw.normal(0.0, 0.02, shape)
    for centre in draw.uniform(-0.8, 0.8, (4, len(shape))):
        distance = np.square(grid - centre.reshape(-1, *[1] * len(shape))).sum(0)
        volume += np.exp(-distance * 8)
    volume = (volume - volume.min()) / (volume.max() - volume.min())
    scaled = low + (high - low) * volume
    rounded: Array = (scaled if np.dtype(dtype).kind == "f" else np.rint(scaled)).astype(dtype)
    return rounded


def network_and_detail(
    array: Array, budget: int, metadata: Metadata | None = None, steps: int = 40, **settings: Any
) -> CompressedVolume:
    """Compress with both, whether or not the detail layer alone would have less error."""
    source = Source.prepare(array, metadata or Metadata.default(array.ndim), None)
    chosen = replace(Settings(device="cpu"), **settings)
    candidate = _last(story._with_network(source, chosen, int(0.6 * budget), budget, steps, None))
    volume = _last(candidate.draft.finish(candidate.payloads, candidate.details, budget))
    assert isinstance(volume, CompressedVolume)
    return volume


def _last(steps: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
