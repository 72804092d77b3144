"""One compression, top to bottom: read, normalise, plan the tree, allocate, train, quantise, code, measure, frame."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc import format as frames
from napari_tinc import segments
from napari_tinc.core import allocation, entropy, metrics, quantization
from napari_tinc.core.decoder import Decoder
from napari_tinc.core.device import resolve_device
from napari_tinc.core.metadata import LEADING, Metadata
from napari_tinc.core.models.tinc import TincNetwork
from napari_tinc.core.octree import Octree, choose_splits
from napari_tinc.core.quantization import Codes
from napari_tinc.core.training import Progress, Schedule, Trainer, TrainingData
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.inputs import check_volume
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.generic]
Steps = Generator[Progress, None, CompressedVolume]

# Optimiser steps for a volume of 2**18 voxels; see _schedule for others.
PRESETS = {"fast": 1000, "balanced": 4000, "best": 20000}
_REFERENCE_VOXELS = 2**18
_VOXELS_PER_STEP = 2**14
# Found to win at equal bytes: docs/quantization.md shows the curve.
BITS_PER_PARAMETER = 6.2
_PEAK_RATE, _RATE_PER_WIDTH = 0.05, 1.2
_OMEGA_PER_VOXEL = 0.5
# Coder byte and the range coder's last words.
_SEGMENT_OVERHEAD = 7
_PROVENANCE_SLACK = 4
_FILL = 0.985
# Squares of a larger range overflow.
_LARGEST_RANGE = 1e150
# Standard deviation over range that the coarsest scale code stands for.
_LEAST_DEVIATION = 2 ** (-255 / 16)
_PSNR_RUNS, _PSNR_SLACK, _DB_PER_OCTAVE = 7, 0.25, 3.0


@dataclass(frozen=True)
class Settings:
    """How to compress; see :func:`compress_steps` for the meaning of every field."""

    preset: str = "balanced"
    between: str | tuple[float, ...] = "auto"
    within: str = "equal"
    levels: int | None = None
    device: str = "auto"
    seed: int = 0
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"expected a preset among {tuple(PRESETS)}, got {self.preset!r}")
        if isinstance(self.between, str) and self.between not in allocation.BETWEEN:
            raise InputError(f"expected a strategy between levels among {allocation.BETWEEN}, got {self.between!r}")
        if self.within not in allocation.WITHIN:
            raise InputError(f"expected a strategy within a level among {allocation.WITHIN}, got {self.within!r}")
        if self.levels is not None and not 1 <= self.levels <= allocation.MAX_DEPTH + 1:
            raise InputError(f"expected 1 to {allocation.MAX_DEPTH + 1} levels, got {self.levels}")
        if self.time_limit is not None and not self.time_limit > 0:
            raise InputError(f"expected a time limit above 0 seconds, got {self.time_limit}")


def compress(
    array: Array,
    target: Target,
    *,
    metadata: Metadata | None = None,
    preset: str = "balanced",
    between: str | Sequence[float] = "auto",
    within: str = "equal",
    weights: Array | None = None,
    levels: int | None = None,
    device: str = "auto",
    seed: int = 0,
    time_limit: float | None = None,
) -> CompressedVolume:
    """Compress a volume; wait until it is done. See :func:`compress_steps`."""
    steps = compress_steps(
        array, target, metadata=metadata, preset=preset, between=between, within=within, weights=weights,
        levels=levels, device=device, seed=seed, time_limit=time_limit,
    )  # fmt: skip
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            assert isinstance(stop.value, CompressedVolume)
            return stop.value


def compress_steps(
    array: Array,
    target: Target,
    *,
    metadata: Metadata | None = None,
    preset: str = "balanced",
    between: str | Sequence[float] = "auto",
    within: str = "equal",
    weights: Array | None = None,
    levels: int | None = None,
    device: str = "auto",
    seed: int = 0,
    time_limit: float | None = None,
    finish: Callable[[], bool] | None = None,
) -> Steps:
    """Compress a volume step by step. Closing the generator at any yield cancels and leaves nothing behind.

    Parameters
    ----------
    array : ndarray
        2-D or 3-D image, possibly with channel and time axes; an integer of up to 32 bits or a float.
    target : Target
        Size of the file, or PSNR to reach.
    metadata : Metadata, optional
        Axes, voxel size, names; by default ``Metadata.default(array.ndim)``.
    preset : str
        ``"fast"``, ``"balanced"`` or ``"best"``: 1, 4 or 20 units of training.
    between : str or sequence of float
        Allocation between levels, see :func:`napari_tinc.core.allocation.level_ratios`.
    within : str
        Allocation within a level, see :func:`napari_tinc.core.allocation.leaf_measure`.
    weights : ndarray, optional
        Weight of every voxel in the loss, of the array's or its spatial shape; not negative. With ``within="map"``
        it also steers the allocation.
    levels : int, optional
        Levels of the tree, root included; by default as many as leave the leaves wide enough to learn.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    seed : int
        Same seed, device and number of threads: same bytes (unless a time limit is given).
    time_limit : float, optional
        Seconds that training may take at most; the schedule is shortened to fit.
    finish : callable, optional
        Asked before every step of training; once it says yes, what was learnt so far becomes the result.

    Yields
    ------
    Progress

    Returns
    -------
    CompressedVolume
        Its size is at most the budget.

    Raises
    ------
    InputError
        If the volume or a setting cannot be used.
    BudgetError
        If the budget is too small, or the PSNR out of reach.
    TrainingError
        If training fails.
    """
    between = between if isinstance(between, str) else tuple(between)
    settings = Settings(preset, between, within, levels, device, seed, time_limit)
    metadata = metadata or Metadata.default(array.ndim)
    check_volume(array, metadata)
    yield _unmeasured("preparing", 0, 1)
    job = _Job.prepare(array, metadata, weights, settings)
    job.finish = finish
    if all(minimum == maximum for minimum, maximum in job.limits):
        return job.constant()
    if target.kind == "psnr":
        return (yield from _reach(job, target.value))
    return (yield from job.run(target.budget(array.nbytes, array.size)))


def _reach(job: _Job, psnr: float) -> Steps:
    """Find the smallest file that reaches a PSNR: PSNR grows almost linearly with the logarithm of the bytes."""
    nbytes = job.items.nbytes
    tried: list[tuple[float, float]] = []
    best: CompressedVolume | None = None
    smallest = job.smallest_budget()
    if smallest >= nbytes:
        raise BudgetError(f"expected a volume of more than {smallest} bytes, the smallest possible file, got {nbytes}")
    log_bytes, largest = math.log2(nbytes / 64), math.log2(max(nbytes / 2, smallest))
    for _ in range(_PSNR_RUNS):
        log_bytes = min(max(log_bytes, math.log2(smallest)), largest)
        result = yield from job.run(max(smallest, int(2**log_bytes)))
        reached = float(result.provenance["psnr"])
        logger.info("%d bytes reach %.2f dB of %.2f", result.nbytes, reached, psnr)
        tried.append((log_bytes, reached))
        if reached >= psnr and (best is None or result.nbytes < best.nbytes):
            best = result
        if job.finish is not None and job.finish():
            return best or result
        if psnr <= reached <= psnr + _PSNR_SLACK:
            break
        proposal = _next_size(tried, psnr + _PSNR_SLACK / 2)
        if abs(proposal - log_bytes) < 0.01 or (log_bytes == largest and reached < psnr):
            break
        log_bytes = proposal
    if best is None:
        most = max(reached for _, reached in tried)
        raise BudgetError(f"expected to reach {psnr:.2f} dB, got {most:.2f} dB at best: lower it or take preset 'best'")
    return best


def _next_size(tried: list[tuple[float, float]], psnr: float) -> float:
    """Propose log2 bytes: interpolate between the nearest tries on both sides, else extrapolate."""
    below = [t for t in tried if t[1] < psnr]
    above = [t for t in tried if t[1] >= psnr]
    if below and above:
        (b0, p0), (b1, p1) = max(below, key=lambda t: t[1]), min(above, key=lambda t: t[1])
        return b0 + (b1 - b0) * float(np.clip((psnr - p0) / max(p1 - p0, 1e-6), 0.1, 0.9))
    last, reached = tried[-1]
    return last + float(np.clip((psnr - reached) / _DB_PER_OCTAVE, -3, 3))


@dataclass
class _Job:
    """One volume with its settings, ready to be compressed to any budget."""

    items: Array  # (items, *spatial)
    shape: tuple[int, ...]
    metadata: Metadata
    settings: Settings
    weights: Array | None  # (items or 1, *spatial)
    limits: list[tuple[int | float, int | float]]
    moments: list[tuple[float, float]]  # mean and standard deviation
    finish: Callable[[], bool] | None = None

    @classmethod
    def prepare(cls, array: Array, metadata: Metadata, weights: Array | None, settings: Settings) -> _Job:
        items = _items_first(array, metadata.axes)
        limits = [(item.min().item(), item.max().item()) for item in items]
        if not all(float(high) - float(low) < _LARGEST_RANGE for low, high in limits):
            raise InputError(f"expected a range below {_LARGEST_RANGE:g}, got {limits}: rescale the volume")
        moments = [(float(item.mean(dtype=np.float64)), float(item.std(dtype=np.float64))) for item in items]
        checked = None if weights is None else _check_weights(weights, array.shape, items, metadata.axes)
        return cls(items, array.shape, metadata, settings, checked, limits, moments)

    @property
    def value_range(self) -> float:
        """Maximum minus minimum over the whole array."""
        return float(max(high for _, high in self.limits)) - float(min(low for low, _ in self.limits))

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.items.shape[1:]

    def constant(self) -> CompressedVolume:
        """Frame a volume whose every item has one value: exact, without parameters."""
        ranges = tuple(frames.ItemRange(low, high, 0, 0) for low, high in self.limits)
        provenance: dict[str, str | int | float | bool] = {"version": _version(), "psnr": "inf"}
        header = self._header(ranges, (), frames.MODEL_CONSTANT, b"", "even", provenance)
        return CompressedVolume(frames.pack(frames.Frame(header, ())), self.settings.device)

    def smallest_budget(self) -> int:
        """Bytes of the smallest file that this volume can become with the levels asked for."""
        tree = Octree(self.spatial, self._splits((self.settings.levels or 1) - 1))
        network = self._smallest_network(tree)
        overhead = self._overhead(tree, network, "even")
        return overhead + math.ceil(network.parameters * BITS_PER_PARAMETER / 8)

    def _smallest_network(self, tree: Octree) -> TincNetwork:
        nodes = [len(self.items) * tree.nodes(level) for level in range(tree.depth + 1)]
        layers = allocation.default_layers(tree.depth) if tree.depth else (2,)
        return TincNetwork.on_tree(tree, layers, [np.full(count, 4) for count in nodes])

    def _splits(self, depth: int) -> tuple[tuple[bool, ...], ...]:
        """Split the volume; a depth that the user asked for must be possible."""
        splits = choose_splits(self.spatial, depth)
        if len(splits) < depth and self.settings.levels is not None:
            raise InputError(
                f"expected at most {len(splits) + 1} levels for a volume of {self.spatial}, got {depth + 1}"
            )
        return splits

    def run(self, budget: int) -> Steps:
        """Compress to at most ``budget`` bytes."""
        smallest = self.smallest_budget()
        if budget < smallest:
            raise BudgetError(f"expected a budget of at least {smallest} bytes for this volume, got {budget}")
        yield _unmeasured("preparing", 0, 1)
        allocated, between = self._allocate(budget)
        yield _unmeasured("preparing", 0, 1)
        tree, network = allocated.tree, allocated.network
        bits = 8.0 * (budget - self._overhead(tree, network, between))
        device = resolve_device(self.settings.device)
        generator = torch.Generator().manual_seed(self.settings.seed)
        ranges = self._ranges()
        data = self._training_data(tree, ranges, device)
        omega = [_OMEGA_PER_VOXEL * side for side in tree.leaf_shape]
        initial = [p.to(device) for p in network.initial(omega, generator)]
        trainer = Trainer(network, initial, data, self._schedule(tree, network), bits, generator, self.finish)
        trainer.decode = self._live(tree, network, between, trainer).decode
        parameters, codes = yield from trainer.run()
        del data
        draft = _Draft(self, allocated, between, ranges, parameters, codes, trainer)
        return (yield from draft.finish(budget, bits))

    def _live(self, tree: Octree, network: TincNetwork, between: str, trainer: Trainer) -> CompressedVolume:
        """Return a volume without quality or coded bytes that decodes the weights as training has left them."""
        volume = CompressedVolume(frames.pack(self._placeholder(tree, network, between)), self.settings.device)
        volume._decoder = Decoder.live(trainer.layout, tree, trainer.state.parameters)
        return volume

    def _allocate(self, budget: int) -> tuple[allocation.Allocation, str]:
        """Plan the tree, measure the volume, spread the parameters."""
        settings, count = self.settings, len(self.items)
        whole = Octree(self.spatial)
        rough = 8.0 * (budget - self._overhead(whole, self._smallest_network(whole), "even"))
        parameters = max(16.0, rough) / BITS_PER_PARAMETER
        measured = [allocation.global_consistency(item, choose_splits(self.spatial, 1)) for item in self.items]
        known = [value for value in measured if value is not None]
        consistency = float(np.mean(known)) if known else None
        between = settings.between if isinstance(settings.between, str) else "ratios"
        between = allocation.resolve_auto(consistency) if between == "auto" else between
        if settings.levels is not None:
            depth = settings.levels - 1
        elif isinstance(settings.between, str):
            depth = allocation.choose_depth(self.spatial, count, parameters, between)
        else:
            depth = len(settings.between) - 1
        splits = self._splits(depth)
        tree = Octree(self.spatial, splits)
        ratios = allocation.level_ratios(between if between != "ratios" else settings.between, tree.depth + 1)
        weights = [None if self.weights is None else self.weights[i % len(self.weights)] for i in range(count)]
        measure = np.concatenate([
            allocation.leaf_measure(item, tree, settings.within, weight)
            for item, weight in zip(self.items, weights, strict=True)
        ])
        layers = allocation.default_layers(tree.depth)
        spent = 8.0 * (budget - self._overhead(tree, None, between)) / BITS_PER_PARAMETER
        network = allocation.allocate(tree, measure, count, max(spent, 1.0), ratios, layers)
        return allocation.Allocation(tree, network, ratios, consistency), between

    def _ranges(self) -> tuple[frames.ItemRange, ...]:
        """Value range and normalisation of every item: mean 0, standard deviation 1, to the codes' precision."""
        ranges = []
        for (low, high), (mean, deviation) in zip(self.limits, self.moments, strict=True):
            span = float(high) - float(low)
            offset = round(65535 * (mean - low) / span) if span else 0
            scale = round(-16 * math.log2(max(deviation / span, _LEAST_DEVIATION))) if span else 0
            ranges.append(frames.ItemRange(low, high, offset, min(max(scale, 0), 255)))
        return tuple(ranges)

    def _training_data(self, tree: Octree, ranges: tuple[frames.ItemRange, ...], device: torch.device) -> TrainingData:
        rows, offsets = [], []
        for item, limits in zip(self.items, ranges, strict=True):
            span = float(limits.maximum) - float(limits.minimum)
            scale = span * 2 ** (-limits.scale_code / 16) or 1.0
            offset = limits.minimum + limits.offset_code / 65535 * span
            rows.append(((tree.to_leaves(item).astype(np.float64) - offset) / scale).astype(np.float32))
            offsets.append(20 * math.log10(self.value_range / scale) if span else math.inf)
        values = torch.from_numpy(np.ascontiguousarray(np.concatenate(rows).T)).to(device)
        grid = np.meshgrid(*tree.local_axes(), indexing="ij")
        coordinates = torch.from_numpy(np.stack([axis.ravel() for axis in grid])).to(device)
        weights = self._loss_weights(tree)
        on_device = None if weights is None else weights.to(device)
        return TrainingData(coordinates, values, on_device, len(self.items), np.array(offsets))

    def _loss_weights(self, tree: Octree) -> Tensor | None:
        """Weight of every voxel of every leaf, padding 0, mean 1; ``None`` if all weigh the same."""
        valid = tree.valid()
        if self.weights is None and valid is None:
            return None
        inside = np.ones((tree.leaves, math.prod(tree.leaf_shape)), np.float32) if valid is None else valid
        sources: list[Array | None] = [None] if self.weights is None else list(self.weights)
        rows = [inside if w is None else inside * tree.to_leaves(w) for w in sources]
        stacked = np.concatenate(rows * (len(self.items) // len(rows))).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray((stacked / stacked.mean()).T))

    def _schedule(self, tree: Octree, network: TincNetwork) -> Schedule:
        """Steps and batch both grow with the square root of the volume, so the cost per voxel stays the same."""
        growth = math.sqrt(max(1.0, self.items.size / _REFERENCE_VOXELS))
        points = max(64, round(_VOXELS_PER_STEP * growth / (tree.leaves * len(self.items))))
        widest = max(int(level.max()) for level in network.widths)
        rate = min(_PEAK_RATE, _RATE_PER_WIDTH / widest)
        return Schedule(round(PRESETS[self.settings.preset] * growth), points, rate, self.settings.time_limit)

    def _header(
        self,
        ranges: tuple[frames.ItemRange, ...],
        splits: tuple[tuple[bool, ...], ...],
        model: int,
        plan: bytes,
        between: str,
        provenance: dict[str, str | int | float | bool],
    ) -> frames.Header:
        return frames.Header(
            shape=self.shape, dtype=self.items.dtype.str[1:], metadata=self.metadata, items=ranges, splits=splits,
            model=model, plan=plan, between=_BETWEEN_CODES.index(between),
            within=allocation.WITHIN.index(self.settings.within), provenance=provenance,
        )  # fmt: skip

    def _frame(
        self,
        tree: Octree,
        network: TincNetwork,
        between: str,
        provenance: dict[str, str | int | float | bool],
        quality: list[bytes],
        payloads: dict[tuple[int, int], bytes],
    ) -> frames.Frame:
        plan = segments.pack_plan(network)
        header = self._header(self._ranges(), tree.splits, frames.MODEL_TINC, plan, between, provenance)
        parts = [frames.Segment(frames.KIND_QUALITY, i, 0, payload) for i, payload in enumerate(quality)]
        for (item, level), payload in sorted(payloads.items(), key=lambda entry: entry[0][::-1]):
            parts.append(frames.Segment(frames.KIND_PARAMETERS, item, level, payload))
        return frames.Frame(header, tuple(parts))

    def provenance(self, psnr: float, consistency: float | None) -> dict[str, str | int | float | bool]:
        """What the file says about its making."""
        made: dict[str, str | int | float | bool] = {
            "version": _version(),
            "preset": self.settings.preset,
            "seed": self.settings.seed,
            "psnr": round(psnr, 2) if math.isfinite(psnr) else "inf",
        }
        if consistency is not None:
            made["consistency"] = round(consistency, 2)
        return made

    def _overhead(self, tree: Octree, network: TincNetwork | None, between: str) -> int:
        """Bytes of a file on this tree besides its coded symbols."""
        network = network or TincNetwork.on_tree(
            tree, [1] * (tree.depth + 1), [np.full(len(self.items) * tree.nodes(k), 8) for k in range(tree.depth + 1)]
        )
        levels, count = range(tree.depth + 1), len(self.items)
        frame = self._placeholder(tree, network, between)
        return len(frames.pack(frame)) + _PROVENANCE_SLACK + 2 * count * len(levels)

    def _placeholder(self, tree: Octree, network: TincNetwork, between: str) -> frames.Frame:
        """Frame of a file without a single symbol."""
        items, levels = range(len(self.items)), range(tree.depth + 1)
        payloads = {(item, level): bytes(_SEGMENT_OVERHEAD) for item in items for level in levels}
        quality = [bytes(2 * tree.leaves)] * len(self.items)
        return self._frame(tree, network, between, self.provenance(88.88, 0.88), quality, payloads)


@dataclass
class _Draft:
    """Trained parameters on their way into a frame."""

    job: _Job
    allocated: allocation.Allocation
    between: str
    ranges: tuple[frames.ItemRange, ...]
    parameters: list[Tensor]
    codes: Codes
    trainer: Trainer

    def finish(self, budget: int, bits: float) -> Steps:
        """Fill the budget, measure what the file decodes to, and frame it."""
        payloads = self._fill(budget, bits)
        leaves, count = self.allocated.tree.leaves, len(self.job.items)
        unmeasured = self._volume(0.0, [bytes(2 * leaves)] * count, payloads)
        psnr, quality = yield from measure(unmeasured, self.job.items, self.job.value_range)
        result = self._volume(psnr, quality, payloads)
        if result.nbytes > budget:
            raise BudgetError(f"expected at most {budget} bytes, got {result.nbytes}: please report this as a bug")
        return result

    def _volume(self, psnr: float, quality: list[bytes], payloads: dict[tuple[int, int], bytes]) -> CompressedVolume:
        return CompressedVolume(self._pack(psnr, quality, payloads), self.job.settings.device)

    def _pack(self, psnr: float, quality: list[bytes], payloads: dict[tuple[int, int], bytes]) -> bytes:
        provenance = self.job.provenance(psnr, self.allocated.consistency)
        tree, network = self.allocated.tree, self.allocated.network
        return frames.pack(self.job._frame(tree, network, self.between, provenance, quality, payloads))

    def _fill(self, budget: int, bits: float) -> dict[tuple[int, int], bytes]:
        """Code the symbols; move the steps a little until the file fits and leaves little unused."""
        room = budget - _PROVENANCE_SLACK
        layout, coder = self.trainer.layout, entropy.default_coder()
        sensitivities = self.trainer.sensitivities
        assert sensitivities is not None
        codes, best, best_size, best_codes = self.codes, None, -1, self.codes
        for _ in range(8):
            payloads = segments.pack_parameters(layout, self.parameters, codes, coder)
            size = self._size(payloads)
            if best_size < size <= room:
                best, best_size, best_codes = payloads, size, codes
            if _FILL * budget <= size <= room:
                break
            bits += 8 * (0.995 * room - size)
            codes, _ = quantization.fit_steps(layout, self.parameters, sensitivities, bits)
        if best is None:
            raise BudgetError(f"the parameters do not fit in {budget} bytes even coarsely rounded: raise the budget")
        for tensor in np.argwhere(best_codes > 0):  # a small file has few tensors: refine them one by one
            if best_size >= _FILL * budget:
                break
            codes = best_codes.copy()
            codes[tuple(tensor)] -= 1
            payloads = segments.pack_parameters(layout, self.parameters, codes, coder)
            if best_size < (size := self._size(payloads)) <= room:
                best, best_size, best_codes = payloads, size, codes
        return best

    def _size(self, payloads: dict[tuple[int, int], bytes]) -> int:
        """Bytes of the file, before its quality is known."""
        return len(self._pack(88.88, [bytes(2 * self.allocated.tree.leaves)] * len(self.job.items), payloads))


def measure(
    volume: CompressedVolume, items: Array, value_range: float
) -> Generator[Progress, None, tuple[float, list[bytes]]]:
    """Decode a compressed volume slab by slab and compare it with the original; yield after every slab.

    Returns
    -------
    psnr : float
        Over the whole array's own range, in dB.
    quality : list of bytes
        Quality segment of every item, see :func:`napari_tinc.segments.pack_quality`.
    """
    tree = volume.tree
    edges = tree.edges(tree.depth)
    order = tuple(tree.grid_index(tree.depth).T)
    squared, quality = 0.0, []
    for index, (item, limits) in enumerate(zip(items, volume.header.items, strict=True)):
        grids = []
        slabs = list(pairwise(edges[0].tolist()))
        for number, (start, stop) in enumerate(slabs):
            yield _unmeasured("measuring", index * len(slabs) + number, len(items) * len(slabs))
            decoded = volume.decode_item(index, (slice(start, stop),))
            local = (np.array([0, stop - start]), *edges[1:])
            grids.append(metrics.octant_errors(item[start:stop], decoded, local))
        mse = np.concatenate([grid.mse for grid in grids])
        largest = np.concatenate([grid.max_error for grid in grids])
        voxels = np.concatenate([grid.voxels for grid in grids])
        squared += float((mse * voxels).sum())
        span = float(limits.maximum) - float(limits.minimum)
        psnr = metrics.psnr_from_mse(mse, span)[order]
        with np.errstate(divide="ignore", invalid="ignore"):
            peak = -20 * np.log10(largest / span)[order] if span else np.full(tree.leaves, np.inf)
        quality.append(segments.pack_quality(psnr, peak))
    return float(metrics.psnr_from_mse(squared / items.size, value_range)), quality


_BETWEEN_CODES = ("even", "shallow", "deep", "ratios")


def _unmeasured(phase: str, step: int, steps: int) -> Progress:
    """Progress of a phase that knows neither loss nor time."""
    return Progress(phase, step, steps, math.nan, math.nan, math.nan, math.nan, math.nan)


def _version() -> str:
    try:
        return version("napari-tinc")
    except PackageNotFoundError:
        return "unknown"


def _items_first(array: Array, axes: str) -> Array:
    """View an array as (items, *spatial)."""
    leading = [i for i, axis in enumerate(axes) if axis in LEADING]
    spatial = [i for i, axis in enumerate(axes) if axis not in LEADING]
    ordered = array.transpose(leading + spatial)
    return ordered.reshape(-1, *(array.shape[i] for i in spatial))


def _check_weights(weights: Array, shape: tuple[int, ...], items: Array, axes: str) -> Array:
    """Bring weights to (items or 1, *spatial) or say what is wrong with them."""
    if weights.shape == shape:
        arranged = _items_first(weights, axes)
    elif weights.shape == items.shape[1:]:
        arranged = weights[None]
    else:
        raise InputError(f"expected weights of shape {shape} or {items.shape[1:]}, got {weights.shape}")
    if not np.isfinite(arranged).all() or (arranged < 0).any() or not (arranged > 0).any():
        raise InputError("expected weights that are finite, not negative and not all 0: mark what matters with 1")
    return arranged.astype(np.float32)


__all__ = ["PRESETS", "Progress", "Settings", "Target", "compress", "compress_steps", "measure"]
