"""Made-up volumes for tests."""

import numpy as np
import numpy.typing as npt

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
