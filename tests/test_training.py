"""The training loop under the misfortunes it promises to survive, and what must never influence it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_tinc.errors import TrainingError
from napari_tinc.geometry.octree import Octree
from napari_tinc.networks import quantization, training
from napari_tinc.networks.device import is_out_of_memory
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.leafwise import LeafSamples
from napari_tinc.networks.protocol import Schedule
from napari_tinc.networks.quantization import Codes
from napari_tinc.networks.training import Sampler, Trainer
from napari_tinc.progress import Progress

Result = tuple[list[Tensor], Codes]
TREE = Octree((12, 16), ((True, True),))


@pytest.fixture(autouse=True)
def _yield_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_YIELD_SECONDS", 0.0)


def make_data(items: int = 1, weights: bool = False) -> LeafSamples:
    grid = np.stack(np.meshgrid(*TREE.local_axes(), indexing="ij")).reshape(2, -1)
    draw = np.random.default_rng(0)
    frequency = draw.uniform(1, 4, (items * TREE.leaves, 2))
    values = np.sin(frequency @ grid).T.astype(np.float32)
    weight = None
    if weights:
        weight = torch.from_numpy(draw.uniform(0, 2, values.shape).astype(np.float32))
    return LeafSamples(torch.from_numpy(grid), torch.from_numpy(values), weight, items, np.zeros(items))


def make_trainer(
    data: LeafSamples | None = None, steps: int = 200, bits: float = 8.0, seed: int = 0, **schedule: float
) -> Trainer:
    data = data or make_data()
    nodes = [data.items, data.items * TREE.leaves]
    network = TincNetwork.on_tree(TREE, [2, 2], [np.full(n, 8) for n in nodes])
    generator = torch.Generator().manual_seed(seed)
    initial = network.initial(generator)
    points = int(schedule.pop("points", 32))
    plan = Schedule(steps, points, schedule.pop("rate", 0.01), **schedule)
    return Trainer(network, initial, data, plan, bits * network.parameters, generator)


def finish(steps: Generator[Progress, None, Result], at: dict[int, Callable[[], None]] | None = None) -> Result:
    """Run to the end; do something at certain steps."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        if at and progress.step in at:
            at.pop(progress.step)()


def quality(trainer: Trainer, result: Result) -> float:
    """Mean squared error of the rounded parameters, from the definition."""
    parameters, codes = result
    layout = trainer.layout
    rounded = quantization.dequantise(layout, quantization.quantise(layout, parameters, codes), codes)
    output = layout.network.evaluate(rounded, trainer.data.coordinates)
    return float((output.T - trainer.data.values).square().mean())


def same(first: Result, second: Result) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True)) and np.array_equal(
        first[1], second[1]
    )


def test_training_learns_and_fits_its_budget() -> None:
    trainer = make_trainer(steps=250)
    result = finish(trainer.run())
    assert quality(trainer, result) < 0.1 * float(trainer.data.values.var())
    symbols = quantization.quantise(trainer.layout, *result)
    assert quantization.coded_bits(trainer.layout, symbols) <= trainer.bits


def test_same_seed_gives_the_same_parameters_and_another_seed_others() -> None:
    runs = [finish(make_trainer(steps=80, seed=seed).run()) for seed in (3, 3, 4)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_looking_at_the_progress_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    often = finish(make_trainer(steps=60).run())
    monkeypatch.setattr(training, "_YIELD_SECONDS", 1e9)
    assert same(often, finish(make_trainer(steps=60).run()))


def test_initial_parameters_are_left_alone() -> None:
    trainer = make_trainer(steps=20)
    initial = [p.detach().clone() for p in trainer.state.parameters]
    again = Trainer(
        trainer.network, initial, trainer.data, trainer.schedule, trainer.bits, torch.Generator().manual_seed(0)
    )
    kept = [p.clone() for p in initial]
    finish(again.run())
    assert all(torch.equal(a, b) for a, b in zip(kept, initial, strict=True))


@pytest.mark.parametrize("garbage", [1e4, -3.0])
def test_what_stands_in_the_padding_changes_nothing(garbage: float) -> None:
    results = []
    for filler in (0.0, garbage):
        data = make_data()
        padding = np.zeros((data.points, TREE.leaves), dtype=bool)
        padding[::6, 1] = padding[-8:, 2] = True
        data.weights = torch.from_numpy(np.where(padding, 0.0, 1.0).astype(np.float32))
        data.values[torch.from_numpy(padding)] = filler
        results.append(finish(make_trainer(data, steps=60).run()))
    assert same(*results)


def test_weights_reach_the_loss() -> None:
    """The authors' weights compare raw thresholds with data scaled to 0–100, and so never apply."""
    heavy = make_data()
    heavy.weights = torch.full_like(heavy.values, 0.05)
    heavy.weights[:, 1] = 3.85
    plain, weighted = make_trainer(steps=300), make_trainer(heavy, steps=300)
    errors = []
    for trainer in (plain, weighted):
        parameters, _ = finish(trainer.run())
        output = trainer.network.evaluate(parameters, trainer.data.coordinates)
        errors.append((output.T - trainer.data.values).square().mean(0))
    assert float(errors[1][1]) < float(errors[0][1])
    assert float(errors[1][[0, 2, 3]].mean()) > float(errors[0][[0, 2, 3]].mean())


def test_the_loss_is_the_weighted_mean_squared_error() -> None:
    """A mean over leaves, not a sum: the rate's effect does not depend on how many leaves there are."""
    trainer = make_trainer(make_data(items=2, weights=True), steps=10, points=10_000)
    output = trainer.network.evaluate(trainer.state.parameters, trainer.data.coordinates).detach()
    assert trainer.data.weights is not None
    expected = float(((output.T - trainer.data.values).square() * trainer.data.weights).mean())
    assert next(trainer.run()).loss == pytest.approx(expected, rel=1e-4)


def test_psnr_of_items_is_that_of_their_errors_taken_together() -> None:
    data = make_data(items=2)
    data.psnr_offsets = np.array([20.0, 40.0])  # ranges of 10 and 100 normalised units
    losses = torch.tensor([0.04, 0.09])
    expected = -10 * math.log10((0.04 / 10**2 + 0.09 / 10**4) / 2)
    assert data.psnr(losses) == pytest.approx(expected)


def test_progress_counts_up_and_names_both_phases() -> None:
    seen = list(make_trainer(steps=100).run())
    assert [p.step for p in seen] == list(range(1, 101))
    phases = [p.phase for p in seen]
    assert phases == sorted(phases, reverse=True)
    assert set(phases) == {"training", "quantising"}
    assert all(math.isfinite(p.loss) and math.isfinite(p.psnr) and p.eta >= 0 for p in seen)
    assert seen[-1].psnr > seen[0].psnr


def scramble(trainer: Trainer, factor: float) -> Callable[[], None]:
    def act() -> None:
        with torch.no_grad():
            for parameter in trainer.state.parameters:
                parameter.mul_(factor)

    return act


@pytest.mark.parametrize("factor", [100.0, math.nan, math.inf], ids=["collapse", "not a number", "infinite"])
@pytest.mark.parametrize("step", [3, 105, 145, 165, 199], ids="step {}".format)
def test_a_collapse_is_noticed_and_undone(step: int, factor: float) -> None:
    trainer = make_trainer(steps=200)
    reached = quality(trainer, finish(trainer.run(), {step: scramble(trainer, factor)}))
    if step == 3:  # nothing had been learnt yet: what counts is that there is a result
        assert math.isfinite(reached)
        return
    assert reached < 0.3 * float(trainer.data.values.var())
    if step < 199:
        assert trainer.state.rate < trainer.schedule.rate


def test_a_rate_that_is_far_too_high_learns_nothing_and_is_no_worse_than_the_mean() -> None:
    trainer = make_trainer(steps=250, rate=10.0)
    assert quality(trainer, finish(trainer.run())) < 1.1 * float(trainer.data.values.var())


def test_a_rate_at_which_weights_overflow_is_a_clear_error() -> None:
    with pytest.raises(TrainingError, match=r"collapsed 4 times.*choose another seed"):
        finish(make_trainer(steps=250, rate=1e20).run())


def test_collapse_after_collapse_ends_in_a_clear_error() -> None:
    trainer = make_trainer(steps=400)
    evaluate = trainer.network.evaluate
    calls = iter(range(10**6))

    def broken(parameters: list[Tensor], coordinates: Tensor) -> Tensor:
        return evaluate(parameters, coordinates) * (1.0 if next(calls) < 60 else math.nan)

    trainer.network.evaluate = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(TrainingError, match=r"collapsed 4 times.*choose another seed"):
        finish(trainer.run())


@pytest.mark.parametrize("steps", [10, 200])
def test_a_loss_that_is_never_finite_ends_in_a_clear_error(steps: int) -> None:
    data = make_data()
    data.values[:] = math.nan
    with pytest.raises(TrainingError, match="collapsed"):
        finish(make_trainer(data, steps=steps).run())


@pytest.mark.parametrize("bits", [1.5, 3.0])
def test_coarse_rounding_is_not_taken_for_a_collapse(bits: float) -> None:
    """With few bits the loss jumps when rounding sets in; that is its price, not a failure."""
    trainer = make_trainer(steps=300, bits=bits)
    finish(trainer.run())
    assert trainer.state.retries == 0


def limited(trainer: Trainer, most: int, error: RuntimeError) -> list[int]:
    """Let the network run out of memory above ``most`` points; return the sizes it was asked for."""
    evaluate, sizes = trainer.network.evaluate, []

    def hungry(parameters: list[Tensor], coordinates: Tensor) -> Tensor:
        sizes.append(coordinates.shape[1])
        if sizes[-1] > most:
            raise error
        return evaluate(parameters, coordinates)

    trainer.network.evaluate = hungry  # type: ignore[method-assign, assignment]
    return sizes


def large_data() -> LeafSamples:
    draw = torch.Generator().manual_seed(0)
    points = torch.rand((2, 1000), generator=draw) * 2 - 1
    return LeafSamples(points, torch.sin(points.sum(0))[:, None].expand(-1, 4).clone(), None, 1, np.zeros(1))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, other allocations: 1 GB, max allowed: 9 GB)"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["CUDA", "CPU", "Windows", "MPS"])
def test_out_of_memory_halves_the_batch(error: RuntimeError) -> None:
    assert is_out_of_memory(error)
    trainer = make_trainer(large_data(), steps=60, points=800)
    sizes = limited(trainer, 210, error)
    finish(trainer.run())
    assert sizes[:4] == [800, 400, 200, 200]
    assert set(sizes[3:]) == {200}


def test_out_of_memory_while_measuring_sensitivities_halves_the_batch_too() -> None:
    trainer = make_trainer(large_data(), steps=60, points=800)
    sizes: list[list[int]] = []
    act = {20: lambda: sizes.append(limited(trainer, 210, torch.OutOfMemoryError("CUDA out of memory")))}
    finish(trainer.run(), act)
    other = make_trainer(large_data(), steps=60, points=800)
    finish(other.run(), {42: lambda: sizes.append(limited(other, 210, torch.OutOfMemoryError("CUDA out of memory")))})
    assert all(seen[0] == 800 and seen[-1] == 200 for seen in sizes)


def test_out_of_memory_with_the_smallest_batch_is_a_clear_error() -> None:
    trainer = make_trainer(large_data(), steps=60, points=800)
    limited(trainer, 10, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(TrainingError, match=r"out of memory on cpu .*higher ratio"):
        finish(trainer.run())


def test_other_errors_are_not_swallowed() -> None:
    trainer = make_trainer(large_data(), steps=60, points=800)
    limited(trainer, 10, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        finish(trainer.run())


def test_no_step_begins_after_the_time_limit_and_both_phases_still_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    trainer = make_trainer(steps=10**7, time_limit=0.6)
    evaluate = trainer.network.evaluate

    def slow(parameters: list[Tensor], coordinates: Tensor) -> Tensor:
        now[0] += 0.002  # seconds a step
        return evaluate(parameters, coordinates)

    trainer.network.evaluate = slow  # type: ignore[method-assign, assignment]
    seen = list(trainer.run())
    assert 0.59 < seen[-1].seconds < 0.605
    assert len(seen) > 280
    assert {p.phase for p in seen[:250]} == {"training"}
    assert {p.phase for p in seen[-20:]} == {"quantising"}


def test_a_time_limit_that_is_over_at_once_still_gives_a_result() -> None:
    parameters, codes = finish(make_trainer(steps=100, time_limit=1e-9).run())
    assert all(torch.isfinite(p).all() for p in parameters)
    assert codes.shape[0] == 1


def test_finishing_early_rounds_what_was_learnt() -> None:
    trainer = make_trainer(steps=600)
    stop: list[bool] = []
    trainer.finish = lambda: bool(stop)
    result = finish(trainer.run(), {150: lambda: stop.append(True)})
    symbols = quantization.quantise(trainer.layout, *result)
    assert quantization.coded_bits(trainer.layout, symbols) <= trainer.bits
    assert quality(trainer, result) < 0.5 * float(trainer.data.values.var())


def test_points_are_drawn_without_replacement_epoch_after_epoch() -> None:
    sampler = Sampler(100, torch.Generator().manual_seed(0))
    for _ in range(3):
        epoch = torch.cat([sampler.draw(25) for _ in range(4)])
        assert torch.equal(epoch.sort().values, torch.arange(100))
    assert len(sampler.draw(1000)) == 100
    assert len(Sampler(1, torch.Generator()).draw(64)) == 1


def test_all_rows_see_the_points_they_are_paired_with() -> None:
    """A network that is exact has no loss: values and coordinates never get out of step."""
    trainer = make_trainer(steps=5)
    exact = trainer.network.evaluate(trainer.state.parameters, trainer.data.coordinates).detach()
    trainer.data.values = exact.T.contiguous()
    assert next(trainer.run()).loss == pytest.approx(0, abs=1e-6)  # bfloat16 rounds the activations
