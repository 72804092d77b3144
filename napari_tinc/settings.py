"""How to compress: the choices a user has besides the target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from napari_tinc import choices
from napari_tinc.errors import InputError


@dataclass(frozen=True)
class Settings:
    """How to compress.

    Parameters
    ----------
    preset : str
        How long it may take: one of `napari_tinc.choices.PRESETS`.
    between, within : str
        How parameters are spread between and within levels, see ``docs/strategies.md``.
    levels : int, optional
        Of the tree.
    device : str
        Where networks are trained.
    seed : int
    time_limit : float, optional
        Seconds of training.
    model : str
        One of `napari_tinc.choices.MODELS`.
    provenance : bool
        Whether the file says how it was made: some 60 bytes.

    Raises
    ------
    InputError
        If a value is not among those that are possible. Whether a device is there is asked when it is needed.
    """

    preset: str = "fast"
    between: str | tuple[float, ...] = "auto"
    within: str = "equal"
    levels: int | None = None
    device: str = "auto"
    seed: int = 0
    time_limit: float | None = None
    model: str = "auto"
    provenance: bool = True
    promised: float | None = None  # what a trial of networks found, in dB; nobody's choice
    notes: tuple[tuple[str, str], ...] = ()  # what else the file says in its provenance, by key

    def __post_init__(self) -> None:
        choices.check_choice("a preset", self.preset, choices.PRESETS)
        choices.check_choice("a model", self.model, choices.MODELS)
        choices.check_choice("a strategy within a level", self.within, choices.WITHIN)
        choices.check_device_name(self.device)
        for name in ("preset", "model", "within"):  # a member of an enum becomes a plain string
            object.__setattr__(self, name, str(getattr(self, name)))
        if isinstance(self.between, str):
            choices.check_choice("a strategy between levels", self.between, choices.BETWEEN)
        if self.levels is not None:
            self._check_whole("levels", 1, choices.MAX_DEPTH + 1)
        self._check_whole("seed", -(2**63), 2**63 - 1)
        if self.time_limit is not None and not (_is_number(self.time_limit) and self.time_limit > 0):
            raise InputError(f"expected a time limit above 0 seconds, got {self.time_limit!r}")
        if not isinstance(self.between, str):
            self._check_ratios()

    @property
    def is_wavelets_alone(self) -> bool:
        """Whether no networks are asked for, nor a trial of them."""
        return self.model == choices.WAVELET or (self.model == choices.AUTO and self.preset == "fast")

    def noted(self, key: str, text: str) -> Settings:
        """Return the same settings with one more note for the file's provenance."""
        return replace(self, notes=(*(note for note in self.notes if note[0] != key), (key, text)))

    def check_no_networks(self, target: str) -> None:
        """Raise `InputError` for a target that networks cannot keep to, if they are asked for."""
        if not self.is_wavelets_alone:
            raise InputError(
                f"expected model {choices.WAVELET!r}, or {choices.AUTO!r} with preset 'fast', for {target}, got "
                f"{self.model!r} with {self.preset!r}: networks have no such thing; give a ratio or a PSNR"
            )

    def _check_whole(self, name: str, low: int, high: int) -> None:
        """Refuse what is no whole number in these bounds; make an int of one of numpy's."""
        value: Any = getattr(self, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or not low <= int(value) <= high:
            raise InputError(f"expected {name} as a whole number from {low} to {high}, got {value!r}")
        object.__setattr__(self, name, int(value))

    def _check_ratios(self) -> None:
        ratios: Any = self.between
        if not isinstance(ratios, list | tuple) or not all(_is_number(ratio) for ratio in ratios):
            raise InputError(
                f"expected a strategy between levels among {', '.join(choices.BETWEEN)}, or a number per level, "
                f"got {ratios!r}"
            )
        check_ratios(ratios, self.levels or len(ratios))
        object.__setattr__(self, "between", tuple(float(ratio) for ratio in ratios))


def check_ratios(ratios: tuple[float, ...] | list[float], levels: int) -> None:
    """Raise `InputError` unless there is one positive ratio for every level of a tree."""
    if len(ratios) != levels or not all(0 < ratio < 1e6 for ratio in ratios):
        raise InputError(f"expected {levels} positive ratios, one per level, got {tuple(ratios)}: give one for each")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


__all__ = ["Settings", "check_ratios"]
