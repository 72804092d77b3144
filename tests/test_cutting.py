"""Smaller files from files: their size, what they lose against a file made for that size, and what they say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_tinc import BudgetError, CompressedVolume, InputError, Target, compress, cut, samples
from napari_tinc import format as frames
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.cli.app import app
from napari_tinc.measures.metrics import binary_scores, psnr

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def vessel() -> tuple[Array, CompressedVolume]:
    original = samples.vessel_tree((48, 64, 72), seed=3).noisy
    return original, compress(original, Target.ratio(16))


@pytest.mark.parametrize("ratio", [64, 200])
def test_a_cut_file_is_within_its_budget_and_nearly_as_good_as_one_made_for_it(
    vessel: tuple[Array, CompressedVolume], ratio: int
) -> None:
    original, file = vessel
    smaller = cut(file, Target.ratio(ratio))
    assert 0.9 * original.nbytes / ratio <= smaller.nbytes <= original.nbytes / ratio
    made = compress(original, Target.ratio(ratio))
    assert psnr(original, smaller.decode()) >= psnr(original, made.decode()) - 0.3
    assert (smaller.shape, smaller.dtype, smaller.metadata) == (file.shape, file.dtype, file.metadata)
    assert smaller.value_ranges == file.value_ranges


def _as_good_as_it_says(original: Array, file: CompressedVolume) -> None:
    """Every figure that the file stores is a bound of what is measured against the original."""
    decoded = file.decode()
    assert psnr(original, decoded) >= float(file.provenance["psnr"])
    items, found = (array.reshape(-1, *file.spatial_shape) for array in (original, decoded))
    for octant in file.octants:
        true, got = (volume[octant.item][octant.box].astype(np.float64) for volume in (items, found))
        low, high = file.value_ranges[octant.item]
        if high == low:
            assert (true == got).all()
            continue
        assert 10 * np.log10((high - low) ** 2 / max(np.square(true - got).mean(), 1e-30)) >= octant.psnr
        assert np.abs(true - got).max() <= octant.max_error * (1 + 1e-9)
        assert binary_scores(true, got, file.threshold(octant.item)).dice >= octant.dice - 1e-9


@pytest.mark.parametrize("ratio", [20, 64, 300])
def test_what_a_cut_file_says_of_its_quality_holds(vessel: tuple[Array, CompressedVolume], ratio: int) -> None:
    original, file = vessel
    _as_good_as_it_says(original, file_cut := cut(file, Target.ratio(ratio)))
    assert len(file_cut.octants) <= len(file.octants)
    # A bound, and not a trivial one.
    assert psnr(original, file_cut.decode()) < float(file_cut.provenance["psnr"]) + 6


def test_a_file_can_be_cut_again_and_again(vessel: tuple[Array, CompressedVolume]) -> None:
    original, file = vessel
    once = cut(file, Target.ratio(40))
    twice = cut(once, Target.ratio(120))
    _as_good_as_it_says(original, twice)
    assert twice.provenance["cut_from"] == f"{once.nbytes} bytes, {once.provenance['psnr']} dB"
    assert twice.provenance.get("noise") == file.provenance.get("noise")


@pytest.mark.parametrize("make", ["largest error", "channels", "picture", "float", "background"])
def test_every_kind_of_file_is_cut(make: str) -> None:
    noisy = samples.vessel_tree((24, 32, 40), seed=5).noisy
    metadata = None
    target = Target.ratio(8)
    if make == "largest error":
        target = Target.max_error(20)
    elif make == "channels":
        noisy = np.stack([noisy, noisy[::-1], np.full_like(noisy, 7)])
        metadata = Metadata("czyx", (1.0, 2.0, 1.0, 1.0), ("", "µm", "µm", "µm"))
    elif make == "picture":
        noisy = samples.vessel_tree((8, 120, 160), seed=5).noisy[4]
    elif make == "float":
        noisy = noisy.astype(np.float32) / 7
    else:
        _, y, x = np.indices(noisy.shape)
        noisy = np.where((y - 16) ** 2 + (x - 20) ** 2 < 120, noisy, np.uint16(0))
    file = compress(noisy, target, metadata=metadata)
    smaller = cut(file, Target.size(int(file.nbytes / 2.5)))
    _as_good_as_it_says(noisy, smaller)
    assert "max_error" not in smaller.provenance  # nobody guarantees it any more


def test_what_cannot_be_cut_is_refused_in_words(vessel: tuple[Array, CompressedVolume]) -> None:
    _, file = vessel
    with pytest.raises(InputError, match="below that of the file"):
        cut(file, Target.ratio(15))
    with pytest.raises(BudgetError, match="at least"):
        cut(file, Target.size(20))
    with pytest.raises(InputError, match="ratio or a number of bytes"):
        cut(file, Target.psnr(40))
    constant = compress(np.full((8, 8, 8), 3, np.uint8), Target.ratio(2))
    with pytest.raises(InputError, match="keep it"):
        cut(constant, Target.size(60))


def test_the_command_writes_a_smaller_file_and_says_what_is_known(
    vessel: tuple[Array, CompressedVolume], tmp_path: Path
) -> None:
    _, file = vessel
    file.save(tmp_path / "a.tinc")
    before = (tmp_path / "a.tinc").read_bytes()

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["cut", str(tmp_path / "a.tinc"), *map(str, arguments)])

    output = tmp_path / "b.tinc"
    result = run(output, "--ratio", 100, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    smaller = CompressedVolume.open(output)
    assert said["file_bytes"] == smaller.nbytes
    assert said["psnr_at_least"] == smaller.provenance["psnr"]
    assert run(output, "--ratio", 100).exit_code == 1  # it exists
    assert run(tmp_path / "c.tinc").exit_code == 1  # how small?
    assert run(tmp_path / "c.tif", "--ratio", 100).exit_code == 1
    assert (tmp_path / "a.tinc").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tinc", "b.tinc"]


@pytest.mark.parametrize("psnr_said", ["many", "-inf", "1e400", -1e308, 1e308, True, "nan"])
def test_whatever_a_file_says_of_itself_it_can_be_cut(psnr_said: Any) -> None:
    noisy = samples.vessel_tree((16, 32, 32), seed=5).noisy
    frame = frames.parse(compress(noisy, Target.ratio(8)).to_bytes())
    said = dict(frame.header.provenance) | {"psnr": psnr_said, "noise": "1 " * 10_000}
    lying = CompressedVolume(frames.pack(replace(frame, header=replace(frame.header, provenance=said))))
    smaller = cut(lying, Target.ratio(40))
    assert "noise" not in smaller.provenance
    assert np.isfinite(float(smaller.provenance["psnr"]))
