"""The command line: compress, advise, decompress, cut, info, check, demo, compare, share."""

from __future__ import annotations

import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import BETWEEN
from napari_tinc.cli.advise import advise, advised_ratio
from napari_tinc.cli.batch import run_batch, said_of
from napari_tinc.cli.compare import compare
from napari_tinc.cli.options import (
    DEFAULT_DEVICE,
    DEFAULT_MODEL,
    DEFAULT_PRESET,
    DEFAULT_RATIO,
    DEFAULT_WITHIN,
    AsJson,
    Axes,
    DeviceName,
    Force,
    MemoryLimit,
    ModelName,
    Overwrite,
    Preset,
    TimeLimit,
    WithinName,
    parse_region,
)
from napari_tinc.cli.share import share
from napari_tinc.cli.terminal import end_if_asked, listen, print_result, reporting, run_showing, say
from napari_tinc.encode.batch import SUFFIX, Job, Options, compress_file, find_jobs
from napari_tinc.errors import InputError
from napari_tinc.settings import Settings

# The readers of volumes, and torch, take seconds to import, so each command imports what it needs.
if TYPE_CHECKING:
    from napari_tinc.chunks.view import CompressedArray
    from napari_tinc.target import Target
    from napari_tinc.volume import CompressedVolume

app = typer.Typer(
    help="Compress 3-D image volumes into small files, and get them back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TincFile = Annotated[Path, typer.Argument(metavar="IN.tinc", help="A .tinc file.")]
CompressedSource = Annotated[
    str,
    typer.Argument(metavar="IN.tinc", help="A .tinc file, its https:// address, or an OME-Zarr made by napari-tinc."),
]
_ARRAYS = "OME-Zarr output"


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show_version:
        try:
            number = version("napari-tinc")
        except PackageNotFoundError:
            number = "(not installed: run from a checkout)"
        typer.echo(f"napari-tinc {number}")
        raise typer.Exit


@app.command()
def compress(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN OUT.tinc | IN OUT.zarr | IN... --out-dir DIR",
            help="A TIFF, NPY or (OME-)Zarr volume and the file or OME-Zarr to write; or volumes, and folders of them.",
        ),
    ],
    out_dir: Annotated[Path | None, typer.Option(help="The folder for the files of several volumes.")] = None,
    ratio: Annotated[
        float | None, typer.Option(help="Raw bytes divided by file bytes; 64 if no target is given.")
    ] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="Largest size of the file, in bytes.")] = None,
    bits: Annotated[
        float | None, typer.Option("--bits-per-voxel", help="Largest size of the file, in bits per voxel.")
    ] = None,
    psnr: Annotated[float | None, typer.Option(help="Quality to reach in dB, over the volume's own range.")] = None,
    ssim: Annotated[float | None, typer.Option(help="Structural similarity to reach, below 1.")] = None,
    step: Annotated[
        float | None, typer.Option(help="Step of the quantiser, in intensity units: one fidelity, any size.")
    ] = None,
    max_error: Annotated[
        float | None, typer.Option(help="Largest error of any voxel, in intensity units; 0 loses nothing.")
    ] = None,
    advised: Annotated[
        bool, typer.Option("--advised", help="Take the ratio that advise finds; of one volume, into a .tinc file.")
    ] = False,
    preset: Preset = DEFAULT_PRESET,
    between: Annotated[
        str, typer.Option(help=f"How a network's bytes are spread over levels: {', '.join(BETWEEN)} or '1,0.8,1.5'.")
    ] = "auto",
    model: Annotated[ModelName, typer.Option(help="What the file consists of; auto takes the best.")] = DEFAULT_MODEL,
    within: Annotated[WithinName, typer.Option(help="How a network's bytes are spread over octants.")] = DEFAULT_WITHIN,
    weights: Annotated[
        Path | None, typer.Option(help="A volume with a weight for each voxel, for training and for --within map.")
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Levels of the octree; automatic if not given.")] = None,
    device: Annotated[DeviceName, typer.Option(help="Where to train.")] = DEFAULT_DEVICE,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    time_limit: TimeLimit = None,
    memory: MemoryLimit = None,
    axes: Axes = None,
    force: Force = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    chunk: Annotated[
        int | None, typer.Option(help="Voxels a side of a chunk; 128, of images 1024.", rich_help_panel=_ARRAYS)
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(help="Voxels a side of a file of several chunks; up to four chunks.", rich_help_panel=_ARRAYS),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Never above the target; else 2 % may be.", rich_help_panel=_ARRAYS)
    ] = False,
    level: Annotated[
        int, typer.Option(help="Level of an OME-Zarr to begin with; 0 is the finest.", rich_help_panel=_ARRAYS)
    ] = 0,
    region: Annotated[
        str | None, typer.Option(help="Part to compress, such as '0:16,32:64,32:64'.", rich_help_panel=_ARRAYS)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of this machine to work with.", rich_help_panel=_ARRAYS)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="A dask.distributed scheduler.", rich_help_panel=_ARRAYS),
    ] = None,
) -> None:
    """Compress a volume into a .tinc file or an OME-Zarr; or several into a folder, one file each."""
    array = out_dir is None and len(paths) == 2 and paths[1].suffix.lower() == ".zarr"
    kept = "a Zarr that was begun goes on with the same command" if array else "no unfinished file is left"
    with reporting(as_json, kept), _memory_limit(memory):
        target = _target(ratio, size, bits, psnr, ssim, step, max_error, advised)
        strategy = _between(between)
        if advised and (array or out_dir is not None):
            raise InputError("expected --advised with one volume and one .tinc file; run advise, then give --ratio")
        if array:
            settings = Settings(preset, strategy, within, levels, device, seed, time_limit, model, provenance=False)
            if weights is not None:
                raise InputError("expected no --weights with an OME-Zarr, got it; leave it out")
            from napari_tinc.chunks.array import Options as ArrayOptions
            from napari_tinc.cli.arrays import Place, compress_into_zarr

            place = Place(level, region, axes, workers, scheduler)
            options = ArrayOptions(target, settings, chunk, shard, strict, overwrite, force)
            compress_into_zarr(paths[0], paths[1], options, place, as_json)
            return
        if chunk or shard or strict or level or region or workers or scheduler:
            raise InputError(f"expected options of an {_ARRAYS} with a name that ends in .zarr only; leave them out")
        jobs = find_jobs(paths, out_dir) if out_dir is not None else [_single_job(paths)]
        settings = Settings(preset, strategy, within, levels, device, seed, time_limit, model)
        from napari_tinc.files import check_output, read_volume
        from napari_tinc.target import Target

        if out_dir is None:
            check_output(jobs[0].output, overwrite)
        if advised:
            found, note = advised_ratio(jobs[0].source, axes, force, as_json)
            target, settings = Target.ratio(found), settings.noted("advice", note)
        importance = None if weights is None else read_volume(weights).data
        file_options = Options(target, settings, importance, axes, overwrite, force)
        if out_dir is None:
            print_result(said_of(run_showing(compress_file(jobs[0], file_options), as_json)), as_json)
        else:
            run_batch(jobs, file_options, as_json)


def _single_job(paths: list[Path]) -> Job:
    several = "to compress several volumes, give --out-dir"
    if len(paths) != 2:
        raise InputError(f"expected IN and OUT{SUFFIX}, got {len(paths)} paths; {several}")
    source, output = paths
    if output.suffix.lower() != SUFFIX:
        raise InputError(f"expected an output ending in {SUFFIX}, got {output.name}; rename it, or {several}")
    return Job(source, output)


@app.command()
def decompress(
    source: CompressedSource,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The .tif, .npy or .zarr file to write.")],
    region: Annotated[str | None, typer.Option(help="Part to decode, such as '0:16,32:64,32:64'.")] = None,
    scale: Annotated[float, typer.Option(help="Scale of the output; 0.5 halves every side.")] = 1.0,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept the beginning of a file, and decode what it holds.")
    ] = False,
    device: Annotated[DeviceName, typer.Option(help="Where a .tinc file is decoded.")] = DEFAULT_DEVICE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Decode a .tinc file, or an OME-Zarr made of them, or a part of it, into a volume."""
    with reporting(as_json):
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(f"expected a positive --scale, got {scale}; 1.0 is the full size")
        from napari_tinc.files import check_output, check_suffix, write_volume

        check_suffix(output)
        check_output(output, overwrite)
        compressed = _opened(source, partial, str(device))
        box = parse_region(region, compressed.metadata.axes, compressed.shape)
        start = time.perf_counter()
        data = compressed.decode(box, scale)
        seconds = time.perf_counter() - start
        end_if_asked()
        extent = tuple(part.stop - part.start for part in box)
        write_volume(output, data, _rescaled(compressed.metadata, extent, data.shape), overwrite)
        said = {"output": str(output), "shape": list(data.shape), "dtype": data.dtype.name, "bytes": data.nbytes}
        print_result(said | {"seconds": seconds}, as_json)


def _opened(source: str, partial: bool, device: str) -> CompressedVolume | CompressedArray:
    if Path(source).is_dir():
        if device != DEFAULT_DEVICE:
            raise InputError(f"expected --device with a .tinc file, got a folder: {source}; leave it out")
        from napari_tinc.chunks.view import CompressedArray

        array = CompressedArray.open(Path(source))
        if array is None:
            raise InputError(f"expected a .tinc file or an OME-Zarr made by napari-tinc, got another folder: {source}")
        return array
    from napari_tinc.volume import CompressedVolume

    return CompressedVolume.open(source, device, partial)


@app.command()
def cut(
    source: TincFile,
    output: Annotated[Path, typer.Argument(metavar="OUT.tinc", help="The smaller .tinc file to write.")],
    ratio: Annotated[float | None, typer.Option(help="Raw bytes divided by file bytes.")] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="Largest size of the file, in bytes.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a smaller .tinc file of one, without the original; the quality that it has at least is stored in it."""
    with reporting(as_json):
        if (ratio is None) == (size is None):
            raise InputError("expected --ratio or --bytes, one of them: how small is the file to be?")
        _single_job([source, output])
        from napari_tinc.encode.cutting import cut_steps
        from napari_tinc.files import check_output
        from napari_tinc.target import Target
        from napari_tinc.volume import CompressedVolume

        check_output(output, overwrite)
        target = Target.size(size) if size is not None else Target.ratio(ratio or DEFAULT_RATIO)
        start = time.perf_counter()
        made = run_showing(cut_steps(CompressedVolume.open(source), target), as_json)
        made.save(output, overwrite)
        said = {"output": str(output), "raw_bytes": made.raw_nbytes, "file_bytes": made.nbytes, "ratio": made.ratio}
        worst = min((octant.psnr for octant in made.octants), default=math.nan)
        said |= {"psnr_at_least": made.provenance["psnr"], "worst_octant_psnr_at_least": worst}
        print_result(said | {"seconds": time.perf_counter() - start}, as_json)


@app.command()
def info(source: CompressedSource, as_json: AsJson = False) -> None:
    """Show what a .tinc file holds, or an OME-Zarr of chunks like it, without decoding it."""
    with reporting(as_json):
        if Path(source).is_dir():
            from napari_tinc.cli.arrays import show_array

            show_array(Path(source), as_json)
            return
        from napari_tinc import format as frames
        from napari_tinc.volume import CompressedVolume

        volume = CompressedVolume.open(source, partial=True)
        header, held = volume.header, volume.held
        metadata = asdict(header.metadata)
        shown = {key: value for key, value in metadata.pop("display").items() if value}
        metadata |= {"display": shown} if shown else {}
        said = {"file": str(source), "shape": list(header.shape), "dtype": header.dtype} | metadata
        if held is not None:
            said |= {"incomplete": asdict(held) if as_json else f"{held.text}. Fetch the rest, or decode what is there"}
        said |= {"raw_bytes": header.raw_nbytes, "file_bytes": volume.nbytes, "ratio": volume.ratio}
        kinds = volume.kinds
        octants = len(header.items) * 2 ** sum(sum(level) for level in header.splits)
        model = frames.MODELS[header.model]
        if header.model != frames.MODEL_WAVELETS and frames.KIND_WAVELETS in kinds:
            model = f"{model}+wavelet"
        if frames.KIND_DIRECTIONAL in kinds:
            model = "directional"
        said |= {"model": model, "levels": 1 + len(header.splits), "octants": octants}
        masks = kinds.count(frames.KIND_MASK)
        said |= {"masks": masks} if masks else {}
        postfilters = kinds.count(frames.KIND_POSTFILTER)
        said |= {"post-filters": postfilters} if postfilters else {}
        said |= {"between levels": _strategy(frames.BETWEEN, header.between)}
        said |= {"within a level": _strategy(frames.WITHIN, header.within)}
        said |= _noise(header.provenance.get("noise"), as_json)
        print_result(said | {"provenance": dict(header.provenance)}, as_json)


@app.command()
def check(source: TincFile, as_json: AsJson = False) -> None:
    """Test the checksums of a .tinc file; list damaged parts, and exit with 1 if there are any."""
    with reporting(as_json):
        from napari_tinc import format as frames

        reports = frames.check(frames.read(source))
        damaged = [report for report in reports if not report.ok]
        if as_json:
            print_result(
                {"file": str(source), "ok": not damaged, "segments": [asdict(report) for report in reports]}, True
            )
        elif not damaged:
            say(f"{source}: all {len(reports)} parts are intact")
        for report in () if as_json else damaged:
            say(f"damaged: {report.name}, {report.length} bytes at offset {report.offset}")
        if damaged:
            raise typer.Exit(1)


@app.command()
def demo(
    sample: Annotated[str, typer.Option(help="neuron, vessel or brain.")] = "neuron",
    ratio: Annotated[float, typer.Option(help="Raw bytes divided by file bytes.")] = DEFAULT_RATIO,
    preset: Preset = DEFAULT_PRESET,
    out_dir: Annotated[Path, typer.Option(help="Folder for demo.tinc and demo.png.")] = Path(),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compress a sample, decode the file in a new process, and show the quality."""
    with reporting(as_json):
        from napari_tinc.cli.demo import run_demo

        print_result(
            asdict(run_demo(sample, ratio, preset, out_dir, overwrite, lambda steps: run_showing(steps, as_json))),
            as_json,
        )


app.command()(compare)
app.command()(advise)
app.command()(share)


def main() -> None:
    """Run the command line."""
    # Before torch is imported: threads that spin while they wait keep one another from the cores of a busy machine
    # (benchmarks/threads.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    listen()
    app()


def _rescaled(metadata: Metadata, extent: tuple[int, ...], shape: tuple[int, ...]) -> Metadata:
    """Spread the region's physical extent over the voxels it was decoded to, and leave names of cut channels out."""
    steps = tuple(step * old / new for step, old, new in zip(metadata.voxel_size, extent, shape, strict=True))
    channels = shape[metadata.axes.index("c")] if "c" in metadata.axes else 1
    names = metadata.channel_names if len(metadata.channel_names) == channels else ()
    return replace(metadata, voxel_size=steps, channel_names=names)


def _target(
    ratio: float | None,
    size: int | None,
    bits: float | None,
    psnr: float | None,
    ssim: float | None,
    step: float | None,
    max_error: float | None,
    advised: bool,
) -> Target:
    from napari_tinc.target import Target

    given = [] if ratio is None else [Target.ratio(ratio)]
    given += [] if size is None else [Target.size(size)]
    given += [] if bits is None else [Target.bits_per_voxel(bits)]
    given += [] if psnr is None else [Target.psnr(psnr)]
    given += [] if ssim is None else [Target.ssim(ssim)]
    given += [] if step is None else [Target.step(step)]
    given += [] if max_error is None else [Target.max_error(max_error)]
    if len(given) + advised > 1:
        options = "--ratio, --bytes, --bits-per-voxel, --psnr, --ssim, --step, --max-error and --advised"
        raise InputError(f"expected one of {options}, got several; keep one")
    return given[0] if given else Target.ratio(DEFAULT_RATIO)


def _noise(note: object, as_json: bool) -> dict[str, object]:
    """Say what was found of noise when a file was made; nothing if it does not tell."""
    from napari_tinc.measures.noise import note_text, read_note

    found = read_note(note)
    if not found:
        return {}
    keys = ("gain", "base", "misfit")
    rows = [None if one is None else dict(zip(keys, one, strict=True)) for one in found]
    return {"noise": rows if as_json else note_text(note)}


def _strategy(names: tuple[str, ...], code: int) -> str:
    """Name a strategy; later versions may have more of them, which a decoder need not know."""
    return names[code] if code < len(names) else f"unknown ({code})"


def _memory_limit(megabytes: float | None) -> AbstractContextManager[None]:
    from napari_tinc.arrays.scratch import memory_limit

    if megabytes is None:
        return nullcontext()
    if not math.isfinite(megabytes):
        raise InputError(f"expected --memory-limit in MB, got {megabytes}; leave it out for an eighth of what is free")
    return memory_limit(int(megabytes * 1e6))


def _between(text: str) -> str | tuple[float, ...]:
    if text in BETWEEN:
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"expected --between as {', '.join(BETWEEN)} or numbers such as '1,0.8,1.5', got {text!r}; choose one"
        ) from None
