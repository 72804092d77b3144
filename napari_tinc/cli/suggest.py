"""The command that tries a few ratios and says up to which one the loss looks like noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_tinc.cli.options import AsJson, Axes, Force, Overwrite, parse_region
from napari_tinc.cli.terminal import display, print_result, reporting
from napari_tinc.system.steps import complete

# torch and the readers of volumes take seconds to import.
if TYPE_CHECKING:
    from napari_tinc.advice.suggest import Distance, Suggestion
    from napari_tinc.progress import Progress


def suggest(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A TIFF, NPY or (OME-)Zarr volume.")],
    ratio: Annotated[list[float] | None, typer.Option(help="Raw bytes divided by file bytes; may be repeated.")] = None,
    region: Annotated[str | None, typer.Option(help="Part to look at, such as '0:16,32:64,32:64'.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="A PNG to write, with original, decoded and error at each ratio.")
    ] = None,
    axes: Axes = None,
    force: Force = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Try a few ratios on a part of a volume, and find the highest at which the loss looks like noise."""
    with reporting(as_json):
        from napari_tinc.arrays.inputs import check_not_labels, check_volume
        from napari_tinc.files import check_output, read_volume

        if report is not None:
            check_output(report, overwrite)
        volume = read_volume(source, axes)
        check_volume(volume.data, volume.metadata)
        if not force:
            check_not_labels(volume.data)
        box = None if region is None else parse_region(region, volume.metadata.axes, volume.data.shape)
        from napari_tinc.advice.suggest import Suggestion, advised, suggest_steps

        with display(as_json) as show:

            def shown(step: Progress | Suggestion) -> None:
                if not isinstance(step, Suggestion):
                    show(step)

            rows = complete(suggest_steps(volume.data, region=box, ratios=ratio, metadata=volume.metadata), shown)
        if report is not None:
            from napari_tinc.figure import save_rows

            save_rows(report, [(f"{one.ratio:g} times smaller: {one.text}", *one.planes) for one in rows], overwrite)
        _say(rows, advised(rows), as_json)


def _say(rows: Sequence[Suggestion], advice: Suggestion | None, as_json: bool) -> None:
    noise = rows[0].noise
    if as_json:
        said: dict[str, Any] = {"ratios": [_said_of(one) for one in rows]}
        said |= {"advised": None if advice is None else advice.ratio}
        said |= {"noise": {"gain": noise.gain, "base": noise.base, "least": noise.least, "colour": noise.colour}}
        print_result(said, True)
        return
    typer.echo(f"{'ratio':>7} {'bytes':>12} {'PSNR, dB':>9} {'distance here':>14} {'everywhere':>11}  verdict")
    for one in rows:
        here, everywhere = (f"{found.value:.2f}" if found else "-" for found in (one.here, one.everywhere))
        typer.echo(f"{one.ratio:7g} {one.nbytes:12d} {one.psnr:9.2f} {here:>14} {everywhere:>11}  {one.text}")
    typer.echo("distance: squared distance from the image without noise; the original has 1")
    if advice is not None:
        typer.echo(f"advised: {advice.ratio:g}, the highest ratio tried at which the loss looks like noise")
    elif noise.is_none:
        typer.echo(
            "advised: none, because no noise was found; look at the pictures (--report) and judge the loss yourself"
        )
    else:
        typer.echo(
            f"advised: less than {rows[0].ratio:g}, where structure is already lost; try smaller ratios with --ratio"
        )


def _said_of(one: Suggestion) -> dict[str, Any]:
    return {
        "ratio": one.ratio,
        "file_bytes": one.nbytes,
        "psnr": one.psnr,
        "distance_here": _numbers(one.here),
        "distance_everywhere": _numbers(one.everywhere),
        "verdict": str(one.verdict),
    }


def _numbers(found: Distance | None) -> dict[str, float] | None:
    return None if found is None else {"value": found.value, "limit": found.limit}
