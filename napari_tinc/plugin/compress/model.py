"""What the compress widget knows: the form, the source, the state, the figures. No Qt, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from psygnal import Signal

from napari_tinc.arrays.inputs import AXIS_LETTERS, check_axes, check_dtype
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.encode.speeds import estimate
from napari_tinc.errors import BudgetError, InputError, TincError
from napari_tinc.format.least import least_bytes
from napari_tinc.plugin.compress.report import Report, duration_text, size_text
from napari_tinc.plugin.window.axes import guessed_axes, named_axes
from napari_tinc.settings import Settings
from napari_tinc.target import Target

TARGETS = {"ratio": 64.0, "bytes": 100.0, "bits_per_voxel": 0.25, "psnr": 40.0, "ssim": 0.98, "max_error": 10.0}
_BYTES_PER_KB = 1000
_LOOKED_AT = 8  # voxels per axis that tell whether a volume has different values
_UNKNOWN_UNITS = ("pixel", "dimensionless", "")


class State(StrEnum):
    """Where a compression stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    TRAINING = "training"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"


RUNNING = (State.PREPARING, State.TRAINING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class Form:
    """What the user has entered.

    Parameters
    ----------
    target_kind : str
        A key of :data:`TARGETS`.
    target_value : float
        In the unit of the kind; kilobytes for ``"bytes"``.
    preset, model, between, within, device : str
    mask_weight : float
        How many times as much as others the voxels marked in the importance layer count.
    axes : str
        One letter of ``tczyx`` per axis; empty: as the layer says.
    levels : int or None
        ``None``: chosen from the budget.
    seed : int
    time_limit : float or None
        Seconds.
    """

    target_kind: str = "ratio"
    target_value: float = TARGETS["ratio"]
    preset: str = "fast"
    model: str = "auto"
    between: str = "auto"
    within: str = "equal"
    device: str = "auto"
    mask_weight: float = 10.0
    axes: str = ""
    levels: int | None = None
    seed: int = 0
    time_limit: float | None = None

    @classmethod
    def of_target(cls, target: Target) -> Form:
        """Return a form that asks for a target, with everything else as it is at first."""
        factor = _BYTES_PER_KB if target.kind == "bytes" else 1
        return cls(target_kind=target.kind, target_value=target.value / factor)

    def target(self) -> Target:
        """Return what the compression aims at; raises InputError if the number is not positive."""
        factor = _BYTES_PER_KB if self.target_kind == "bytes" else 1
        return Target(self.target_kind, self.target_value * factor)

    def settings(self) -> Settings:
        """Return how to compress."""
        names = ("preset", "model", "between", "within", "device", "levels", "seed", "time_limit")
        return Settings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True)
class Source:
    """The volume of a layer: what is known without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    metadata: Metadata
    varied: bool = False  # whether it is known that not all voxels are equal

    @property
    def least(self) -> int:
        """Bytes that no file of it is smaller than."""
        return least_bytes(self.shape, self.dtype.str[1:], self.metadata, self.varied)

    @property
    def voxels(self) -> int:
        """Elements of the array."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return self.voxels * self.dtype.itemsize


def full_resolution(layer: Any) -> Any:
    """Return a layer's array; the finest one of a multiscale layer."""
    return layer.data[0] if layer.multiscale else layer.data


def source_of(layer: Any, axes: str = "", region: tuple[slice, ...] | None = None) -> Source:
    """Describe the volume of a napari image layer.

    Parameters
    ----------
    layer : napari.layers.Image
        Its scale and units become the voxel size; its axis labels the axes if they are letters of ``tczyx``.
    axes : str
        Axes that the user has named; they win.
    region : tuple of slice, optional
        The part of it that is taken, one slice per axis.

    Raises
    ------
    InputError
        If the layer is RGB, its dtype or number of axes cannot be compressed, or nobody can tell which axes it has.
    """
    if layer.rgb:
        raise InputError("expected intensities, got an RGB layer; split it into channels (context menu: Split RGB)")
    data = full_resolution(layer)
    check_dtype(np.dtype(data.dtype))
    whole = tuple(map(int, data.shape))
    letters = axes or axes_of(layer)
    if not letters and 2 <= data.ndim <= len(AXIS_LETTERS):
        sides = " × ".join(map(str, whole))
        raise InputError(
            f"expected to know the axes, got a layer of {sides} that does not name them: choose them in the compress "
            "widget"
        )
    check_axes(letters, data.ndim)
    units = tuple("" if str(unit) in _UNKNOWN_UNITS else str(unit) for unit in layer.units)
    metadata = Metadata(letters, tuple(float(step) for step in layer.scale), units, name=layer.name)
    shape = whole if region is None else tuple(span.stop - span.start for span in region)
    return Source(shape, np.dtype(data.dtype), metadata, _varies(data, region or (slice(None),) * data.ndim))


def _varies(data: Any, region: tuple[slice, ...]) -> bool:
    """Whether a few voxels, which are in memory, differ."""
    if not isinstance(data, np.ndarray):
        return False
    part = data[region]
    few = part[tuple(slice(None, None, max(1, side // _LOOKED_AT)) for side in part.shape)]
    return bool((few != few.flat[0]).any())


def budget_of(target: Target, source: Source, least: int | None = None) -> int:
    """Bytes that a file may take.

    Parameters
    ----------
    target : Target
        A size.
    source : Source
    least : int, optional
        Bytes that no file is smaller than; by default those of our own files.

    Raises
    ------
    BudgetError
        If the file would not be smaller than the array, or no file is so small.
    """
    budget = target.budget(source.nbytes, source.voxels)
    least = source.least if least is None else least
    if budget < least:
        raise BudgetError(
            f"expected at least {least} bytes, which the smallest file of such a volume takes, got {budget}: ask for a "
            "larger file"
        )
    return budget


def axes_of(layer: Any) -> str:
    """Return the axes that a layer names, or that its shape leaves no doubt about; else empty."""
    return named_axes(layer.axis_labels) or guessed_axes(full_resolution(layer).shape)


def importance_weights(mask: np.ndarray[Any, Any], factor: float) -> np.ndarray[Any, Any]:
    """Weigh voxels that a mask marks (not 0) ``factor`` times as much as the others; float32, mask's shape."""
    return np.where(mask != 0, np.float32(factor), np.float32(1))


@dataclass(eq=False)
class CompressModel:
    """The compress widget's mind: it holds the form and allows only state changes that make sense.

    Notes
    -----
    ``state_changed(State)`` is emitted after every change of state, ``progressed(Progress)`` after every new progress.
    """

    state_changed = Signal(object)
    progressed = Signal(object)

    form: Form = field(default_factory=Form)
    source: Source | None = None
    has_mask: bool = False
    problem: str = ""  # why the source layer cannot be compressed
    state: State = State.IDLE
    keep: bool = True
    message: str = ""
    curve: list[tuple[float, float]] = field(default_factory=list)  # seconds, dB
    done: float = 0.0  # share of the training that is behind us
    eta: float = math.nan  # seconds
    phase: str = ""
    report: Report | None = None

    @property
    def running(self) -> bool:
        """Whether a compression is under way."""
        return self.state in RUNNING

    def error(self) -> str:
        """Say why the form cannot be run as it is; empty if it can."""
        if self.source is None:
            return self.problem or "open an image and choose it as source"
        if self.form.within == "map" and not self.has_mask:
            return "expected an importance layer for 'map', got none; choose one, or another strategy within levels"
        try:
            target = self.form.target()
            if target.kind == "ssim":
                self.form.settings().check_no_networks("an SSIM")
            elif target.kind == "max_error":
                self.form.settings().check_no_networks("a largest error")
                if self.has_mask:
                    return "expected no importance layer with a largest error, which holds for every voxel; remove it"
            elif target.kind != "psnr":
                budget_of(target, self.source)
        except TincError as error:
            return str(error)
        return ""

    def size_preview(self) -> str:
        """Say what size the file will have, or what is wrong with the form."""
        if problem := self.error():
            return problem
        assert self.source is not None
        target, source = self.form.target(), self.source
        if target.kind == "psnr":
            return f"{size_text(source.nbytes)} → the smallest file that reaches {target.value:g} dB"
        if target.kind == "ssim":
            return f"{size_text(source.nbytes)} → the smallest file of an SSIM of {target.value:g}"
        if target.kind == "max_error":
            promise = f"that keeps every voxel within {target.value:g}" if target.value else "that loses nothing"
            return f"{size_text(source.nbytes)} → the smallest file {promise}"
        budget = budget_of(target, source)
        details = f"{source.nbytes / budget:.4g} : 1, {8 * budget / source.voxels:.3g} bits/voxel"
        return f"{size_text(source.nbytes)} → {size_text(budget)}\n{details}"

    def expected_time(self) -> str:
        """Say how long it will take, from what was measured on this machine; empty if that is not known."""
        if self.error() or self.running or self.source is None or self.form.target_kind in ("ssim", "max_error"):
            return ""
        form, source = self.form, self.source
        expected = estimate(source.voxels, source.dtype, form.preset, form.model, form.device)
        if expected is None:
            return ""
        rounds = ", several times that for a PSNR" * (form.target_kind == "psnr")
        return f"Expected time: {expected.text()}{rounds}"

    def begin(self) -> None:
        """Start a compression.

        Raises
        ------
        InputError
            If one is running, or the form is not complete.
        """
        if self.running:
            raise InputError("expected no compression to be running, got one; stop it first, or wait")
        if problem := self.error():
            raise InputError(problem)
        self.curve, self.done, self.eta, self.phase, self.report = [], 0.0, math.nan, "", None
        self._enter(State.PREPARING)

    def prepare(self, what: str) -> None:
        """Say what is being prepared, if it is not the volume."""
        if self.state is State.PREPARING:
            self._enter(State.PREPARING, what)

    def advance(self, progress: Any) -> None:
        """Take in a :class:`napari_tinc.encode.compression.Progress`; late ones, after the end, are ignored."""
        if not self.running:
            return
        self.phase, self.eta = progress.phase, progress.eta
        if progress.phase == "coding":
            self.done = progress.step / progress.steps
            if self.state is State.PREPARING:
                self._enter(State.TRAINING)
        if progress.phase in ("training", "quantising"):
            self.done = progress.step / progress.steps
            if self.curve and progress.seconds < self.curve[-1][0]:  # a PSNR target trains several times
                self.curve = []
            self.curve.append((progress.seconds, progress.psnr))
            if self.state is State.PREPARING:
                self._enter(State.TRAINING)
        self.progressed.emit(progress)

    def stop(self) -> bool:
        """Ask to stop; asked twice, or before anything was learnt, nothing is kept.

        Returns
        -------
        bool
            Whether what was learnt is to be kept.
        """
        learnt = self.state is State.TRAINING and bool(self.curve)  # wavelets alone are complete, or nothing
        keep = self.keep and learnt
        if self.running:
            self._enter(State.STOPPING, "" if keep else "discarding")
        return keep

    def finish(self, report: Report) -> None:
        """End with a result."""
        self.report = report
        self._enter(State.DONE)

    def discard(self) -> None:
        """End without a result, as the user wished."""
        self._enter(State.IDLE, "stopped, nothing was kept")

    def fail(self, message: str) -> None:
        """End with an error, in words for the user."""
        self._enter(State.FAILED, message)

    def _enter(self, state: State, message: str = "") -> None:
        self.state, self.message = state, message
        self.state_changed.emit(state)

    def status(self) -> str:
        """Say where things stand, in a line."""
        if self.state is State.TRAINING:
            phase = {
                "coding": "Coding",
                "measuring": "Measuring the quality",
                "quantising": "Training with rounded parameters",
            }
            said = phase.get(self.phase, "Training")
            # What is trained is one try of several, and lacks the coefficients that come on top of it.
            psnr = f", network alone {self.curve[-1][1]:.1f} dB" if self.curve else ""
            left = f", {duration_text(self.eta)} left" if math.isfinite(self.eta) else ""
            return said + psnr + left
        texts = {
            State.IDLE: self.message or "Idle",
            State.PREPARING: "Preparing: " + (self.message or "reading the volume and planning"),
            State.STOPPING: "Stopping: " + (self.message or "keeping what was learnt"),
            State.DONE: "Done",
            State.FAILED: f"Failed: {self.message}",
        }
        return texts[self.state]
