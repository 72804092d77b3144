"""Advice as one self-contained HTML file: it opens without a network, and can be sent to a colleague."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from napari_tinc.advice.advise import Advice
from napari_tinc.advice.trials import Tried
from napari_tinc.figure import svg
from napari_tinc.measures.downstream import TITLES
from napari_tinc.pixels import png_url, rows_of
from napari_tinc.system.pages import templates

_PAGES = templates(__package__)
_WHERE = {"here": "in the region", "everywhere": "in blocks from everywhere", "structure": "where there is structure"}
_RESIDUAL = {
    "bias": "mean",
    "power": "mean square",
    "neighbours": "correlation of neighbours",
    "structure": "correlation with the decoded",
}


def html_report(advice: Advice, name: str) -> str:
    """Write what was tried, and the advice, as HTML.

    Parameters
    ----------
    advice : Advice
    name : str
        Of the volume.

    Returns
    -------
    str
        One document with all pictures inside, and nothing that is loaded from elsewhere.
    """
    best = advice.advised
    keys = [key for key in TITLES if any(one.score.key == key for tried in advice.tried for one in tried.measured)]
    places = [where for where in _WHERE if any(where in tried.distances for tried in advice.tried)]
    return _PAGES.get_template("advice.html.jinja").render(
        title=f"{name}: how small is safe?",
        text=advice.text,
        nearer=advice.nearer,
        noise="" if advice.noise.is_none else advice.noise.text,
        curves=Markup(svg(_curves(advice, keys, places))),
        places=[_WHERE[where] for where in places],
        measures=[TITLES[key] for key in keys],
        residual=list(_RESIDUAL.values()),
        rows=[_row(tried, tried is best, keys, places) for tried in advice.tried],
        pictures=_pictures(advice),
    )


def _row(tried: Tried, is_best: bool, keys: list[str], places: list[str]) -> dict[str, Any]:
    measured = {one.score.key: one for one in tried.measured}
    distances = [tried.distances.get(where) for where in places]
    residual = tried.residual
    return {
        "ratio": f"{tried.ratio:g}",
        "best": is_best,
        "nbytes": f"{tried.nbytes:,}",
        "psnr": f"{tried.psnr:.2f}",
        "distances": [
            {"text": f"{d.value:.2f} (≤ {d.limit:.2f})" if d else "-", "bad": d is not None and not d.is_near}
            for d in distances
        ],
        "measures": [
            _cell(measured[key]) if key in measured else {"text": "-", "note": "", "bad": False} for key in keys
        ],
        "residual": [] if residual is None else [f"{getattr(residual, key):.2f}" for key in _RESIDUAL],
        "text": tried.text,
    }


def _cell(one: Any) -> dict[str, Any]:
    score = one.score
    return {
        "text": f"{score.agreement:.3f}",
        "note": f"line {one.line:.3f}; {_number(score.before)} → {_number(score.after)}",
        "bad": not one.is_kept,
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _pictures(advice: Advice) -> list[dict[str, Any]]:
    drawn = rows_of([tried.planes for tried in advice.tried])
    return [
        {"ratio": f"{tried.ratio:g}", "images": [png_url(pixels) for pixels in row]}
        for tried, row in zip(advice.tried, drawn, strict=True)
    ]


def _curves(advice: Advice, keys: list[str], places: list[str]) -> Figure:
    """PSNR, distances and agreements against the ratio; the advised one is marked."""
    count = 1 + bool(places) + bool(keys)
    figure = Figure(figsize=(4.3 * count, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = iter(figure.subplots(1, count, squeeze=False)[0])
    ratios = [tried.ratio for tried in advice.tried]
    axes = next(panels)
    axes.plot(ratios, [tried.psnr for tried in advice.tried], "o-", markersize=4)
    _finish(axes, advice, "PSNR, dB")
    if places:
        axes = next(panels)
        for where in places:
            line = [tried.distances[where].value for tried in advice.tried]
            limits = [tried.distances[where].limit for tried in advice.tried]
            [drawn] = axes.plot(ratios, line, "o-", markersize=4, label=_WHERE[where])
            axes.fill_between(ratios, line, limits, color=drawn.get_color(), alpha=0.2, linewidth=0)
        axes.axhline(1, color="0.4", linestyle=":")
        axes.set_ylim(bottom=0)
        _finish(axes, advice, "squared distance from the truth\n(the original has 1)")
        axes.legend(fontsize=7)
    if keys:
        axes = next(panels)
        for key in keys:
            found = [(t.ratio, m) for t in advice.tried for m in t.measured if m.score.key == key]
            [drawn] = axes.plot([r for r, _ in found], [m.score.agreement for _, m in found], "o-", markersize=4)
            drawn.set_label(TITLES[key])
            axes.axhline(found[0][1].line, color=drawn.get_color(), linestyle=":", linewidth=0.8)
        _finish(axes, advice, "agreement with the original\n(dotted: its line)")
        axes.legend(fontsize=7)
    return figure


def _finish(axes: Axes, advice: Advice, label: str) -> None:
    ratios = [tried.ratio for tried in advice.tried]
    axes.set(xscale="log", xlabel="ratio (raw bytes / file bytes)", ylabel=label)
    axes.set_xticks(ratios)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(lambda value, position: "")
    axes.grid(alpha=0.3)
    if advice.advised is not None:
        axes.axvline(advice.advised.ratio, color="tab:green", linewidth=6, alpha=0.2)


__all__ = ["html_report"]
