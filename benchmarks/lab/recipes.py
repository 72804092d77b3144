"""Named recipes: settings of ours, with constants of the package changed where an idea needs it, and the peers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How to compress: settings, and constants by ``module.NAME`` that differ from the package's."""

    settings: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Change the constants while the block runs."""
        before = []
        for path, value in self.constants.items():
            module_name, name = path.rsplit(".", 1)
            module = importlib.import_module(f"napari_tinc.{module_name}")
            before.append((module, name, getattr(module, name)))
            setattr(module, name, value)
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)


def _detail(**constants: Any) -> Recipe:
    return Recipe({"model": "wavelet"}, {f"wavelets.search.{name}": value for name, value in constants.items()})


RECIPES = {
    "fast": Recipe({"preset": "fast"}),
    "balanced": Recipe({"preset": "balanced"}),
    "best": Recipe({"preset": "best"}),
    "tinc-fast": Recipe({"model": "tinc", "preset": "fast"}),
    "tinc-balanced": Recipe({"model": "tinc", "preset": "balanced"}),
    "tinc-best": Recipe({"model": "tinc", "preset": "best"}),
    "wavelet": _detail(),
    "detail-no-rdo": _detail(LAMBDA=0.0),
    "detail-rdo-0.05": _detail(LAMBDA=0.05),
    "detail-rdo-0.12": _detail(LAMBDA=0.12),
    "detail-all-axes": _detail(ELONGATIONS=(math.inf,)),
    "detail-long-axes": _detail(ELONGATIONS=(1.5,)),
    "detail-blocks-of-96": _detail(_BYTES_PER_BLOCK=96),
    "detail-blocks-of-1536": _detail(_BYTES_PER_BLOCK=1536),
    "detail-no-filter": Recipe({"model": "wavelet"}, {"encode.filters._SHARE": 0.0}),
    "detail-filter-of-1": Recipe({"model": "wavelet"}, {"encode.filters.MAX_BINS": 1}),
    "detail-filter-of-4": Recipe({"model": "wavelet"}, {"encode.filters.MAX_BINS": 4}),
    "no-masks": Recipe({"preset": "fast"}, {"encode.masking._LEAST_SHARE": 2.0}),
    **{
        f"hybrid-{100 * share:.0f}": Recipe(
            {"model": "tinc+wavelet", "preset": "balanced"}, {"encode.compression.NETWORK_SHARE": share}
        )
        for share in (0.3, 0.45, 0.6, 0.75, 0.9)
    },
    "hybrid-fast-60": Recipe({"model": "tinc+wavelet", "preset": "fast"}),
}
