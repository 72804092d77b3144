"""Text fit to be shown: what a file brought along, and its quality."""

from __future__ import annotations

import math
import re

# Control characters, halves of surrogate pairs, and what Unicode says is no character: XML holds none of them.
_UNSTORABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufffe\\uffff]")


def printable(text: str) -> str:
    r"""Spell out what cannot be seen, such as ``\n``, ``\x1b`` or half a surrogate pair.

    Names come from files, and on a terminal a control character rings, colours or forges a line.
    """
    return "".join(c if c.isprintable() else _spelt_out(c) for c in text)


def storable(text: str) -> str:
    """Spell out what not every format of files can hold: all but control characters and the like stays as it is."""
    return _UNSTORABLE.sub(lambda found: _spelt_out(found[0]), text)


def decibels_text(psnr: float, digits: int) -> str:
    """Write a PSNR for people: ``"41.2 dB"``; of what lost nothing, ``"exact"``."""
    return f"{psnr:.{digits}f} dB" if math.isfinite(psnr) else "exact"


def _spelt_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


__all__ = ["decibels_text", "printable", "storable"]
