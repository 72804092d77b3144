"""OME-Zarr on the command line: compressing into one, on this machine or a cluster, and showing what one holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tinc.cli.options import parse_region
from napari_tinc.cli.terminal import print_result, run_showing, say
from napari_tinc.errors import InputError
from napari_tinc.system.output import folder_size, is_zarr

# Their libraries take a second to import, which a command on a file need not wait for.
if TYPE_CHECKING:
    from napari_tinc.chunks.array import Options
    from napari_tinc.chunks.engine import Engine
    from napari_tinc.chunks.image import Image
    from napari_tinc.chunks.manifest import Manifest

_WORST = 5
# A path has lost a slash of an address; a drive has one letter.
_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(.+)")


@dataclass(frozen=True)
class Place:
    """What is read, and where it is worked on.

    Parameters
    ----------
    level : int
        Of the source, the finest to be written.
    region : str or None
    axes : str or None
    workers : int or None
        Processes of this machine.
    scheduler : str or None
        Address of a scheduler.
    """

    level: int
    region: str | None
    axes: str | None
    workers: int | None
    scheduler: str | None


def compress_into_zarr(source: Path, output: Path, options: Options, place: Place, as_json: bool) -> None:
    """Compress a volume into an OME-Zarr, and say what became of it."""
    from napari_tinc.chunks.array import check_array_output, compress_array

    check_array_output(output, options.overwrite)
    address = _ADDRESS.fullmatch(str(source))
    name = f"{address[1]}://{address[2]}" if address else str(source.resolve())
    image = _image(name if address else source, place)
    with _engine(place) as engine:
        manifest = run_showing(compress_array(image, output, options, engine, name), as_json)
    print_result({"output": str(output)} | _said(output, manifest), as_json)


def _image(source: Path | str, place: Place) -> Image:
    from napari_tinc.chunks.image import of_array, of_zarr

    if isinstance(source, str) or (source.is_dir() and is_zarr(source)):
        image = of_zarr(source, place.level)
    elif place.workers or place.scheduler:
        raise InputError(f"expected a Zarr, which workers can read in parts, got {source.name}; convert it first")
    elif place.level:
        raise InputError(f"expected --level of an OME-Zarr only, got {source.name}; leave it out")
    else:
        from napari_tinc.files import read_volume
        from napari_tinc.files.layout import in_ome_order

        volume = in_ome_order(read_volume(source, place.axes))
        image = of_array(volume.data, volume.metadata)
    if place.region is None:
        return image
    return image.part(parse_region(place.region, image.axes, image.shapes[0]))


@contextmanager
def _engine(place: Place) -> Iterator[Engine | None]:
    if place.workers is None and place.scheduler is None:
        yield None
        return
    from napari_tinc.chunks.engine import Cluster
    from napari_tinc.system.cluster import connect, local_workers

    if place.scheduler is None:
        if not place.workers or place.workers < 1:
            raise InputError(f"expected a number of --workers above 0, got {place.workers}")
        with local_workers(place.workers) as client:
            yield Cluster(client)
    elif place.workers is not None:
        raise InputError("expected --workers or --scheduler, got both; keep one")
    else:
        with connect(place.scheduler) as client:
            yield Cluster(client)


def show_array(path: Path, as_json: bool) -> None:
    """Show what an OME-Zarr of ours holds, and its worst chunks."""
    from napari_tinc.chunks.manifest import read_manifest

    manifest = read_manifest(path)
    if manifest is None:
        print_result({"file": str(path)} | _counted(path), as_json)
        return
    said = {"file": str(path)} | _said(path, manifest)
    worst = _worst(manifest)
    if as_json:
        print_result(said | {"worst_chunks": worst}, True)
        return
    print_result(said, False)
    say("worst chunks of the finest level:")
    for chunk in worst:
        say(
            "  {region}  {psnr:.2f} dB, largest error {largest_error:.4g}, Dice {dice:.3f}, {nbytes} bytes".format(
                **chunk
            )
        )


def _counted(path: Path) -> dict[str, Any]:
    """Say what is known of an array that others have written with our codec: it has no manifest."""
    from napari_tinc.chunks.census import census
    from napari_tinc.files.zarr import described

    array = described(path)[0][0]
    counted = census(array, path / array.path)
    if counted is None:
        raise InputError(f"expected a .tinc file or a Zarr of such chunks, got a Zarr of other chunks at {path}")
    raw, nbytes = array.size * array.dtype.itemsize, folder_size(path / array.path)
    sizes = {"raw_bytes": int(raw), "file_bytes": nbytes, "ratio": raw / nbytes}
    return {"shape": list(array.shape), "dtype": str(array.dtype)} | sizes | counted


def _said(path: Path, manifest: Manifest) -> dict[str, Any]:
    facts = {key: value for key, value in manifest.facts.items() if key not in ("job", "version")}
    nbytes = folder_size(path)
    return facts | {"file_bytes": nbytes, "ratio": facts["raw_bytes"] / nbytes}


def _worst(manifest: Manifest) -> list[dict[str, Any]]:
    import numpy as np

    psnr, dice, chunk = manifest.psnr(), manifest.dice(), manifest.chunks[0]
    largest, nbytes = manifest.field("largest"), manifest.field("nbytes")
    worst = []
    for number in np.argsort(psnr, axis=None, kind="stable")[:_WORST].tolist():
        cell = tuple(int(i) for i in np.unravel_index(number, psnr.shape))
        sides = zip(cell, chunk, manifest.facts["job"]["shape"], strict=True)
        region = ",".join(f"{i * side}:{min((i + 1) * side, n)}" for i, side, n in sides)
        numbers = {"psnr": psnr[cell], "largest_error": largest[cell], "dice": dice[cell]}
        worst.append({"region": region} | {k: float(v) for k, v in numbers.items()} | {"nbytes": int(nbytes[cell])})
    return worst


__all__ = ["Place", "compress_into_zarr", "show_array"]
