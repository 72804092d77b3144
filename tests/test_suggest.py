"""Advice on how small: what is said of a ratio, against the truth that simulated volumes have."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dask.array as da
import imagecodecs
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from napari_tinc import Target, compress, samples
from napari_tinc.advice import sample_blocks
from napari_tinc.advice.suggest import Suggestion, Verdict, advised, suggest_steps
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.cli.app import app
from napari_tinc.errors import InputError
from napari_tinc.progress import Progress
from napari_tinc.system.steps import complete

Array = np.ndarray[Any, Any]

SHAPE = (24, 72, 80)


def spots(sigma: float, seed: int = 0) -> tuple[Array, Array]:
    """Blurred spots without noise, and with white noise of this deviation."""
    draw = np.random.default_rng(seed)
    clean = np.zeros(SHAPE)
    clean[tuple(draw.integers(0, side, 150) for side in SHAPE)] = draw.uniform(2000, 60000, 150)
    clean = 300 + gaussian_filter(clean, 1.6)
    noisy = np.clip(np.rint(clean + draw.normal(0, sigma, SHAPE)), 0, 65535).astype(np.uint16)
    return clean, noisy


def tried(array: Any, **settings: Any) -> list[Suggestion]:
    found: list[Suggestion] = complete(suggest_steps(array, **settings))
    return found


@pytest.fixture(scope="module")
def noisy_and_tried() -> tuple[Array, Array, list[Suggestion]]:
    clean, noisy = spots(25)
    return clean, noisy, tried(noisy, ratios=[8, 32, 400])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large volume: only parts of it are compressed."""
    monkeypatch.setattr(sample_blocks, "WHOLE", 0)
    monkeypatch.setattr(sample_blocks, "VOXELS", 6 * 16**3)
    monkeypatch.setattr(sample_blocks, "_LEAST_SIDE", 8)


def test_the_distance_from_the_noise_free_image_is_estimated_without_it(
    noisy_and_tried: tuple[Array, Array, list[Suggestion]],
) -> None:
    clean, _noisy, found = noisy_and_tried
    for one in found:
        truth = ((one.decoded - clean[6:18, 18:54, 20:60]) ** 2).mean() / 25**2
        assert one.here is not None
        assert one.here.value == pytest.approx(truth, abs=0.1 + 0.1 * truth)
        assert one.here.value < one.here.limit


def test_the_advised_file_is_as_near_to_the_truth_as_the_data_and_a_fourfold_ratio_is_not() -> None:
    clean, noisy = spots(25)
    found = tried(noisy)
    advice = advised(found)
    assert advice is not None

    def distance(ratio: float) -> float:
        decoded = compress(noisy, Target.ratio(ratio), preset="fast").decode()
        return float(((decoded - clean) ** 2).mean() / ((noisy - clean) ** 2).mean())

    assert distance(advice.ratio) <= 1
    assert distance(4 * advice.ratio) > 1


def test_a_ratio_that_loses_structure_is_told_from_one_that_drops_noise(
    noisy_and_tried: tuple[Array, Array, list[Suggestion]],
) -> None:
    gentle, _, harsh = noisy_and_tried[2]
    assert (gentle.verdict, gentle.text) == (Verdict.NOISE, "the loss looks like noise")
    assert (harsh.verdict, harsh.text) == (Verdict.STRUCTURE, "structure is lost")
    assert advised([harsh, gentle]) is gentle
    assert advised([harsh]) is None


def test_sizes_and_quality_are_those_of_the_whole_file(noisy_and_tried: tuple[Array, Array, list[Suggestion]]) -> None:
    _, noisy, found = noisy_and_tried
    for one in found:
        file = compress(noisy, Target.ratio(one.ratio), preset="fast")
        assert 0.95 * one.nbytes <= file.nbytes <= one.nbytes
        assert one.psnr == pytest.approx(float(file.provenance["psnr"]), abs=0.3)


def test_pictures_show_the_region_and_what_it_loses(
    noisy_and_tried: tuple[Array, Array, list[Suggestion]],
) -> None:
    _, noisy, found = noisy_and_tried
    one = found[0]
    np.testing.assert_array_equal(one.original, noisy[6:18, 18:54, 20:60])
    assert one.decoded.dtype == noisy.dtype
    np.testing.assert_array_equal(one.error, one.original.astype(float) - one.decoded)


def test_without_noise_every_loss_is_structure() -> None:
    clean, _ = spots(0)
    found = tried(np.rint(clean).astype(np.uint16), ratios=[8, 64])
    assert [one.verdict for one in found] == [Verdict.NO_NOISE] * 2
    assert "everything lost is structure" in found[0].text
    assert advised(found) is None


def test_more_noise_allows_a_smaller_file() -> None:
    ratios = [8, 16, 32, 64, 128]
    quiet, loud = (advised(tried(spots(sigma)[1], ratios=ratios)) for sigma in (6, 60))
    assert loud is not None
    assert quiet is None or quiet.ratio < loud.ratio


def test_blocks_of_a_large_volume_stand_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_blocks, "WHOLE", 0)
    monkeypatch.setattr(sample_blocks, "VOXELS", 6 * 32**3)
    phantom = samples.vessel_tree((80, 80, 80), seed=1)
    box = (slice(30, 62), slice(20, 52), slice(24, 56))
    [one] = tried(phantom.noisy, ratios=[32], region=box)
    file = compress(phantom.noisy, Target.ratio(32), preset="fast")
    assert one.psnr == pytest.approx(float(file.provenance["psnr"]), abs=1.5)
    np.testing.assert_array_equal(one.original, phantom.noisy[box])
    error = np.std(phantom.noisy[box] - file.decode(box).astype(float))
    assert np.std(one.error) == pytest.approx(float(error), rel=0.2)


def test_a_lazy_array_is_read_only_where_blocks_are(small_blocks: None) -> None:
    volume = samples.vessel_tree((64, 64, 64)).noisy
    read: list[int] = []

    def counted(block: Array) -> Array:
        read.append(block.size)
        return block

    lazy = da.from_array(volume, chunks=8).map_blocks(counted, dtype=volume.dtype, meta=volume[:0, :0, :0])
    read.clear()
    [lazy_one] = tried(lazy, ratios=[32], region=(slice(20, 36),) * 3)
    assert sum(read) < 0.5 * volume.size
    [one] = tried(volume, ratios=[32], region=(slice(20, 36),) * 3)
    np.testing.assert_array_equal(lazy_one.decoded, one.decoded)


def test_the_channel_and_time_point_of_the_region_are_tried() -> None:
    _, noisy = spots(25)
    stack = np.stack([np.zeros_like(noisy), noisy], axis=1)[None]
    metadata = Metadata("tzcyx", (1.0,) * 5, ("",) * 5)
    region = (slice(0, 1), slice(4, 20), slice(1, 2), slice(0, 40), slice(0, 40))
    [one] = tried(stack, ratios=[64], region=region, metadata=metadata)
    np.testing.assert_array_equal(one.original, noisy[4:20, :40, :40])
    assert one.nbytes == stack.nbytes // 64


def test_a_flat_image_can_be_tried() -> None:
    _, noisy = spots(25)
    [one] = tried(noisy[10], ratios=[8])
    assert one.decoded.ndim == 2


def test_rows_come_one_by_one_and_the_work_can_be_stopped(noisy_and_tried: tuple[Array, Array, Any]) -> None:
    steps: Generator[Progress | Suggestion, None, list[Suggestion]] = suggest_steps(noisy_and_tried[1], ratios=[64, 8])
    seen = []
    for step in steps:
        seen.append(step)
        if isinstance(step, Suggestion):
            break
    assert step.ratio == 8  # the gentlest first
    assert {one.phase for one in seen[:-1]} == {"preparing", "trying"}
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


def test_ratios_are_chosen_so_that_files_can_exist() -> None:
    assert [one.ratio for one in tried(spots(25)[1])] == [32, 64, 128, 256]
    small = spots(25)[1][:8, :20, :20]
    chosen = [one.ratio for one in tried(small)]
    assert len(chosen) >= 2
    assert max(chosen) < 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ratios": [0.5]}, "above 1"),
        ({"ratios": [float("nan")]}, "above 1"),
        ({"ratios": [1e6]}, "can exist"),
        ({"region": (slice(0, 4),)}, "each of 3 axes"),
        ({"region": (slice(30, 40), slice(0, 4), slice(0, 4))}, "at least one voxel along z"),
        ({"region": (slice(0, 8, 2), slice(0, 4), slice(0, 4))}, "at least one voxel along z"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_words(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tried(spots(25)[1], **settings)


@pytest.mark.parametrize(
    "array", [np.full(SHAPE, 9, np.uint8), np.full(SHAPE, np.nan, np.float32), np.zeros((0, 4, 4))]
)
def test_arrays_without_structure_or_with_holes_are_refused(array: Array) -> None:
    with pytest.raises(InputError):
        tried(array)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_every_kind_of_voxel_is_understood(dtype: str) -> None:
    _clean, noisy = spots(25)
    scaled = noisy.astype(dtype) if dtype != "uint8" else (noisy / noisy.max() * 255).astype(dtype)
    [one] = tried(scaled, ratios=[16])
    assert one.decoded.dtype == dtype
    assert one.decoded.min() >= scaled.min()
    assert one.decoded.max() <= scaled.max()


# --- on the command line


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["suggest", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_the_command_line_prints_a_row_per_ratio_and_the_advice(tmp_path: Path) -> None:
    np.save(tmp_path / "spots.npy", spots(25)[1])
    result = run(tmp_path / "spots.npy", "--ratio", 16, "--ratio", 400, "--region", "4:20,0:40,0:40")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "the loss looks like noise" in lines[1]
    assert "structure is lost" in lines[2]
    assert lines[-1].startswith("advised: 16,")


def test_json_and_pictures_say_the_same_and_nothing_is_overwritten(tmp_path: Path) -> None:
    np.save(tmp_path / "spots.npy", spots(25)[1])
    picture = tmp_path / "tried.png"
    result = run(tmp_path / "spots.npy", "--ratio", 16, "--ratio", 400, "--json", "--report", picture)
    said = json.loads(result.stdout)
    assert [row["verdict"] for row in said["ratios"]] == ["noise", "structure"]
    assert said["advised"] == 16
    assert said["noise"]["gain"] >= 0
    assert imagecodecs.png_decode(picture.read_bytes()).ndim == 3
    before = picture.read_bytes()
    again = run(tmp_path / "spots.npy", "--ratio", 16, "--report", picture)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert picture.read_bytes() == before


def test_without_noise_no_ratio_is_advised_and_the_reason_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "clean.npy", np.rint(spots(0)[0]).astype(np.uint16))
    assert "no noise was found" in run(tmp_path / "clean.npy", "--ratio", 16).stdout.splitlines()[-1]
    said = json.loads(run(tmp_path / "clean.npy", "--ratio", 16, "--json").stdout)
    assert said["advised"] is None
    assert said["ratios"][0]["distance_here"] is None
