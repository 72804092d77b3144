"""Which axes a layer has, where it does not say so."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from napari_tinc.arrays.inputs import AXIS_LETTERS
from napari_tinc.arrays.metadata import SPATIAL

# A microscope has few channels, a stack has many planes and a series many times.
MOST_CHANNELS = 5
_NAMES = {"time": "t", "channel": "c", "channels": "c"}


def named_axes(labels: Sequence[str]) -> str:
    """Return the axes that a layer's labels name; empty if they do not name every axis as one of ``tczyx``."""
    letters = [_NAMES.get(label.lower(), label.lower()) for label in labels]
    known = all(letter in AXIS_LETTERS for letter in letters) and len(set(letters)) == len(letters)
    return "".join(letters) if known and {"y", "x"} <= set(letters) else ""


def guessed_axes(shape: Sequence[int]) -> str:
    """Guess the axes of an array that does not name them; empty if that would be no more than a guess.

    Two axes are ``yx`` and three ``zyx``. Of four or five, the last two are ``yx``, and the only short one before them
    is the channels; without one, or with several, nobody can tell.
    """
    if len(shape) <= len(SPATIAL):
        return SPATIAL[-len(shape) :]
    short = [i for i, side in enumerate(shape[:-2]) if side <= MOST_CHANNELS]
    if len(short) != 1 or len(shape) > len(AXIS_LETTERS):
        return ""
    others = list("tz"[-(len(shape) - 3) :])
    return "".join("c" if i == short[0] else others.pop(0) for i in range(len(shape) - 2)) + "yx"


def possible_axes(shape: Sequence[int]) -> list[str]:
    """List the axes that an array may have, planes last; the likeliest first."""
    before = len(shape) - 2
    found = ["".join(letters) + "yx" for letters in permutations("tcz", before)] if 0 <= before <= 3 else []
    guess = guessed_axes(shape)
    return sorted(found, key=lambda axes: (axes != guess, "z" not in axes))


def axes_text(axes: str, shape: Sequence[int]) -> str:
    """Say what axes mean for an array: ``"z c y x: 3 channels of 20 planes"``."""
    sides = dict(zip(axes, shape, strict=True))
    words = {"t": "time point", "c": "channel", "z": "plane"}
    parts = [f"{sides[letter]} {words[letter]}{'s' * (sides[letter] != 1)}" for letter in "tcz" if letter in sides]
    return f"{' '.join(axes)}: {' of '.join(parts) or 'one plane'}"


__all__ = ["MOST_CHANNELS", "axes_text", "guessed_axes", "named_axes", "possible_axes"]
