"""Whatever is handed to the library is used or refused with a clear error of its own, never another exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import blobs

from napari_tinc import BudgetError, CompressedVolume, InputError, Metadata, Target, compress

GOLDEN = Path(__file__).parent / "golden" / "v1-detail-zyx-u2.tinc"
SHAPE = (12, 13, 14)
VOLUME = blobs(SHAPE).astype(np.float32)
NAMELESS = (1.0,) * 3, ("",) * 3


def quickly(array: Any = VOLUME, target: Any = None, **settings: Any) -> CompressedVolume:
    settings = {"preset": "fast", "time_limit": 1} | settings
    return compress(array, Target.ratio(4) if target is None else target, **settings)


def opened() -> CompressedVolume:
    return CompressedVolume.open(GOLDEN, "cpu")


REFUSED: dict[str, Callable[[], object]] = {
    "a list": lambda: quickly(VOLUME[0].tolist()),
    "nothing": lambda: quickly(None),
    "a number": lambda: quickly(np.array(3.0)),
    "a row": lambda: quickly(VOLUME[0, 0]),
    "six axes": lambda: quickly(VOLUME.reshape(1, 1, 1, *SHAPE)),
    "objects": lambda: quickly(VOLUME.astype(object)),
    "text": lambda: quickly(np.array([["a", "b"]])),
    "a masked array": lambda: quickly(np.ma.masked_less(VOLUME, 100)),
    "subnormal doubles": lambda: quickly(np.arange(24).reshape(2, 3, 4) * 5e-324),
    "squares that overflow": lambda: quickly(VOLUME.astype(np.float64) * 1e290),
    "too many items": lambda: quickly(np.zeros((2**16 + 1, 1, 1)), metadata=Metadata("tyx", *NAMELESS)),
    "half a level": lambda: quickly(levels=2.5),
    "yes as levels": lambda: quickly(levels=True),
    "levels as text": lambda: quickly(levels="2"),
    "a device nobody has": lambda: quickly(device="x"),
    "no device": lambda: quickly(device=None),
    "a device nobody has for a constant": lambda: quickly(np.zeros(SHAPE, np.uint8), device="tpu"),
    "one of many processors": lambda: quickly(device="cpu:99"),
    "a seed of text": lambda: quickly(seed="x"),
    "half a seed": lambda: quickly(seed=1.5),
    "a seed of 80 bits": lambda: quickly(seed=2**80),
    "a time limit of text": lambda: quickly(time_limit="3"),
    "a time limit that is no number": lambda: quickly(time_limit=float("nan")),
    "no strategy between": lambda: quickly(between=None),
    "ratios of text": lambda: quickly(between=("a", "b")),
    "no strategy within": lambda: quickly(within=None),
    "a list of presets": lambda: quickly(preset=["fast"]),
    "no target": lambda: compress(VOLUME, None),  # type: ignore[arg-type]
    "a number as target": lambda: quickly(target=64),
    "a target of another kind": lambda: Target("dB", 3),
    "a ratio of text": lambda: Target.ratio("4"),  # type: ignore[arg-type]
    "no ratio": lambda: Target.ratio(None),  # type: ignore[arg-type]
    "yes as ratio": lambda: Target.ratio(True),
    "a ratio beyond all floats": lambda: Target.ratio(10**400),
    "no step": lambda: Target.step(0),
    "a negative step": lambda: Target.step(-1),
    "a step that is no number": lambda: Target.step(float("nan")),
    "a step for a network": lambda: quickly(target=Target.step(1), model="tinc"),
    "a step for a network and wavelets": lambda: quickly(target=Target.step(1), model="tinc+wavelet"),
    "a step for what may become a network": lambda: quickly(target=Target.step(1), preset="balanced"),
    "an infinite ratio": lambda: Target.ratio(float("inf")),
    "weights in a list": lambda: quickly(weights=[1]),
    "weights of text": lambda: quickly(weights=np.full(SHAPE, "a")),
    "complex weights": lambda: quickly(weights=np.full(SHAPE, 1j)),
    "masked weights": lambda: quickly(weights=np.ma.ones(SHAPE)),
    "weights beyond float32": lambda: quickly(weights=np.full(SHAPE, 1e300)),
    "weights below float32": lambda: quickly(weights=np.full(SHAPE, 1e-300)),
    "axes instead of metadata": lambda: quickly(metadata="zyx"),
    "metadata without axes": lambda: quickly(metadata=Metadata(None, *NAMELESS)),  # type: ignore[arg-type]
    "voxel sizes of text": lambda: quickly(metadata=Metadata("zyx", ("1",) * 3, ("",) * 3)),  # type: ignore[arg-type]
    "a voxel size beyond floats": lambda: quickly(metadata=Metadata("zyx", (10**400, 1, 1), ("",) * 3)),
    "no units": lambda: quickly(metadata=Metadata("zyx", (1.0,) * 3, (None,) * 3)),  # type: ignore[arg-type]
    "a name of half a surrogate pair": lambda: quickly(metadata=Metadata("zyx", *NAMELESS, name="\udcff")),
    "a name that is a number": lambda: quickly(metadata=Metadata("zyx", *NAMELESS, name=5)),  # type: ignore[arg-type]
    "a name of 70 kB": lambda: quickly(metadata=Metadata("zyx", *NAMELESS, name="x" * 70000)),
    "default axes of six": lambda: Metadata.default(6),
    "opening on a device nobody has": lambda: CompressedVolume.open(GOLDEN, "x"),
    "opening a folder": lambda: CompressedVolume.open(GOLDEN.parent),
    "opening a name with NUL": lambda: CompressedVolume.open("a\0b"),
    "no bytes": lambda: CompressedVolume(None),  # type: ignore[arg-type]
    "bytes of text": lambda: CompressedVolume("abc"),  # type: ignore[arg-type]
    "a number instead of bytes": lambda: CompressedVolume(2**40),  # type: ignore[arg-type]
    "a region of text": lambda: opened().decode("a"),  # type: ignore[arg-type]
    "half a plane": lambda: opened().decode((1.5,)),  # type: ignore[arg-type]
    "a slice of halves": lambda: opened().decode((slice(0.5, 2),)),
    "a slice of step 0": lambda: opened().decode((slice(0, 2, 0),)),
    "a scale of text": lambda: opened().decode(scale="1"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        REFUSED[name]()
    text = str(caught.value)
    assert "got" in text or ": " in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize("target", [Target.ratio(1e-320), Target.bits_per_voxel(1e308), Target.size(2**80)])
def test_a_budget_beyond_all_numbers_is_refused_like_any_that_is_too_large(target: Target) -> None:
    with pytest.raises(BudgetError, match="smaller than the volume"):
        quickly(target=target)


def one_digit(dtype: str, value: float) -> np.ndarray:
    """Two neighbouring floats."""
    low = np.full(SHAPE, value, dtype)
    return np.where(np.median(VOLUME) < VOLUME, low, np.nextafter(low, np.array(np.inf, dtype)))


@pytest.mark.parametrize("model", ["wavelet", "tinc"])
@pytest.mark.parametrize(
    "array",
    [one_digit("f4", 1e30), one_digit("f8", 1e30), one_digit("f8", 1.0), (VOLUME * 1e-40).astype(np.float32),
     (VOLUME / VOLUME.max() * 6e-6).astype(np.float16), VOLUME.astype(np.float64) * 1e-290],
    ids=["one digit f4 1e30", "one digit f8 1e30", "one digit f8 1", "subnormal f4", "subnormal f2", "tiny f8"],
)  # fmt: skip
def test_ranges_at_the_end_of_what_floats_can_tell_apart_come_back_within_themselves(
    array: np.ndarray, model: str
) -> None:
    decoded = quickly(array, model=model).decode()
    assert decoded.dtype == array.dtype
    assert array.min() <= decoded.min() <= decoded.max() <= array.max()


def test_arrays_of_other_kinds_are_taken_for_their_values() -> None:
    plane = np.tile(VOLUME[3], (3, 3))
    expected = quickly(plane).to_bytes()
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(plane)
    assert quickly(matrix).to_bytes() == expected
    sizes: Any = tuple(np.float32([2, 0.5]))
    read_back = quickly(plane, metadata=Metadata("yx", sizes, ("", ""))).metadata.voxel_size
    assert read_back == (2.0, 0.5)
    assert all(type(size) is float for size in read_back)
