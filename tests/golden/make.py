"""Make the golden files of the present format version. Run once per version, never over the files of an older one.

python tests/golden/make.py
"""

from pathlib import Path
from unittest import mock

import numpy as np

from napari_tinc import Metadata, Target, compress
from napari_tinc.core import entropy
from napari_tinc.format import VERSION

HERE = Path(__file__).parent


def blob(*shape: int) -> np.ndarray:
    """A smooth bump on a slope, in [0, 1]."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    distance = sum((axis - 0.2 * i) ** 2 for i, axis in enumerate(axes))
    slope = sum(axis for axis in axes)
    return np.clip(0.6 * np.exp(-4 * distance) + 0.1 * slope + 0.3, 0, 1)


def save(name: str, array: np.ndarray, target: Target, **settings: object) -> None:
    volume = compress(array, target, preset="fast", time_limit=2, **settings)
    stem = HERE / f"v{VERSION}-{name}"
    volume.save(stem.with_suffix(".tinc"))
    np.savez_compressed(stem.with_suffix(".npz"), decoded=volume.decode(), half=volume.decode(scale=0.5))
    print(stem.name, volume)


if __name__ == "__main__":
    save("zyx-u2", (blob(23, 31, 29) * 4000 + 100).astype("u2"), Target.size(2500), levels=2, within="importance")
    micrometres = Metadata("yx", (0.5, 0.25), ("micrometer", "micrometer"), (), "plane")
    save("yx-u1", (blob(60, 50) * 255).astype("u1"), Target.size(500), metadata=micrometres)
    stack = np.stack([blob(9, 20, 24), 1 - blob(9, 20, 24)], axis=1).astype("f4") * 3 - 1
    named = Metadata("zcyx", (2.0, 1.0, 0.5, 0.5), ("micrometer", "", "micrometer", "micrometer"), ("a", "b"), "two")
    save("zcyx-f4", stack, Target.size(2500), metadata=named, levels=2, between="deep")
    save("constant-i2", np.full((5, 6, 7), -3, "i2"), Target.ratio(2))
    with mock.patch.object(entropy, "default_coder", return_value=entropy.DEFLATE):
        save("deflate-u2", (blob(12, 13, 14) * 900).astype("u2"), Target.size(1200))
