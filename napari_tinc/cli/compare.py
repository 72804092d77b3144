"""The command that compares settings, codecs and ratios on one volume."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_tinc.cli.options import (
    DEFAULT_RATIO,
    AsJson,
    Axes,
    Force,
    Overwrite,
    Preset,
    TimeLimit,
)
from napari_tinc.cli.terminal import print_result, reporting, say
from napari_tinc.system.text import decibels_text, printable

# torch, pandas and the codecs take seconds to import.
if TYPE_CHECKING:
    from rich.console import Console

    from napari_tinc.compare.candidates import Candidate
    from napari_tinc.compare.engine import Comparison, Event

NONE = "none"
_KEPT = "finished results are kept; the same command continues from there"
_PRINTED = {
    "candidate": "candidate", "same_as": "=", "target_ratio": "for", "ratio": "ratio", "psnr": "PSNR", "ssim": "SSIM",
    "dice": "Dice", "cldice": "clDice", "dice_mask": "Dice(mask)", "psnr_clean": "clean", "worst_octant_psnr": "worst",
    "octants_below_bar": "below", "encode_seconds": "encode", "decode_seconds": "decode",
}  # fmt: skip


def compare(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A TIFF, NPY or (OME-)Zarr volume.")],
    ratio: Annotated[list[float] | None, typer.Option(help="Raw bytes divided by file bytes; may be repeated.")] = None,
    preset: Preset = "fast",
    strategies: Annotated[
        str | None,
        typer.Option(
            help="Such as 'even/equal,shallow/importance@3,siren'; 'families' for one of each kind of network, or "
            "'none'; the usual ones if not given."
        ),
    ] = None,
    peers: Annotated[
        str | None, typer.Option(help="Such as 'sperr,hevc,av1,vvc', or 'none'; all if not given.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="A volume that is not 0 where the true foreground is.")] = None,
    clean: Annotated[Path | None, typer.Option(help="The volume without noise.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Voxels at or above it are foreground; Otsu's threshold if not given.")
    ] = None,
    bar: Annotated[float, typer.Option(help="PSNR in dB that every octant should reach.")] = 30.0,
    report: Annotated[Path | None, typer.Option(help="An HTML file to write.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A CSV table to write.")] = None,
    jobs: Annotated[int, typer.Option(help="How many candidates run at the same time.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask distributed scheduler that runs the candidates.")
    ] = None,
    time_limit: TimeLimit = None,
    axes: Axes = None,
    force: Force = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare our settings with one another and with other codecs, at equal bytes."""
    with reporting(as_json, kept=_KEPT):
        from napari_tinc.arrays.inputs import check_not_labels
        from napari_tinc.files import check_output, read_volume
        from napari_tinc.system.output import write_atomic

        for output in (report, csv):
            if output is not None:
                check_output(output, overwrite)
        volume = read_volume(source, axes)
        truths = [None if path is None else read_volume(path).data for path in (mask, clean)]
        if not force:
            check_not_labels(volume.data)
        from napari_tinc.compare.engine import Comparison

        comparison = Comparison(
            volume.data,
            metadata=volume.metadata,
            candidates=_candidates(strategies, peers, preset, time_limit),
            ratios=ratio or (DEFAULT_RATIO,),
            threshold=threshold,
            mask=truths[0],
            clean=truths[1],
        )
        _run(comparison, jobs, scheduler, as_json)
        if csv is not None:
            write_atomic(csv, comparison.table(bar).to_csv(index=False).encode(), overwrite)
        if report is not None:
            from napari_tinc.compare.report import html_report

            write_atomic(report, html_report(comparison, bar).encode(), overwrite)
        _print(comparison, source, bar, as_json)


def _candidates(strategies: str | None, peers: str | None, preset: str, time_limit: float | None) -> list[Candidate]:
    from napari_tinc.compare.candidates import OF_FAMILIES, STRATEGIES, Candidate
    from napari_tinc.compare.peers import PEERS

    names = OF_FAMILIES if strategies == "families" else _names(strategies, STRATEGIES)
    ours = [Candidate.tinc(name, preset, time_limit=time_limit) for name in names]
    return [*ours, *(Candidate(name) for name in _names(peers, tuple(PEERS)))]


def _names(text: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return usual
    return () if text == NONE else tuple(name.strip() for name in text.split(",") if name.strip())


def _run(comparison: Comparison, jobs: int, scheduler: str | None, quiet: bool) -> None:
    """Run to the end, saying on stderr what goes on."""
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet, markup=False, highlight=False)
    with closing(comparison.run(jobs, scheduler)) as events, console.status("starting") as status:
        for event in events:
            status.update(f"{event.done}/{event.total} {event.candidate.name}: {event.phase} {event.fraction:.0%}")
            _say(console, event)


def _say(console: Console, event: Event) -> None:
    result = event.result
    if result is None:
        return
    said = (
        result.problem
        if result.measures is None
        else f"{decibels_text(result.measures.psnr, 2)}, {result.nbytes} bytes"
    )
    stored = ", stored" if result.stored else ""
    console.print(printable(f"{event.done}/{event.total} {event.target_ratio:g} {result.label}: {said}{stored}"))


def _print(comparison: Comparison, source: Path, bar: float, as_json: bool) -> None:
    from napari_tinc.compare.recommend import recommend, verdicts

    facts = comparison.facts
    advice, found = recommend(facts), verdicts(comparison.results, facts)
    table = comparison.table(bar)
    if as_json:
        said: dict[str, Any] = {"volume": str(source), "results": table.to_dict("records"), "facts": asdict(facts)}
        said |= {"recommended": advice.strategy, "reason": advice.reason, "verdicts": [asdict(one) for one in found]}
        print_result(said, True)
        return
    rows = table[table["problem"] == ""].sort_values(["target_ratio", "psnr"], ascending=[True, False])
    if len(rows):
        shown = rows[[column for column in _PRINTED if rows[column].notna().any() and rows[column].ne("").any()]]
        text = shown.rename(columns=_PRINTED).to_string(index=False, float_format=lambda value: f"{value:.4g}")
        for line in text.splitlines():
            say(line)
    for row in table[table["problem"] != ""].itertuples():
        say(f"{row.candidate} at {row.target_ratio:g}: {row.problem}")
    say(f"{advice.strategy}: {advice.reason}")
    for verdict in found:
        say(f"ratio {verdict.target_ratio:g}: {verdict.text}")
