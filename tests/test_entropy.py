"""Symbols of parameters survive the trip, in few bits; any bytes are bounded in what they give and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.errors import FormatError
from napari_tinc.networks.entropy import (
    MAX_BUCKET_CODE,
    MAX_SYMBOL,
    Matrix,
    Symbols,
    bucket_code,
    decode_symbols,
    encode_symbols,
    estimated_bits,
)

Case = tuple[Symbols, list[Matrix]]


@st.composite
def tensors(draw: st.DrawFn) -> Case:
    """Symbols as training leaves them, and also as it never would."""
    matrices = draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=3))
    size = sum(rows * columns for rows, columns in matrices)
    bound = draw(st.sampled_from([0, 1, 7, 200, MAX_SYMBOL]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.floats(0.01, bound + 1.0))
    values = numbers.normal(0, spread, size) if draw(st.booleans()) else numbers.uniform(-bound, bound, size)
    return np.clip(np.rint(values), -bound, bound).astype(np.int32), matrices


@settings(max_examples=150, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=40), st.data())
def test_symbols_come_back_as_they_went(cases: list[Case], data: st.DataObject) -> None:
    symbols, matrices = [s for s, _ in cases], [m for _, m in cases]
    codes = [
        data.draw(st.sampled_from([bucket_code(s), *range(1, MAX_BUCKET_CODE + 1)])) if s.any() else 0 for s in symbols
    ]
    decoded = decode_symbols(encode_symbols(symbols, matrices, codes), matrices, codes)
    for before, after in zip(symbols, decoded, strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == np.int32


@pytest.mark.parametrize("value", [1, -1, MAX_SYMBOL])
def test_one_symbol_among_a_thousand_zeros_comes_back(value: int) -> None:
    symbols = np.zeros(1000, np.int32)
    symbols[500] = value
    code = bucket_code(symbols)
    stream = encode_symbols([symbols], [[(10, 100)]], [code])
    np.testing.assert_array_equal(decode_symbols(stream, [[(10, 100)]], [code])[0], symbols)
    assert len(stream) < (20 if abs(value) == 1 else 300), "two bits for each in the bucket that the mean makes"


def test_symbols_that_are_all_zero_cost_nothing() -> None:
    zeros = np.zeros(1000, np.int32)
    assert bucket_code(zeros) == 0
    assert estimated_bits(zeros) == 0
    assert encode_symbols([zeros], [[(10, 100)]], [0]) == b""
    np.testing.assert_array_equal(decode_symbols(b"", [[(10, 100)]], [0])[0], zeros)


@pytest.mark.parametrize("spread", [0.5, 1.0, 5.0, 30.0, 1000.0])
@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_independent_symbols_take_little_more_than_their_entropy(family: str, spread: float) -> None:
    draw = np.random.default_rng(0)
    symbols = np.rint(getattr(draw, family)(0, spread, 40_000)).astype(np.int32)
    _, counts = np.unique(symbols, return_counts=True)
    entropy = -float((counts * np.log2(counts / symbols.size)).sum())
    taken = 8 * len(encode_symbols([symbols], [[(200, 200)]], [bucket_code(symbols)]))
    assert taken < (1.015 if spread < 1000 else 1.02) * entropy + 200
    assert estimated_bits(symbols) == pytest.approx(entropy, rel=0.02)


def test_rows_that_differ_in_spread_take_less_than_the_same_symbols_shuffled() -> None:
    draw = np.random.default_rng(0)
    symbols = np.rint(draw.normal(0, 1, (100, 50)) * np.geomspace(3, 100, 100)[:, None]).astype(np.int32)
    code = bucket_code(symbols)
    ordered = len(encode_symbols([symbols], [[(100, 50)]], [code]))
    assert ordered < 0.93 * len(encode_symbols([draw.permutation(symbols.ravel())], [[(100, 50)]], [code]))
    assert ordered < 1.01 * len(encode_symbols([symbols.T.copy()], [[(50, 100)]], [code])), "or columns"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), tensors(), st.integers(0, MAX_BUCKET_CODE))
def test_any_bytes_are_refused_or_decode_to_valid_symbols(stream: bytes, case: Case, code: int) -> None:
    symbols, matrices = case
    try:
        (decoded,) = decode_symbols(stream, [matrices], [code])
    except FormatError:
        return
    assert decoded.shape == symbols.shape
    assert np.abs(decoded).max(initial=0) <= MAX_SYMBOL


def test_a_stream_with_more_than_its_symbols_is_refused() -> None:
    symbols = np.rint(np.random.default_rng(0).normal(0, 20, 400)).astype(np.int32)
    code = bucket_code(symbols)
    stream = encode_symbols([symbols], [[(20, 20)]], [code])
    with pytest.raises(FormatError, match="to end after its symbols"):
        decode_symbols(stream + bytes(5), [[(20, 20)]], [code])
    with pytest.raises(FormatError, match="to end after its symbols"):
        decode_symbols(b"abcde", [[(20, 20)]], [0])


def test_symbols_beyond_the_largest_are_refused() -> None:
    with pytest.raises(FormatError, match=f"expected symbols up to {MAX_SYMBOL}"):
        decode_symbols(b"", [[(1, 1)]], [MAX_BUCKET_CODE])


def test_a_million_like_symbols_come_back_from_few_bytes() -> None:
    """How long as many decisions take as few bytes can ask for is in ``benchmarks/parameter_coding.py``."""
    symbols = np.full(2**20, 7, np.int32)
    stream = encode_symbols([symbols], [[(2**10, 2**10)]], [1])
    assert len(stream) < 2**18, "a sign takes a bit"
    np.testing.assert_array_equal(decode_symbols(stream, [[(2**10, 2**10)]], [1])[0], symbols)
