"""Work that threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_tinc import CompressedVolume, Target, compress, layers, samples
from napari_tinc.chunks import engine
from napari_tinc.geometry.pyramid import BlockCache
from napari_tinc.limits import LIMITS
from napari_tinc.networks import device, leafwise
from napari_tinc.networks.families.tinc import TincNetwork
from napari_tinc.system import threads
from napari_tinc.system.threads import BlockThreads, side_by_side


@pytest.fixture(params=[1, 2, 5])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(threads, "usable_cores", lambda: request.param)
    return request.param


def test_results_come_in_order_and_few_are_in_work(cores: int) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02 if number % 3 else 0.05)
        with lock:
            now -= 1
        return number * number

    assert list(side_by_side(work, range(20))) == [n * n for n in range(20)]
    assert most <= cores


@pytest.mark.parametrize("count", [1, 3, 200])
def test_blocks_come_in_order_and_an_error_of_one_reaches_who_asked(cores: int, count: int) -> None:
    pool = BlockThreads(cores)
    assert list(pool.map(lambda a, b: a - b, range(count), range(0, 3 * count, 3))) == [-2 * n for n in range(count)]
    names = set(pool.map(lambda _: threading.current_thread().name, range(count)))
    assert (names == {threading.current_thread().name}) == (cores == 1)
    with pytest.raises(ZeroDivisionError):
        list(pool.map(lambda n: 1 // (count - 1 - n), range(count)))


def test_what_comes_after_a_job_is_worked_on_when_it_is_done(cores: int) -> None:
    """A binary tree of 126 jobs under two roots."""
    known = {0: 0}

    def work(number: int) -> int:
        assert (number - 1) // 2 in known, "its parent is not done"
        time.sleep(0.001 * (number % 4))
        return number * number

    def after(number: int, made: int) -> list[int]:
        known[number] = made
        return [2 * number + 1, 2 * number + 2] if number < 63 else []

    found = dict(BlockThreads(cores).follow(work, [1, 2], after))
    assert found == {number: number * number for number in range(1, 127)}


def test_an_error_of_a_job_reaches_who_asked_and_who_stops_early_waits_for_those_in_work(cores: int) -> None:
    pool, begun, ended = BlockThreads(cores), set[int](), set[int]()

    def work(number: int) -> float:
        begun.add(number)
        time.sleep(0.01)
        ended.add(number)
        return 1 / (number - 5)

    with pytest.raises(ZeroDivisionError):
        list(pool.follow(work, [0], lambda number, _: [number + 1]))
    assert begun == ended == set(range(6))
    jobs = pool.follow(work, range(100, 200), lambda number, _: [])
    next(jobs)
    jobs.close()
    assert begun == ended
    assert len(begun) < 6 + 8 * 2 * cores + 8


def test_boxes_in_boxes_do_not_wait_for_each_other(cores: int) -> None:
    found = side_by_side(lambda n: sum(side_by_side(lambda m: n * m, range(4))), range(30))
    assert list(found) == [6 * n for n in range(30)]


def test_while_every_core_has_a_box_its_thread_works_on_the_blocks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    pool, meet = BlockThreads(2), threading.Barrier(2)

    def names_of(boxes: int) -> list[bool]:
        def work(_: int) -> bool:
            if boxes == 2:
                meet.wait(10)
            own = threading.current_thread().name
            names = {*pool.map(lambda _: threading.current_thread().name, range(20))}
            names |= {name for _, name in pool.follow(lambda _: threading.current_thread().name, [0, 1], lambda *_: [])}
            if boxes == 2:
                meet.wait(10)
            return names == {own}

        return list(side_by_side(work, range(boxes)))

    assert names_of(2) == [True, True]
    assert names_of(1) == [False], "there is a core that has none"
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda n: 1 // n, range(2)))
    assert names_of(1) == [False]


def test_who_has_a_chunk_of_an_array_works_on_it_alone_unless_there_is_a_core_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (threads, engine):
        monkeypatch.setattr(module, "usable_cores", lambda: 2)
    meet = threading.Barrier(2)

    def names(chunks: int) -> set[str]:
        if chunks == 2:
            meet.wait(10)
        found = set(side_by_side(lambda _: threading.current_thread().name, range(20)))
        if chunks == 2:
            meet.wait(10)
        return found - {threading.current_thread().name}

    for chunks in (2, 1):
        elsewhere = [found for _, found in engine.Threads().run(names, [(chunks,)] * chunks)]
        assert [bool(found) for found in elsewhere] == [chunks == 1] * chunks


def test_blocks_that_several_boxes_need_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    cache, meet, decoded = BlockCache(), threading.Barrier(2), list[tuple[str, list[int]]]()

    def decode(keys: list[int]) -> list[tuple[Any, Any]]:
        decoded.append((threading.current_thread().name, keys))
        time.sleep(0.01)
        return [(np.full(3, key), None) for key in keys]

    def work(at_once: bool) -> list[int]:
        meet.wait(10)
        found = cache.decoded(range(8), decode, at_once)
        meet.wait(10)
        return [int(found[key][0][0]) for key in range(8)]

    assert list(side_by_side(work, [False, False])) == [list(range(8))] * 2
    assert sorted(keys for _, keys in decoded) == [[key] for key in range(8)], "each once, one by one"
    assert len({name for name, _ in decoded}) == 2
    cache, decoded = BlockCache(), []
    assert list(side_by_side(work, [True, True])) == [list(range(8))] * 2
    assert [keys for _, keys in decoded] == [list(range(8))]


def test_an_error_and_who_stops_early_leave_nothing_in_work(cores: int) -> None:
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        ended.append(number)
        if number == 2:
            raise ValueError("two")
        return number

    with pytest.raises(ValueError, match="two"):
        list(side_by_side(work, range(100)))
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 20
    early = side_by_side(work, range(3, 100))
    assert next(early) == 3
    early.close()
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 40


def test_boxes_decoded_side_by_side_are_those_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = samples.neuron_phantom((48, 64, 64)).noisy
    volume[:, :20] = 0  # a mask, too
    monkeypatch.setattr(LIMITS, "voxels", 2**13)
    data = compress(volume, Target.ratio(20)).to_bytes()
    decoded = []
    for number in (1, 4):
        monkeypatch.setattr(threads, "usable_cores", lambda number=number: number)
        decoded.append(CompressedVolume(data).decode())
    np.testing.assert_array_equal(*decoded)


def test_networks_decode_in_several_threads_what_they_decode_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (Path(__file__).parent / "golden" / "v1-zyx-u2.tinc").read_bytes()
    evaluate, names = TincNetwork.evaluate, set()

    def noted(network: TincNetwork, *given: Any) -> Any:
        names.add((threading.current_thread().name, torch.get_num_threads()))
        return evaluate(network, *given)

    monkeypatch.setattr(TincNetwork, "evaluate", noted)
    monkeypatch.setitem(leafwise._ACTIVATIONS, "cpu", 1)  # many tiles
    decoded = []
    for number in (1, 4):
        names.clear()
        monkeypatch.setattr(threads, "usable_cores", lambda number=number: number)
        decoded.append(CompressedVolume(data).decode())
        assert (len(names) > 1) == (number > 1)
        assert {count for _, count in names} == {1}
    np.testing.assert_array_equal(*decoded)


def test_threads_that_come_later_are_not_left_with_one() -> None:
    def in_a_thread(work: Callable[[], int]) -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()

    def alone() -> int:
        with device.one_thread():
            return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with device.one_thread():
            assert in_a_thread(alone) == 1
        assert in_a_thread(alone) == 1
        assert in_a_thread(torch.get_num_threads) == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_several_threads_that_want_the_same_blocks_decode_each_once() -> None:
    """Blocks have parents, as those of wavelets; who waits for one does not stop others."""
    cache, made, lock = BlockCache(), list[int](), threading.Lock()

    def decode(keys: list[int]) -> Iterator[tuple[np.ndarray, None]]:
        parents = cache.decoded({key // 2 for key in keys if key > 1}, decode)
        for key in keys:
            time.sleep(0.002)
            with lock:
                made.append(key)
            yield np.array([key + (parents[key // 2][0][0] if key > 1 else 0)]), None

    def ask(seed: int) -> dict[int, int]:
        keys = np.random.default_rng(seed).permutation(np.arange(32, 64))[:20].tolist()
        return {key: int(block[0]) for key, (block, _) in cache.decoded(keys, decode).items()}

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(ask, range(8)):
            assert len(found) == 20
            assert all(value == sum(key >> i for i in range(6)) for key, value in found.items())
    assert sorted(made) == sorted(set(made))


def test_who_waited_for_a_block_that_another_thread_failed_at_decodes_it() -> None:
    cache, begun = BlockCache(), threading.Event()

    def fail(_: list[str]) -> Iterator[tuple[np.ndarray, None]]:
        begun.set()
        time.sleep(0.05)
        raise MemoryError

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.decoded, ["block"], fail)
        begun.wait()
        found = cache.decoded(["block"], lambda keys: [(np.zeros(3), None) for _ in keys])
        assert found["block"][0].size == 3
        with pytest.raises(MemoryError):
            first.result()


@pytest.mark.parametrize("name", ["detail-zyx", "masked-zyx", "directional-zyx", "corrected-zyx", "hybrid-zyx"])
def test_threads_that_read_all_over_a_file_see_what_one_sees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the cache is too small for them all."""
    path = next(path for path in sorted((Path(__file__).parent / "golden").glob("*.tinc")) if name in path.stem)
    whole = CompressedVolume.open(path).decode()
    monkeypatch.setattr(layers, "BlockCache", lambda: BlockCache(2**14))
    volume = CompressedVolume.open(path)

    def look(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(12):
            spans = [np.sort(rng.integers(0, n + 1, 2)) for n in whole.shape]
            region = tuple(slice(int(a), int(b)) for a, b in spans)
            np.testing.assert_array_equal(volume.decode(region), whole[region])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
