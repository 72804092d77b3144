"""Symbols survive the trip through either coder, and the tables are the same integers everywhere."""

from __future__ import annotations

import decimal
import math
import zlib

import constriction
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.errors import FormatError
from napari_tinc.networks import entropy
from napari_tinc.networks.entropy import (
    DEFLATE,
    GAUSSIAN,
    LAPLACE,
    MAX_SYMBOL,
    RANGE_CODER,
    SCALE_CODES,
    SymbolModel,
    fit_model,
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
    fitted = [fit_model(tensor)[0] for tensor in symbols]
    payload = entropy.encode(symbols, fitted, coder)
    decoded = entropy.decode(payload, [tensor.size for tensor in symbols], fitted, coder)
    for before, after in zip(symbols, decoded, strict=True):
        np.testing.assert_array_equal(before, after)
        assert after.dtype == np.int32


@coders
def test_the_rarest_symbol_of_the_narrowest_model_comes_back(coder: int) -> None:
    symbols = np.array([MAX_SYMBOL, 0, -MAX_SYMBOL, 0, 1], np.int32)
    model = SymbolModel(GAUSSIAN, 0, MAX_SYMBOL)
    decoded = entropy.decode(entropy.encode([symbols], [model], coder), [5], [model], coder)
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


@pytest.mark.parametrize("family", [GAUSSIAN, LAPLACE])
def test_the_fitted_model_spends_little_more_than_the_entropy(family: int) -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(0, 9, 20_000) if family == GAUSSIAN else draw.laplace(0, 9, 20_000)
    symbols = np.rint(values).astype(np.int32)
    counts = np.unique(symbols, return_counts=True)[1]
    shannon = -(counts * np.log2(counts / counts.sum())).sum()
    model, estimate = fit_model(symbols)
    assert model.family == family
    table = frequencies(model)
    exact = -np.log2(table[symbols + model.bound] / 2**20).sum()
    assert estimate == pytest.approx(exact, rel=0.005)
    assert 8 * len(entropy.encode([symbols], [model], RANGE_CODER)) == pytest.approx(exact, rel=0.002, abs=64)
    assert exact < 1.01 * shannon


def test_symbols_that_are_all_zero_cost_nothing() -> None:
    model, bits = fit_model(np.zeros(1000, np.int32))
    assert (model.bound, bits) == (0, 0.0)
    assert entropy.encode([np.zeros(1000, np.int32)], [model], RANGE_CODER) == b""
    np.testing.assert_array_equal(entropy.decode(b"", [1000], [model], RANGE_CODER)[0], np.zeros(1000))


@coders
@pytest.mark.parametrize("value", [1, -1, MAX_SYMBOL])
def test_one_symbol_among_a_thousand_zeros_comes_back(coder: int, value: int) -> None:
    symbols = np.zeros(1000, np.int32)
    symbols[500] = value
    model, _ = fit_model(symbols)
    np.testing.assert_array_equal(
        entropy.decode(entropy.encode([symbols], [model], coder), [1000], [model], coder)[0], symbols
    )


def sample() -> tuple[Symbols, SymbolModel]:
    symbols = np.rint(np.random.default_rng(3).normal(0, 20, 400)).astype(np.int32)
    return symbols, fit_model(symbols)[0]


@coders
def test_a_truncated_stream_is_refused_or_yields_symbols_within_bounds(coder: int) -> None:
    symbols, model = sample()
    payload = entropy.encode([symbols], [model], coder)
    refused = 0
    for length in range(len(payload)):
        try:
            (decoded,) = entropy.decode(payload[:length], [400], [model], coder)
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
    payload = bytearray(entropy.encode([symbols], [model], coder))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        (decoded,) = entropy.decode(bytes(payload), [400], [model], coder)
    except FormatError:
        return
    assert decoded.shape == (400,)
    assert np.abs(decoded).max() <= model.bound


def test_a_deflate_bomb_is_refused_without_being_inflated() -> None:
    bomb = zlib.compress(bytes(2**24), 9)
    with pytest.raises(FormatError, match="expected 800 bytes"):
        entropy.decode(bomb, [400], [SymbolModel(GAUSSIAN, 0, 5)], DEFLATE)


def test_deflated_symbols_beyond_their_bound_are_refused() -> None:
    payload = zlib.compress(np.array([3, -9], "<i2").tobytes())
    with pytest.raises(FormatError, match="bound"):
        entropy.decode(payload, [2], [SymbolModel(GAUSSIAN, 0, 8)], DEFLATE)


@pytest.mark.parametrize("coder", [0, 3, 255])
def test_an_unknown_coder_is_named(coder: int) -> None:
    with pytest.raises(FormatError, match=f"got {coder}"):
        entropy.decode(b"", [1], [SymbolModel(GAUSSIAN, 0, 1)], coder)


def test_without_constriction_the_second_coder_is_written_and_both_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols, model = sample()
    payload = entropy.encode([symbols], [model], RANGE_CODER)
    monkeypatch.setattr(entropy, "constriction", None)
    assert entropy.default_coder() == DEFLATE
    np.testing.assert_array_equal(entropy.decode(payload, [400], [model], RANGE_CODER)[0], symbols)


def constrictions(payload: bytes, sizes: list[int], models: list[SymbolModel]) -> list[Symbols] | None:
    """What the package itself reads."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, "<u4").astype(np.uint32))
    tensors = []
    try:
        for size, model in zip(sizes, models, strict=True):
            table = entropy._categorical(model) if model.bound else None
            tensors.append(decoder.decode(table, size) - model.bound if table else np.zeros(size, np.int32))
    except (AssertionError, ValueError):
        return None
    return tensors if decoder.maybe_exhausted() else None


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_stream_is_read_as_constriction_reads_it(data: st.DataObject) -> None:
    symbols = data.draw(st.lists(tensors(), min_size=0, max_size=3))
    fitted = [fit_model(tensor)[0] for tensor in symbols]
    sizes = [tensor.size for tensor in symbols]
    payload = bytearray(entropy.encode(symbols, fitted, RANGE_CODER))
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
    payload = entropy.encode([symbols], [model], RANGE_CODER)
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
            entropy.decode(payload, sizes, models, RANGE_CODER)
        return False
    for ours, theirs in zip(entropy.decode(payload, sizes, models, RANGE_CODER), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return True


def test_scales_span_what_steps_can_leave() -> None:
    assert entropy.scale_of(0) == 0.25
    assert entropy.scale_of(SCALE_CODES - 1) > MAX_SYMBOL / 4
    assert math.isclose(entropy.scale_of(24) / entropy.scale_of(16), 2)
