"""Whole compressions: budgets, targets, dtypes, shapes, axes, cancelling, and the faults of the authors' code."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from synthetic import blobs

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import WITHIN
from napari_tinc.encode import compression as story
from napari_tinc.encode import framing, training, trial
from napari_tinc.encode.framing import Content
from napari_tinc.encode.original import Original
from napari_tinc.errors import BudgetError, InputError, TrainingError
from napari_tinc.format import BETWEEN, parse
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.measures.signal import global_consistency
from napari_tinc.networks import training as trainers
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.leafwise import LeafSamples
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

Array = npt.NDArray[np.generic]


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(story.TRAINING_STEPS, "fast", 25)


def compress(array: Array, target: Target | int, **settings: Any) -> CompressedVolume:
    goal = Target.size(target) if isinstance(target, int) else target
    result = story.compress(array, goal, preset="fast", device="cpu", **settings)
    assert isinstance(result, CompressedVolume)
    return result


def psnr(original: Array, decoded: Array) -> float:
    difference = original.astype(np.float64) - decoded.astype(np.float64)
    span = float(original.max()) - float(original.min())
    return 20 * math.log10(span) - 10 * math.log10((difference**2).mean())


CASES = [
    ((13, 22, 18), 300, "u2"), ((13, 22, 18), 333, "f4"), ((13, 22, 18), 1000, "u1"), ((13, 22, 18), 5000, "u2"),
    ((40, 50), 250, "u2"), ((40, 50), 1500, "f4"), ((1, 60, 61), 700, "u1"), ((2, 3, 700), 450, "u2"),
    ((4, 64, 64), 8000, "f8"), ((31, 29, 23), 12_345, "u2"),
]  # fmt: skip


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
@pytest.mark.parametrize(("shape", "budget", "dtype"), CASES, ids=str)
def test_the_file_never_exceeds_its_budget_and_uses_it(
    shape: tuple[int, ...], budget: int, dtype: str, model: str
) -> None:
    volume = compress(blobs(shape, dtype=dtype, high=255 if dtype == "u1" else 4000, low=3), budget, model=model)
    assert 0.97 * budget <= len(volume.to_bytes()) <= budget
    assert volume.decode().shape == shape


@pytest.mark.parametrize("ratio", [50, 100, 400])
def test_noise_keeps_its_budget_and_comes_out_better_than_its_mean(ratio: float) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 32, 32), dtype=np.uint16)
    volume = compress(noise, Target.ratio(ratio), model="wavelet")
    assert 0.95 * noise.nbytes / ratio <= len(volume.to_bytes()) <= noise.nbytes / ratio
    assert psnr(noise, volume.decode()) > psnr(noise, np.full_like(noise, round(noise.mean())))


def test_the_budget_counts_the_file_on_disk(tmp_path: Path) -> None:
    volume = compress(blobs((13, 22, 18)), Target.ratio(8))
    volume.save(tmp_path / "a.tinc")
    assert (tmp_path / "a.tinc").stat().st_size == volume.nbytes <= 13 * 22 * 18 * 2 / 8
    assert volume.ratio == pytest.approx(13 * 22 * 18 * 2 / volume.nbytes)


@pytest.mark.parametrize(
    ("target", "budget"), [(Target.ratio(10), 1029), (Target.bits_per_voxel(2), 1287), (Target.size(1111), 1111)]
)
def test_a_size_can_be_given_in_three_units(target: Target, budget: int) -> None:
    assert 0.97 * budget <= compress(blobs((13, 22, 18)), target).nbytes <= budget


@pytest.mark.parametrize(
    ("between", "within"),
    [("even", "equal"), ("shallow", "importance"), ("deep", "variance"), ((1.0, 5.0), "map"), ("even", "map")],
)
def test_every_strategy_keeps_the_budget_and_is_written_down(between: str | tuple[float, ...], within: str) -> None:
    original = blobs((12, 20, 18))
    weights = np.greater(original, 1500).astype(np.float32) if within == "map" else None
    volume = compress(original, 1500, between=between, within=within, weights=weights, levels=2, model="tinc")
    assert 0.97 * 1500 <= volume.nbytes <= 1500
    again = CompressedVolume(volume.to_bytes())
    assert WITHIN[again.header.within] == within
    assert BETWEEN[again.header.between] == (between if isinstance(between, str) else "ratios")


@pytest.mark.parametrize(
    "settings",
    [{}, {"levels": 2}, {"model": "tinc"}, {"model": "tinc", "levels": 3, "between": "deep"},
     {"model": "tinc", "levels": 2, "within": "importance"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("shape", [(13, 22, 18), (40, 50)], ids=str)
def test_a_budget_too_small_is_refused_and_the_smallest_one_named_works(
    shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    original = blobs(shape)
    with pytest.raises(BudgetError, match="at least") as refused:
        compress(original, 50, **settings)
    match = re.search(r"at least (\d+) bytes", str(refused.value))
    assert match
    smallest = int(match[1])
    with pytest.raises(BudgetError):
        compress(original, smallest - 1, **settings)
    assert compress(original, smallest, **settings).nbytes <= smallest


def test_a_file_that_would_not_be_smaller_than_the_volume_is_refused() -> None:
    with pytest.raises(BudgetError, match="smaller than the volume"):
        compress(blobs((13, 22, 18)), 13 * 22 * 18 * 2)


def test_the_psnr_asked_for_is_reached_with_a_small_file() -> None:
    original = blobs((16, 18, 17))
    volume = compress(original, Target.psnr(20.0))
    assert psnr(original, volume.decode()) >= 20.0 - 0.005
    assert volume.ratio > 20


def test_a_psnr_that_every_file_reaches_gives_the_smallest_file() -> None:
    original = blobs((10, 12, 11))
    with pytest.raises(BudgetError, match="at least") as refused:
        compress(original, 20)
    match = re.search(r"at least (\d+) bytes", str(refused.value))
    assert match
    assert compress(original, Target.psnr(0.5)).nbytes <= int(match[1])


def test_a_psnr_out_of_reach_is_refused_with_the_best_that_was_seen() -> None:
    with pytest.raises(BudgetError, match=r"reach 90.00 dB, got \d+\.\d+ dB"):
        compress(blobs((12, 13, 14)), Target.psnr(90.0), model="wavelet")


def test_a_psnr_for_a_volume_smaller_than_any_file_is_refused() -> None:
    with pytest.raises(BudgetError, match="more than"):
        compress(blobs((5, 5)), Target.psnr(20.0))


def test_the_psnr_in_the_file_is_that_of_what_it_decodes_to() -> None:
    original = blobs((13, 22, 18))
    volume = compress(original, 2000)
    assert float(volume.provenance["psnr"]) == pytest.approx(psnr(original, volume.decode()), abs=0.006)


DTYPES = {
    "u1": (0, 255), "i1": (-128, 127), "u2": (100, 60_000), "i2": (-1024, 3071), "u4": (0, 4_000_000_000),
    "i4": (-2_000_000_000, 2_000_000_000), "f2": (-3.0, 5.0), "f4": (-1e-3, 2e-3), "f8": (1e6, 1e6 + 1),
}  # fmt: skip


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
@pytest.mark.parametrize(("dtype", "limits"), DTYPES.items(), ids=str)
def test_every_dtype_comes_back_within_the_originals_range(dtype: str, limits: tuple[float, float], model: str) -> None:
    original = blobs((12, 20, 18), dtype=dtype, low=limits[0], high=limits[1])
    decoded = compress(original, 1000, model=model).decode()
    assert decoded.dtype == original.dtype
    assert original.min() <= decoded.min()
    assert decoded.max() <= original.max()
    assert psnr(original, decoded) > 12


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
@pytest.mark.parametrize("order", ["big endian", "Fortran", "strided", "read only"])
def test_memory_layout_does_not_matter(order: str, model: str) -> None:
    original = blobs((12, 20, 18))
    given = {
        "big endian": original.astype(">u2"),
        "Fortran": np.asfortranarray(original),
        "strided": np.repeat(original, 2, axis=1)[:, ::2],
        "read only": original.copy(),
    }[order]
    given.flags.writeable = order != "read only"
    same, plain = (compress(array, 1000, model=model).to_bytes() for array in (given, original))
    assert same == plain


EXTREME = {
    "one voxel in 1600": np.eye(1, 1600).reshape(40, 40).astype("f4"),
    "denormal": np.eye(40) * 1e-300,
    "huge float64": np.eye(40) * 1e149,
    "float32 sentinel": (np.eye(40) * 6.7e38 - 3.4e38).astype("f4"),
    "two values": (np.arange(1600).reshape(40, 40) % 40 > 20).astype("u1"),
    "large offset": 1e9 + np.eye(40),
}


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_ranges_do_not_break_anything(name: str, model: str) -> None:
    original = EXTREME[name]
    volume = compress(original, 700, model=model)
    decoded = volume.decode()
    assert np.isfinite(decoded.astype(np.float64)).all()
    assert original.min() <= decoded.min()
    assert decoded.max() <= original.max()
    assert len(volume.octants) == volume.tree.leaves


def test_a_range_whose_square_overflows_is_refused() -> None:
    with pytest.raises(InputError, match="range"):
        compress((np.eye(40) - 0.5) * 1e308, 700)


def test_a_result_without_any_error_can_be_written_down() -> None:
    """A perfect decoding has an infinite PSNR, which is no JSON number."""
    source = Original.prepare(blobs((8, 9, 10)), Metadata.default(3), None)
    plan = training.plan_network(source, Settings(), "tinc", 500)
    payloads = {(0, level): b"" for level in range(plan.tree.depth + 1)}
    assert parse(framing.frame(plan, Content(payloads), math.inf, [b""])).header.provenance["psnr"] == "inf"


@pytest.mark.parametrize("value", [0, 7, -3, 1.5e-5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (20, 30), (2, 9, 8, 7)], ids=str)
def test_a_constant_volume_is_exact_and_tiny(value: float, shape: tuple[int, ...]) -> None:
    dtype = "f4" if isinstance(value, float) else "i2"
    original = np.full(shape, value, dtype)
    volume = compress(original, max(original.nbytes - 1, 1))
    np.testing.assert_array_equal(volume.decode(), original)
    assert volume.decode().dtype == original.dtype
    assert volume.nbytes < 250
    assert all(math.isinf(octant.psnr) and octant.max_error == 0 for octant in volume.octants)


def test_a_constant_channel_beside_a_real_one_is_exact() -> None:
    original = np.stack([blobs((9, 14, 15)), np.full((9, 14, 15), 777, np.uint16)])
    volume = compress(original, 900)
    np.testing.assert_array_equal(volume.decode()[1], original[1])
    assert volume.nbytes <= 900
    assert math.isinf(volume.octants[-1].psnr)


def test_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    original = blobs((13, 22, 18))
    files = [compress(original, 1500, seed=seed, model="tinc").to_bytes() for seed in (5, 5, 6)]
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
def test_weights_change_where_the_error_lies(model: str) -> None:
    """In the authors' code weights never fire: raw thresholds meet scaled data."""
    original = blobs((10, 20, 20), seed=4)
    weights = np.full(original.shape, 0.02, np.float32)
    weights[:, :, :12] = 1
    settings: dict[str, Any] = {"levels": 1, "model": model}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(story.TRAINING_STEPS, "fast", 100)
        plain, weighted = (compress(original, 1200, weights=w, **settings).decode() for w in (None, weights))

    def error(decoded: Array, half: slice) -> float:
        return float(((original[..., half].astype(float) - decoded[..., half].astype(float)) ** 2).mean())

    assert error(weighted, slice(12)) < error(plain, slice(12))
    assert error(weighted, slice(12, None)) > error(plain, slice(12, None))


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.ones((3, 3)), "shape"),
        (np.zeros((13, 22, 18)), "got 0 to 0"),
        (np.full((13, 22, 18), np.nan), "got nan to nan"),
        (-np.ones((13, 22, 18)), "not negative"),
    ],
)
def test_weights_that_make_no_sense_are_refused(bad: Array, text: str) -> None:
    with pytest.raises(InputError, match=text):
        compress(blobs((13, 22, 18)), 1000, weights=bad)


@pytest.mark.parametrize(
    "settings",
    [{"levels": 0}, {"levels": 99}, {"levels": 6}, {"between": "euqal"}, {"within": "aoi"}, {"within": "map"},
     {"time_limit": 0.0}, {"between": (1.0, 2.0, 3.0), "levels": 2}],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused_before_training(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        compress(blobs((13, 22, 18)), 1000, **settings)


def test_unknown_presets_and_devices_are_refused() -> None:
    with pytest.raises(InputError, match="preset"):
        story.compress(blobs((9, 9)), Target.size(100), preset="faster")
    with pytest.raises(InputError, match="device"):
        story.compress(blobs((40, 40)), Target.size(600), device="tpu")


def training_data(original: Array, levels: int, weights: Array | None = None) -> tuple[Any, LeafSamples]:
    source = Original.prepare(original, Metadata.default(original.ndim), weights)
    tree = Octree(original.shape, choose_splits(original.shape, levels - 1))
    network = TincNetwork.on_tree(
        tree, [1] * (tree.depth + 1), [np.full(tree.nodes(n), 1) for n in range(tree.depth + 1)]
    )
    return tree, network.samples(source, torch.device("cpu"))


@pytest.mark.parametrize("weighted", [False, True])
def test_padding_weighs_nothing_and_every_voxel_its_weight(weighted: bool) -> None:
    """The loss of a constant prediction equals the (weighted) mean over the volume's own voxels."""
    original = blobs((13, 19, 17))
    weights = np.random.default_rng(0).uniform(0, 3, original.shape) if weighted else None
    tree, data = training_data(original, 3, weights)
    assert tree.valid() is not None
    assert data.weights is not None
    loss = float((data.weights * (data.values - 0.37).square()).mean(dtype=torch.float64))
    z = (original - original.mean()) / original.std()
    expected = float(np.average((z - 0.37) ** 2, weights=weights))
    assert loss == pytest.approx(expected, rel=0.1)  # the normalisation is rounded to its codes
    inside = torch.from_numpy(np.ascontiguousarray(tree.valid().T))
    assert float(data.weights[~inside].abs().max()) == 0
    assert float(data.weights[inside].min()) >= 0


def test_psnr_estimate_uses_the_volumes_own_range() -> None:
    original = blobs((12, 20, 16))
    _, data = training_data(original, 1)
    exact = float(data.values.double().square().mean())
    estimate = data.psnr(torch.tensor([exact]))
    offset = original.astype(float) - original.mean()
    expected = 20 * math.log10(np.ptp(original)) - 10 * math.log10((offset**2).mean())
    assert estimate == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
def test_cancelling_at_any_yield_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainers, "_YIELD_SECONDS", 0.0)
    original = blobs((13, 22, 18))
    settings: dict[str, Any] = {"preset": "fast", "device": "cpu", "model": model}
    total = sum(1 for _ in story.compress_steps(original, Target.size(1500), Settings(**settings)))
    kept, threads = original.copy(), threading.active_count()
    for stop_after in {1, 2, 3, total // 2, total - 1, total}:
        steps = story.compress_steps(original, Target.size(1500), Settings(**settings))
        for _ in range(stop_after):
            next(steps)
        steps.close()
        with pytest.raises(StopIteration):
            next(steps)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == threads
    np.testing.assert_array_equal(original, kept)


def test_progress_tells_what_is_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "_YIELD_SECONDS", 0.0)
    target = Target.size(1500)
    seen = list(story.compress_steps(blobs((13, 22, 18)), target, Settings(preset="fast", device="cpu", model="tinc")))
    assert all(isinstance(progress, Progress) for progress in seen)
    assert phases(seen) == ["preparing", "training", "quantising", "measuring"]
    trained = [p for p in seen if p.phase in ("training", "quantising")]
    assert [p.step for p in trained] == list(range(1, 26))


def phases(seen: list[Progress]) -> list[str]:
    return list(dict.fromkeys(progress.phase for progress in seen))


def test_progress_of_the_detail_layer_is_told_too() -> None:
    seen = list(story.compress_steps(blobs((13, 22, 18)), Target.size(1500), Settings(preset="fast", device="cpu")))
    assert phases(seen) == ["preparing", "coding", "measuring"]


def test_a_network_that_never_learns_is_reported_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = TincNetwork.evaluate
    monkeypatch.setattr(TincNetwork, "evaluate", lambda *given: evaluate(*given) * math.nan)
    with pytest.raises(TrainingError, match="collapsed"):
        compress(blobs((13, 22, 18)), 1500, model="tinc")


def test_running_out_of_memory_everywhere_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TincNetwork, "evaluate", hungry)
    with pytest.raises(TrainingError, match="out of memory"):
        compress(blobs((13, 22, 18)), 1500, model="tinc")


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
def test_one_level_is_asked_for_and_given(model: str) -> None:
    """COIN: one SIREN for the whole volume, the baseline of every comparison."""
    volume = compress(blobs((13, 22, 18)), 1500, levels=1, model=model)
    assert volume.tree.leaves == 1
    assert len(volume.octants) == 1


def test_consistency_is_told_to_the_caller() -> None:
    original = blobs((16, 16, 16))
    volume = compress(original, 2000, levels=2, model="tinc")
    measured = global_consistency(original, volume.header.splits)
    assert measured is not None
    assert float(volume.provenance["consistency"]) == pytest.approx(measured, abs=0.005)


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
def test_tissue_in_three_percent_of_the_range_is_still_learnt(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """A few hot voxels set the range; the loss must not be blind to everything below them."""
    monkeypatch.setitem(story.TRAINING_STEPS, "fast", 150)
    tissue = blobs((16, 20, 20), low=1000, high=2000)
    original = tissue.copy()
    original[3, 4, 5] = original[10, 9, 2] = 34_000
    decoded = compress(original, 1000, levels=2, model=model).decode().astype(float)
    usual = np.ones(original.shape, bool)
    usual[2:5, 3:6, 4:7] = usual[9:12, 8:11, 1:4] = False
    error = ((decoded - tissue)[usual] ** 2).mean()
    assert error < 0.5 * tissue[usual].var()


def promising_trial(*_: Any) -> Generator[Progress, None, float]:
    yield from ()
    return 1.0


@pytest.mark.parametrize("promising", [False, True])
def test_large_volumes_are_tried_out_on_their_middle(promising: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(story.TRAINING_STEPS, "balanced", 30)
    monkeypatch.setattr(trial, "VOXELS", 8000)
    monkeypatch.setattr(story, "_PROMISING", math.inf if promising else 0)
    monkeypatch.setattr(trial, "promised_gain", promising_trial)
    trained: list[tuple[int, ...]] = []
    prepare = training.prepare_training

    def noted(draft: Any, *args: Any) -> Any:
        trained.append(draft.original.items.shape)
        return prepare(draft, *args)

    monkeypatch.setattr(training, "prepare_training", noted)
    volume = blobs((2, 24, 32, 16))
    metadata = Metadata("czyx", (1.0,) * 4, ("",) * 4)
    result = story.compress(volume, Target.size(6000), metadata=metadata, preset="balanced", device="cpu")
    assert result.nbytes <= 6000
    assert result.shape == volume.shape
    pilot = (2, 17, 22, 11)
    assert trained == ([pilot, pilot, volume.shape] if promising else [pilot])
