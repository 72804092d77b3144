"""The mixing coder of binary decisions: its tables are those of the page, on every machine."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from reference_mixing import SQUASH, STRETCH

from napari_tinc import mixing
from napari_tinc.mixing import Statistics


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


@njit
def teach(models: Any, bit: int, mixed: int) -> None:
    mixing.learn(models[0], bit, mixed)


@njit
def ask(models: Any) -> Any:
    return mixing.predict(models[0])


@pytest.mark.parametrize("bit", [0, 1])
def test_every_count_has_the_rate_of_the_page(bit: int) -> None:
    """Made by a division of floats where it is needed; from the far end a step shows each of its units."""
    for count in range(251):
        statistics, old = Statistics.fresh(), 32 if bit else 65503
        statistics.model["states"][0, :7], statistics.model["contexts"] = old * 256 + count, range(7)
        teach(statistics.model, bit, 32768)
        new = old + (65535 * bit - old) * (327680 // (5 * count + 8)) // 2**16
        assert set(statistics.model["states"][0, :7].tolist()) == {new * 256 + min(250, count + 1)}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_contexts_say_is_added_up_as_the_page_says(data: st.DataObject) -> None:
    states = [data.draw(st.integers(32, 65503)) * 256 + data.draw(st.integers(0, 250)) for _ in range(7)]
    ends = st.sampled_from([-(2**24), 2**24])
    weights = [data.draw(ends | st.integers(-40000, 40000)) for _ in range(7)]
    statistics, contexts = Statistics.fresh(), [0, 80, 150, 220, 500, 516, 3991]
    model = statistics.model[0]
    model["states"][contexts], model["weights"][17], model["contexts"], model["row"] = states, weights, contexts, 17
    stretched = [STRETCH[state >> 12] for state in states]
    total = sum(s * w for s, w in zip(stretched, weights, strict=True)) // 2**16
    assert ask(statistics.model) == SQUASH[max(-2047, min(2047, total))]
    assert model["stretched"].tolist() == stretched


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_learnt_is_what_the_page_says_up_to_the_largest_numbers(data: st.DataObject) -> None:
    """All inputs at once, in 32 bits: none may overflow."""

    def seven(low: int, high: int) -> list[int]:
        return [data.draw(st.sampled_from([low, high]) | st.integers(low, high)) for _ in range(7)]

    bit, mixed = data.draw(st.integers(0, 1)), data.draw(st.sampled_from([16, 65520]) | st.integers(16, 65520))
    probabilities, counts, row = seven(32, 65503), seven(0, 250), data.draw(st.integers(0, 17))
    weights, stretched = seven(-(2**24), 2**24), seven(-2047, 2047)
    contexts = [0, 80, 150, 220, 500, 516, 3991]
    statistics = Statistics.fresh()
    model = statistics.model[0]
    model["states"][contexts] = np.array(probabilities) * 256 + counts
    model["weights"][row], model["stretched"], model["contexts"], model["row"] = weights, stretched, contexts, row
    before = statistics.copy().model[0]
    teach(statistics.model, bit, mixed)
    error = 14 * (65536 * bit - mixed) // 16
    before["weights"][row] = [
        max(-(2**24), min(2**24, w + (s * error + 2**15) // 2**16)) for w, s in zip(weights, stretched, strict=True)
    ]
    for context, old, count in zip(contexts, probabilities, counts, strict=True):
        new = old + ((65535 * bit - old) * (327680 // (5 * count + 8))) // 2**16
        before["states"][context] = max(32, min(65503, new)) * 256 + min(250, count + 1)
    for field in ("states", "weights"):
        np.testing.assert_array_equal(model[field], before[field])
