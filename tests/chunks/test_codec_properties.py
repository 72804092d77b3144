"""Whatever is in a chunk, it is written and read; whatever is selected of an array, it is what numpy selects."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from synthetic import blobs
from zarr.storage import MemoryStore
from zarrs import Array, create, rmse, stored

from napari_tinc import TincCodec
from napari_tinc.format import MODEL_CONSTANT, MODEL_EXACT

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">u2", ">i4", ">f4", ">f8"]
EVERYTHING = {"write_empty_chunks": True}  # zarr takes 0 for -0, and one NaN for another


@st.composite
def chunked(draw: st.DrawFn) -> tuple[Array, tuple[int, ...]]:
    """Arrays of any values, sparse or dense, and chunks that they need not fill."""
    rank = draw(st.integers(0, 6))
    shape = tuple(draw(st.integers(1, 9 if rank < 4 else 3)) for _ in range(rank))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if draw(st.booleans()):
        array = draw(arrays.arrays(dtype, shape))
    else:
        random, low, high = np.random.default_rng(draw(st.integers(0, 2**32))), *draw(extremes(dtype))
        with np.errstate(all="ignore"):
            array = np.asarray(low + random.random(shape) * (high - low)).clip(low, high).astype(dtype)
    chunks = tuple(draw(st.integers(-(-side // 2), side + 1)) for side in shape)
    return array, chunks


def extremes(dtype: np.dtype[Any]) -> st.SearchStrategy[tuple[float, float]]:
    """Ends of a range, at the ends of the dtype among others."""
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        ends = [0, 1, float(limits.smallest_subnormal), float(limits.tiny), float(limits.max) / 2]
    elif dtype.kind == "b":
        ends = [0, 1]
    else:
        ends = [0, 1, 100, int(np.iinfo(dtype).max) // 2]
    return st.tuples(st.sampled_from(ends), st.sampled_from(ends)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def codecs(draw: st.DrawFn) -> TincCodec:
    name = draw(st.sampled_from(["step", "psnr", "ratio", "max_error"]))
    value = draw(st.sampled_from([1e-300, 1e-3, 0.4, 1, 3, 20, 45, 1000, 1e5, 1e300]))
    return TincCodec(**{name: value})


@given(chunked(), codecs(), st.sampled_from([0, 1, np.nan]))
@settings(max_examples=400, deadline=None)
def test_no_legal_chunk_fails_and_exact_ones_keep_every_bit(
    case: tuple[Array, tuple[int, ...]], codec: TincCodec, fill: float
) -> None:
    array, chunks = case
    fill_value = fill if array.dtype.kind == "f" or fill == fill else 0
    store = MemoryStore()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = create(store, array, chunks, codec, fill_value=fill_value, config=EVERYTHING)
        decoded = np.asarray(made[...])
    assert (decoded.shape, decoded.dtype.newbyteorder("=")) == (array.shape, array.dtype.newbyteorder("="))
    for frame, box in stored(store, made):
        kept, original = decoded[box], array[box]
        if frame.header.model == MODEL_EXACT:
            assert kept.tobytes() == original.tobytes()
            continue
        assert np.isfinite(kept).all()
        if codec.max_error is not None:
            assert np.abs(original.astype(np.longdouble) - kept.astype(np.longdouble)).max() <= codec.max_error
        if frame.header.model == MODEL_CONSTANT:
            np.testing.assert_array_equal(kept, original)
        if codec.step is not None:
            # Of a frame that is filled up beyond the end of the array, all may be in what is shown.
            beyond = np.prod(frame.header.shape) / kept.size
            assert rmse(original, kept) <= 0.5001 * codec.step * np.sqrt(beyond)


WHOLE = blobs((37, 30, 41))
LABELS = (WHOLE // 500).astype("i8")


@pytest.fixture(scope="module", params=["lossy", "exact", "shards"])
def pair(request: pytest.FixtureRequest) -> tuple[zarr.Array, Array]:
    """An array of ours, and all that it says."""
    options: dict[str, Any] = {"shards": (32, 24, 20)} if request.param == "shards" else {}
    array = LABELS if request.param == "exact" else WHOLE
    made = create(MemoryStore(), array, (16, 12, 20), TincCodec(step=30), **options)
    return made, made[:]


def indices(side: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-side, side - 1), min_size=1, max_size=5)


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    chosen = np.random.default_rng(draw(st.integers(0, 2**32))).random(shape) < draw(st.sampled_from([0.0, 0.001, 0.3]))
    return np.asarray(chosen)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_basic_selection_is_that_of_numpy(pair: tuple[zarr.Array, Array], data: st.DataObject) -> None:
    made, whole = pair
    selection = data.draw(arrays.basic_indices(whole.shape, allow_newaxis=False, allow_ellipsis=True))
    entries = selection if isinstance(selection, tuple) else (selection,)
    if any(isinstance(entry, slice) and (entry.step or 1) < 1 for entry in entries):
        return  # zarr has no backward slices
    np.testing.assert_array_equal(made[selection], whole[selection])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_an_orthogonal_selection_is_that_of_numpy(pair: tuple[zarr.Array, Array], data: st.DataObject) -> None:
    made, whole = pair
    selection, expected = [], whole
    for axis, side in enumerate(whole.shape):
        entry = data.draw(st.one_of(indices(side), masks((side,)), st.slices(side).filter(lambda s: (s.step or 1) > 0)))
        selection.append(np.array(entry) if isinstance(entry, list) else entry)
        expected = expected[(slice(None),) * axis + (selection[-1],)]
    np.testing.assert_array_equal(made.oindex[tuple(selection)], expected)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_coordinates_and_masks_select_as_in_numpy(pair: tuple[zarr.Array, Array], data: st.DataObject) -> None:
    made, whole = pair
    count = data.draw(st.integers(1, 6))
    rows = [data.draw(st.lists(st.integers(0, side - 1), min_size=count, max_size=count)) for side in whole.shape]
    np.testing.assert_array_equal(made.vindex[tuple(rows)], whole[tuple(rows)])
    mask = data.draw(masks(whole.shape))
    np.testing.assert_array_equal(made.get_mask_selection(mask), whole[mask])


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_a_block_is_a_chunk(pair: tuple[zarr.Array, Array], z: int, y: int, x: int) -> None:
    made, whole = pair
    sides = made.shards or made.chunks
    numbers = tuple(min(i, -(-n // s) - 1) for i, n, s in zip((z, y, x), whole.shape, sides, strict=True))
    box = tuple(slice(i * s, (i + 1) * s) for i, s in zip(numbers, sides, strict=True))
    np.testing.assert_array_equal(made.blocks[numbers], whole[box])


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_written_in_parts_is_read_again(data: st.DataObject) -> None:
    made = create(MemoryStore(), LABELS, (16, 12, 20), TincCodec(step=1))
    expected = LABELS.copy()
    for _ in range(2):
        selection = tuple(data.draw(st.slices(side).filter(lambda s: (s.step or 1) > 0)) for side in LABELS.shape)
        value = data.draw(st.integers(-(2**63), 2**63 - 1))
        made[selection] = expected[selection] = value
    np.testing.assert_array_equal(made[:], expected)
