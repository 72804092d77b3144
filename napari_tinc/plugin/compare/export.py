"""Files of a comparison: table, plot, grid and report; each written whole or not at all."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tinc.system.output import write_atomic

if TYPE_CHECKING:
    from napari_tinc.compare.engine import Comparison

# Key, text of the menu, suffix, what such files are called.
EXPORTS = (
    ("csv", "Table (CSV)…", ".csv", "Table"),
    ("plot_png", "Plot (PNG)…", ".png", "Picture"),
    ("plot_svg", "Plot (SVG)…", ".svg", "Picture"),
    ("canvas", "Viewer as it is, such as the grid (PNG)…", ".png", "Picture"),
    ("canvas_svg", "Viewer as it is, such as the grid (SVG)…", ".svg", "Picture"),
    ("report", "Report (HTML)…", ".html", "Report"),
)


Titles = Sequence[tuple[float, float, str]]
Legend = Sequence[tuple[Sequence[str], str]]  # colours, and what they mean

_TITLE_PIXELS = 14
_LINE, _SQUARE = 22, 12  # pixels of the legend
_PIXELS_PER_INCH = 72  # a point is a pixel


def writer(
    key: str,
    comparison: Comparison,
    bar: float,
    measure: str,
    canvas: Any,
    titles: Titles = (),
    legend: Legend = (),
) -> Callable[[], bytes]:
    """Return what makes the content of a file; it takes seconds at most, and no window.

    Parameters
    ----------
    key : str
        One of :data:`EXPORTS`.
    comparison : Comparison
    bar : float
        PSNR in dB that an octant should have.
    measure : str
        What is plotted.
    canvas : ndarray or None
        The screenshot for ``"canvas"`` and ``"canvas_svg"``.
    titles : sequence of (float, float, str)
        For ``"canvas_svg"``, see :meth:`napari_tinc.plugin.compare.views.CandidateViews.picture`.
    legend : sequence of (sequence of str, str)
        For ``"canvas"`` and ``"canvas_svg"``, see :func:`with_legend`.
    """

    def picture(form: str) -> bytes:
        from napari_tinc.compare import pictures

        buffer = io.BytesIO()
        pictures.rate_distortion(comparison.table(bar), (measure,)).savefig(buffer, format=form, dpi=150)
        return buffer.getvalue()

    def report() -> bytes:
        from napari_tinc.compare.report import html_report

        return html_report(comparison, bar).encode()

    def screenshot() -> bytes:
        import imagecodecs

        return bytes(imagecodecs.png_encode(with_legend(canvas, legend)))

    def drawing() -> bytes:
        return titled(screenshot(), (canvas.shape[0] + _LINE * len(legend), canvas.shape[1]), canvas.shape[0], titles)

    makers: dict[str, Callable[[], bytes]] = {
        "csv": lambda: comparison.table(bar).to_csv(index=False).encode(),
        "plot_png": lambda: picture("png"),
        "plot_svg": lambda: picture("svg"),
        "canvas": screenshot,
        "canvas_svg": drawing,
        "report": report,
    }
    return makers[key]


def with_legend(canvas: Any, legend: Legend) -> Any:
    """Explain the colours of a picture below it, where nothing is covered.

    Parameters
    ----------
    canvas : ndarray of uint8, shape (height, width, 4)
    legend : sequence of (sequence of str, str)
        A line each: colours, and what they mean.

    Returns
    -------
    ndarray of uint8, shape (height + 22 per line, width, 4)
    """
    import numpy as np

    if not legend:
        return np.ascontiguousarray(canvas)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    width, height = canvas.shape[1], _LINE * len(legend)
    # Half a pixel more: whatever the rounding, the number of whole pixels is right.
    size = (width + 0.5) / _PIXELS_PER_INCH, (height + 0.5) / _PIXELS_PER_INCH
    figure = Figure(size, dpi=_PIXELS_PER_INCH, facecolor="black")
    for line, (colours, text) in enumerate(legend, 1):
        x, y = 6, height - line * _LINE + (_LINE - _SQUARE) / 2
        for colour in colours:
            figure.add_artist(Rectangle((x / width, y / height), _SQUARE / width, _SQUARE / height, facecolor=colour))
            x += _SQUARE
        x += 6 * bool(colours)
        figure.text(x / width, (y + _SQUARE / 2) / height, text, color="white", size=_SQUARE, va="center_baseline")
    strip: Any = FigureCanvasAgg(figure)
    strip.draw()
    return np.concatenate([canvas, np.asarray(strip.buffer_rgba())])


def titled(png: bytes, shape: tuple[int, int], titled_height: int, titles: Titles) -> bytes:
    """Put a picture into an SVG, with titles that stay text; they lie in its upper part of that height."""
    height, width = shape
    texts = "".join(
        f'<text x="{x * width + 6:.1f}" y="{y * titled_height + 1.3 * _TITLE_PIXELS:.1f}">{escape(text)}</text>'
        for x, y, text in titles
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{b64encode(png).decode()}"/>'
        f'<g font-family="sans-serif" font-size="{_TITLE_PIXELS}" fill="white">{texts}</g></svg>\n'
    ).encode()


def write(path: Path, make: Callable[[], bytes]) -> Path:
    """Make a file's content and write it; the user has agreed to replace what is there."""
    write_atomic(path, make(), overwrite=True)
    return path
