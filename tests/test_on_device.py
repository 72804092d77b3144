"""Wavelets on a device of torch decode to what the CPU's kernels decode; here the device is torch's CPU."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from synthetic import blobs

from napari_tinc import CompressedVolume, InputError, Target, compress
from napari_tinc.format import KIND_POSTFILTER, KIND_WAVELETS, MODEL_WAVELETS
from napari_tinc.layers import ItemDecoder
from napari_tinc.on_device import item, operations
from napari_tinc.on_device.item import WaveletsOnDevice
from napari_tinc.wavelets.blocks import WaveletLayer

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.tinc"))


def is_of_wavelets(path: Path) -> bool:
    volume = CompressedVolume.open(path)
    return volume.header.model == MODEL_WAVELETS and KIND_WAVELETS in volume.kinds


WAVELETS = [path for path in GOLDEN if is_of_wavelets(path)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let files opened on "cuda" decode with torch on the CPU; return the voxels of all regions asked for."""
    voxels: list[int] = []
    converted = WaveletsOnDevice._converted

    def noted(self: WaveletsOnDevice, values: torch.Tensor, *types: Any) -> npt.NDArray[Any]:
        voxels.append(values.numel())
        return converted(self, values, *types)

    monkeypatch.setattr("napari_tinc.networks.device.resolve_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(WaveletsOnDevice, "_converted", noted)
    return voxels


def differs(path: Path, decode: Callable[[CompressedVolume], npt.NDArray[Any]]) -> float:
    """Largest difference between device and CPU, in grey levels; for floats in ten-thousandths of the range."""
    there, here = (decode(CompressedVolume.open(path, device)) for device in ("cuda", "cpu"))
    assert there.dtype == here.dtype
    assert there.shape == here.shape
    difference = float(np.abs(there.astype(np.float64) - here.astype(np.float64)).max())
    if here.dtype.kind == "f":
        low, high = CompressedVolume.open(path).value_ranges[0]
        return difference / (1e-4 * (high - low))
    return difference


def allowed(path: Path) -> float:
    """Only sums of a post-filter are rounded in another order."""
    return 1.0 if KIND_POSTFILTER in CompressedVolume.open(path).kinds else 0.0


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3, 2.0, 1.5])
@pytest.mark.parametrize("path", WAVELETS, ids=lambda path: path.stem)
def test_golden_wavelets_decode_to_the_same_voxels(path: Path, scale: float, asked: list[int]) -> None:
    assert differs(path, lambda volume: volume.decode(scale=scale)) <= allowed(path)
    assert asked


@pytest.mark.parametrize("path", WAVELETS, ids=lambda path: path.stem)
def test_planes_and_boxes_decode_to_the_same_voxels(path: Path, asked: list[int]) -> None:
    sides = CompressedVolume.open(path).shape
    box = tuple(slice(n // 3, n // 2 + 1) for n in sides)
    for axis, side in enumerate(sides):
        for place in (0, side // 2, side - 1):
            plane = (slice(None),) * axis + (place,)
            assert differs(path, lambda volume, plane=plane: volume.decode(plane)) <= allowed(path)
    assert differs(path, lambda volume: volume.decode(box)) <= allowed(path)
    assert asked


def test_there_are_golden_files_of_every_kind() -> None:
    names = " ".join(path.stem for path in WAVELETS)
    assert all(kind in names for kind in ("detail", "restored", "postfiltered", "masked", "corrected"))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "f8"])
def test_every_dtype_decodes_to_the_same_voxels_of_several_boxes(
    dtype: str, asked: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(item, "BOX_VOXELS", 5000)
    shift = {"i1": -100, "i2": -20_000, "i4": -(2**31), "u4": 2**31, "u2": 30_000}.get(dtype, 0)
    factor = {"i1": 0.05, "u1": 0.05, "i4": 1e5, "u4": 1e5}.get(dtype, 1.0)
    wide = blobs((24, 40, 36)).astype(np.float64)
    volume = np.clip(wide * factor + shift, *(_limits(dtype))).astype(dtype)
    compress(volume, Target.ratio(6), preset="fast").save(tmp_path / "v.tinc")
    assert differs(tmp_path / "v.tinc", lambda volume: volume.decode()) == 0
    assert len(asked) > 1
    assert max(asked) <= 5000


def _limits(dtype: str) -> tuple[float, float]:
    kind = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    return float(kind.min), float(kind.max)


def test_symbols_that_do_not_fit_in_a_byte_decode_to_the_same_voxels(asked: list[int], tmp_path: Path) -> None:
    compress(blobs((32, 40, 40)), Target.psnr(72), preset="fast").save(tmp_path / "v.tinc")
    volume = CompressedVolume.open(tmp_path / "v.tinc", "cuda")
    decoder = volume._decoders[0]
    assert isinstance(decoder, ItemDecoder)
    layer = decoder.layers[0]
    assert isinstance(layer, WaveletLayer)
    parts = item._Coded.of(layer, 0, tuple((0, n) for n in volume.shape)).parts
    assert {part.dtype for part in parts[:-1]} >= {np.dtype(np.float32)}
    assert differs(tmp_path / "v.tinc", lambda volume: volume.decode()) == 0


def test_a_device_without_memory_goes_on_in_smaller_boxes_and_says_so(
    asked: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = next(path for path in WAVELETS if "restored" in path.stem)
    voxels = CompressedVolume.open(path).header.spatial_shape
    monkeypatch.setattr(item, "_LEAST_VOXELS", 1)
    restored = operations.restored

    def hungry(values: torch.Tensor, restoration: Any) -> torch.Tensor:
        if values.numel() > np.prod(voxels) // 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return restored(values, restoration)

    monkeypatch.setattr(operations, "restored", hungry)
    with caplog.at_level(logging.WARNING):
        assert differs(path, lambda volume: volume.decode()) == 0
    assert "out of memory on cpu: going on with boxes of" in caplog.text
    monkeypatch.setattr(item, "_LEAST_VOXELS", np.prod(voxels))
    with pytest.raises(InputError, match=r"expected memory for .* decode on 'cpu'"):
        CompressedVolume.open(path, "cuda").decode()


def test_a_device_that_is_not_there_is_an_error_and_no_silent_cpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(InputError, match="expected a cuda device"):
        CompressedVolume.open(WAVELETS[0], "cuda").decode()


def test_auto_takes_cuda_only_where_torch_is_loaded_and_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_elsewhere() -> bool:
        volume = CompressedVolume.open(WAVELETS[0])
        decoder = volume._decoders[0]
        while not isinstance(decoder, ItemDecoder):
            decoder = decoder.inner  # type: ignore[attr-defined]
        return decoder.elsewhere is not None

    monkeypatch.setattr("napari_tinc.networks.device.resolve_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not is_elsewhere()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert is_elsewhere()
    monkeypatch.setattr("napari_tinc.system.cuda.is_forked", lambda: True)
    assert not is_elsewhere(), "a forked process cannot use its parent's CUDA"


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_torch_is_not_loaded_where_no_device_is_asked_for(device: str) -> None:
    code = (
        "import sys; from napari_tinc import CompressedVolume; "
        f"CompressedVolume.open({str(WAVELETS[0])!r}, {device!r}).decode(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
