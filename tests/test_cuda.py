"""What holds on a CUDA device, beside the CPU: ``pytest -m cuda`` where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import blobs

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.choices import FAMILIES
from napari_tinc.format import KIND_WAVELETS, parse
from napari_tinc.measures import metrics
from napari_tinc.networks import training
from napari_tinc.networks.device import has_fast_bfloat16, resolve_device
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.on_device import operations

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
DEVICE = "cuda"
VOLUME = blobs((24, 40, 36))
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.tinc"))
NETWORKS = [path for path in GOLDEN if parse(path.read_bytes()).header.model == FAMILIES["tinc"].code]

WAVELETS = [path for path in GOLDEN if KIND_WAVELETS in CompressedVolume.open(path).kinds]


def trained(device: str, **settings: Any) -> CompressedVolume:
    return compress(VOLUME, Target.ratio(12), preset="fast", model="tinc", device=device, **settings)


def psnr(file: CompressedVolume) -> float:
    """Quality of a file as the CPU decodes it."""
    return metrics.psnr(VOLUME, CompressedVolume(file.to_bytes(), "cpu").decode())


def grey_levels(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference, in grey levels; for floats, in ten-thousandths of the range."""
    difference = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
    return difference if one.dtype.kind != "f" else difference / (1e-4 * float(np.ptp(other)))


def test_auto_takes_cuda() -> None:
    assert resolve_device("auto").type == DEVICE
    assert resolve_device(f"{DEVICE}:0") == torch.device(DEVICE, 0)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_golden_networks_decode_to_what_the_cpu_decodes(path: Path, scale: float) -> None:
    on_gpu, on_cpu = (CompressedVolume.open(path, device).decode(scale=scale) for device in (DEVICE, "cpu"))
    assert grey_levels(on_gpu, on_cpu) <= 1


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("path", WAVELETS, ids=lambda path: path.stem)
def test_golden_wavelets_decode_to_what_the_cpu_decodes(path: Path, scale: float) -> None:
    on_gpu = CompressedVolume.open(path, DEVICE)
    assert grey_levels(on_gpu.decode(scale=scale), CompressedVolume.open(path, "cpu").decode(scale=scale)) <= 1


def test_wavelets_decode_alike_in_boxes_that_the_gpu_has_no_memory_for(caplog: pytest.LogCaptureFixture) -> None:
    data = compress(blobs((64, 96, 96)), Target.ratio(32), preset="fast").to_bytes()
    expected = CompressedVolume(data, "cpu").decode()
    with pytest.MonkeyPatch.context() as patch:
        restored = operations.restored

        def hungry(values: torch.Tensor, restoration: Any) -> torch.Tensor:
            if values.numel() > 2**17:
                torch.empty(2**50, dtype=torch.uint8, device=values.device)
            return restored(values, restoration)

        patch.setattr(operations, "restored", hungry)
        decoded = CompressedVolume(data, DEVICE).decode()
    assert "out of memory on cuda" in caplog.text
    assert grey_levels(decoded, expected) <= 1


def test_what_is_trained_on_cuda_is_as_good_as_on_the_cpu_and_decodes_alike_on_both() -> None:
    file = trained(DEVICE)
    assert psnr(file) == pytest.approx(psnr(trained("cpu")), abs=1.5)
    on_gpu, on_cpu = (CompressedVolume(file.to_bytes(), device) for device in (DEVICE, "cpu"))
    for region in ((), (7,), (slice(3, 9), 11)):
        assert grey_levels(on_gpu.decode(region), on_cpu.decode(region)) <= 1


@contextmanager
def evaluations() -> Iterator[list[tuple[bool, bool]]]:
    """Note of every evaluation of a network whether something is learnt from it, and whether products are reduced."""
    seen: list[tuple[bool, bool]] = []
    evaluate = TincNetwork.evaluate

    def noted(self: TincNetwork, parameters: Any, coordinates: Any) -> torch.Tensor:
        output = evaluate(self, parameters, coordinates)
        seen.append((output.requires_grad, torch.is_autocast_enabled(DEVICE)))
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TincNetwork, "evaluate", noted)
        yield seen


def test_the_first_phase_alone_is_in_bfloat16_and_costs_no_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    quality = []
    for wanted in (True, False):
        monkeypatch.setattr(training, "has_fast_bfloat16", lambda device, wanted=wanted: wanted)
        with evaluations() as seen:
            quality.append(psnr(trained(DEVICE)))
        learning = [reduced for learns, reduced in seen if learns]
        first = sum(learning)
        assert all(learning[:first]), "one phase after the other"
        assert 0.8 < first / len(learning) < 0.95 if wanted else first == 0
        assert not any(reduced for learns, reduced in seen if not learns), "decoding"
    assert quality[0] == pytest.approx(quality[1], abs=1.5)


def test_bfloat16_is_the_default_where_it_is_native() -> None:
    assert has_fast_bfloat16(torch.device(DEVICE)) == (torch.cuda.get_device_capability() >= (8, 0))


@contextmanager
def scarce_memory(most: int) -> Iterator[list[int]]:
    """Let the device's own allocator fail for more points a leaf than these; note how many were asked for."""
    asked: list[int] = []
    evaluate = TincNetwork.evaluate

    def hungry(self: TincNetwork, parameters: Any, coordinates: torch.Tensor) -> torch.Tensor:
        asked.append(coordinates.shape[1])
        if asked[-1] > most:
            torch.empty(2**50, dtype=torch.uint8, device=coordinates.device)
        return evaluate(self, parameters, coordinates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TincNetwork, "evaluate", hungry)
        yield asked


def test_training_that_runs_out_of_memory_halves_the_batch_and_goes_on() -> None:
    with scarce_memory(130) as asked:
        file = trained(DEVICE, levels=1)
    failed = next(i for i, points in enumerate(asked) if points <= 130)
    assert failed > 0
    assert asked[: failed + 1] == [asked[0] // 2**i for i in range(failed + 1)]
    assert set(asked[failed : failed + 1000]) == {asked[failed]}, "and stays there"
    assert psnr(file) > 20


def test_decoding_that_runs_out_of_memory_goes_on_in_smaller_batches() -> None:
    for path in NETWORKS:
        expected = CompressedVolume.open(path, "cpu").decode()
        with scarce_memory(130) as asked:
            decoded = CompressedVolume.open(path, DEVICE).decode()
        assert max(asked) > 130 >= min(asked)
        assert grey_levels(decoded, expected) <= 1
