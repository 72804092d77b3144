"""Shared by all tests: one torch thread, and volumes that are compressed once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from synthetic import blobs

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode import compression as story
from napari_tinc.encode import speeds
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

Array = npt.NDArray[np.generic]

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_speeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the user's own measured speeds alone."""
    folder = tmp_path_factory.mktemp("speeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speeds, "store", lambda kind=speeds.COMPRESSING: Path(folder) / f"{kind}.json")
        yield


def _compress_quickly(
    array: Array, budget: int, axes: str | None = None, levels: int | None = None, model: str = "tinc"
) -> CompressedVolume:
    metadata = None if axes is None else Metadata(axes, (1.0,) * array.ndim, ("",) * array.ndim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(story.TRAINING_STEPS, "fast", 40)
        result = story.compress(
            array, Target.size(budget), metadata=metadata, preset="fast", levels=levels, device="cpu", model=model
        )
    assert isinstance(result, CompressedVolume)
    return result


@pytest.fixture(scope="session")
def original() -> Array:
    """A 3-D volume with an odd and a prime side, 13 × 22 × 18."""
    return blobs((13, 22, 18))


@pytest.fixture(scope="session")
def compressed(original: Array) -> CompressedVolume:
    """``original`` as a network alone, on a tree of two levels."""
    return _compress_quickly(original, 2500, levels=2)


@pytest.fixture(scope="session", params=["tinc", "wavelet", "tinc+wavelet"])
def any_model(request: pytest.FixtureRequest, original: Array, compressed: CompressedVolume) -> CompressedVolume:
    """``original`` as a network, as wavelets, and as both."""
    return compressed if request.param == "tinc" else _compress_quickly(original, 2500, None, 2, request.param)


@pytest.fixture(scope="session")
def arrangements() -> dict[str, CompressedVolume]:
    """One small compressed volume for every arrangement of axes, as a network; and some as wavelets, or both."""
    shapes = {
        "yx": (37, 41), "zyx": (9, 20, 17), "tyx": (3, 20, 17), "czyx": (2, 8, 12, 11), "zcyx": (8, 2, 12, 11),
        "tczyx": (2, 3, 5, 12, 11), "ctzyx": (3, 2, 5, 12, 11),
    }  # fmt: skip
    names = [*shapes, "yx wavelet", "czyx wavelet", "tczyx wavelet", "zcyx tinc+wavelet"]
    made = {}
    for name in names:
        axes, _, model = name.partition(" ")
        made[name] = _compress_quickly(blobs(shapes[axes]), 1200, axes, None, model or "tinc")
    return made
