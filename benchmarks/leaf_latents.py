"""Leaves of the tree with latents: TINC's tree, and grids of latents that its leaves read, at equal bytes and steps.

    OMP_NUM_THREADS=1 python benchmarks/leaf_latents.py VOLUMES --volumes mri_gd vessel_lightsheet
    python benchmarks/leaf_latents.py --table

``tinc`` and ``grid`` are the families as they ship, ``tree`` is a tree of two levels, and ``latents`` one with latents:
a pyramid of three grids of cells lies over its leaves, as fine as ``share`` of the bits pays for, at what ``grid``
reckons for a latent; the tree has the rest. What a leaf's cells say between them, at the same local coordinates in all
leaves, is ``z``; the leaf's first layer is ``sin(W h + b + U z)`` with ``h`` of its ancestors and one ``U`` for all
leaves, and the first features of ``z`` are added to the output. They start as the Laplacian pyramid of the volume and
have a penalty on their bits, as in ``grid``. Neighbouring leaves share the cells on their faces, and the coder takes
the cells of all leaves as one grid. Files are written and decoded. Of a volume larger than ``--voxels`` its middle is
taken. Appends to ``benchmarks/results/leaf_latents.csv``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from appending import appending
from families import measured
from strategies import middle_of
from torch import Tensor

from napari_tinc.geometry.octree import Octree
from napari_tinc.networks.families import grid, tinc
from napari_tinc.networks.protocol import Array, Floats32, Nodes, Request, Schedule

RESULTS = Path(__file__).parent / "results" / "leaf_latents.csv"
KEYS = ["volume", "voxels", "ratio", "model", "share", "features", "steps"]
COLUMNS = [*KEYS, "bytes", "psnr_dB", "worst_octant_dB", "encode_s", "problem"]
LEVELS, GRIDS = 2, 3


@dataclass(frozen=True)
class Cells:
    """Cells of one grid: so many between the faces of a leaf, and those on its faces, which its neighbours share."""

    tree: Octree
    per_leaf: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, ...]:
        """Cells of the volume along every axis."""
        counts = self.tree.counts(self.tree.depth)
        return tuple(count * cells + 1 for count, cells in zip(counts, self.per_leaf, strict=True))

    def weights(self, axis: int) -> Floats32:
        """What every cell of an axis adds to every voxel; shape (voxels, cells)."""
        edges, voxels = self.tree.edges(self.tree.depth)[axis], np.arange(self.tree.shape[axis])
        leaf = np.searchsorted(edges, voxels, side="right") - 1
        places = (leaf + (voxels - edges[leaf]) / self.tree.leaf_shape[axis]) * self.per_leaf[axis]
        low = np.floor(places).astype(int)
        found = np.zeros((len(places), self.sides[axis]), np.float32)
        found[voxels, low] = 1 - (places - low)
        found[voxels, low + 1] = places - low
        return found

    def of_leaves(self, latents: Tensor) -> Tensor:
        """Cut a grid, (features, *sides), into the cells of every leaf: (leaves, features, cells of a leaf)."""
        for axis, cells in enumerate(self.per_leaf):
            latents = latents.unfold(1 + axis, cells + 1, cells)
        rows = latents[(slice(None), *torch.from_numpy(self.tree.grid_index(self.tree.depth).T))]
        return rows.transpose(0, 1).flatten(2)

    def read(self, own: Tensor, coordinates: Tensor) -> Tensor:
        """Interpolate the cells of leaves, (leaves, features, cells), at local coordinates, (axes, points)."""
        corners = [(torch.zeros(1, dtype=torch.long), torch.ones(1))]
        for axis, cells in enumerate(self.per_leaf):
            side = self.tree.leaf_shape[axis]
            places = (coordinates[axis] + 1) / 2 * max(side - 1, 1) * cells / side
            low = places.long().clamp(0, cells - 1)
            ends = ((low, 1 - (places - low)), (low + 1, places - low))
            corners = [(i * (cells + 1) + place, w * share) for i, w in corners for place, share in ends]
        found = torch.zeros(())
        for index, weight in corners:
            found = found + own[:, :, index] * weight
        return found


class LatentTree(tinc.TincNetwork):
    """A tree whose leaves read latents; all nodes of a level are equally wide, and there is one item."""

    features: int
    grids: tuple[Cells, ...] = ()
    start: Sequence[Floats32] | None = None
    kept: Nodes | None = None

    @classmethod
    def of(cls, network: tinc.TincNetwork, grids: Sequence[Cells], features: int) -> LatentTree:
        """Give latents to a tree."""
        made = cls(network.tree, network.layers, network.widths, network.parents, network.between, network.provenance)
        made.grids, made.features = tuple(grids), features
        return made

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Those of the tree, then U and the grids, which belong to the root."""
        root, usual = np.zeros(1, np.int64), super().arrays
        shapes = [(1, int(self.widths[-1][0]), self.features * len(self.grids))]
        shapes += [(1, self.features, *cells.sides) for cells in self.grids]
        return (*usual, *(Array(0, 100 + number, "latents", root, shape) for number, shape in enumerate(shapes)))

    def node_parameters(self, level: int) -> Nodes:
        """Count those of the tree, and at the root the others."""
        return super().node_parameters(level) + (
            0 if level else sum(a.per_node for a in self.arrays[-len(self.grids) - 1 :])
        )

    def initial(self, generator: torch.Generator) -> list[Tensor]:
        """Draw the tree as usual, and nearly nothing besides a Laplacian pyramid."""
        count = len(self.grids)
        drawn = [self._draw(array, generator) for array in self.arrays[: -count - 1]]
        others = [torch.randn(array.shape, generator=generator) for array in self.arrays[-count - 1 :]]
        others = [others[0] / math.sqrt(others[0].shape[2]), *(latents * 0.01 for latents in others[1:])]
        for latents, first in zip(others[1:], self.start or (), strict=True):
            latents[:, 0] = torch.from_numpy(first)
        return [*drawn, *others]

    def schedule(self, steps: int, growth: float, time_limit: float | None) -> Schedule:
        """Add the penalty on bits that ``grid`` has."""
        usual = super().schedule(steps, growth, time_limit)
        return replace(usual, phases=tuple(replace(phase, penalty=self.rate) for phase in usual.phases))

    def rate(self, parameters: Sequence[Tensor]) -> Tensor:
        """See :meth:`napari_tinc.networks.families.grid.GridNetwork.rate`."""
        bits = torch.zeros(())
        for latents in parameters[-len(self.grids) :]:
            scale = latents.detach().square().mean().sqrt() / 2 + 1e-6
            bits = bits + 0.5 * torch.log2(1 + (latents / scale).square()).sum()
        return grid._RATE_WEIGHT * bits / (grid._BITS_PER_LATENT * latent_count(self.grids, self.features))

    def evaluate(self, parameters: Sequence[Tensor], coordinates: Tensor) -> Tensor:
        """Evaluate every leaf at the same local coordinates: (axes, points) to (leaves, points)."""
        count = len(self.grids)
        queue, synthesis = iter(parameters[: -count - 1]), parameters[-count - 1][0]
        read = []
        for cells, latents in zip(self.grids, parameters[-count:], strict=True):
            own = cells.of_leaves(latents[0])
            read.append(cells.read(own if self.kept is None else own[torch.from_numpy(self.kept)], coordinates))
        said = torch.cat(read, 1)
        hidden = coordinates[None]
        for level, (group,) in enumerate(self.groups):
            first = tinc._first_layer(group, level, next(queue), next(queue), hidden)
            hidden = torch.sin(first + synthesis @ said if level == self.depth else first)
            for _ in range(self.layers[level] - 1):
                weight, bias = next(queue), next(queue)
                hidden = torch.sin(torch.baddbmm(bias, weight, hidden))
        weight, bias = next(queue), next(queue)
        return torch.baddbmm(bias, weight, hidden)[:, 0] + said[:, :: self.features].sum(1)

    def restrict(self, leaves: Nodes) -> tuple[LatentTree, list[tuple[int, Nodes]]]:
        """Keep some leaves and their ancestors, and all latents."""
        smaller, selection = super().restrict(leaves)
        made, count = LatentTree.of(smaller, self.grids, self.features), len(self.arrays)
        made.kept = leaves
        return made, selection + [(i, np.zeros(1, np.int64)) for i in range(count - len(self.grids) - 1, count)]


def latent_count(grids: Sequence[Cells], features: int) -> int:
    """Latents of a volume."""
    return features * sum(math.prod(cells.sides) for cells in grids)


def pyramid(tree: Octree, finest: int) -> list[Cells]:
    """Grids coarse to fine, of half as many cells each, along the longest side of a leaf; shorter ones have fewer."""
    longest = max(tree.leaf_shape)
    counts = [max(1, finest >> coarser) for coarser in range(GRIDS - 1, -1, -1)]
    return [Cells(tree, tuple(max(1, round(n * side / longest)) for side in tree.leaf_shape)) for n in counts]


@contextmanager
def with_latents(share: float, features: int) -> Iterator[None]:
    """Have the family ``tinc`` plan and open trees of two levels with latents; without if their share is 0."""
    plan, parse, made = type(tinc.FAMILY).plan, type(tinc.FAMILY).parse, []

    def planned(family: object, request: Request) -> tinc.TincNetwork:
        bits = 8 * share * request.budget
        settings = replace(request.settings, levels=LEVELS)
        tree = plan(family, replace(request, settings=settings, budget=round((1 - share) * request.budget)))
        if not share:
            return tree
        pyramids = [pyramid(tree.tree, finest) for finest in range(1, 65)]
        paid = [grids for grids in pyramids if grid._BITS_PER_LATENT * latent_count(grids, features) <= bits]
        made.append(LatentTree.of(tree, paid[-1], features))
        made[-1].start = grid.laplacian(request.original, paid[-1])  # type: ignore[arg-type]
        return made[-1]

    def opened(*asked: object) -> tinc.TincNetwork:
        tree = parse(*asked)  # type: ignore[arg-type]
        return LatentTree.of(tree, made[-1].grids, features) if share else tree

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(type(tinc.FAMILY), "plan", planned))
        stack.enter_context(mock.patch.object(type(tinc.FAMILY), "parse", opened))
        yield


def table(results: Path) -> None:
    """Print PSNR of the families, and of trees with latents on so much of the bytes."""
    rows = pd.read_csv(results)
    kinds = [f"{r.model}, {r.share:.0%}, {r.features:g}" if r.share else r.model for r in rows.itertuples()]
    found = rows.assign(kind=kinds).pivot_table(
        index=["volume", "voxels", "ratio", "steps"], columns="kind", values="psnr_dB", sort=False
    )
    print("| volume | voxels | ratio | steps | " + " | ".join(found) + " |\n|" + "---|" * (4 + len(found.columns)))
    for (volume, voxels, ratio, steps), own in found.iterrows():
        cells = ["" if np.isnan(psnr) else f"{psnr:.2f}" for psnr in own]
        print(f"| `{volume}` | {voxels} | {ratio:g} | {steps} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--volumes", nargs="+", default=[""], help="how their names begin")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64.0])
    parser.add_argument("--models", nargs="+", default=["tinc", "grid", "tree", "latents"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.15, 0.3, 0.7], help="of the bytes, for latents")
    parser.add_argument("--features", nargs="+", type=int, default=[2])
    parser.add_argument("--steps", type=int, default=1500, help="for 2**18 voxels")
    parser.add_argument("--voxels", type=int, default=2**18)
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        table(args.results)
        return
    latents = [(share, features) for share in args.shares for features in args.features]
    with appending(
        args.results, [*KEYS, "bytes", "psnr_dB", "worst_octant_dB", "encode_s", "problem"], "ignore"
    ) as append:
        for begin in args.volumes:
            name, volume = middle_of(args.folder, begin, args.voxels)
            for ratio in args.ratios:
                for model in args.models:
                    for share, features in latents if model == "latents" else [(0.0, 0)]:
                        row = dict(
                            zip(KEYS, (name, volume.size, ratio, model, share, features, args.steps), strict=True)
                        )
                        with ExitStack() as stack:
                            if model in ("tree", "latents"):
                                stack.enter_context(with_latents(share, features))
                            family = model if model in ("tinc", "grid") else "tinc"
                            row |= measured(volume, ratio, family, None, args.steps)
                        append(row)
                        print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
