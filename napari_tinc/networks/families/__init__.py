"""The families of networks, found by the names and codes of :mod:`napari_tinc.choices`; loaded when they are needed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from napari_tinc.choices import FAMILIES

if TYPE_CHECKING:
    from napari_tinc.networks.protocol import Family


@cache
def load(name: str) -> Family:
    """Return the family of a name in :data:`napari_tinc.choices.FAMILIES`."""
    family: Family = import_module(f"{__name__}.{FAMILIES[name].name}").FAMILY
    return family


__all__ = ["load"]
