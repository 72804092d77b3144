"""A comparison as one self-contained HTML file: a user can send it to a colleague, and it opens without a network."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

from napari_tinc.compare import pictures
from napari_tinc.compare.engine import Comparison
from napari_tinc.compare.recommend import recommend, verdicts
from napari_tinc.compare.results import DEFAULT_BAR, Result
from napari_tinc.errors import InputError

# All slices together: base64 adds a third, and the whole report stays well below 5 MB.
_SLICE_BYTES = 2_200_000
_LARGEST_SIDE = 256

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1280px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { padding: 3px 8px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
td:first-child, th:first-child, td.text { text-align: left; } td.text { white-space: normal; }
td.best { font-weight: 700; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; } figure { margin: 0; width: 256px; }
figure img { width: 256px; image-rendering: pixelated; display: block; border: 1px solid #ccc; margin-bottom: 3px; }
figcaption { font-size: 13px; } .scale { width: 160px; height: 12px; vertical-align: middle; }
svg { max-width: 100%; height: auto; }
"""

# Column, title, format, whether more is better (None: neither).
_SHOWN: tuple[tuple[str, str, str, bool | None], ...] = (
    ("bytes", "bytes", ",.0f", None),
    ("ratio", "ratio", ".1f", None),
    ("psnr", "PSNR, dB", ".2f", True),
    ("psnr_dtype", "over dtype, dB", ".2f", True),
    ("ssim", "SSIM", ".4f", True),
    ("accuracy", "accuracy", ".4f", True),
    ("iou", "IoU", ".3f", True),
    ("dice", "Dice", ".3f", True),
    ("cldice", "clDice", ".3f", True),
    ("iou_mask", "IoU, mask", ".3f", True),
    ("dice_mask", "Dice, mask", ".3f", True),
    ("cldice_mask", "clDice, mask", ".3f", True),
    ("psnr_clean", "against clean, dB", ".2f", True),
    ("max_error", "largest error", ".4g", False),
    ("worst_octant_psnr", "worst octant, dB", ".2f", True),
    ("octants_below_bar", "octants below bar", ".1%", False),
    ("encode_seconds", "encode, s", ".2f", False),
    ("decode_seconds", "decode, s", ".2f", False),
    ("peak_megabytes", "memory, MB", ".0f", False),
)


def html_report(comparison: Comparison, bar: float = DEFAULT_BAR) -> str:
    """Write what a comparison found as HTML.

    Parameters
    ----------
    comparison : Comparison
        At least partly finished.
    bar : float
        PSNR in dB below which an octant is not good enough.

    Returns
    -------
    str
        One document below 5 MB, with all pictures inside and nothing that is loaded from elsewhere.

    Raises
    ------
    InputError
        If nothing has finished.
    """
    if not comparison.results:
        raise InputError("expected a comparison with results, got none yet; run it first")
    name = comparison.metadata.name or "volume"
    array = comparison.truth.array
    title = f"{name}: codecs and settings at equal bytes"
    intro = (
        f"{' x '.join(map(str, array.shape))} voxels ({comparison.truth.axes}), {array.dtype}, {array.nbytes:,} bytes."
    )
    body = [
        f"<h1>{escape(title)}</h1><p>{escape(intro)} Every file obeys its budget; every byte counts.</p>",
        _advice(comparison),
        "<h2>Quality against ratio</h2>",
        pictures.svg(pictures.rate_distortion(comparison.table(bar))),
        *(_section(comparison, ratio, bar) for ratio in comparison.ratios),
    ]
    # The policy lets a browser load nothing, even if some text slipped through unescaped.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>{''.join(body)}</body></html>\n"
    )


def _advice(comparison: Comparison) -> str:
    advice = recommend(comparison.facts)
    lines = [f"<p><b>{escape(advice.strategy)}</b>. {escape(advice.reason)}</p>"]
    for verdict in verdicts(comparison.results, comparison.facts):
        lines.append(f"<p>At ratio {verdict.target_ratio:g}: {escape(verdict.text)}</p>")
    if not math.isnan(comparison.truth.psnr_clean):
        lines.append(f"<p>The volume itself is {comparison.truth.psnr_clean:.2f} dB from the clean one.</p>")
    return f"<h2>What auto takes, and whether it was right</h2>{''.join(lines)}"


def _section(comparison: Comparison, ratio: float, bar: float) -> str:
    results = [result for result in comparison.results if result.target_ratio == ratio]
    shown = [result for result in results if result.ok]
    return f"<h2>Ratio {ratio:g}</h2>{_table(comparison, ratio, bar)}{_cards(comparison, shown)}"


def _table(comparison: Comparison, ratio: float, bar: float) -> str:
    table = comparison.table(bar)
    rows = table[table["target_ratio"] == ratio].assign(peak_megabytes=table["peak_bytes"] / 1e6)
    columns = [column for column in _SHOWN if np.isfinite(rows[column[0]].astype(float)).any()]
    heads = "".join(f"<th>{escape(title)}</th>" for _, title, _, _ in columns)
    lines = []
    for row in rows.sort_values("psnr", ascending=False).to_dict("records"):
        name = f"{row['candidate']} = {row['same_as']}" if row["same_as"] else row["candidate"]
        cells = [f"<td>{escape(name)}</td>"]
        if row["problem"]:
            cells.append(f'<td class="text" colspan="{len(columns)}">{escape(row["problem"])}</td>')
        else:
            cells += [_cell(row[key], form, best, rows[key]) for key, _, form, best in columns]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    begins = ", ".join(f"{value:.6g}" for value in comparison.truth.thresholds)
    note = f"<p>The bar is {bar:g} dB. Foreground begins at {begins}. Best numbers are bold.</p>"
    return f'<div class="wide"><table><tr><th>candidate</th>{heads}</tr>{"".join(lines)}</table></div>{note}'


def _cell(value: float, form: str, more_is_better: bool | None, column: Any) -> str:
    best = None if more_is_better is None else column.max() if more_is_better else column.min()
    emphasis = ' class="best"' if best is not None and value == best else ""
    return f"<td{emphasis}>{'-' if math.isnan(value) else format(value, form)}</td>"


def _cards(comparison: Comparison, shown: list[Result]) -> str:
    """Slices of the original and of all candidates with one contrast, and their octants with one colour scale."""
    if not shown:
        return ""
    truth = comparison.truth
    plane = pictures.best_plane(truth)
    original = pictures.original_plane(truth, plane)
    panels = (len(comparison.candidates) + 1) * len(comparison.ratios)
    side = min(_LARGEST_SIDE, int(math.sqrt(_SLICE_BYTES / panels)))
    limits = pictures.contrast(original)
    scale = _octant_limits(shown)
    cards = [_card(_slice(original, original, side, limits), "original")]
    for result in shown:
        images = _slice(pictures.decoded_plane(result, truth, plane), original, side, limits)
        if result.octants is not None and result.measures is not None:
            images += _image(pictures.octant_png(result.octants, scale), "PSNR of octants")
            cards.append(_card(images, f"{result.candidate.name}: {result.measures.psnr:.2f} dB"))
    note = (
        f"<p>Plane {plane}, same contrast for all. Below each its octants, worst along z: {scale[0]:.1f} dB "
        f'<img class="scale" alt="colours" src="{_data(pictures.scale_png())}"> {scale[1]:.1f} dB, '
        "white without error.</p>"
    )
    return f'{note}<div class="cards">{"".join(cards)}</div>'


def _slice(plane: Any, original: Any, side: int, limits: tuple[float, float]) -> str:
    return _image(pictures.grey_png(pictures.cut_out(plane, original, side), limits), "slice")


def _octant_limits(shown: Iterable[Result]) -> tuple[float, float]:
    values = np.concatenate([result.octants[0].ravel() for result in shown if result.octants is not None])
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _card(images: str, caption: str) -> str:
    return f"<figure>{images}<figcaption>{escape(caption)}</figcaption></figure>"


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" src="{_data(png)}">'


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
