"""Text that a file brought along, fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Spell out what cannot be seen, such as ``\n``, ``\x1b`` or half a surrogate pair.

    Names come from files. On a terminal a control character rings, colours or forges a line, and some formats of files
    hold none.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


__all__ = ["printable"]
