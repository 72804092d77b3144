"""Advice on how small: what is said of a ratio, against the truth that simulated volumes have."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from napari_tinc import Target, compress, samples
from napari_tinc.advice import sample_blocks
from napari_tinc.advice.advise import Advice, advise_steps
from napari_tinc.advice.report import html_report
from napari_tinc.advice.trials import Tried, Verdict
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.cli.app import app
from napari_tinc.errors import InputError
from napari_tinc.measures.noise import NONE, read_note
from napari_tinc.progress import Progress
from napari_tinc.system.steps import complete
from napari_tinc.volume import CompressedVolume

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


def advice_on(array: Any, **settings: Any) -> Advice:
    found: Advice = complete(advise_steps(array, **settings))
    return found


def tried(array: Any, **settings: Any) -> list[Tried]:
    return list(advice_on(array, **settings).tried)


@pytest.fixture(scope="module")
def noisy_and_tried() -> tuple[Array, Array, list[Tried]]:
    clean, noisy = spots(25)
    return clean, noisy, tried(noisy, ratios=[8, 32, 400])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a large volume: only parts of it are compressed."""
    monkeypatch.setattr(sample_blocks, "WHOLE", 0)
    monkeypatch.setattr(sample_blocks, "VOXELS", 6 * 16**3)
    monkeypatch.setattr(sample_blocks, "_LEAST_SIDE", 8)


def test_the_distance_from_the_noise_free_image_is_estimated_without_it(
    noisy_and_tried: tuple[Array, Array, list[Tried]],
) -> None:
    clean, _noisy, found = noisy_and_tried
    for one in found:
        truth = ((one.decoded - clean[6:18, 18:54, 20:60]) ** 2).mean() / 25**2
        here = one.distances["here"]
        assert here.value == pytest.approx(truth, abs=0.1 + 0.1 * truth)
        assert here.value < here.limit


@pytest.fixture(scope="module")
def searched() -> tuple[Array, Array, Advice]:
    clean, noisy = spots(25)
    return clean, noisy, advice_on(noisy)


def test_the_advised_file_is_as_near_to_the_truth_as_the_data_and_twice_the_last_ratio_of_noise_is_not(
    searched: tuple[Array, Array, Advice],
) -> None:
    clean, noisy, advice = searched
    assert advice.advised is not None
    assert advice.last_of_noise is not None
    structure = clean > 400

    def distance(ratio: float, where: Any) -> float:
        decoded = compress(noisy, Target.ratio(ratio), preset="fast").decode()
        return float(((decoded - clean) ** 2)[where].mean() / ((noisy - clean) ** 2)[where].mean())

    assert distance(advice.advised.ratio, ...) <= 1
    assert distance(advice.advised.ratio, structure) <= 1
    assert distance(2 * advice.last_of_noise.ratio, structure) > 1


def test_a_ratio_that_loses_structure_is_told_from_one_that_drops_noise(
    noisy_and_tried: tuple[Array, Array, list[Tried]],
) -> None:
    gentle, _, harsh = noisy_and_tried[2]
    assert (gentle.verdict, gentle.text) == (Verdict.NOISE, "the loss looks like noise")
    assert harsh.verdict is Verdict.STRUCTURE
    assert harsh.text.startswith("structure is lost")
    assert Advice((gentle, harsh), NONE).advised is gentle
    assert Advice((gentle, harsh), NONE).limit is harsh
    assert Advice((harsh,), NONE).advised is None


def test_sizes_and_quality_are_those_of_the_whole_file(noisy_and_tried: tuple[Array, Array, list[Tried]]) -> None:
    _, noisy, found = noisy_and_tried
    for one in found:
        file = compress(noisy, Target.ratio(one.ratio), preset="fast")
        assert 0.95 * one.nbytes <= file.nbytes <= one.nbytes
        assert one.psnr == pytest.approx(float(file.provenance["psnr"]), abs=0.3)


def test_pictures_show_the_region_and_what_it_loses(
    noisy_and_tried: tuple[Array, Array, list[Tried]],
) -> None:
    _, noisy, found = noisy_and_tried
    one = found[0]
    np.testing.assert_array_equal(one.original, noisy[6:18, 18:54, 20:60])
    assert one.decoded.dtype == noisy.dtype
    np.testing.assert_array_equal(one.error, one.original.astype(float) - one.decoded)


def test_without_noise_every_loss_is_structure_and_measurements_decide() -> None:
    clean, _ = spots(0)
    advice = advice_on(np.rint(clean).astype(np.uint16), ratios=[8, 400])
    gentle, harsh = advice.tried
    assert {one.verdict for one in advice.tried} == {Verdict.NO_NOISE}
    assert "everything lost is structure" in gentle.text
    assert advice.advised is gentle
    assert harsh.below
    assert all(one.line in (0.95, 0.98) for one in gentle.measured)  # there is no noise that lowers them
    assert "No noise was found" in advice.text


def test_more_noise_allows_a_smaller_file() -> None:
    quiet, loud = (advice_on(spots(sigma)[1], ratios=[8, 16, 64, 128]).last_of_noise for sigma in (6, 60))
    assert loud is not None
    assert quiet is None or quiet.ratio < loud.ratio


def test_a_measurement_below_its_line_makes_the_advised_ratio_smaller_and_is_named() -> None:
    """A faint tube in so much empty space that the distance hardly knows it."""
    draw = np.random.default_rng(2)
    clean = np.full((48, 64, 64), 100.0)
    along = np.arange(64)
    for y, x in ((16, 20), (40, 44)):
        clean[24, (y + 6 * np.sin(along / 9)).astype(int), along] += 900
        clean[24, along, (x + 6 * np.sin(along / 7)).astype(int)] += 900
    clean = gaussian_filter(clean, 1.2)
    noisy = np.clip(np.rint(clean + draw.normal(0, 6, clean.shape)), 0, 65535).astype(np.uint16)
    advice = advice_on(noisy, ratios=[8, 16, 32, 64, 128, 256])
    assert advice.limit is not None
    assert advice.limit.below
    assert "line" in advice.text
    assert advice.last_of_noise is not None
    assert advice.last_kept is not None
    assert advice.advised is min(advice.last_of_noise, advice.last_kept, key=lambda one: one.ratio)
    for one in advice.tried:
        assert one.is_safe == (one.verdict is Verdict.NOISE and not one.below)
    limits = [m for m in advice.tried[0].measured if m.score.key.startswith("centreline")]
    assert limits
    assert all(m.line <= 0.98 for m in limits)


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
    steps: Generator[Progress | Tried, None, list[Tried]] = advise_steps(noisy_and_tried[1], ratios=[64, 8])
    seen = []
    for step in steps:
        seen.append(step)
        if isinstance(step, Tried):
            break
    assert step.ratio == 8  # the gentlest first
    assert {one.phase for one in seen[:-1]} == {"preparing", "trying"}
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


def test_ratios_are_searched_where_files_can_exist(searched: tuple[Array, Array, Advice]) -> None:
    advice = searched[2]
    ratios = [one.ratio for one in advice.tried]
    assert len(ratios) >= 4
    assert ratios == sorted(ratios)
    assert advice.advised is not None
    assert advice.limit is not None
    assert advice.limit.ratio / advice.advised.ratio < 1.5
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
    result = CliRunner().invoke(app, ["advise", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def test_the_command_line_prints_a_row_per_ratio_and_the_advice(tmp_path: Path) -> None:
    np.save(tmp_path / "spots.npy", spots(25)[1])
    result = run(tmp_path / "spots.npy", "--ratio", 8, "--ratio", 400, "--region", "4:20,0:40,0:40")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "the loss looks like noise" in lines[1]
    assert "structure is lost" in lines[2]
    assert lines[3].startswith("noise: variance ")
    assert lines[5].startswith("advised: 8.")
    assert "side effect, not an aim" in lines[6]  # nearer to the truth than the data


def test_json_and_report_say_the_same_and_nothing_is_overwritten(tmp_path: Path) -> None:
    np.save(tmp_path / "spots.npy", spots(25)[1])
    page = tmp_path / "advice.html"
    result = run(tmp_path / "spots.npy", "--ratio", 8, "--ratio", 400, "--json", "--report", page)
    said = json.loads(result.stdout)
    assert [row["verdict"] for row in said["ratios"]] == ["noise", "structure"]
    assert [row["safe"] for row in said["ratios"]] == [True, False]
    assert (said["advised"], said["like_noise_up_to"], said["kept_up_to"]) == (8, 8, 8)
    assert said["noise"]["gain"] >= 0
    gentle = said["ratios"][0]
    assert set(gentle["distances"]) == {"here", "everywhere", "structure"}
    assert gentle["measures"]["spots"]["agreement"] > gentle["measures"]["spots"]["line"] - 1e-9
    html = page.read_text()
    assert said["advice"] in html
    assert html.count("data:image/png;base64,") == 6
    assert set(re.findall(r'(?:src|href)="([a-z]+)[:#]?', html)) <= {"data"}  # nothing is loaded from elsewhere
    before = page.read_bytes()
    again = run(tmp_path / "spots.npy", "--ratio", 16, "--report", page)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert page.read_bytes() == before


def test_names_in_a_report_are_text_and_no_markup() -> None:
    html = html_report(advice_on(spots(25)[1], ratios=[8]), "<script>alert(1)</script>")
    assert "<script>" not in html


def test_without_noise_the_reason_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "clean.npy", np.rint(spots(0)[0]).astype(np.uint16))
    result = run(tmp_path / "clean.npy", "--ratio", 16)
    assert "noise: none" in result.stdout
    assert "No noise was found" in result.stdout.splitlines()[-1]
    said = json.loads(run(tmp_path / "clean.npy", "--ratio", 16, "--json").stdout)
    assert said["like_noise_up_to"] is None
    assert said["ratios"][0]["distances"] == {}


def test_the_old_name_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["suggest", "x.npy"])
    assert result.exit_code == 2
    assert "No such command" in result.stderr


# --- in files


def test_a_file_says_what_noise_there_was_and_stays_within_its_budget(tmp_path: Path) -> None:
    phantom = samples.neuron_phantom((32, 128, 128))
    noisy, budget = phantom.noisy, 8192
    file = compress(noisy, Target.size(budget))
    assert file.nbytes <= budget
    [(gain, base, misfit)] = read_note(file.provenance["noise"])  # type: ignore[misc]
    usual = float(np.median(phantom.clean))
    true = np.square(noisy - phantom.clean.astype(float))[np.abs(phantom.clean - usual) < 5].mean()
    assert gain * usual + base == pytest.approx(true, rel=0.15)
    assert 0 <= misfit < 0.3
    file.save(tmp_path / "a.tinc")
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "a.tinc")]).stdout
    assert f"variance {gain:.4g} · intensity - " in shown
    said = json.loads(CliRunner().invoke(app, ["info", "--json", str(tmp_path / "a.tinc")]).stdout)
    assert said["noise"] == [{"gain": gain, "base": base, "misfit": misfit}]


def test_a_small_file_spends_no_bytes_on_notes() -> None:
    noisy = samples.neuron_phantom((32, 64, 64)).noisy
    assert "noise" not in compress(noisy, Target.size(1024)).provenance


def test_a_clean_volume_says_that_no_noise_was_found() -> None:
    clean = np.rint(spots(0)[0]).astype(np.uint16)
    assert compress(clean, Target.size(8192)).provenance["noise"] == "none"


def test_the_advised_ratio_is_taken_and_its_file_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "spots.npy", spots(25)[1])
    arguments = ["compress", str(tmp_path / "spots.npy"), str(tmp_path / "a.tinc"), "--advised", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    made = CompressedVolume.open(tmp_path / "a.tinc")
    advice = str(made.provenance["advice"])
    advised = float(re.match(r"advised (\d+); like noise up to \d+$", advice)[1])  # type: ignore[index]
    assert made.nbytes <= made.raw_nbytes / advised
    assert made.ratio == pytest.approx(advised, rel=0.1)


def test_advised_is_a_target_like_others_and_of_one_file(tmp_path: Path) -> None:
    np.save(tmp_path / "spots.npy", spots(25)[1])
    source, output = str(tmp_path / "spots.npy"), str(tmp_path / "a.tinc")
    for arguments in ([output, "--advised", "--ratio", "8"], ["--out-dir", str(tmp_path), "--advised"]):
        assert CliRunner().invoke(app, ["compress", source, *arguments]).exit_code == 1
    np.save(tmp_path / "fine.npy", np.random.default_rng(0).integers(0, 65535, (8, 16, 16), np.uint16))
    result = CliRunner().invoke(app, ["compress", str(tmp_path / "fine.npy"), output, "--advised"])
    assert (result.exit_code == 1) == (not Path(output).exists())
