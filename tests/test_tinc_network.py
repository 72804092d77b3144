"""The network against a recursion over one leaf at a time, in float64, written from the formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.networks.families.tinc import TincNetwork

Floats = npt.NDArray[np.float64]
Segment = list[tuple[Floats, Floats]]

EIGHT = (True, True, True)
TREES = {
    "one level": Octree((9, 9, 9)),
    "two levels": Octree((8, 8, 8), (EIGHT,)),
    "three levels, 2-D": Octree((16, 16), ((True, True), (True, True))),
    "anisotropic": Octree((6, 16, 32), ((False, True, True), (True, False, True), (False, False, True))),
}
LAYERS = {0: [4], 1: [2, 3], 2: [2, 1, 2], 3: [1, 2, 1, 1]}


def segments_of(network: TincNetwork, parameters: list[Tensor]) -> dict[tuple[int, int], Segment]:
    """Weights and biases of every node, (level, node) → layers in order, in float64."""
    found: dict[tuple[int, int], dict[int, dict[str, Floats]]] = {}
    for array, tensor in zip(network.arrays, parameters, strict=True):
        assert tuple(tensor.shape) == array.shape
        for row, node in enumerate(array.nodes.tolist()):
            number, is_bias = divmod(array.position, 2)
            layer = found.setdefault((array.level, node), {}).setdefault(number, {})
            kind = "bias" if is_bias else "weight"
            assert kind not in layer
            layer[kind] = tensor[row].double().numpy()
    return {
        key: [(layers[i]["weight"], layers[i]["bias"][:, 0]) for i in range(len(layers))]
        for key, layers in found.items()
    }


def recurse(tree: Octree, items: int, segments: dict[tuple[int, int], Segment], points: Floats) -> Floats:
    """f_k = f_out ∘ f_L ∘ … ∘ f_1 ∘ f_in, one leaf and one point at a time."""
    result = np.empty((items * tree.leaves, points.shape[1]))
    for leaf in range(items * tree.leaves):
        ancestor, path = leaf, [(tree.depth, leaf)]
        for level in range(tree.depth - 1, -1, -1):
            ancestor //= tree.children(level)
            path.insert(0, (level, ancestor))
        layers = [layer for key in path for layer in segments[key]]
        for p in range(points.shape[1]):
            hidden = points[:, p]
            for weight, bias in layers[:-1]:
                hidden = np.sin(weight @ hidden + bias)
            weight, bias = layers[-1]
            result[leaf, p] = (weight @ hidden + bias)[0]
    return result


def build(tree: Octree, items: int, unequal: bool, seed: int = 0) -> tuple[TincNetwork, list[Tensor], Tensor]:
    draw = np.random.default_rng(seed)
    widths = [
        draw.choice([3, 5, 8], items * tree.nodes(level)) if unequal else np.full(items * tree.nodes(level), 7 - level)
        for level in range(tree.depth + 1)
    ]
    network = TincNetwork.on_tree(tree, LAYERS[tree.depth], widths)
    generator = torch.Generator().manual_seed(seed)
    parameters = network.initial(generator)
    points = torch.rand((len(tree.shape), 6), generator=generator) * 2 - 1
    return network, parameters, points


@pytest.mark.parametrize("unequal", [False, True], ids=["equal widths", "unequal widths"])
@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("name", list(TREES))
def test_network_equals_the_recursion_leaf_by_leaf(name: str, items: int, unequal: bool) -> None:
    tree = TREES[name]
    network, parameters, points = build(tree, items, unequal)
    expected = recurse(tree, items, segments_of(network, parameters), points.double().numpy())
    np.testing.assert_allclose(network.evaluate(parameters, points).numpy(), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_leaves_evaluated_alone_give_what_all_together_give(data: st.DataObject) -> None:
    tree = TREES[data.draw(st.sampled_from(list(TREES)))]
    items = data.draw(st.integers(1, 3))
    network, parameters, points = build(tree, items, data.draw(st.booleans()), data.draw(st.integers(0, 99)))
    total = items * tree.leaves
    chosen = sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=1, max_size=12)))
    smaller, selection = network.restrict(np.array(chosen))
    rows = [parameters[i][torch.from_numpy(nodes)] for i, nodes in selection]
    assert [tuple(r.shape) for r in rows] == [a.shape for a in smaller.arrays]
    full = network.evaluate(parameters, points)
    torch.testing.assert_close(smaller.evaluate(rows, points), full[chosen], rtol=0, atol=1e-6)


def test_equal_widths_below_parents_of_unequal_widths_are_told_apart() -> None:
    """Groups of one width that read different input widths have biases of one shape."""
    tree = TREES["three levels, 2-D"]
    widths = [np.array([3]), np.array([4, 6, 4, 5]), np.full(16, 8)]
    network = TincNetwork.on_tree(tree, [2, 1, 2], widths)
    generator = torch.Generator().manual_seed(1)
    parameters = network.initial(generator)
    points = torch.rand((2, 5), generator=generator)
    for chosen in ([0], [5, 6], [1, 5, 9, 15], list(range(16))):
        smaller, selection = network.restrict(np.array(chosen))
        rows = [parameters[i][torch.from_numpy(nodes)] for i, nodes in selection]
        torch.testing.assert_close(
            smaller.evaluate(rows, points), network.evaluate(parameters, points)[chosen], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("name", ["two levels", "three levels, 2-D", "anisotropic"])
def test_two_leaves_share_exactly_the_segments_of_their_common_ancestors(name: str, unequal: bool) -> None:
    """Gradients of one leaf's output reach its own path and nothing else."""
    tree = TREES[name]
    network, parameters, points = build(tree, 2, unequal)
    boxes = [tree.boxes(level) for level in range(tree.depth + 1)]
    for leaf in {0, tree.leaves - 1, tree.leaves, 2 * tree.leaves - 1}:
        tracked = [p.clone().requires_grad_() for p in parameters]
        gradients = torch.autograd.grad(network.evaluate(tracked, points)[leaf].sum(), tracked)
        item, own = divmod(leaf, tree.leaves)
        inside = boxes[tree.depth][own]
        for array, gradient in zip(network.arrays, gradients, strict=True):
            reached = gradient.abs().flatten(1).amax(1) > 0
            for row, node in enumerate(array.nodes.tolist()):
                owner, index = divmod(node, tree.nodes(array.level))
                contains = owner == item and all(
                    outer.start <= inner.start and inner.stop <= outer.stop
                    for inner, outer in zip(inside, boxes[array.level][index], strict=True)
                )
                assert bool(reached[row]) == contains, (array.level, node)


@pytest.mark.parametrize("unequal", [False, True])
def test_changing_a_segment_changes_the_leaves_below_it_and_no_other(unequal: bool) -> None:
    tree = TREES["anisotropic"]
    network, parameters, points = build(tree, 1, unequal)
    before = network.evaluate(parameters, points)
    for array, tensor in zip(network.arrays, parameters, strict=True):
        for row, node in enumerate(array.nodes.tolist()):
            kept = tensor[row].clone()
            tensor[row] += 0.5
            changed = (network.evaluate(parameters, points) - before).abs().amax(1) > 0
            tensor[row] = kept
            below = tree.leaves // tree.nodes(array.level)
            expected = np.zeros(tree.leaves, bool)
            expected[node * below : (node + 1) * below] = True
            assert not (changed.numpy() & ~expected).any()
            if array.position // 2 == network.layers[array.level] or array.level < tree.depth:
                assert changed.numpy()[expected].any()


def test_one_level_is_a_plain_siren() -> None:
    """COIN: sin(W x + b) layers and a linear one, here with torch's own modules."""
    tree = TREES["one level"]
    network, parameters, points = build(tree, 1, unequal=False)
    layers: list[torch.nn.Linear] = []
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        linear = torch.nn.Linear(weight.shape[2], weight.shape[1])
        linear.weight.data, linear.bias.data = weight[0], bias[0, :, 0]
        layers.append(linear)
    assert [layer.out_features for layer in layers] == [7, 7, 7, 7, 1]
    hidden = points.T
    for layer in layers[:-1]:
        hidden = torch.sin(layer(hidden))
    torch.testing.assert_close(network.evaluate(parameters, points)[0], layers[-1](hidden)[:, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("name", list(TREES))
def test_parameters_are_counted_as_they_are(name: str, unequal: bool) -> None:
    tree = TREES[name]
    network, parameters, _ = build(tree, 2, unequal)
    assert network.parameters == sum(p.numel() for p in parameters)
    segments = segments_of(network, parameters)
    for level in range(tree.depth + 1):
        counted = [sum(w.size + b.size for w, b in segments[level, n]) for n in range(2 * tree.nodes(level))]
        np.testing.assert_array_equal(network.node_parameters(level), counted)


def test_initial_weights_follow_the_siren_rule_within_the_whole_tree() -> None:
    """U(±sqrt(6/n)) below the first layer, at every level: the coordinate rule is for coordinates only."""
    tree = Octree((40, 80, 120), (EIGHT,))  # half a radian for every voxel of a leaf: 10, 20 and 30
    network = TincNetwork.on_tree(tree, [2, 2], [np.array([64]), np.full(8, 32)])
    parameters = network.initial(torch.Generator().manual_seed(0))
    for array, tensor in zip(network.arrays, parameters, strict=True):
        spread = float(tensor.abs().max())
        if array.position % 2:  # biases
            assert spread <= np.pi + 1e-6
        elif array.level == 0 and array.position == 0:
            per_axis = tensor.abs().amax((0, 1))
            assert (per_axis <= torch.tensor([10.0, 20.0, 30.0]) / 3).all()
            assert (per_axis > torch.tensor([8.0, 16.0, 24.0]) / 3).all()
        else:
            is_output = array.level == 1 and array.position == 4
            bound = np.sqrt(6 / array.shape[2]) / (30 if is_output else 1)
            assert 0.9 * bound < spread <= bound


def test_same_seed_draws_the_same_network_and_another_seed_another() -> None:
    network, first, _ = build(TREES["two levels"], 1, unequal=True)
    again = network.initial(torch.Generator().manual_seed(0))
    other = network.initial(torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.abs().max() > 0)


def test_cost_of_a_level_does_not_grow_with_calls_per_node() -> None:
    """64 leaves of one width are one group: a few matrix products, not a loop over nodes."""
    tree = Octree((16, 16, 16), choose_splits((16, 16, 16), 2))
    network = TincNetwork.on_tree(tree, [2, 1, 2], [np.array([16]), np.full(8, 12), np.full(64, 8)])
    assert [len(groups) for groups in network.groups] == [1, 1, 1]
    assert all(group.siblings for groups in network.groups[1:] for group in groups)
