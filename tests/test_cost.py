"""A small file cannot make its reader work for long; ``docs/format.md`` says what it may cost."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from mutators import varint

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES
from napari_tinc.errors import FormatError
from napari_tinc.format import KIND_PARAMETERS, KIND_QUALITY, Frame, Header, ItemRange, Segment, pack
from napari_tinc.geometry.octree import Octree
from napari_tinc.networks import older_coders
from napari_tinc.networks.entropy import MAX_SYMBOL
from napari_tinc.networks.families.tinc import FAMILY, TincNetwork
from napari_tinc.networks.payload import MAX_BOUNDS_PER_BYTE
from napari_tinc.networks.quantization import Layout
from napari_tinc.quality import quality_size
from napari_tinc.volume import CompressedVolume


def greedy(items: int, layers: int, bound: int, coder: int = older_coders.RANGE_CODER) -> bytes:
    """A file of networks one wide, each of whose tensors has a symbol model of its own with a large bound."""
    tree = Octree((4, 4, 4), ())
    network = TincNetwork.on_tree(tree, [layers], [np.full(items, 1)])
    limits = (ItemRange(0, 255, 0, 0),) * items
    metadata = Metadata("tzyx", (1.0,) * 4, ("",) * 4)
    header = Header((items, 4, 4, 4), "u1", metadata, limits, (), FAMILIES["tinc"].code, FAMILY.pack(network), 0, 0, {})
    tensors = len(Layout(network).tensors)
    parts = [Segment(KIND_QUALITY, item, 0, bytes(quality_size(1))) for item in range(items)]
    for item in range(items):
        models = b"".join(
            bytes([0, (item * tensors + i) % older_coders.SCALE_CODES]) + varint(bound - (item * tensors + i) // 120)
            for i in range(tensors)
        )
        parts.append(Segment(KIND_PARAMETERS, item, 0, bytes([coder]) + models))
    return pack(Frame(header, tuple(parts)))


@pytest.fixture
def tabulated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Symbols of every table that is made."""
    symbols: list[int] = []
    frequencies = older_coders.frequencies

    def counted(model: older_coders.SymbolModel) -> object:
        symbols.append(2 * model.bound + 1)
        return frequencies(model)

    monkeypatch.setattr(older_coders, "frequencies", counted)
    older_coders._intervals.cache_clear()
    return symbols


def test_symbol_models_that_would_take_minutes_to_tabulate_are_refused_before_any_is(tabulated: list[int]) -> None:
    data = greedy(40, 8, MAX_SYMBOL)
    assert len(data) < 5000
    volume = CompressedVolume(data, "cpu")
    with pytest.raises(FormatError, match="bounds of symbols"):
        volume.decode()
    assert tabulated == []


def test_models_of_tensors_without_symbols_are_not_tabulated(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[older_coders.SymbolModel] = []
    monkeypatch.setattr(older_coders, "_intervals", made.append)
    model = older_coders.SymbolModel(older_coders.GAUSSIAN, 119, MAX_SYMBOL)
    (symbols,) = older_coders.decode(b"", [0], [model], older_coders.RANGE_CODER)
    assert symbols.size == 0
    assert made == []


def test_a_small_file_tabulates_what_its_size_allows_and_no_more(tabulated: list[int]) -> None:
    data = greedy(1, 3, MAX_SYMBOL)
    with suppress(FormatError):
        CompressedVolume(data, "cpu").decode()
    assert len(tabulated) == 8, "four layers' weights and biases"
    assert sum(tabulated) <= 2 * (2**17 + MAX_BOUNDS_PER_BYTE * len(data)) + 8


@pytest.mark.parametrize("scale", [0, 30, 60, 119])
@pytest.mark.parametrize("family", [older_coders.GAUSSIAN, older_coders.LAPLACE])
def test_tables_end_where_symbols_are_too_rare_to_count(family: int, scale: int) -> None:
    """Beyond the first weight of 0 all are: the table is that of the definition, symbol by symbol."""
    counts = older_coders.frequencies(older_coders.SymbolModel(family, scale, 900))
    assert counts.sum() == 2**20
    assert counts.min() >= 1
    assert (counts == counts[::-1]).all()
    assert (np.diff(counts[900:]) <= 0).all()
