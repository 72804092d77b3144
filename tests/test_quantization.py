"""Steps, symbols and sensitivities against raw definitions."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_tinc.geometry.octree import Octree
from napari_tinc.networks import quantization
from napari_tinc.networks.entropy import MAX_SYMBOL
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.quantization import Layout

ITEMS = 2
TREE = Octree((8, 8), ((True, True),))


def build(unequal: bool = False, seed: int = 0, width: int = 4) -> tuple[Layout, list[Tensor]]:
    leaf = np.array([3, 5, 3, 5, 5, 5, 3, 3]) if unequal else np.full(8, 3)
    network = TincNetwork.on_tree(TREE, [2, 1], [np.array([width, width + 2 * unequal]), leaf])
    generator = torch.Generator().manual_seed(seed)
    parameters = [p + 0.1 * torch.rand(p.shape, generator=generator) for p in network.initial(generator)]
    return Layout(network), parameters


def owner(layout: Layout, array: int, row: int) -> tuple[int, int]:
    """Item and kind of one node's row, from the definition: nodes of an item are consecutive on their level."""
    entry = layout.network.arrays[array]
    per_item = TREE.nodes(entry.level)
    return int(entry.nodes[row]) // per_item, layout.tensors.index((entry.level, entry.position))


@pytest.mark.parametrize("unequal", [False, True])
def test_every_parameter_belongs_to_exactly_one_tensor(unequal: bool) -> None:
    layout, parameters = build(unequal)
    counted = sum(layout.size(item, kind) for item in range(ITEMS) for kind in range(len(layout.tensors)))
    assert counted == layout.network.parameters
    marks = [torch.zeros_like(p) for p in parameters]
    for item in range(ITEMS):
        for kind in range(len(layout.tensors)):
            views = layout.tensor(marks, item, kind)
            assert sum(v.numel() for v in views) == layout.size(item, kind)
            for view in views:
                view += 1
    assert all((mark == 1).all() for mark in marks)


@pytest.mark.parametrize("unequal", [False, True])
def test_the_blocks_of_a_level_share_its_parameters_out(monkeypatch: pytest.MonkeyPatch, unequal: bool) -> None:
    monkeypatch.setattr(quantization, "BLOCK_PARAMETERS", 20)
    layout, parameters = build(unequal)
    assert {layout.blocks(item, 1) for item in range(ITEMS)} != {1}
    for item, kind in product(range(ITEMS), range(len(layout.tensors))):
        blocks = layout.blocks(item, layout.tensors[kind][0])
        whole = [view.flatten() for view in layout.tensor(parameters, item, kind)]
        symbols = np.arange(layout.size(item, kind), dtype=np.int32)
        numbered = torch.from_numpy(symbols).split([len(view) for view in whole])
        for block, part in enumerate(layout.cut(item, kind, symbols, blocks)):
            views = layout.tensor(parameters, item, kind, (block, blocks))
            assert len(part) == layout.size(item, kind, (block, blocks)) == sum(v.numel() for v in views)
            values = {int(n): float(v) for g, w in zip(numbered, whole, strict=True) for n, v in zip(g, w, strict=True)}
            expected = [float(v) for view in views for v in view.flatten()]
            assert [values[n] for n in part.tolist()] == expected


@pytest.mark.parametrize("unequal", [False, True])
def test_sensitivity_is_the_gauss_newton_diagonal(unequal: bool) -> None:
    """Brute force: one derivative for every output and every parameter."""
    layout, parameters = build(unequal)
    draw = torch.Generator().manual_seed(5)
    points = torch.rand((2, 9), generator=draw) * 2 - 1
    weights = torch.rand((ITEMS * TREE.leaves, 9), generator=draw) * 3
    jacobian = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        lambda *p: layout.network.evaluate(p, points), tuple(parameters), vectorize=True
    )
    total, count = np.zeros((ITEMS, len(layout.tensors))), np.zeros((ITEMS, len(layout.tensors)))
    for array, derivative in enumerate(jacobian):
        diagonal = (derivative.square() * weights[:, :, None, None, None]).sum((0, 1))
        for row in range(len(diagonal)):
            key = owner(layout, array, row)
            total[key] += float(diagonal[row].sum())
            count[key] += diagonal[row].numel()

    def batches() -> tuple[Tensor, Tensor]:
        signs = torch.randint(0, 2, weights.shape, generator=draw) * 2.0 - 1.0
        return points, signs * weights.sqrt()

    tracked = [p.clone().requires_grad_() for p in parameters]
    estimate = quantization.sensitivity(layout, tracked, batches, probes=300)
    np.testing.assert_allclose(estimate, total / count, rtol=0.35)


@pytest.mark.parametrize("unequal", [False, True])
def test_rounding_moves_no_parameter_by_more_than_half_its_step(unequal: bool) -> None:
    layout, parameters = build(unequal)
    codes = np.random.default_rng(0).integers(20, 120, (ITEMS, len(layout.tensors)))
    restored = quantization.dequantise(layout, quantization.quantise(layout, parameters, codes), codes)
    expanded = quantization.expand_steps(layout, codes, torch.device("cpu"))
    for array, (before, after, steps) in enumerate(zip(parameters, restored, expanded, strict=True)):
        for row in range(len(before)):
            item, kind = owner(layout, array, row)
            step = 2.0 ** (codes[item, kind] / 16 - 10)
            assert float(steps[row]) == pytest.approx(step)
            assert float((before[row] - after[row]).abs().max()) <= step / 2 * (1 + 1e-4)
            multiple = after[row].double() / float(np.float32(step))
            assert float((multiple - multiple.round()).abs().max()) < 1e-3


def test_training_sees_the_very_values_the_file_will_hold() -> None:
    layout, parameters = build(unequal=True)
    codes = np.full((ITEMS, len(layout.tensors)), 70)
    seen = quantization.round_straight_through(
        parameters, quantization.expand_steps(layout, codes, torch.device("cpu"))
    )
    stored = quantization.dequantise(layout, quantization.quantise(layout, parameters, codes), codes)
    for a, b in zip(seen, stored, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_gradients_pass_through_the_rounding() -> None:
    weight = torch.tensor([0.3, -1.7, 2.2], requires_grad=True)
    (rounded,) = quantization.round_straight_through([weight], [torch.tensor(0.5)])
    torch.testing.assert_close(rounded.detach(), torch.tensor([0.5, -1.5, 2.0]))
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(weight.grad, torch.tensor([1.0, 2.0, 3.0]))


def test_symbols_beyond_the_coders_range_are_clipped() -> None:
    layout, parameters = build()
    huge = [p * 1e6 for p in parameters]
    codes = np.zeros((ITEMS, len(layout.tensors)), dtype=np.int64)
    symbols = quantization.quantise(layout, huge, codes)
    assert max(int(np.abs(s).max()) for row in symbols for s in row) == MAX_SYMBOL


def wide() -> tuple[Layout, list[Tensor], npt.NDArray[np.float64]]:
    layout, parameters = build(width=30)
    spread = np.random.default_rng(1).uniform(-4, 4, (ITEMS, len(layout.tensors)))
    return layout, parameters, np.exp2(spread)


def test_steps_are_proportional_to_the_inverse_root_of_the_sensitivity() -> None:
    layout, parameters, sensitivity = wide()
    codes, _ = quantization.fit_steps(layout, parameters, sensitivity, 6 * layout.network.parameters)
    product = np.log2(quantization.step_sizes(codes)) + 0.5 * np.log2(sensitivity)
    assert np.ptp(product) <= 1 / 16 + 1e-5  # the codes' own resolution


@settings(max_examples=10, deadline=None)
@given(st.floats(2, 10))
def test_symbols_fit_their_budget_and_use_it(bits_per_parameter: float) -> None:
    layout, parameters, sensitivity = wide()
    budget = bits_per_parameter * layout.network.parameters
    codes, estimate = quantization.fit_steps(layout, parameters, sensitivity, budget)
    assert 0.95 * budget < estimate <= budget
    assert estimate == pytest.approx(quantization.coded_bits(layout, quantization.quantise(layout, parameters, codes)))


def test_an_impossible_budget_is_reported_by_its_estimate() -> None:
    layout, parameters, sensitivity = wide()
    _, estimate = quantization.fit_steps(layout, parameters, sensitivity, 1.0)
    assert estimate > 1.0


def test_more_bits_never_make_a_step_coarser() -> None:
    layout, parameters, sensitivity = wide()
    budgets = [k * layout.network.parameters for k in (2, 3, 5, 8, 11)]
    codes = [quantization.fit_steps(layout, parameters, sensitivity, b)[0] for b in budgets]
    assert all((finer <= coarser).all() for coarser, finer in pairwise(codes))


def test_sensitivity_of_zero_does_not_break_the_steps() -> None:
    layout, parameters, sensitivity = wide()
    sensitivity[0, 0] = 0
    codes, estimate = quantization.fit_steps(layout, parameters, sensitivity, 6.0 * layout.network.parameters)
    assert math.isfinite(estimate)
    assert codes.min() >= 0
    assert codes.max() <= quantization.MAX_STEP_CODE
