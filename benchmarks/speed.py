"""Decoding and training speed, each against a per-node Python recursion of the same tree, all in one run.

    python benchmarks/speed.py

Times are those of this machine, best of three; the ratios between them are what carries over. Networks hold random
parameters: speed does not depend on their values. Beside them stands what products of matrices and sines, the bulk of
the arithmetic, would take at the speed of a product of large matrices and of sines in the cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from napari_tinc import CompressedVolume, Metadata, quality
from napari_tinc.encode import framing
from napari_tinc.encode.framing import Content
from napari_tinc.encode.original import Original
from napari_tinc.encode.training import NetworkPlan, plan_network
from napari_tinc.networks import payload, quantization
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.networks.layer import open_network
from napari_tinc.settings import Settings


def best_of(function: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def synthetic(shape: tuple[int, ...], ratio: float, levels: int | None = None) -> CompressedVolume:
    """Make the file that a uint16 volume of this shape would have at this ratio, with random parameters."""
    noise = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    source = Original.prepare(noise, Metadata.default(len(shape)), None)
    return filled(plan_network(source, Settings(levels=levels, device="cpu"), "tinc", int(noise.nbytes / ratio)))


def filled(draft: NetworkPlan) -> CompressedVolume:
    """Make a file of a draft with random parameters."""
    parameters = draft.network.initial(torch.Generator().manual_seed(0))
    sizes = [
        float(parameters[draft.layout.tensor_of_array.index(k)].abs().mean()) for k in range(len(draft.layout.tensors))
    ]
    codes = quantization.step_codes(np.log2(np.array([sizes]) / 10 + 1e-4))
    payloads = payload.pack_parameters(draft.layout, parameters, codes)
    qualities = [bytes(quality.quality_size(draft.tree.leaves))]
    return CompressedVolume(framing.frame(draft, Content(payloads), 30.0, qualities), "cpu")


def network_of(volume: CompressedVolume) -> TincNetwork:
    network = open_network(volume._frame, "tinc", volume.tree)
    assert isinstance(network, TincNetwork)
    return network


class Recursion(nn.Module):
    """The same parameters, one Python call per node."""

    def __init__(self, volume: CompressedVolume) -> None:
        super().__init__()
        self.network, self.tree = network_of(volume), volume.tree
        tensors = volume._decoders[0].layers[0]._parameters.of(0, None, volume.tree.leaves)
        arrays = zip(self.network.arrays, tensors, strict=True)
        self.by_node = {}
        for array, values in arrays:
            for row, node in enumerate(array.nodes.tolist()):
                self.by_node.setdefault((array.level, node), []).append(nn.Parameter(values[row].clone()))

    def segment(self, hidden: torch.Tensor, level: int, node: int) -> torch.Tensor:
        parameters = self.by_node[level, node]
        for index in range(0, len(parameters), 2):
            hidden = torch.addmm(parameters[index + 1], parameters[index], hidden)
            if not (level == self.tree.depth and index == len(parameters) - 2):
                hidden = torch.sin(hidden)
        return hidden

    def path(self, hidden: torch.Tensor, leaf: int) -> torch.Tensor:
        for level in range(self.tree.depth + 1):
            hidden = self.segment(hidden, level, leaf * self.tree.nodes(level) // self.tree.leaves)
        return hidden

    def forward(self, coordinates: torch.Tensor, level: int = 0, node: int = 0) -> list[torch.Tensor]:
        hidden = self.segment(coordinates, level, node)
        if level == self.tree.depth:
            return [hidden]
        children = self.tree.children(level)
        return [leaf for i in range(children) for leaf in self(hidden, level + 1, children * node + i)]


class Sines(TorchDispatchMode):
    """Count the numbers whose sine or cosine is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.overloadpacket in (torch.ops.aten.sin, torch.ops.aten.sin_, torch.ops.aten.cos):
            self.count += args[0].numel()
        return function(*args, **(kwargs or {}))


def roofline(name: str, work: Callable[[], object], seconds: float) -> None:
    """Print how near some work comes to what this machine can do: products of matrices, and sines, in its cache."""
    with FlopCounterMode(display=False) as products, Sines() as sines:
        work()
    side = 1024
    square, some = torch.rand(side, side), torch.rand(2**14)  # so few are left to one thread
    peak = 2 * side**3 / best_of(lambda: square @ square, 10)
    sine = best_of(lambda: torch.sin(some), 30) / some.numel() / torch.get_num_threads()
    least = [products.get_total_flops() / peak, sines.count * sine]
    print(f"  {name}: {products.get_total_flops() / seconds / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s; products need "
          f"{least[0] / seconds:.0%} of its time at the least, sines {least[1] / seconds:.0%}", flush=True)  # fmt: skip


def decoding(shape: tuple[int, ...], ratio: float) -> None:
    volume = synthetic(shape, ratio)
    voxels = np.prod(shape)
    ours = best_of(volume.decode)
    reference, tree = Recursion(volume), volume.tree
    grid = np.meshgrid(*tree.local_axes(), indexing="ij")
    coordinates = torch.from_numpy(np.stack([axis.ravel() for axis in grid]))
    # The authors decode batches of 262144 / leaves coordinates.
    batch = max(1, 262144 // tree.leaves)

    def shared() -> None:
        """Every node once per batch, as the authors do."""
        with torch.inference_mode():
            for start in range(0, coordinates.shape[1], batch):
                torch.cat(reference(coordinates[:, start : start + batch])).clamp(0, 65535).to(torch.int32).numpy()

    def unshared() -> None:
        """Every leaf by its own path from the root."""
        with torch.inference_mode():
            for leaf in range(tree.leaves):
                reference.path(coordinates, leaf).clamp(0, 65535).to(torch.int32).numpy()

    widths = [int(level[0]) for level in network_of(volume).widths]
    print(f"decode {shape} at ratio {ratio:g}, {tree.depth + 1} levels of {widths}: {voxels / ours / 1e6:.2f} Mvoxel/s")
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # what decodes in other threads would not be counted
        roofline("decoding", volume.decode, ours)
    for name, function in (("node by node", shared), ("leaf by leaf", unshared)):
        theirs = best_of(function, 1)
        print(f"  {name}: {voxels / theirs / 1e6:.2f} Mvoxel/s, ours {theirs / ours:.1f} times faster", flush=True)


def plane(shape: tuple[int, ...], ratio: float) -> None:
    volume = synthetic(shape, ratio)
    volume.decode((0,))
    seconds = best_of(lambda: volume.decode((shape[0] // 2,)), 5)
    print(f"one {shape[1]}x{shape[2]} plane of {shape} at ratio {ratio:g}: {seconds * 1000:.0f} ms")
    with tempfile.NamedTemporaryFile(suffix=".tinc") as file:
        Path(file.name).write_bytes(volume.to_bytes())
        print(f"open that file: {best_of(lambda: CompressedVolume.open(file.name).octants, 5) * 1000:.1f} ms")


def level_curve(shape: tuple[int, ...], ratio: float) -> None:
    for levels in range(1, 5):
        volume = synthetic(shape, ratio, levels)
        seconds = best_of(volume.decode, 2)
        voxels = int(np.prod(shape))
        widths = [int(level[0]) for level in network_of(volume).widths]
        print(f"decode {shape} at ratio {ratio:g} with {levels} level(s), widths {widths}, "
              f"{network_of(volume).parameters} parameters: {voxels / seconds / 1e6:.2f} Mvoxel/s")  # fmt: skip


def training(shape: tuple[int, ...], ratio: float, points: int) -> None:
    volume = synthetic(shape, ratio, 3)
    network, tree = network_of(volume), volume.tree
    parameters = [torch.nn.Parameter(p.clone()) for p in network.initial(torch.Generator().manual_seed(0))]
    optimiser = torch.optim.Adam(parameters, fused=True)
    reference = Recursion(volume)
    nodes = [torch.optim.Adam(node) for node in reference.by_node.values()]
    coordinates, target = torch.rand(3, points) * 2 - 1, torch.rand(tree.leaves, points)

    def batched() -> None:
        loss = (network.evaluate(parameters, coordinates) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def recursed() -> None:
        leaves = reference(coordinates)
        loss = sum(((leaf[0] - values) ** 2).mean() for leaf, values in zip(leaves, target, strict=True))
        for node in nodes:
            node.zero_grad()
        loss.backward()
        for node in nodes:
            node.step()

    ours, theirs = (best_of(lambda f=f: [f() for _ in range(10)]) / 10 for f in (batched, recursed))
    widths = [int(level[0]) for level in network.widths]
    print(f"training step, 3 levels of {widths}, {points} points in {tree.leaves} leaves: {ours * 1000:.1f} ms; "
          f"per-node recursion {theirs * 1000:.1f} ms: {theirs / ours:.1f} times faster")  # fmt: skip
    roofline("a step", batched, ours)


PEAK = """
import re, sys
from napari_tinc import CompressedVolume
volume = CompressedVolume.open(sys.argv[1])
volume.decode((0,))
open("/proc/self/clear_refs", "w").write("5")
status = lambda name: int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = status("VmRSS")
array = volume.decode()
print((status("VmHWM") - before) / array.nbytes)
"""


def peak_memory(shape: tuple[int, ...], ratio: float) -> None:
    """Peak resident memory of a decode above what the process held before, in a process of its own (Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.tinc"
        synthetic(shape, ratio).save(path)
        output = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
        print(f"peak memory of decoding {shape}: {float(output.stdout):.2f} times the decoded array, itself included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shrink", type=int, default=1, help="divide all sides by this")
    shrink = parser.parse_args().shrink
    cubes = {side: (side // shrink,) * 3 for side in (64, 128, 256)}
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    decoding(cubes[256], 128)
    plane((64 // shrink, 512 // shrink, 512 // shrink), 128)
    level_curve(cubes[128], 64)
    training(cubes[64], 64, 256)
    training(cubes[128], 64, 1024)
    peak_memory(cubes[256], 128)
