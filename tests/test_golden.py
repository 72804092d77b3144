"""Files of every released format version decode for ever; see golden/make.py."""

from pathlib import Path

import numpy as np
import pytest

from napari_tinc import CompressedVolume
from napari_tinc.format import MODEL_EXACT, MODEL_PREDICTIVE

GOLDEN = sorted(Path(__file__).parent.glob("golden/*.tinc"))


def test_there_are_golden_files_of_version_1() -> None:
    assert len([path for path in GOLDEN if path.name.startswith("v1-")]) == 40


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_file_decodes_to_what_it_did_when_it_was_made(path: Path) -> None:
    volume = CompressedVolume.open(path, device="cpu")
    with np.load(path.with_suffix(".npz")) as expected:
        for scale, reference in ((1.0, expected["decoded"]), (0.5, expected["half"])):
            decoded = volume.decode(scale=scale)
            assert decoded.dtype == reference.dtype
            if volume.header.model in (MODEL_EXACT, MODEL_PREDICTIVE):
                assert decoded.tobytes() == reference.tobytes()
                continue
            span = float(reference.max()) - float(reference.min())
            # Float sums may differ in their last bits on another machine.
            tolerance = 1 if decoded.dtype.kind != "f" else 1e-4 * span
            np.testing.assert_allclose(decoded.astype(float), reference.astype(float), rtol=0, atol=tolerance)


def test_golden_metadata_survives() -> None:
    volume = CompressedVolume.open(next(path for path in GOLDEN if "v1-zcyx" in path.name))
    assert (volume.metadata.axes, volume.metadata.channel_names, volume.metadata.name) == ("zcyx", ("a", "b"), "two")
    assert volume.metadata.voxel_size == (2.0, 1.0, 0.5, 0.5)
    assert volume.shape == (9, 2, 20, 24)
