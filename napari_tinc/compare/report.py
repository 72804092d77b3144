"""A comparison as one self-contained HTML file: a user can send it to a colleague, and it opens without a network."""

from __future__ import annotations

import base64
import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from napari_tinc.compare import pictures
from napari_tinc.compare.engine import Comparison
from napari_tinc.compare.recommend import recommend, verdicts
from napari_tinc.compare.results import DEFAULT_BAR, Result
from napari_tinc.errors import InputError
from napari_tinc.figure import svg
from napari_tinc.measures.noise import note_of, note_text, sampled_noise
from napari_tinc.system.pages import templates
from napari_tinc.system.text import decibels_text

# All slices together: base64 adds a third, and the whole report stays well below 5 MB.
_SLICE_BYTES = 2_200_000
_LARGEST_SIDE = 256

_PAGES = templates(__package__)

# Column, title, format, whether more is better (None: neither).
Column = tuple[str, str, str, bool | None]
_SHOWN: tuple[Column, ...] = (
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
    truth = comparison.truth
    array, clean = truth.array, truth.psnr_clean
    return _PAGES.get_template("report.html.jinja").render(
        title=f"{comparison.metadata.name or 'volume'}: codecs and settings at equal bytes",
        intro=f"{' x '.join(map(str, array.shape))} voxels ({truth.axes}), {array.dtype}, {array.nbytes:,} bytes.",
        noise=note_text(note_of([sampled_noise(truth.items[0])])),
        advice=recommend(comparison.facts),
        verdicts=verdicts(comparison.results, comparison.facts),
        clean="" if math.isnan(clean) else f"{clean:.2f}",
        curves=Markup(svg(pictures.rate_distortion(comparison.table(bar)))),
        sections=[_section(comparison, ratio, bar) for ratio in comparison.ratios],
        bar=f"{bar:g}",
        thresholds=", ".join(f"{value:.6g}" for value in truth.thresholds),
    )


def _section(comparison: Comparison, ratio: float, bar: float) -> dict[str, Any]:
    """All that is shown of one ratio: the table, and pictures of what has finished."""
    table = comparison.table(bar)
    rows = table[table["target_ratio"] == ratio].assign(peak_megabytes=table["peak_bytes"] / 1e6)
    columns = [column for column in _SHOWN if rows[column[0]].notna().any()]
    shown = [result for result in comparison.results if result.target_ratio == ratio and result.ok]
    return {
        "ratio": f"{ratio:g}",
        "heads": [title for _, title, _, _ in columns],
        "rows": [_row(row, rows, columns) for row in rows.sort_values("psnr", ascending=False).to_dict("records")],
        "pictures": _pictures(comparison, shown) if shown else None,
    }


def _row(row: Mapping[Hashable, Any], rows: pd.DataFrame, columns: Iterable[Column]) -> dict[str, Any]:
    return {
        "name": f"{row['candidate']} = {row['same_as']}" if row["same_as"] else row["candidate"],
        "problem": row["problem"],
        "cells": [] if row["problem"] else [_cell(row[key], form, best, rows[key]) for key, _, form, best in columns],
    }


def _cell(value: float, form: str, more_is_better: bool | None, column: Any) -> dict[str, Any]:
    best = None if more_is_better is None else column.max() if more_is_better else column.min()
    text = "-" if math.isnan(value) else "exact" if value == math.inf else format(value, form)
    return {"text": text, "best": best is not None and value == best}


def _pictures(comparison: Comparison, shown: list[Result]) -> dict[str, Any]:
    """Slices of the original and of all candidates with one contrast, and their octants with one colour scale."""
    truth = comparison.truth
    plane = pictures.best_plane(truth)
    original = pictures.original_plane(truth, plane)
    panels = (len(comparison.candidates) + 1) * len(comparison.ratios)
    side = min(_LARGEST_SIDE, int(math.sqrt(_SLICE_BYTES / panels)))
    limits = pictures.contrast(original)

    def slice_of(samples: Any) -> dict[str, str]:
        return _image(pictures.grey_png(pictures.cut_out(samples, original, side), limits), "slice")

    scale = _octant_limits(shown)
    cards = [{"caption": "original", "images": [slice_of(original)]}]
    for result in shown:
        images = [slice_of(pictures.decoded_plane(result, truth, plane))]
        if result.octants is not None and result.measures is not None:
            images.append(_image(pictures.octant_png(result.octants, scale), "PSNR of octants"))
            cards.append(
                {"caption": f"{result.candidate.name}: {decibels_text(result.measures.psnr, 2)}", "images": images}
            )
    return {
        "plane": plane,
        "low": f"{scale[0]:.1f}",
        "high": f"{scale[1]:.1f}",
        "scale": _data(pictures.scale_png()),
        "cards": cards,
    }


def _octant_limits(shown: Iterable[Result]) -> tuple[float, float]:
    values = np.concatenate([result.octants[0].ravel() for result in shown if result.octants is not None])
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _image(png: bytes, text: str) -> dict[str, str]:
    return {"alt": text, "data": _data(png)}


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
