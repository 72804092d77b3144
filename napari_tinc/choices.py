"""What a user may choose among: one list of each, read by format, settings, command line, comparison and widgets.

No torch and no numpy: a command line or a form that only shows the choices starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_tinc.errors import InputError


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of network, as far as anybody but its own module needs to know.

    Parameters
    ----------
    name : str
        What users say; the module of that name in :mod:`napari_tinc.networks.families` implements it.
    code : int
        Its number in the header of a frame.
    summary : str
        One sentence for those who choose.
    """

    name: str
    code: int
    summary: str


# The registry: a family is its file in networks/families/ and its line here. Codes 0 and 2 are taken: format/header.py.
FAMILIES = {
    family.name: family
    for family in (
        Family("tinc", 1, "an octree of small sine networks, neighbours sharing the parameters of common ancestors"),
        Family("neurcomp", 3, "one sine network with residual blocks over the whole volume; slow without a GPU"),
        Family("grid", 5, "a pyramid of interpolated grids of features, and a small network that makes voxels of them"),
        Family("tucker", 6, "a small core and a basis for every axis, found in seconds without training (TTHRESH)"),
        Family("siren", 7, "one network of sine layers over the whole volume (COIN); slow without a GPU"),
        Family("sci", 8, "an adaptive octree, a sine network for every block, none for flat ones"),
        Family("nerv", 9, "a convolutional decoder that makes a whole plane of its number, as of a video"),
        Family("coinpp", 10, "a network that comes with the program, modulated by patch (COIN++); slow without a GPU"),
    )
}
# The family that joins the wavelets where the user leaves the model open.
DEFAULT_FAMILY = "tinc"
WAVELET, AUTO = "wavelet", "auto"
# What a file consists of: the best of several, wavelets alone, networks alone, or networks and wavelets together.
MODELS = (AUTO, WAVELET, *FAMILIES, *(f"{name}+{WAVELET}" for name in FAMILIES))

PRESETS = ("fast", "balanced", "best")
BETWEEN = ("auto", "even", "shallow", "deep")
WITHIN = ("equal", "importance", "variance", "map")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Levels of a tree below its root.
MAX_DEPTH = 6


def family_of(model: str) -> str | None:
    """Name of the family in a model, None for wavelets alone and for ``"auto"``."""
    name = model.partition("+")[0]
    return name if name in FAMILIES else None


def has_wavelets(model: str) -> bool:
    """Whether a model, ``"auto"`` excepted, has a wavelet layer."""
    return WAVELET in model.split("+")


def check_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `InputError` unless a value is among its choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"expected {what} among {', '.join(choices)}, got {value!r}: choose one")


def check_device_name(name: object) -> None:
    """Raise `InputError` unless a name can be that of a device, which need not be there."""
    kind, colon, number = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"expected a device among {', '.join(DEVICES)}, got {name!r}: choose one")


__all__ = [
    "AUTO",
    "BETWEEN",
    "DEFAULT_FAMILY",
    "DEVICES",
    "FAMILIES",
    "MAX_DEPTH",
    "MODELS",
    "PRESETS",
    "WAVELET",
    "WITHIN",
    "Family",
    "check_choice",
    "check_device_name",
    "family_of",
    "has_wavelets",
]
