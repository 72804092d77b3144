"""The command that says how small a volume may become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_tinc.cli.options import AsJson, Axes, Force, Overwrite, parse_region
from napari_tinc.cli.terminal import display, end_if_asked, print_result, reporting, say
from napari_tinc.errors import InputError
from napari_tinc.system.steps import complete

# torch and the readers of volumes take seconds to import.
if TYPE_CHECKING:
    from napari_tinc.advice.advise import Advice
    from napari_tinc.advice.trials import Tried
    from napari_tinc.progress import Progress


def advise(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A TIFF, NPY or (OME-)Zarr volume.")],
    ratio: Annotated[
        list[float] | None,
        typer.Option(help="Raw bytes divided by file bytes; may be repeated. Searched for if not given."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="Part to look at, such as '0:16,32:64,32:64'.")] = None,
    report: Annotated[Path | None, typer.Option(help="An HTML file to write, with curves and pictures.")] = None,
    axes: Axes = None,
    force: Force = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find the highest ratio at which the loss looks like noise, and what is measured later is kept."""
    with reporting(as_json):
        from napari_tinc.files import check_output

        if report is not None:
            check_output(report, overwrite)
        advice, name = _run(source, ratio, region, axes, force, as_json)
        if report is not None:
            from napari_tinc.advice.report import html_report
            from napari_tinc.system.output import write_atomic

            write_atomic(report, html_report(advice, name).encode(), overwrite)
        if as_json:
            from napari_tinc.advice.advise import said_of

            print_result(said_of(advice), True)
        else:
            _say(advice)


def advised_ratio(source: Path, axes: str | None, force: bool, quiet: bool) -> tuple[float, str]:
    """Return the advised ratio of a volume, and what its file says of the advice.

    Raises
    ------
    InputError
        If no ratio is safe.
    """
    advice, _ = _run(source, None, None, axes, force, quiet)
    if advice.advised is None:
        raise InputError(f"expected a ratio that is safe, got none. {advice.text} Give a target of your own")
    return advice.advised.ratio, advice.note


def _run(
    source: Path, ratios: list[float] | None, region: str | None, axes: str | None, force: bool, quiet: bool
) -> tuple[Advice, str]:
    """Read a volume and try ratios on it; return the name of the volume, too."""
    from napari_tinc.arrays.inputs import check_not_labels, check_volume
    from napari_tinc.files import read_volume

    volume = read_volume(source, axes)
    check_volume(volume.data, volume.metadata)
    if not force:
        check_not_labels(volume.data)
    box = None if region is None else parse_region(region, volume.metadata.axes, volume.data.shape)
    from napari_tinc.advice.advise import advise_steps
    from napari_tinc.advice.trials import Tried

    with display(quiet) as show:

        def shown(step: Progress | Tried) -> None:
            end_if_asked()
            if not isinstance(step, Tried):
                show(step)

        advice = complete(advise_steps(volume.data, region=box, ratios=ratios, metadata=volume.metadata), shown)
    return advice, volume.metadata.name or source.name


def _say(advice: Advice) -> None:
    say(f"{'ratio':>7} {'bytes':>12} {'PSNR, dB':>9} {'distance':>9} {'limit':>6}  verdict")
    for one in advice.tried:
        worst = max(one.distances.values(), key=lambda found: found.limit, default=None)
        value, limit = ("-", "-") if worst is None else (f"{worst.value:.2f}", f"{worst.limit:.2f}")
        say(f"{one.ratio:7g} {one.nbytes:12d} {one.psnr:9.2f} {value:>9} {limit:>6}  {one.text}")
    noise = advice.noise
    found = "none" if noise.is_none else f"variance {noise.text}"
    say(f"noise: {found}")
    say("distance: squared distance from the image without noise, where it is worst; the original has 1")
    best = advice.advised
    say(f"advised: {'none' if best is None else f'{best.ratio:g}'}. {advice.text}")
    if advice.nearer:
        say(advice.nearer)
