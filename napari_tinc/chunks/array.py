"""One array, from plan to finished Zarr: find the step, code all shards, correct once, write the manifest.

Everything is made in a folder beside the output that has its name plus ``.unfinished``. A task leaves a shard and then
a note of what it has lost; whoever starts again does what has no note. So it may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_tinc.arrays.inputs import check_dtype, check_not_labels
from napari_tinc.chunks.codec import TincCodec
from napari_tinc.chunks.engine import Engine, Threads
from napari_tinc.chunks.frames import SETTINGS
from napari_tinc.chunks.grid import Grid, grid_of
from napari_tinc.chunks.image import Image, copy_labels
from napari_tinc.chunks.manifest import KEY, UNFINISHED, Manifest, read_manifest, totals, write_chunk_facts, write_facts
from napari_tinc.chunks.shards import (
    FIELDS,
    Coding,
    Level,
    Stats,
    halved_axes,
    probe_chunk,
    write_file,
    write_shard,
    writing,
)
from napari_tinc.encode.framing import software_version
from napari_tinc.errors import BudgetError, InputError
from napari_tinc.measures.metrics import otsu_threshold
from napari_tinc.progress import Progress
from napari_tinc.settings import Settings
from napari_tinc.system.output import check_output, folder_size, is_zarr, publish_folder
from napari_tinc.target import Target

Steps = Generator[Progress, None, Manifest]

_STATE = ".napari-tinc"
# Chunks that the step is found with: one in so many, but no fewer and no more than these.
_SAMPLED, _FEWEST, _MOST = 24, 24, 128
_FIRST_SAMPLED = 4
_TRIES, _CLOSE = 6, 0.004
# How far the whole may be off before all is coded once more; and how often, where it must not be above.
_TOLERANCE, _PASSES = 0.02, 4
_MARGIN = 0.01
_REMEMBERED = 500  # shards whose PSNR is shown
# Octaves of bytes per octave of the step, to begin with, and at most.
_SLOPE, _STEEPEST = -1.0, -0.3
# Bytes of what is not a chunk, to begin with: metadata, and what is known of every chunk.
_METADATA, _PER_CHUNK = 8192, 40
_INDENTED = 1024  # spaces with which zarr indents what is known of the array
_HEAD = 90  # of a frame of one octant


@dataclass(frozen=True)
class Options:
    """How an array is compressed.

    Parameters
    ----------
    target : Target
        A ratio or a size of everything on the disk, a step, or the largest error of every voxel of every level.
    settings : Settings
        Where they ask for networks, these are trained for every chunk and take as many bytes as wavelets would.
    chunk, shard : int, optional
        Voxels a side, see :func:`napari_tinc.chunks.grid.grid_of`.
    strict : bool
        Whether it must never be larger than the target; otherwise it may be off by 2 %.
    overwrite : bool
        Whether a finished array of ours may be replaced.
    force : bool
        Whether what looks like a label image is compressed nevertheless.
    """

    target: Target
    settings: Settings = SETTINGS
    chunk: int | None = None
    shard: int | None = None
    strict: bool = False
    overwrite: bool = False
    force: bool = False


def compress_array(image: Image, output: Path, options: Options, engine: Engine | None = None, name: str = "") -> Steps:
    """Compress an image into an OME-Zarr 0.5 whose chunks are frames; go on where an earlier run has ended.

    Parameters
    ----------
    image : Image
    output : Path
        Ends in ``.zarr``.
    options : Options
    engine : Engine, optional
        By default threads of this process.
    name : str
        Of the source; another one is not gone on with.

    Yields
    ------
    Progress

    Returns
    -------
    Manifest

    Raises
    ------
    InputError
        If the image or the output cannot be used, or what an earlier run has left was for another job.
    BudgetError
        If the target is out of reach.
    """
    engine = engine or Threads()
    check_array_output(output, options.overwrite)
    check_dtype(image.dtype)
    if options.target.kind in ("psnr", "ssim"):
        raise InputError(
            f"expected a ratio, a size, a step or a largest error for an array, got {options.target.kind.upper()}; "
            "a step gives one fidelity"
        )
    if options.target.kind == "max_error":
        options.settings.check_no_networks("a largest error")
    folder = output.with_name(output.name + UNFINISHED)
    grids = [grid_of(shape, image.axes, options.chunk, options.shard) for shape in image.shapes]
    with writing(folder):
        work = _Work.begun(folder, image, grids, options, name)
        if work.finished is None:
            yield Progress.unmeasured("preparing", 0, 1, engine.note)
            yield from _fill(work, options, engine)
            if image.labels is not None:
                copy_labels(image.labels, folder)
            work.finish()
    publish_folder(folder, output, options.overwrite)
    manifest = read_manifest(output)
    assert manifest is not None
    return manifest


def check_array_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that is not a new name, or a finished array of ours that may be replaced.

    Raises
    ------
    InputError
    """
    if output.suffix.lower() != ".zarr":
        raise InputError(f"expected an output ending in .zarr, got {output.name}; rename it")
    check_output(output, overwrite)
    if output.exists() and read_manifest(output) is None:
        raise InputError(f"expected an array of napari-tinc to overwrite, got another Zarr at {output}; choose a name")


@dataclass
class _Work:
    """The folder in which an array is made, and what is known so far."""

    folder: Path
    image: Image
    grids: Sequence[Grid]
    job: dict[str, Any]
    coding: dict[str, float] = field(default_factory=dict)  # number of the pass, step, threshold, slope

    @classmethod
    def begun(cls, folder: Path, image: Image, grids: Sequence[Grid], options: Options, name: str) -> _Work:
        """Begin, or go on with what an earlier run has left.

        The array will tell nobody from where on the disk it was made: only a fingerprint of that is kept.
        """
        job = {
            "source": hashlib.sha256(name.encode()).hexdigest()[:16],
            "shape": list(image.shapes[0]),
            "levels": len(image.shapes),
            "dtype": str(image.dtype),
            "target": [options.target.kind, float(options.target.value)],
            "strict": options.strict,
            "chunk": list(grids[0].chunk),
            "shard": list(grids[0].shard),
            "version": software_version(),
            "settings": {key: value for key, value in asdict(options.settings).items() if key != "device"},
        }
        work = cls(folder, image, grids, json.loads(json.dumps(job)))
        if not folder.exists():
            work._create()
            return work
        found = work._found()
        if found is None and (folder / _STATE).is_dir():  # killed before it said what it is
            shutil.rmtree(folder)
            work._create()
        elif found is None or found.get("job") != work.job:
            raise InputError(
                f"expected what an earlier run of this command has left, got {folder.name} of another one; "
                "run that one again to finish it, or remove the folder"
            )
        else:
            work.coding = found.get("coding", {})
        return work

    @property
    def fidelity(self) -> Target:
        """What chunks are coded with: a step, or a largest error."""
        return Target("max_error" if self.job["target"][0] == "max_error" else "step", self.coding["step"])

    @property
    def _state(self) -> Path:
        return self.folder / _STATE / "job.json"

    def _found(self) -> dict[str, Any] | None:
        """Read what an earlier run says of its job, and what it has decided."""
        if self.finished is not None:
            return dict[str, Any](self.finished)
        try:
            found: dict[str, Any] = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return None
        return found

    @property
    def finished(self) -> dict[str, Any] | None:
        """The facts of an array that lacks only its name."""
        facts = zarr.open_group(self.folder, mode="r").attrs.get(KEY) if is_zarr(self.folder) else None
        return facts if isinstance(facts, dict) else None

    def _create(self) -> None:
        """Make the group, and the arrays of means."""
        (self.folder / _STATE).mkdir(parents=True)
        zarr.open_group(self.folder, mode="a", zarr_format=3).attrs.put(self.image.attributes)
        for number in range(len(self.image.levels), len(self.grids)):
            fine, shape = self.grids[number - 1], self.grids[number].shape
            halves = halved_axes(fine.shape, shape)
            chunk = tuple(-(-side // half) for side, half in zip(fine.shard, halves, strict=True))
            zarr.create_array(self._means(number), shape=shape, chunks=chunk, dtype=self.image.dtype, zarr_format=3)
        self._remember()

    def create_arrays(self) -> None:
        """Make the arrays of all levels, which say how chunks are coded."""
        for number, grid in enumerate(self.grids):
            zarr.create_array(
                self.folder / str(number), shape=grid.shape, chunks=grid.chunk, dtype=self.image.dtype, fill_value=0,
                shards=None if grid.shard == grid.chunk else grid.shard, compressors=None, filters=None,
                serializer=TincCodec(**{self.fidelity.kind: self.fidelity.value}, axes=self.image.axes),
                dimension_names=list(self.image.axes), overwrite=True,
            )  # fmt: skip

    def _remember(self) -> None:
        data = json.dumps({"job": self.job, "coding": self.coding}).encode()
        write_file(self._state, data, self._state.parent)

    def decide(self, **coding: float) -> None:
        """Remember a decision, so that whoever goes on takes the same one."""
        self.coding |= coding
        self._remember()

    def level(self, number: int) -> Level:
        """Return a resolution: from the source, or from the means of the finer one."""
        image, given = self.image, len(self.image.levels)
        source = image.levels[number] if number < given else zarr.open_array(self._means(number), mode="r")
        coarser = self._means(number + 1) if given <= number + 1 < len(image.shapes) else None
        folder, aside = str(self.folder / str(number)), str(self._state.parent)
        return Level(source, folder, self.grids[number], image.axes, aside, coarser)

    def _means(self, number: int) -> str:
        return str(self.folder / _STATE / f"means-{number}")

    def note(self, level: int, shard: int) -> Path:
        """Where a task notes what it has lost."""
        return (
            self.folder / _STATE / f"pass-{int(self.coding['number'])}" / str(level) / f"{shard // 1000}" / f"{shard}"
        )

    def noted(self, level: int, shard: int) -> Stats | None:
        """Return what an earlier run has noted of a shard."""
        try:
            return np.frombuffer(self.note(level, shard).read_bytes()).reshape(-1, len(FIELDS))
        except (OSError, ValueError):
            return None

    def stats(self, level: int) -> Stats:
        """Return what is known of all chunks of a level, shard after shard."""
        found = [self.noted(level, shard) for shard in range(self.grids[level].count)]
        return np.concatenate([one for one in found if one is not None])

    def size(self) -> int:
        """Bytes that the finished array will have."""
        facts = self._write_chunk_facts()
        written = folder_size(self.folder) - folder_size(self._state.parent)
        return written + len(json.dumps(facts, indent=2)) + _INDENTED

    def finish(self) -> None:
        """Write the manifest; then the notes may go."""
        write_facts(self.folder, self._write_chunk_facts())
        shutil.rmtree(self._state.parent)

    def _write_chunk_facts(self) -> dict[str, Any]:
        """Write what is known of all chunks; return what that makes of the whole."""
        stats = [self.stats(level) for level in range(len(self.grids))]
        write_chunk_facts(self.folder, self.grids, stats)
        return totals([stats[0]]) | {
            self.fidelity.kind: self.fidelity.value, "threshold": self.coding["threshold"], "levels": len(self.grids),
            "raw_bytes": self.image.nbytes, "chunk_bytes": int(sum(one[:, 0].sum() for one in stats)),
            "software": software_version(), "job": self.job,
        }  # fmt: skip


def _fill(work: _Work, options: Options, engine: Engine) -> Generator[Progress, None, None]:
    """Code all levels; once more with another step if the size is off."""
    budget = None
    if options.target.kind not in ("step", "max_error"):
        budget = options.target.budget(work.image.nbytes, work.image.voxels)
    if "number" not in work.coding:
        yield from _find_step(work, options, budget, engine)
        work.create_arrays()
    while True:
        for level in range(len(work.grids)):
            yield from _code_level(work, level, options, engine)
        if budget is None:
            return
        size, number = work.size(), int(work.coding["number"])
        off = size / budget - 1
        good = -_TOLERANCE <= off <= (0 if options.strict else _TOLERANCE)
        last = number == (_PASSES if options.strict else _PASSES // 2)
        if options.strict and off > 0 and last:
            raise BudgetError(f"expected at most {budget} bytes, got {size} in the end; lower the ratio")
        if good or last or (number > 1 and off <= 0):
            return
        aim = -_MARGIN * number if options.strict else 0.0
        octaves = (math.log2(1 + aim) - math.log2(1 + off)) / work.coding["slope"]
        work.decide(number=number + 1, step=work.coding["step"] * 2**octaves)
        work.create_arrays()


def _code_level(work: _Work, number: int, options: Options, engine: Engine) -> Generator[Progress, None, None]:
    """Code what has no note yet."""
    level, count = work.level(number), work.grids[number].count
    coding = Coding(work.fidelity, work.coding["threshold"], options.settings)
    noted = {shard: work.noted(number, shard) for shard in range(count)}
    known = [stats for stats in noted.values() if stats is not None]
    latest, nbytes = deque(known, _REMEMBERED), sum(float(stats[:, 0].sum()) for stats in known)
    done, before, began = len(known), len(known), time.monotonic()
    tasks = ((level, shard, coding, str(work.note(number, shard))) for shard in noted if noted[shard] is None)
    for _, stats in engine.run(write_shard, tasks):
        latest.append(stats)
        done, nbytes = done + 1, nbytes + float(stats[:, 0].sum())
        psnr, seconds = float(totals(list(latest))["psnr"]), time.monotonic() - began
        left = seconds * (count - done) / (done - before)
        note = f"level {number}: {nbytes / 1e6:.3f} MB" if done * 10 // count > (done - 1) * 10 // count else ""
        yield Progress("coding", done, count, math.nan, psnr, psnr, seconds, left, note=note)


def _find_step(work: _Work, options: Options, budget: int | None, engine: Engine) -> Generator[Progress, None, None]:
    """Find the step of the target from a sample of chunks, and where the foreground begins."""
    level, grid = work.level(0), work.grids[0]
    cells = list(_sample(grid))
    voxels = [level.read(grid.chunk_region(cell)).ravel()[::7] for cell in cells[:_FEWEST]]
    middle = level.read(grid.chunk_region(cells[len(cells) // 2]))
    if not options.force and middle.ndim >= 2:
        check_not_labels(middle)
    together = np.concatenate(voxels)
    varied = together[np.isfinite(together)] if together.dtype.kind == "f" else together
    threshold = otsu_threshold(varied) if varied.size and varied.min() < varied.max() else 0.0
    if budget is None:
        work.decide(number=1, step=options.target.value, threshold=threshold, slope=_SLOPE)
        return
    budget -= _METADATA + _PER_CHUNK * sum(math.prod(one.chunks) for one in work.grids)
    if budget <= 0:
        raise BudgetError(f"expected a target above what metadata takes, got {options.target.value:g}; lower the ratio")
    step = float(np.std(varied, dtype=np.float64)) / 2 or 1.0
    shapes = work.image.shapes
    halves = halved_axes(shapes[0], shapes[1]) if len(shapes) > 1 else None
    slope = _SLOPE
    some = cells[:: max(1, len(cells) // _FIRST_SAMPLED)]
    tried: dict[float, float] = {}
    for chosen in (some, cells):
        tried.clear()
        for _ in range(_TRIES):
            tasks = ((level, cell, halves, step) for cell in chosen)
            sizes = np.array([size for _, size in engine.run(probe_chunk, tasks)], np.float64)
            whole = sizes[:, 0].mean() * math.prod(grid.chunks)
            # Every level is to the finer one as the means of the sample are to the sample, but for the heads of frames.
            part = np.maximum(sizes - _HEAD, 0.0).sum(axis=0)
            tried[step] = max(1.0, sum(whole * (part[1] / max(part[0], 1.0)) ** n for n in range(len(shapes))))
            yield Progress.unmeasured("trying", len(tried), _TRIES)
            off = math.log2(tried[step] / budget)
            if abs(off) < _CLOSE:
                break
            if len(tried) > 1:
                (a, fa), (b, fb) = list(tried.items())[-2:]
                if a != b and fa != fb:
                    slope = min((math.log2(fb) - math.log2(fa)) / (math.log2(b) - math.log2(a)), _STEEPEST)
            step *= 2.0 ** max(-4.0, min(4.0, -off / slope))
    work.decide(number=1, step=step, threshold=threshold, slope=slope)


def _sample(grid: Grid) -> Iterator[tuple[int, ...]]:
    """Chunks spread evenly over the array, in an order that is the same for every run."""
    total = math.prod(grid.chunks)
    wanted = min(total, max(_FEWEST, min(total // _SAMPLED, _MOST)))
    generator = np.random.default_rng(0)
    bounds = np.linspace(0, total, wanted + 1).astype(np.int64)
    for first, last in pairwise(bounds.tolist()):
        number = int(generator.integers(first, last))
        yield tuple(int(i) for i in np.unravel_index(number, grid.chunks))


__all__ = ["Options", "check_array_output", "compress_array"]
