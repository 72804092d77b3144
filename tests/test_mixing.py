"""The mixing coder of binary decisions: its tables are those of the page, on every machine."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext

from napari_tinc import mixing


def test_no_entry_of_the_tables_is_near_a_tie() -> None:
    """So floats of 64 bits round them all alike, and readers elsewhere see the same symbols."""
    half = Decimal("0.5")
    with localcontext(Context(prec=40)):
        for i, entry in enumerate(mixing._STRETCH.tolist()):
            exact = 256 * ((i + half) / (Decimal("4095.5") - i)).ln()
            assert abs((exact + half) - round(exact + half)) > Decimal("1e-7")
            assert entry == max(-2047, min(2047, math.floor(exact + half)))
        for x, entry in zip(range(-2048, 2048), mixing._SQUASH.tolist(), strict=True):
            exact = 65536 / (1 + (-Decimal(x) / 256).exp())
            if x:  # 32768.5, of which half is exact in floats, too
                assert abs((exact + half) - round(exact + half)) > Decimal("1e-7")
            assert entry == max(16, min(65520, math.floor(exact + half)))
    assert mixing._RATES.tolist() == [327680 // (5 * n + 8) for n in range(251)]
