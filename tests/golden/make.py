"""Make the golden files of the present format version that are not there yet: those that are stay as they were made.

``zyx-u2``, ``yx-u1``, ``zcyx-f4``, ``hybrid-zyx-u2`` and ``neurcomp-zyx-u2`` have range-coded parameters and
``deflate-u2`` deflated ones, made by writers of before the mixing coder.

python tests/golden/make.py
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from napari_tinc import CompressedVolume, Metadata, Target, compress
from napari_tinc.directional.prediction import RULES
from napari_tinc.encode import directing, filters, framing, postfiltering, trial
from napari_tinc.format import KIND_POSTFILTER, VERSION, Segment, pack, parse
from napari_tinc.masks import mask as masks
from napari_tinc.postfilter import PostFilter, pack_postfilter
from napari_tinc.predictive import blocks as predictive
from napari_tinc.wavelets import search

HERE = Path(__file__).parent


def blob(*shape: int) -> np.ndarray:
    """A smooth bump on a slope, in [0, 1]."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    distance = sum((axis - 0.2 * i) ** 2 for i, axis in enumerate(axes))
    slope = sum(axis for axis in axes)
    return np.clip(0.6 * np.exp(-4 * distance) + 0.1 * slope + 0.3, 0, 1)


def textured(*shape: int) -> np.ndarray:
    """The same with grain on one side, so that some blocks of coefficients have much to tell and others nothing."""
    smooth = blob(*shape)
    grain = np.random.default_rng(0).normal(0, 0.1, shape)
    grain[..., shape[-1] // 2 :] = 0
    return np.clip(smooth + grain, 0, 1)


def network(array: np.ndarray, target: Target, **settings: object) -> CompressedVolume:
    return compress(array, target, preset="fast", time_limit=2, **{"model": "tinc"} | settings)


def detail(array: np.ndarray, target: Target, **settings: object) -> CompressedVolume:
    with mock.patch.multiple(search, _ROW_VOXELS=0, _BYTES_PER_BLOCK=48):  # or small files have but one block
        return compress(array, target, model="wavelet", **settings)


def slanted(*shape: int) -> np.ndarray:
    """Tubes and sheets with sharp borders, in [0, 1]: what directions are for."""
    z, y, x = np.meshgrid(*map(np.arange, (1,) * (3 - len(shape)) + shape), indexing="ij")
    tube = np.hypot(y - 0.4 * z - 9, x - 0.5 * z - 8) < 5
    sheet = np.abs(x - y + 0.5 * z - 4) < 3
    return np.clip(0.2 * blob(*shape) + (0.7 * tube + 0.3 * sheet).reshape(shape), 0, 1)


def directional(array: np.ndarray, target: Target, rules: int = 3, **settings: object) -> CompressedVolume:
    """What `balanced` makes where no network is worth a trial, in several tiles, by these rules of blocks."""
    with (
        mock.patch.object(trial, "promised_gain", nothing_promised),
        mock.patch.object(filters, "_SHARE", 0),  # it would leave equal neighbours to rounding
        mock.patch.multiple(directing, _ROW_VOXELS=2**12, MAX_TILE=2**13, LATEST=(RULES[rules],)),
        mock.patch.object(postfiltering, "_SHARE", 0),
    ):
        return compress(array, target, preset="balanced", device="cpu", **settings)


def nothing_promised(*_: object) -> Generator[None, None, float]:
    yield from ()
    return 0.0


def postfiltered(array: np.ndarray, target: Target, **settings: object) -> CompressedVolume:
    """The same with post-filters of two channels."""
    with (
        mock.patch.object(trial, "promised_gain", nothing_promised),
        mock.patch.multiple(postfiltering, CHANNELS=2, _STEPS={"balanced": 400}),
    ):
        return compress(array, target, preset="balanced", device="cpu", **settings)


def with_any_filter(volume: CompressedVolume) -> CompressedVolume:
    """The same file, with a post-filter of the second channel that nobody has trained."""
    frame, rng = parse(volume.to_bytes()), np.random.default_rng(0)
    weights = rng.integers(-7, 8, (3, 81)).astype("i1").reshape(3, 3, 27)
    steps, biases = rng.uniform(0.01, 0.05, (2, 3)).astype("f4")
    chosen = PostFilter(0.0625, steps, biases, weights[:, :2], 0.03125, -0.125, weights[:, 2])
    return CompressedVolume(
        pack(replace(frame, segments=(*frame.segments, Segment(KIND_POSTFILTER, 1, 0, pack_postfilter(chosen)))))
    )


def exact(array: np.ndarray, metadata: Metadata) -> CompressedVolume:
    return CompressedVolume(framing.exact(array, metadata))


def save(name: str, make: Callable[[], CompressedVolume]) -> None:
    stem = HERE / f"v{VERSION}-{name}"
    if stem.with_suffix(".tinc").exists():
        return
    volume = make()
    volume.save(stem.with_suffix(".tinc"))
    np.savez_compressed(stem.with_suffix(".npz"), decoded=volume.decode(), half=volume.decode(scale=0.5))
    print(stem.name, volume)


def bounded(array: np.ndarray, error: float, **settings: object) -> CompressedVolume:
    with mock.patch.multiple(predictive, _THIN=6, _SIDE=16, _VOXELS=1):  # or small files have but one block
        return compress(array, Target.max_error(error), **settings)


if __name__ == "__main__":
    bump = (blob(23, 31, 29) * 4000 + 100).astype("u2")
    stack = np.stack([blob(9, 20, 24), 1 - blob(9, 20, 24)], axis=1).astype("f4") * 3 - 1
    named = Metadata("zcyx", (2.0, 1.0, 0.5, 0.5), ("micrometer", "", "micrometer", "micrometer"), ("a", "b"), "two")
    save("constant-i2", lambda: compress(np.full((5, 6, 7), -3, "i2"), Target.ratio(2)))
    rough = (textured(23, 31, 29) * 4000 + 100).astype("u2")
    save("detail-zyx-u2", lambda: detail(rough, Target.size(2500)))
    save("detail-yx-u1", lambda: detail((textured(150, 131) * 255).astype("u1"), Target.size(5000)))
    channels = np.stack([textured(5, 20, 24), 1 - textured(5, 20, 24) ** 2]).astype("f4") * 3 - 1
    save("detail-czyx-f4", lambda: detail(channels, Target.size(2000), metadata=Metadata.default(4)))
    save("mixed-zyx-u2", lambda: network(bump, Target.size(2500), levels=2, within="importance"))
    save("mixed-zcyx-f4", lambda: network(stack, Target.size(2500), metadata=named, levels=2, between="deep"))
    save("mixed-neurcomp-zyx-u2", lambda: network(bump, Target.size(2500), model="neurcomp"))
    save("grid-zyx-u2", lambda: network(bump, Target.size(2500), model="grid"))
    save("tucker-zyx-u2", lambda: network(bump, Target.size(2500), model="tucker"))
    save("siren-zyx-u2", lambda: network(bump, Target.size(2500), model="siren"))
    save("sci-zyx-u2", lambda: network(np.where(bump > 1500, bump, 200), Target.size(2500), model="sci"))
    save("nerv-zyx-u2", lambda: network(bump, Target.size(2500), model="nerv"))
    save("coinpp-zyx-u2", lambda: network(bump, Target.size(2500), model="coinpp"))
    save("restored-zyx-u2", lambda: detail(rough, Target.size(3500)))
    pair = np.stack([textured(90, 80), 1 - textured(90, 80) ** 2]).astype("f4") * 3 - 1
    save("restored-cyx-f4", lambda: detail(pair, Target.size(6000), metadata=Metadata("cyx", (1.0,) * 3, ("",) * 3)))
    labels = np.digitize(textured(7, 12, 11), (0.3, 0.5, 0.7)).astype("i8") * -(2**62)
    save("exact-zyx-i8", lambda: exact(labels, Metadata.default(3)))
    holes = textured(2, 13, 10).astype("f4")
    holes[0, :3], holes[1, :, 0], holes[1, 5, 5], holes[1, 6, 6] = np.nan, -np.inf, -0.0, 1e-45
    save("exact-cyx-f4", lambda: exact(holes, Metadata("cyx", (1.0,) * 3, ("",) * 3)))
    save("predictive-zyx-u2", lambda: bounded(rough, 0))
    save("predictive-zyx-i2", lambda: bounded((rough // 300).astype("i2") * -250, 0))
    save("predictive-yx-f4", lambda: bounded(textured(40, 37).astype("f4"), 0))
    three = np.stack([textured(30, 28), textured(30, 28) ** 2, np.zeros((30, 28))]).astype("f4")
    save("predictive-cyx-f4", lambda: bounded(three, 1e-6, metadata=Metadata("cyx", (1.0,) * 3, ("",) * 3)))
    save("corrected-zyx-u2", lambda: bounded(rough, 500))
    save("corrected-zyx-f4", lambda: bounded(rough.astype("f4") / 7, 70))
    with mock.patch.multiple(masks, _ROW_VOXELS=0, _FEW_CELLS=2**12):  # or small masks have but one block
        save("masked-zyx-u2", lambda: detail(np.where(blob(23, 31, 29) > 0.45, rough, 100), Target.size(3500)))
        halves = np.stack([np.where(blob(90, 80) > 0.45, one, -2) for one in pair]).astype("f4")
        save(
            "masked-cyx-f4", lambda: detail(halves, Target.size(6000), metadata=Metadata("cyx", (1.0,) * 3, ("",) * 3))
        )
    beams = (slanted(23, 31, 29) * 4000 + 100).astype("u2")
    # Made before there were sines, and these before there were slopes of less than half a voxel.
    save("directional-zyx-u2", lambda: directional(beams, Target.size(1800)))
    save("sines-zyx-u2", lambda: directional(beams, Target.size(1700)))
    save("slopes-zyx-u2", lambda: directional(beams, Target.size(1800), rules=1))
    save("carried-zyx-u2", lambda: directional(beams, Target.size(1800), rules=3))
    save(
        "postfiltered-zyx-u2", lambda: postfiltered((slanted(29, 31, 33) * 4000 + 100).astype("u2"), Target.size(2500))
    )
    crossed = np.stack([slanted(70, 60), 1 - slanted(70, 60) ** 2]).astype("f4") * 3 - 1
    save(
        "directional-cyx-f4",
        lambda: directional(crossed, Target.size(2500), metadata=Metadata("cyx", (1.0,) * 3, ("",) * 3)),
    )
    save(
        "sines-cyx-f4",
        lambda: directional(crossed, Target.size(2400), metadata=Metadata("cyx", (1.0,) * 3, ("",) * 3)),
    )
    save(
        "carried-cyx-f4",
        lambda: directional(crossed, Target.size(2400), rules=3, metadata=Metadata("cyx", (1.0,) * 3, ("",) * 3)),
    )
    save("postfiltered-cyx-f4", lambda: with_any_filter(CompressedVolume.open(HERE / "v1-restored-cyx-f4.tinc")))
