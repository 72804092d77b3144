"""A family of networks is one file and one line: every family through the doors, and two that are not ours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import blobs
from torch import Tensor
from torch.nn.functional import grid_sample

from napari_tinc import choices
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES, Family
from napari_tinc.encode import compression
from napari_tinc.encode.compression import compress
from napari_tinc.encode.original import Original
from napari_tinc.encode.trial import TRAINING_STEPS
from napari_tinc.errors import BudgetError, FormatError, InputError, TincError
from napari_tinc.format import KIND_PARAMETERS, KIND_QUALITY, header, parse
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import sample_positions
from napari_tinc.lazy import lazy_levels
from napari_tinc.networks.families import coinpp, load
from napari_tinc.networks.families.siren import SirenNetwork
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.layer import NetworkLayer
from napari_tinc.networks.plans import allowed_parameters
from napari_tinc.networks.protocol import Array, Batch, Bounds, Parameters, Phase, Request, Schedule
from napari_tinc.networks.training import Trainer
from napari_tinc.system.steps import complete
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

SHAPES = {"yx": (40, 37), "zyx": (5, 30, 26), "czyx": (2, 8, 14, 15), "tyx": (3, 20, 18)}
# Bytes of their files: what the most demanding family needs.
SIZE = 1800


def compressed(name: str, axes: str, **asked: Any) -> CompressedVolume:
    metadata = Metadata(axes, (1.0,) * len(axes), ("",) * len(axes))
    settings = {"time_limit": 0.25, "device": "cpu", "seed": 3} | asked
    return compress(blobs(SHAPES[axes]), Target.size(SIZE), metadata=metadata, model=name, **settings)


@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_makes_a_file_that_decodes_in_parts_and_at_any_scale(name: str, axes: str) -> None:
    volume = CompressedVolume(compressed(name, axes).to_bytes(), "cpu")
    original = blobs(SHAPES[axes])
    assert volume.nbytes <= SIZE
    assert header.MODELS[volume.header.model] == name
    decoded = volume.decode()
    error = decoded.astype(float) - original
    psnr = 10 * np.log10(float(np.ptp(original)) ** 2 / np.square(error).mean())
    assert psnr == pytest.approx(float(volume.provenance["psnr"]), abs=0.01)
    region = tuple(slice(1, side - 1) for side in original.shape)
    np.testing.assert_allclose(volume.decode(region).astype(int), decoded[region].astype(int), atol=1)
    assert volume.decode(scale=0.5).shape == volume.scaled_shape(0.5)
    np.testing.assert_array_equal(np.asarray(lazy_levels(volume)[0]), decoded)
    spent = sum(len(s.payload) for s in volume._frame.segments if s.kind != KIND_QUALITY)
    assert sum(octant.nbytes for octant in volume.octants) == pytest.approx(spent)
    assert 0 < volume.region_bytes((0,)) <= volume.region_bytes() <= spent


def test_a_network_alone_is_decoded_once_to_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, values = [], NetworkLayer.values

    def counted(layer: NetworkLayer, bounds: Bounds, scale: float) -> npt.NDArray[np.float32]:
        decoded.append(bounds)
        return values(layer, bounds, scale)

    monkeypatch.setattr(NetworkLayer, "values", counted)
    compressed("siren", "zyx")
    assert decoded == [tuple((0, side) for side in SHAPES["zyx"])]


@pytest.mark.parametrize("name", FAMILIES)
def test_wavelets_add_to_every_family(name: str) -> None:
    volume = compressed(f"{name}+wavelet", "zyx")
    kinds = {segment.kind for segment in volume._frame.segments}
    assert len(kinds) >= 3
    assert volume.nbytes <= SIZE


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"tinc"}))
def test_a_family_refuses_strategies_that_it_does_not_have_before_it_trains(name: str) -> None:
    for asked in ({"between": "shallow"}, {"within": "variance"}, {"between": (1.0, 2.0)}):
        with pytest.raises(InputError, match=name):
            compressed(name, "zyx", **asked)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_floats_of_any_range(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINING_STEPS, "fast", 300)  # as good on a busy machine
    original = blobs(SHAPES["zyx"], dtype="f4", low=-3e-4, high=2e-4)
    volume = compress(original, Target.size(SIZE), model=name, device="cpu", seed=3)
    decoded = CompressedVolume(volume.to_bytes(), "cpu").decode()
    assert decoded.dtype == original.dtype
    assert np.square(decoded - original).mean() < 0.5 * original.var(), "it has learnt something"


@pytest.mark.parametrize("name", [*FAMILIES, *(f"{family}+wavelet" for family in FAMILIES)])
def test_a_budget_below_the_least_of_a_family_is_refused_before_it_trains(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = blobs(SHAPES["zyx"])
    monkeypatch.setattr(compression, "_best_draft", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(
        BudgetError, match=r"^expected a budget of at least \d+ bytes for this volume, got 40$"
    ) as refused:
        compress(original, Target.size(40), model=name, device="cpu")
    monkeypatch.undo()
    least = int(str(refused.value).split("at least ")[1].split()[0])
    with pytest.raises(BudgetError, match="at least"):
        compress(original, Target.size(least - 1), model=name, time_limit=0.1, device="cpu")
    made = compress(original, Target.size(least), model=name, time_limit=0.1, device="cpu")
    assert made.nbytes <= least


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_plan_is_refused_or_makes_a_bounded_network(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FAMILIES)))
    plan = bytearray(data.draw(st.binary(max_size=12)))
    tree, allowed = Octree((8, 9, 10)), allowed_parameters(500)
    try:
        network = load(name).parse(bytes(plan), tree, 2, allowed)
    except FormatError:
        return
    assert 0 < network.parameters <= allowed
    again = load(name).parse(load(name).pack(network), tree, 2, allowed)
    assert [array.shape for array in again.arrays] == [array.shape for array in network.arrays]


def test_a_giant_plan_of_neurcomp_is_refused_before_anything_is_made() -> None:
    with pytest.raises(FormatError, match="parameters"):
        load("neurcomp").parse(bytes([32, 0x80, 0x20]), Octree((8, 8, 8)), 10**4, allowed_parameters(10**6))


def test_siren_is_what_one_level_of_tinc_says() -> None:
    siren = SirenNetwork(Octree((6, 7, 8)), 2, 9, 4)
    level = TincNetwork.on_tree(Octree((6, 7, 8)), (4,), [np.array([9, 9])])
    drawn = [network.initial(torch.Generator().manual_seed(0)) for network in (siren, level)]
    places = torch.rand(3, 50) * 2 - 1
    assert torch.equal(siren.evaluate(drawn[0], places), level.evaluate(drawn[1], places))


def test_a_file_of_another_base_is_refused_before_it_is_decoded() -> None:
    plan = bytearray(load("coinpp").pack(coinpp.CoinppNetwork(Octree((8, 9, 10)), 1, 3, 5)))
    plan[-1] ^= 1
    with pytest.raises(FormatError, match="open it with the version that wrote it"):
        load("coinpp").parse(bytes(plan), Octree((8, 9, 10)), 1, 10**6)


def test_a_base_that_is_damaged_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coinpp, "BASE", bytes(8))
    with pytest.raises(TincError, match="install napari-tinc again"):
        coinpp.shipped("meta")


def test_a_program_that_has_decoded_can_train() -> None:
    coinpp.shipped.cache_clear()
    with torch.inference_mode():
        base = coinpp.shipped()
    assert not any(tensor.is_inference() for tensor in (*base.weights, *base.biases, base.turns))
    base.linear(coinpp.patch_coordinates((3, 4, 5)))


def test_slopes_of_the_base_are_what_a_small_modulation_changes() -> None:
    base, places = coinpp.shipped(), coinpp.patch_coordinates((3, 4, 5))
    values, slopes = base.linear(places)
    for number in (0, 7, base.modulations - 1):
        changed = base.values(places.double().float(), 1e-3 * base.turns[:, number])
        torch.testing.assert_close((changed - values) / 1e-3, slopes[:, number], atol=0.02, rtol=0.02)


def test_modulations_start_where_the_linear_base_leaves_least_error() -> None:
    """A volume that the linear base can say is solved for, but for what the prior holds back."""
    network = coinpp.CoinppNetwork(Octree((16, 16, 32)), 1, 4, 6)
    wanted = 0.1 * np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    values, slopes = (part.detach().numpy() for part in coinpp.shipped().linear(network.coordinates))
    patches = values + (slopes[:, :6] @ wanted).T
    volume = np.concatenate(patches.reshape(2, 16, 16, 16), -1)
    original = Original.prepare(volume, Metadata.default(3), None)
    limits = original.ranges[0]
    found = coinpp.solved(original, network)
    reference = np.linalg.lstsq(slopes[:, :6], ((patches - limits.offset) / limits.scale - values).T, rcond=None)[0]
    np.testing.assert_allclose(found[0], reference, atol=0.1 * np.abs(reference).max())


# Three families that nobody should use. One has a tensor of rank 5 and a global grid; one is trained by planes; the
# third has a base that comes with the program, and is in no file.


@dataclass
class _Toy:
    """What both share: one level, one node per item, and no strategy."""

    tree: Octree
    items: int
    size: int

    between = "even"
    provenance: Any = None

    def __post_init__(self) -> None:
        self.provenance = {"size": self.size}

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.items,)

    @property
    def parameters(self) -> int:
        return sum(array.per_node for array in self.arrays) * self.items

    leaf_count = 1

    def leaves(self, bounds: Bounds, scale: float) -> None:
        return None

    @property
    def parts(self) -> list[tuple[slice, ...]]:
        return [tuple(slice(0, n) for n in self.tree.shape)]

    def node_parameters(self, level: int) -> npt.NDArray[np.int64]:
        return np.full(self.items, self.parameters // self.items)

    @property
    def arrays(self) -> tuple[Array, ...]:
        return tuple(
            Array(0, position, name, np.arange(self.items), (self.items, *shape))
            for position, (name, shape) in enumerate(self.shapes().items())
        )

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        return [0.1 * torch.randn(array.shape, generator=generator) for array in self.arrays]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError


@dataclass
class _Volume:
    """Samples in any form: batches are made by a function."""

    points: int
    items: int
    make: Any

    device = torch.device("cpu")

    def batch(self, index: Tensor) -> Batch:
        return self.make(index)

    def psnr(self, losses: Tensor) -> float:
        return -10 * float(torch.log10(losses.mean()))


def _normalised(original: Any) -> Tensor:
    pairs = zip(original.items, original.ranges, strict=True)
    rows = [(item.astype(np.float32) - limits.offset) / (limits.scale or 1) for item, limits in pairs]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


class Grid(_Toy):
    """A latent grid of two features, read by trilinear interpolation and weighted."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"grid": (2, *(min(self.size, n) for n in self.tree.shape)), "weights": (2,)}

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        return Schedule(150, 4096, 0.05, time_limit)

    def samples(self, original: Any, device: torch.device) -> _Volume:
        values = _normalised(original).flatten(1)
        axes = [torch.linspace(-1, 1, n) for n in self.tree.shape]
        places = torch.stack([a.flatten() for a in torch.meshgrid(*axes, indexing="ij")], 1)
        return _Volume(values.shape[1], self.items, lambda index: Batch(places[index], values[:, index], None))

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        grid, weights = parameters
        places = inputs.flip(-1).expand(self.items, 1, 1, -1, -1)
        read = grid_sample(grid.float(), places, align_corners=True)[:, :, 0, 0]
        return (read * weights[:, :, None]).sum(1)

    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> npt.NDArray[np.float32]:
        grid, weights = (tensor[item : item + 1] for tensor in parameters.of(item, None, 1))
        sides = zip(bounds, self.tree.shape, strict=True)
        axes = [torch.tensor(sample_positions(a, b, scale, n) / max(n - 1, 1) * 2 - 1).float() for (a, b), n in sides]
        places = torch.stack([a.flatten() for a in torch.meshgrid(*axes, indexing="ij")], 1)
        one = Grid(self.tree, 1, self.size)
        return one.evaluate([grid, weights], places).reshape([b - a for a, b in bounds]).numpy()


class Planes(_Toy):
    """Every plane along the first axis is a sum of a few images: trained plane by plane, at no common coordinates."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        depth, *plane = self.tree.shape
        return {"amounts": (depth, self.size), "images": (self.size, *plane)}

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        phases = (
            Phase("training", 0.5, penalty=lambda parameters: 1e-6 * parameters[1].abs().sum()),
            Phase("pruning", 0.7, constrain=lambda parameters: parameters[1].clamp_(-8, 8)),
            Phase("quantising", 1.0, rounded=True),
        )
        return Schedule(200, 2, 0.05, time_limit, phases, fewest=1)

    def samples(self, original: Any, device: torch.device) -> _Volume:
        values = _normalised(original)
        return _Volume(values.shape[1], self.items, lambda index: Batch(index, values[:, index], None))

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        amounts, images = parameters
        return torch.einsum("izk,ik...->iz...", amounts[:, inputs], images)

    def decode(self, parameters: Parameters, item: int, bounds: Bounds, scale: float) -> npt.NDArray[np.float32]:
        assert scale == 1, "a toy"
        tensors = [tensor[item : item + 1] for tensor in parameters.of(item, None, 1)]
        (first, last), *plane = bounds
        planes = self.evaluate(tensors, torch.arange(first, last))[0]
        return planes[(slice(None), *(slice(a, b) for a, b in plane))].numpy()


class Shipped(Planes):
    """As planes, but the images are cosines that everybody has: a file holds the amounts only."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"amounts": (self.tree.shape[0], self.size)}

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        return Schedule(200, 2, 0.05, time_limit, fewest=1)

    def _images(self) -> Tensor:
        rows, columns = self.tree.shape[1:]
        waves = sorted(np.ndindex(rows, columns), key=sum)[: self.size]
        y, x = (np.pi * (np.arange(n) + 0.5) / n for n in (rows, columns))
        images = np.stack([np.cos(j * y)[:, None] * np.cos(i * x) for j, i in waves])
        return torch.from_numpy(images.astype(np.float32))[None].expand(self.items, -1, -1, -1)

    def evaluate(self, parameters: Sequence[Tensor], inputs: Tensor) -> Tensor:
        images = self._images()[: len(parameters[0])]
        return super().evaluate([parameters[0].float(), images], inputs)


class _ToyFamily:
    def __init__(self, kind: type[_Toy]) -> None:
        self.kind = kind

    def plan(self, request: Request) -> _Toy:
        sizes = [self.kind(request.octants, len(request.original.items), size) for size in range(1, 40)]
        fitting = [one for one in sizes if one.parameters <= request.parameters(one)]
        return fitting[-1]

    def least(self, original: Any, settings: Any, octants: Octree) -> _Toy:
        return self.kind(octants, len(original.items), 1)

    def pack(self, network: _Toy) -> bytes:
        return bytes([network.size])

    def parse(self, plan: bytes, tree: Octree, items: int, allowed: int) -> _Toy:
        return self.kind(tree, items, plan[0])


@pytest.fixture(params=[Grid, Planes, Shipped])
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A family as anybody may add it: a module of its own, and one line in the registry."""
    name = request.param.__name__.lower()
    module = ModuleType(f"napari_tinc.networks.families.{name}")
    module.FAMILY = _ToyFamily(request.param)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(choices.FAMILIES, name, Family(name, 77, "a toy"))
    monkeypatch.setitem(header.MODELS, 77, name)  # these two follow from the registry when it is imported
    monkeypatch.setattr(choices, "MODELS", (*choices.MODELS, name, f"{name}+wavelet"))
    load.cache_clear()
    return name


@pytest.mark.parametrize("suffix", ["", "+wavelet"])
def test_a_family_of_other_tensors_and_other_samples_needs_nothing_else(toy: str, suffix: str) -> None:
    original = np.stack([blobs((12, 20, 18)), 4000 - blobs((12, 20, 18))])
    volume = compress(original, Target.size(6000), model=toy + suffix, device="cpu", metadata=Metadata.default(4))
    assert volume.nbytes <= 6000
    again = CompressedVolume(volume.to_bytes(), "cpu")
    decoded = again.decode()
    error = np.square(decoded.astype(float) - original).mean()
    assert error < 0.25 * original.var(), "it has learnt"
    np.testing.assert_allclose(again.decode((1, slice(2, 9), 3)).astype(int), decoded[1, 2:9, 3].astype(int), atol=1)
    frame = parse(volume.to_bytes())
    assert sum(s.kind == KIND_PARAMETERS for s in frame.segments) == 2
    assert float(frame.header.provenance["size"]) > 1


def test_phases_with_penalties_and_constraints_are_the_familys(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def penalty(parameters: Sequence[Tensor]) -> Tensor:
        asked.append("penalty")
        return 0 * parameters[0].sum()

    phases = (
        Phase("training", 0.5, penalty=penalty),
        Phase("pruning", 0.75, constrain=lambda parameters: asked.append("constraint")),
        Phase("quantising", 1.0, rounded=True),
    )
    network = Planes(Octree((6, 8, 8)), 1, 2)
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(1, 6, 8, 8, generator=draw)
    samples = _Volume(6, 1, lambda index: Batch(index, values[:, index], None))
    schedule = Schedule(40, 2, 0.05, None, phases, fewest=1)
    complete(Trainer(network, network.initial(draw), samples, schedule, 4000.0, draw).run())  # type: ignore[arg-type]
    assert asked == ["penalty"] * 20 + ["constraint"] * 10
