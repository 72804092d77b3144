"""Parameters of older files are read as their writers meant, and the tables are the same integers everywhere."""

from __future__ import annotations

import decimal
import zlib

import constriction
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from older_writers import categorical, encode, fit_model

from napari_tinc.errors import FormatError
from napari_tinc.networks import older_coders
from napari_tinc.networks.entropy import MAX_SYMBOL
from napari_tinc.networks.older_coders import (
    DEFLATE,
    GAUSSIAN,
    LAPLACE,
    RANGE_CODER,
    SCALE_CODES,
    SymbolModel,
    frequencies,
)

Symbols = npt.NDArray[np.int32]
quickly = settings(max_examples=40, deadline=None)
coders = pytest.mark.parametrize("coder", [RANGE_CODER, DEFLATE], ids=["range coder", "deflate"])
models = st.builds(
    SymbolModel, st.sampled_from([GAUSSIAN, LAPLACE]), st.integers(0, SCALE_CODES - 1), st.integers(0, 300)
)


@st.composite
def tensors(draw: st.DrawFn, bounds: tuple[int, ...] = (0, 1, 7, 200)) -> Symbols:
    """Symbols as training leaves them, and also as it never would."""
    seed, size = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 300))
    bound = draw(st.sampled_from(bounds))
    numbers = np.random.default_rng(seed)
    spread = draw(st.floats(0.1, bound + 1.0))
    values = numbers.normal(0, spread, size) if draw(st.booleans()) else numbers.uniform(-bound, bound, size)
    return np.clip(np.rint(values), -bound, bound).astype(np.int32)


@coders
@quickly
@given(data=st.data())
def test_symbols_come_back_as_they_went(coder: int, data: st.DataObject) -> None:
    symbols = data.draw(st.lists(tensors((0, 1, 7, 200, MAX_SYMBOL)), min_size=1, max_size=2))
    fitted = [fit_model(tensor) for tensor in symbols]
    payload = encode(symbols, fitted, coder)
    decoded = older_coders.decode(payload, [tensor.size for tensor in symbols], fitted, coder)
    for before, after in zip(symbols, decoded, strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == np.int32


@coders
def test_the_rarest_symbol_of_the_narrowest_model_comes_back(coder: int) -> None:
    symbols = np.array([MAX_SYMBOL, 0, -MAX_SYMBOL, 0, 1], np.int32)
    model = SymbolModel(GAUSSIAN, 0, MAX_SYMBOL)
    decoded = older_coders.decode(encode([symbols], [model], coder), [5], [model], coder)
    np.testing.assert_array_equal(decoded[0], symbols)


@quickly
@given(models)
def test_tables_are_integers_of_a_fixed_sum_without_a_zero(model: SymbolModel) -> None:
    table = frequencies(model)
    assert table.dtype == np.int64
    assert len(table) == 2 * model.bound + 1
    assert int(table.sum()) == 2**20
    assert table.min() >= 1
    np.testing.assert_array_equal(table, table[::-1])
    assert (np.diff(table[model.bound :]) <= 0).all()


@quickly
@given(models)
def test_tables_follow_the_density_they_are_named_after(model: SymbolModel) -> None:
    k = np.arange(-model.bound, model.bound + 1, dtype=np.float64)
    scale = 2 ** (model.scale_code / 8 - 2)
    density = np.exp(-(k**2) / (2 * scale**2)) if model.family == GAUSSIAN else np.exp(-np.abs(k) / scale)
    expected = 1 + density / density.sum() * (2**20 - len(k))
    away = np.abs(k) > 0  # the centre takes what rounding leaves over
    np.testing.assert_allclose(frequencies(model)[away], expected[away], rtol=1e-4, atol=1.01)


@pytest.mark.parametrize(
    ("model", "checksum"),
    [
        (SymbolModel(GAUSSIAN, 40, 37), 3197805294),
        (SymbolModel(LAPLACE, 33, 500), 559436192),
        (SymbolModel(GAUSSIAN, 119, MAX_SYMBOL), 2207017705),
    ],
)
def test_tables_are_the_same_on_every_machine(model: SymbolModel, checksum: int) -> None:
    """Pinned, as computed with 80 digits: a table that changes makes every file written before unreadable."""
    assert zlib.crc32(frequencies(model).astype("<i8").tobytes()) == checksum


@pytest.mark.parametrize("family", [GAUSSIAN, LAPLACE])
def test_tables_do_not_depend_on_the_decimal_settings_of_the_program_around(family: int) -> None:
    model = SymbolModel(family, 37, 60)
    frequencies.cache_clear()
    expected = frequencies(model).copy()
    frequencies.cache_clear()
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP)):
        changed = frequencies(model).copy()
    frequencies.cache_clear()
    np.testing.assert_array_equal(changed, expected)


def test_symbols_that_are_all_zero_cost_nothing() -> None:
    model = fit_model(np.zeros(1000, np.int32))
    assert model.bound == 0
    assert encode([np.zeros(1000, np.int32)], [model], RANGE_CODER) == b""
    np.testing.assert_array_equal(older_coders.decode(b"", [1000], [model], RANGE_CODER)[0], np.zeros(1000))


@coders
@pytest.mark.parametrize("value", [1, -1, MAX_SYMBOL])
def test_one_symbol_among_a_thousand_zeros_comes_back(coder: int, value: int) -> None:
    symbols = np.zeros(1000, np.int32)
    symbols[500] = value
    model = fit_model(symbols)
    np.testing.assert_array_equal(
        older_coders.decode(encode([symbols], [model], coder), [1000], [model], coder)[0], symbols
    )


def sample() -> tuple[Symbols, SymbolModel]:
    symbols = np.rint(np.random.default_rng(3).normal(0, 20, 400)).astype(np.int32)
    return symbols, fit_model(symbols)


@coders
def test_a_truncated_stream_is_refused_or_yields_symbols_within_bounds(coder: int) -> None:
    symbols, model = sample()
    payload = encode([symbols], [model], coder)
    refused = 0
    for length in range(len(payload)):
        try:
            (decoded,) = older_coders.decode(payload[:length], [400], [model], coder)
        except FormatError:
            refused += 1
            continue
        assert decoded.shape == (400,)
        assert np.abs(decoded).max() <= model.bound
    assert refused >= len(payload) * (1 if coder == DEFLATE else 0.7)


@coders
@quickly
@given(data=st.data())
def test_damage_is_a_format_error_or_yields_symbols_within_bounds(coder: int, data: st.DataObject) -> None:
    symbols, model = sample()
    payload = bytearray(encode([symbols], [model], coder))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        (decoded,) = older_coders.decode(bytes(payload), [400], [model], coder)
    except FormatError:
        return
    assert decoded.shape == (400,)
    assert np.abs(decoded).max() <= model.bound


def test_a_deflate_bomb_is_refused_without_being_inflated() -> None:
    bomb = zlib.compress(bytes(2**24), 9)
    with pytest.raises(FormatError, match="expected 800 bytes"):
        older_coders.decode(bomb, [400], [SymbolModel(GAUSSIAN, 0, 5)], DEFLATE)


def test_deflated_symbols_beyond_their_bound_are_refused() -> None:
    payload = zlib.compress(np.array([3, -9], "<i2").tobytes())
    with pytest.raises(FormatError, match="bound"):
        older_coders.decode(payload, [2], [SymbolModel(GAUSSIAN, 0, 8)], DEFLATE)


def constrictions(payload: bytes, sizes: list[int], models: list[SymbolModel]) -> list[Symbols] | None:
    """What the package itself reads."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    tensors = []
    try:
        for size, model in zip(sizes, models, strict=True):
            table = categorical(model) if model.bound else None
            tensors.append(decoder.decode(table, size) - model.bound if table else np.zeros(size, np.int32))
    except (AssertionError, ValueError):
        return None
    return tensors if decoder.maybe_exhausted() else None


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_stream_is_read_as_constriction_reads_it(data: st.DataObject) -> None:
    symbols = data.draw(st.lists(tensors(), min_size=0, max_size=3))
    fitted = [fit_model(tensor) for tensor in symbols]
    sizes = [tensor.size for tensor in symbols]
    payload = bytearray(encode(symbols, fitted, RANGE_CODER))
    for _ in range(data.draw(st.integers(0, 2)) if payload else 0):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    payload = payload[: len(payload) - 4 * data.draw(st.integers(0, len(payload) // 4))]
    payload += bytes(4 * data.draw(st.integers(0, 1)))
    if data.draw(st.booleans()) and sizes:
        sizes[-1] = data.draw(st.integers(0, 2 * sizes[-1]))
    read_alike(bytes(payload), sizes, fitted)


def test_the_largest_symbols_are_read_as_constriction_reads_them() -> None:
    draw = np.random.default_rng(0)
    symbols = draw.integers(-MAX_SYMBOL, MAX_SYMBOL, 200, np.int32, endpoint=True)
    model = SymbolModel(LAPLACE, SCALE_CODES - 1, MAX_SYMBOL)
    payload = encode([symbols], [model], RANGE_CODER)
    found = [read_alike(payload, [200], [model])]
    for _ in range(200):
        damaged = bytearray(payload)
        damaged[draw.integers(len(payload))] ^= draw.integers(1, 256)
        found.append(read_alike(bytes(damaged), [200], [model]))
    assert found[0]
    assert {True, False} == set(found), "some damage goes unnoticed, and some does not"


def read_alike(payload: bytes, sizes: list[int], models: list[SymbolModel]) -> bool:
    """See that a stream is read as constriction reads it, or refused as it refuses it; say whether it was read."""
    expected = constrictions(payload, sizes, models)
    if expected is None:
        with pytest.raises(FormatError):
            older_coders.decode(payload, sizes, models, RANGE_CODER)
        return False
    for ours, theirs in zip(older_coders.decode(payload, sizes, models, RANGE_CODER), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return True
