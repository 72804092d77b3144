"""How small a file can be."""

from __future__ import annotations

import numpy as np
import pytest

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode.compression import compress
from napari_tinc.errors import BudgetError
from napari_tinc.format.least import least_bytes
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

VARIED = Metadata("zyx", (2.0, 0.5, 0.5), ("um",) * 3, name="neuron")


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
@pytest.mark.parametrize("axes", ["zyx", "tczyx"])
def test_the_file_of_one_value_is_hardly_larger_than_the_bound(axes: str, dtype: str) -> None:
    shape = (3, 2, 8, 9, 10)[-len(axes) :]
    metadata = Metadata(axes, (1.0,) * len(axes), ("",) * len(axes), name="nothing")
    volume = compress(np.ones(shape, dtype), Target.size(600), metadata=metadata, preset="fast")
    least = least_bytes(shape, dtype, metadata, varied=False)
    assert least <= volume.nbytes <= least + 20


def test_no_file_is_smaller_than_the_bound(arrangements: dict[str, CompressedVolume]) -> None:
    for name, volume in arrangements.items():
        assert volume.nbytes >= least_bytes(volume.shape, volume.dtype.str[1:], volume.metadata, varied=True), name


def test_what_the_bound_refuses_the_library_refuses() -> None:
    array = np.arange(9 * 10 * 11, dtype="u2").reshape(9, 10, 11)
    least = least_bytes(array.shape, "u2", VARIED, varied=True)
    assert least > least_bytes(array.shape, "u2", VARIED, varied=False)
    for model in ("auto", "wavelet", "tinc"):
        with pytest.raises(BudgetError):
            compress(array, Target.size(least - 1), metadata=VARIED, preset="fast", model=model)
