"""Fit a network to the leaves of a volume: a generator of what a user wants to know while waiting.

The phases are the family's, most often two. *training* fits float weights. *quantising* goes on with weights rounded to
the steps of the final file, so that the network learns to live with the rounding. All share one schedule: a short
warm-up, then a cosine.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_tinc.errors import TrainingError
from napari_tinc.networks import quantization
from napari_tinc.networks.device import has_fast_bfloat16, is_out_of_memory
from napari_tinc.networks.protocol import Network, Phase, Samples, Schedule
from napari_tinc.networks.quantization import Codes, Layout
from napari_tinc.progress import Progress

logger = logging.getLogger(__name__)

_WARM_UP = 0.03
_REFIT = 0.97  # point of the schedule after which the steps stay as they are
_CHECK_EVERY = 50
_COLLAPSE = 4.0  # the running loss is this many times its best
_RETRIES = 3
_YIELD_SECONDS = 0.1


class Sampler:
    """Draw local coordinates without replacement, epoch after epoch."""

    def __init__(self, points: int, generator: torch.Generator) -> None:
        self.points, self.generator = points, generator
        self.order, self.position = torch.empty(0, dtype=torch.long), 0

    def draw(self, count: int) -> Tensor:
        """Return ``count`` point numbers (all of them if there are fewer)."""
        count = min(count, self.points)
        if self.position + count > len(self.order):
            self.order, self.position = torch.randperm(self.points, generator=self.generator), 0
        self.position += count
        return self.order[self.position - count : self.position]


@dataclass
class _State:
    """What changes while training runs."""

    parameters: list[Tensor]
    optimiser: torch.optim.Optimizer
    points: int
    rate: float
    running: Tensor
    best: list[Tensor]
    best_loss: float = math.inf
    since: int = 0  # step at which the running loss last started from 0
    retries: int = 0
    steps_of: list[Tensor] | None = None


class Trainer:
    """One training run over one network.

    Parameters
    ----------
    network : Network
    parameters : list of Tensor
        Initial parameters on the training device; not changed.
    data : Samples
    schedule : Schedule
    bits : float
        Budget of all parameter segments, in bits.
    generator : torch.Generator
        Source of all random draws, on the CPU.
    should_stop : callable, optional
        Asked before every step; once it says yes training ends, and what was learnt is rounded.
    """

    def __init__(
        self,
        network: Network,
        parameters: Sequence[Tensor],
        data: Samples,
        schedule: Schedule,
        bits: float,
        generator: torch.Generator,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.should_stop = should_stop
        self.decode: Callable[..., npt.NDArray[np.generic]] | None = None
        self.network, self.data, self.schedule, self.bits = network, data, schedule, bits
        self.layout = Layout(network)
        self._reduced = has_fast_bfloat16(data.device)
        self.sampler, self.generator = Sampler(data.points, generator), generator
        self.device = data.device
        leaves = [p.detach().clone().requires_grad_() for p in parameters]
        running = torch.zeros(data.items, device=self.device)
        best = [p.detach().clone() for p in parameters]
        self.state = _State(leaves, self._adam(leaves), schedule.points, schedule.rate, running, best)
        self.phase: Phase = schedule.phases[0]
        self.codes: Codes | None = None
        self.sensitivities: npt.NDArray[np.float64] | None = None

    def _adam(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.schedule.rate, betas=(0.9, 0.95), fused=self.device.type != "mps")

    def run(self) -> Generator[Progress, None, tuple[list[Tensor], Codes]]:
        """Train; yield about ten times a second.

        Returns
        -------
        parameters : list of Tensor
            Float parameters, to be rounded to the steps.
        codes : ndarray, shape (items, tensors)
            Step codes under which the symbols fit the budget.

        Raises
        ------
        TrainingError
            If training collapses again and again, or the smallest batch does not fit in memory.
        """
        started = shown = time.monotonic()
        step, best_psnr = 0, -math.inf
        while (done := self._fraction(step, started)) < 1 and not (self.should_stop and self.should_stop()):
            self._adjust(done, step)
            self._within_memory(self._step)
            step += 1
            if step % _CHECK_EVERY == 0:
                self._guard(step)
            now = time.monotonic()
            if now - shown >= _YIELD_SECONDS:
                shown = now
                psnr = self.data.psnr(self._running(step))
                best_psnr = max(best_psnr, psnr) if step > _CHECK_EVERY else psnr
                yield self._progress(step, done, now - started, psnr, best_psnr)
        self._settle(step)
        self._within_memory(self._fit_steps)
        assert self.codes is not None
        return [p.detach() for p in self.state.parameters], self.codes

    def _fraction(self, step: int, started: float) -> float:
        """Share of the schedule that is behind us."""
        share = step / self.schedule.steps
        if self.schedule.time_limit is not None:
            share = max(share, (time.monotonic() - started) / self.schedule.time_limit)
        return share

    def _adjust(self, done: float, step: int) -> None:
        """Set the learning rate and, in the second phase, the quantisation steps."""
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.state.optimiser.param_groups:
            group["lr"] = self.state.rate * min(1.0, done / _WARM_UP + 1e-3) * cosine
        self.phase = next((phase for phase in self.schedule.phases if done < phase.until), self.schedule.phases[-1])
        if not self.phase.rounded:
            return
        if self.codes is None:
            self._guard(step)
            self._within_memory(self._start_quantising)
            self._restart(step)
        elif step % (4 * _CHECK_EVERY) == 0 and done < _REFIT:
            self._fit_steps()

    def _start_quantising(self) -> None:
        """Fit the steps, and compare from here on with the loss of rounded weights: rounding is no collapse."""
        self._fit_steps()
        with torch.no_grad():
            self.state.best_loss = float(self._losses().mean())
        self.state.best = [p.detach().clone() for p in self.state.parameters]

    def _fit_steps(self) -> None:
        """Choose the quantisation steps for the weights as they are now."""
        if self.sensitivities is None:
            self.sensitivities = quantization.sensitivity(self.layout, self.state.parameters, self._probe)
            if not np.isfinite(self.sensitivities).all():
                raise TrainingError("training collapsed: the best weights give no finite output: rescale the volume")
        self.codes, _ = quantization.fit_steps(self.layout, self.state.parameters, self.sensitivities, self.bits)
        self.state.steps_of = quantization.expand_steps(self.layout, self.codes, self.device)

    def _probe(self) -> tuple[Any, Tensor]:
        batch = self.data.batch(self.sampler.draw(self.state.points).to(self.device))
        signs = torch.randint(0, 2, batch.targets.shape, generator=self.generator).to(self.device) * 2.0 - 1.0
        return batch.inputs, signs if batch.weights is None else signs * batch.weights.sqrt()

    def _within_memory(self, work: Callable[[], None]) -> None:
        """Do one piece of work; halve the batch when memory runs out."""
        while True:
            try:
                return work()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if self.state.points <= self.schedule.fewest:
                raise TrainingError(
                    f"out of memory on {self.device} even with batches of {self.state.points} points: "
                    "choose another device, fewer levels or a higher ratio"
                )
            self.state.points //= 2
            logger.warning("out of memory on %s: going on with batches of %d points", self.device, self.state.points)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _losses(self) -> Tensor:
        """Mean weighted squared error of every item on one batch."""
        state = self.state
        batch = self.data.batch(self.sampler.draw(state.points).to(self.device))
        used: Sequence[Tensor] = state.parameters
        if state.steps_of is not None:
            used = quantization.round_straight_through(state.parameters, state.steps_of)
        # Rounding to the file's steps is finer than bfloat16, so only phases before it can use it.
        reduced = self._reduced and state.steps_of is None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            output = self.network.evaluate(used, batch.inputs)
        error = (output - batch.targets).square()
        if batch.weights is not None:
            error = error * batch.weights
        return error.reshape(self.data.items, -1).mean(1)

    def _step(self) -> None:
        state, losses = self.state, self._losses()
        state.optimiser.zero_grad(set_to_none=True)
        objective = losses.mean()
        if self.phase.penalty is not None:
            objective = objective + objective.detach() * self.phase.penalty(state.parameters)
        objective.backward()  # type: ignore[no-untyped-call]
        state.optimiser.step()
        if self.phase.constrain is not None:
            with torch.no_grad():
                self.phase.constrain(state.parameters)
        state.running.lerp_(losses.detach(), 1 / _CHECK_EVERY)

    def _running(self, step: int) -> Tensor:
        """Running mean of the losses, corrected for its start at 0."""
        return self.state.running / (1 - (1 - 1 / _CHECK_EVERY) ** max(step - self.state.since, 1))

    def _restart(self, step: int) -> None:
        """Forget the running loss: what it measured is no longer there."""
        self.state.running.zero_()
        self.state.since = step

    def _healthy(self, loss: float) -> bool:
        """Whether the loss has not collapsed and every weight is finite."""
        finite = math.isfinite(loss) and all(bool(torch.isfinite(p).all()) for p in self.state.parameters)
        return finite and loss < _COLLAPSE * self.state.best_loss

    def _guard(self, step: int) -> None:
        """Notice a collapse and go back to the best weights; keep the present ones if they are the best."""
        state = self.state
        loss = float(self._running(step).mean())
        if self._healthy(loss):
            if loss < state.best_loss:
                state.best_loss = loss
                state.best = [p.detach().clone() for p in state.parameters]
            return
        state.retries += 1
        if state.retries > _RETRIES:
            raise TrainingError(
                f"training collapsed {state.retries} times (loss {loss:.3g}, best {state.best_loss:.3g}) although the "
                "rate was lowered: choose another seed, fewer levels or a higher ratio"
            )
        logger.warning("training collapsed at step %d: back to the best weights with a third of the rate", step)
        state.rate /= 3
        state.optimiser = self._adam(state.parameters)
        self._go_back(step)

    def _go_back(self, step: int) -> None:
        """Take the best weights."""
        with torch.no_grad():
            for parameter, best in zip(self.state.parameters, self.state.best, strict=True):
                parameter.copy_(best)
        self._restart(step)

    def _settle(self, step: int) -> None:
        """Go back to the best weights if the steps after the last check went wrong."""
        if self._healthy(float(self._running(step).mean())):
            return
        if not math.isfinite(self.state.best_loss):
            raise TrainingError("training collapsed before it had learnt anything: choose another seed or more steps")
        logger.warning("training collapsed at its end: back to the best weights")
        self._go_back(step)

    def _progress(self, step: int, done: float, seconds: float, psnr: float, best_psnr: float) -> Progress:
        steps = self.schedule.steps if self.schedule.time_limit is None else max(step, int(step / max(done, 1e-9)))
        loss = float(self._running(step).mean())
        eta = seconds * (1 - done) / max(done, 1e-9)
        return Progress(self.phase.name, step, steps, loss, psnr, best_psnr, seconds, eta, self.decode)
