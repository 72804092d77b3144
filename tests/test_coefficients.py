"""The coder of coefficients: what goes in comes out, whatever it is; any bytes are bounded; and it compresses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tinc.wavelets.cells import Cells
from napari_tinc.wavelets.coefficients import LARGEST, NO_PARENT, Decoder, Encoder, Parent, Statistics
from napari_tinc.wavelets.transform import band_of
from napari_tinc.wavelets.transform import orientations as orientations_of

Ints = npt.NDArray[np.int32]
ALL = np.array(orientations_of((0, 1, 2)), np.int32)
ONE = np.ones((1, 1, 1, 1), np.float32)


def same(one: Statistics, other: Statistics) -> bool:
    return all(np.array_equal(one.model[name], other.model[name]) for name in ("states", "weights"))


def add(encoder: Encoder, statistics: Statistics, symbols: Ints, parent: Parent = NO_PARENT) -> None:
    """Append a block of just these symbols."""
    written, _ = encoder.add(statistics, symbols.astype(np.float32), ONE, 0.0, ALL[: len(symbols)], parent)
    np.testing.assert_array_equal(written, symbols)


def encoded(symbols: Ints, parent: Parent = NO_PARENT, statistics: Statistics | None = None) -> bytes:
    encoder = Encoder()
    add(encoder, (statistics or Statistics.fresh()).copy(), symbols, parent)
    return encoder.finish()


def decoded(stream: bytes, shape: tuple[int, ...], parent: Parent = NO_PARENT) -> Ints:
    return np.asarray(Decoder(stream).take(Statistics.fresh(), shape, ALL[: shape[0]], parent))  # type: ignore[arg-type]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Ints, Parent]:
    """Symbols of any size and density, and a parent or none."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bands, *sides = draw(st.integers(1, 7)), *(draw(st.integers(1, 9)) for _ in range(3))
    largest = draw(st.sampled_from([1, 2, 3, 20, 255, 256, 70_000, LARGEST - 1]))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))

    def symbols(*shape: int) -> Ints:
        drawn = random.integers(-largest, largest, shape, endpoint=True) * (random.random(shape) < density)
        return drawn.astype(np.int32)

    child = symbols(bands, *sides)
    if not draw(st.booleans()):
        return child, NO_PARENT
    factors = np.array([draw(st.integers(1, 2)) for _ in sides], np.int32)
    origin = np.array([draw(st.integers(0, 3)) for _ in sides], np.int32)
    extent = [int(o) + (n - 1) // int(f) + 1 + draw(st.integers(0, 2))
              for n, f, o in zip(sides, factors, origin, strict=True)]  # fmt: skip
    which = np.array([draw(st.integers(-1, 1)) for _ in range(bands)], np.int32)
    return child, Parent(Cells.within(symbols(2, *extent)), which, origin, factors)


@settings(max_examples=150, deadline=None)
@given(st.lists(blocks(), min_size=1, max_size=3))
def test_blocks_come_back_and_both_sides_learn_the_same(parts: list[tuple[Ints, Parent]]) -> None:
    encoder, writer, reader = Encoder(), Statistics.fresh(), Statistics.fresh()
    for symbols, parent in parts:
        add(encoder, writer, symbols, parent)
    decoder = Decoder(encoder.finish())
    for symbols, parent in parts:
        np.testing.assert_array_equal(decoder.take(reader, symbols.shape, ALL[: len(symbols)], parent), symbols)
    assert same(writer, reader)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from([0.02, 0.5, 1.0, 4.0]), st.sampled_from([0.0, 0.05, 0.3, 2.0]), st.booleans()
)
def test_what_is_chosen_is_what_is_decoded_and_learnt(seed: int, spread: float, lagrangian: float, even: bool) -> None:
    """Cells that are given up at their end leave no trace."""
    random = np.random.default_rng(seed)
    encoder, writer, reader = Encoder(), Statistics.fresh(), Statistics.fresh()
    shapes = [(len(ALL), *random.integers(1, 14, 3)) for _ in range(2)]
    made = []
    for shape in shapes:
        values = random.laplace(0, spread, shape).astype(np.float32) * (random.random(shape) < 0.3)
        weights = ONE if even else random.random((1, *shape[1:])).astype(np.float32)
        made.append((values, weights, *encoder.add(writer, values, weights, lagrangian, ALL, NO_PARENT)))
    decoder = Decoder(encoder.finish())
    for values, weights, symbols, sums in made:
        np.testing.assert_array_equal(decoder.take(reader, symbols.shape, ALL, NO_PARENT), symbols)
        sizes = np.abs(symbols)
        excess, weights = sizes - np.abs(values.astype(float)), np.broadcast_to(weights, symbols.shape)
        ones, more = sizes == 1, sizes > 1
        expected = [(weights * excess**2).sum(), weights[ones].sum(), (weights * excess)[ones].sum()]
        expected += [weights[more].sum(), (weights * excess)[more].sum()]
        np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    assert same(writer, reader)


def test_a_block_of_the_largest_symbols_comes_back() -> None:
    """They take far more bytes than the coder makes room for at first."""
    random = np.random.default_rng(0)
    symbols = (random.choice([-1, 1], (7, 16, 16, 16)) * (LARGEST - 1 - random.integers(0, 3, (7, 16, 16, 16)))).astype(
        np.int32
    )
    stream = encoded(symbols)
    assert len(stream) > symbols.size
    np.testing.assert_array_equal(decoded(stream, symbols.shape), symbols)


@settings(max_examples=60, deadline=None)
@given(blocks())
def test_no_byte_at_the_end_of_a_stream_can_be_spared(case: tuple[Ints, Parent]) -> None:
    symbols, parent = case
    stream, learnt, others = encoded(symbols, parent), Statistics.fresh(), Statistics.fresh()
    if not stream:
        return
    Decoder(stream).take(learnt, symbols.shape, ALL[: len(symbols)], parent)
    again = Decoder(stream[:-1]).take(others, symbols.shape, ALL[: len(symbols)], parent)
    # A flag may be set for a cell of zeros: the same symbols, though not the same lesson.
    assert not np.array_equal(again, symbols) or not same(learnt, others)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), blocks())
def test_any_bytes_decode_to_valid_symbols(stream: bytes, case: tuple[Ints, Parent]) -> None:
    like, parent = case
    symbols = decoded(stream, like.shape, parent)
    assert symbols.shape == like.shape
    assert np.abs(symbols.astype(np.int64)).max() <= LARGEST


@pytest.mark.parametrize("stream", [b"", b"\0", b"\xff" * 2**20, np.random.default_rng(0).bytes(2**20)], ids=range(4))
def test_the_largest_block_of_any_bytes_decodes_to_valid_symbols(stream: bytes) -> None:
    """How long that takes is bounded in ``benchmarks/attack.py``."""
    symbols = decoded(stream, (7, 32, 32, 32))
    assert np.abs(symbols.astype(np.int64)).max() <= LARGEST


@pytest.mark.parametrize("spread", [0.35, 0.7, 3.0, 40.0])
def test_independent_symbols_take_little_more_than_their_entropy(spread: float) -> None:
    symbols = np.rint(np.random.default_rng(3).laplace(0, spread, (1, 32, 32, 32))).astype(np.int32)
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / symbols.size
    entropy = -float((shares * np.log2(shares)).sum()) * symbols.size
    # Elias-gamma codes spend whole bits on what is left of large magnitudes.
    assert 8 * len(encoded(symbols)) < (1.03 if spread < 1 else 1.08) * entropy + 400


def clustered(seed: int) -> Ints:
    """Symbols whose size is the same in every cube of side 4."""
    random = np.random.default_rng(seed)
    sizes = np.kron(random.exponential(1.0, (4, 4, 4)) ** 3, np.ones((4, 4, 4)))
    return np.rint(random.laplace(0, 1, (7, 16, 16, 16)) * sizes).astype(np.int32)


def test_symbols_that_cluster_take_less_than_the_same_ones_shuffled() -> None:
    symbols = clustered(0)
    shuffled = np.random.default_rng(1).permutation(symbols.ravel()).reshape(symbols.shape)
    assert len(encoded(symbols)) < 0.8 * len(encoded(shuffled))


def test_a_parent_that_knows_helps_and_one_that_does_not_harms_little() -> None:
    random = np.random.default_rng(0)
    knowing = (random.random((7, 8, 8, 8)) < 0.3).astype(np.int32)
    busy = np.kron(knowing, np.ones((1, 2, 2, 2)))
    symbols = (busy * random.integers(-1, 1, busy.shape, endpoint=True)).astype(np.int32)
    every, none, twice = np.arange(7, dtype=np.int32), np.zeros(3, np.int32), np.full(3, 2, np.int32)
    alone = len(encoded(symbols))
    assert len(encoded(symbols, Parent(Cells.within(knowing), every, none, twice))) < 0.95 * alone
    assert len(encoded(symbols, Parent(Cells.within(np.zeros_like(knowing)), every, none, twice))) < 1.01 * alone


def test_what_was_learnt_from_another_block_helps() -> None:
    statistics, encoder = Statistics.fresh(), Encoder()
    add(encoder, statistics, clustered(5))
    small = clustered(6)[:, :8, :8, :8].copy()
    assert len(encoded(small, statistics=statistics)) < 0.97 * len(encoded(small))


def test_a_copy_of_statistics_learns_by_itself() -> None:
    statistics = Statistics.fresh()
    encoded(clustered(0), statistics=statistics)
    assert same(statistics, Statistics.fresh())


@pytest.fixture
def values() -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).laplace(0, 1.2, (7, 16, 16, 16)).astype(np.float32)


def chosen(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], lagrangian: float) -> Ints:
    return np.asarray(Encoder().add(Statistics.fresh(), values, weights, lagrangian, ALL, NO_PARENT)[0])


def test_bits_that_cost_nothing_leave_symbols_rounded(values: npt.NDArray[np.float32]) -> None:
    errors = np.abs(chosen(values, ONE, 0.0) - values)
    assert errors.max() < 0.61
    assert (errors > 0.5).mean() < 0.1, "cells of nothing above 0.6, and what is nearer to a smaller symbol"


def test_dearer_bits_are_spent_less_and_on_what_weighs_more(values: npt.NDArray[np.float32]) -> None:
    used = [np.count_nonzero(chosen(values, ONE, price)) for price in (0.0, 0.1, 0.5)]
    assert used[0] > used[1] > used[2]
    half = np.full((1, 16, 16, 16), 0.1, np.float32)
    half[..., 8:] = 10
    weighted = chosen(values, half, 0.1)
    assert np.count_nonzero(weighted[..., 8:]) > 1.2 * np.count_nonzero(weighted[..., :8])


@pytest.mark.parametrize("place", [0, 21, 63])
def test_a_cell_is_kept_for_one_large_value_wherever_it_is(place: int) -> None:
    values = np.full((1, 8, 8, 8, 4, 4, 4), 0.45, np.float32)
    large = np.random.default_rng(0).random((8, 8, 8)) < 0.1
    values.reshape(8, 8, 8, 64)[large, place] = -2.2
    block = values.transpose(0, 1, 4, 2, 5, 3, 6).reshape(1, 32, 32, 32)
    np.testing.assert_array_equal(chosen(block, ONE, 0.07), np.where(block < 0, -2, 0))


def test_values_beyond_the_largest_symbol_become_the_largest() -> None:
    values = np.array([3e38, -3e38, 1e8, 0], np.float32).reshape(1, 1, 1, 4)
    symbols = chosen(values, ONE, 0.1)
    assert symbols.ravel().tolist() == [LARGEST - 1, 1 - LARGEST, LARGEST - 1, 0]
    np.testing.assert_array_equal(decoded(encoded(symbols), symbols.shape), symbols)


@settings(max_examples=150, deadline=None)
@given(blocks(), st.data())
def test_cells_give_the_symbols_of_any_box(case: tuple[Ints, Parent], data: st.DataObject) -> None:
    symbols, _ = case
    cells = Decoder(encoded(symbols)).take(Statistics.fresh(), symbols.shape, ALL[: len(symbols)], NO_PARENT)
    ends = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in symbols.shape[1:]]
    box = (slice(None), *(slice(start, stop) for start, stop in ends))
    begin, sides = tuple(start for start, _ in ends), tuple(stop - start for start, stop in ends)
    np.testing.assert_array_equal(cells.box(begin, sides), symbols[box])  # type: ignore[arg-type]
    assert cells.nbytes <= 68 * 4 * np.count_nonzero(symbols)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5]), st.sampled_from([2, 200, 70_000]), st.data())
def test_a_box_is_dequantised_where_the_transform_has_its_bands(
    seed: int, density: float, largest: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    axes = data.draw(st.sampled_from([(2,), (0, 1), (1, 2), (0, 1, 2)]))
    codes = np.array(orientations_of(axes), np.int32)
    sides = [data.draw(st.integers(1, 9)) for _ in range(3)]
    symbols = random.integers(-largest, largest, (len(codes), *sides), endpoint=True, dtype=np.int32)
    symbols *= random.random(symbols.shape) < density
    cells = Decoder(encoded(symbols)).take(Statistics.fresh(), symbols.shape, codes, NO_PARENT)
    ends = [sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n)))) for n in sides]
    place = [data.draw(st.integers(0, 3)) for _ in sides]
    low = [p + b - a for p, (a, b) in zip(place, ends, strict=True)]
    shorter = [data.draw(st.integers(0, 1)) if n > 1 else 0 for n in low]
    shape = [2 * n - cut if axis in axes else n for axis, (n, cut) in enumerate(zip(low, shorter, strict=True))]
    volume, expected = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    split = tuple(int(axis in axes) for axis in range(3))
    cells.dequantise(
        tuple(a for a, _ in ends), volume, tuple(place), tuple(b - a for a, b in ends), codes, split, (2.0, 1.5, 0.25)
    )  # type: ignore[arg-type]
    sizes = np.abs(symbols.astype(np.float64))
    values = np.sign(symbols) * np.where(sizes == 1, 1.5, sizes * 2 - 0.25)
    for code, band in zip(codes.tolist(), values, strict=True):
        there = band_of(expected, code, axes)
        part = band[tuple(slice(a, b) for a, b in ends)]
        target = there[tuple(slice(p, None) for p in place)]
        target[...] = part[tuple(slice(n) for n in target.shape)]
    np.testing.assert_array_equal(volume, expected)
