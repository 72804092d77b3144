"""Turn the table of ``run.py`` into Markdown and rate–distortion curves; the newest row of a cell counts.

    python benchmarks/lab/report.py --recipes fast sperr hevc av1 tthresh --output curves

prints a table per ratio, in how many of them the first recipe is ahead of each of the others and by how much, and the
delta rates where there are at least three ratios; it writes ``curves.png`` beside the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from bd_rate import bd_rate
from matplotlib.figure import Figure
from run import RESULTS

COPIED = {"tthresh": "tthresh (†)"}  # not run by ``run.py``


def load(results: Path, recipes: list[str], ratios: list[float] | None) -> pd.DataFrame:
    rows = pd.read_csv(results)
    rows = rows[rows.recipe.isin(recipes) & (rows.ratio.isin(ratios) if ratios else True)]
    return rows.drop_duplicates(["recipe", "volume", "ratio"], keep="last")


def print_table(rows: list[tuple[str, list[str]]], columns: list[str]) -> None:
    print(f"\n| volume | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |")


def print_qualities(rows: pd.DataFrame, recipes: list[str]) -> None:
    for ratio, group in rows.groupby("ratio"):
        table = group.pivot(index="volume", columns="recipe", values="psnr_dB").reindex(columns=recipes).round(2)
        seconds = group.groupby("recipe").encode_s.median().reindex(recipes)
        said = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name not in COPIED)
        print(f"\nRatio {ratio:g}; median seconds {said}:")
        cells = [(f"`{name}`", [_cell(value, values.max()) for value in values]) for name, values in table.iterrows()]
        print_table(cells, [COPIED.get(name, name) for name in recipes])


def _cell(value: float, best: float) -> str:
    if pd.isna(value):
        return "-"
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def print_counts(rows: pd.DataFrame, recipes: list[str]) -> None:
    """Cells in which the first recipe is ahead of each of the others, at equal bytes."""
    ours, *others = recipes
    table = rows.pivot(index=["ratio", "volume"], columns="recipe", values="psnr_dB").round(2)
    ratios = list(table.index.unique("ratio"))
    print(f"\nCells in which {ours} is ahead, of those that the other one reaches; by how many dB, all ratios\n")
    print(f"| {ours} against | {' | '.join(f'{ratio:g}' for ratio in ratios)} | all | worst | median | best |")
    print(f"|{'---|' * (len(ratios) + 5)}")
    for other in others:
        more = (table[ours] - table[other]).dropna()
        parts = [more[more.index.get_level_values("ratio") == ratio] for ratio in ratios]
        counts = " | ".join(f"{(part > 0).sum()} of {part.size}" for part in [*parts, more])
        print(
            f"| {COPIED.get(other, other)} | {counts} | {more.min():+.2f} | {more.median():+.2f} | {more.max():+.2f} |"
        )


def print_rates(rows: pd.DataFrame, recipes: list[str]) -> None:
    """Delta rates of the first recipe over each of the others, whose bytes are known."""
    ours, *others = [name for name in recipes if name not in COPIED]
    points = {
        key: list(zip(group.bytes, group.psnr_dB, strict=True)) for key, group in rows.groupby(["volume", "recipe"])
    }
    names = sorted(rows.volume.unique())
    rates = np.array(
        [[bd_rate(points.get((name, other), []), points.get((name, ours), [])) for other in others] for name in names]
    )
    if np.isnan(rates).all():
        return
    print(f"\nBD-rate of {ours}, in percent of the other's bytes at equal PSNR; below 0 {ours} needs less")
    told = [(f"`{name}`", [_percent(rate) for rate in row]) for name, row in zip(names, rates, strict=True)]
    print_table([*told, ("median", [_percent(rate) for rate in np.nanmedian(rates, 0)])], others)


def _percent(rate: float) -> str:
    return "-" if np.isnan(rate) else f"{rate:+.1f}"


def draw(rows: pd.DataFrame, recipes: list[str], path: Path) -> None:
    names = sorted(rows.volume.unique())
    figure = Figure(figsize=(12.6, 3.2 * -(-len(names) // 3)), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // 3), 3, index + 1)
        for recipe in recipes:
            points = rows[(rows.volume == name) & (rows.recipe == recipe)].sort_values("ratio")
            ours = "-" in recipe or recipe in ("fast", "balanced", "best")
            axes.plot(points.ratio, points.psnr_dB, "o-", label=recipe, linewidth=2 if ours else 1, markersize=4)
        axes.set(title=name, xscale="log", xlabel="ratio", ylabel="PSNR (range), dB")
        axes.set_xticks(sorted(rows.ratio.unique()), [f"{r:g}" for r in sorted(rows.ratio.unique())], minor=False)
        axes.minorticks_off()
        if index == 0:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--ratios", nargs="+", type=float, help="all if not given")
    parser.add_argument("--output", default="curves")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table that run.py has made")
    arguments = parser.parse_args()
    found = load(arguments.results, arguments.recipes, arguments.ratios)
    print_qualities(found, arguments.recipes)
    print_counts(found, arguments.recipes)
    print_rates(found, arguments.recipes)
    draw(found, arguments.recipes, arguments.results.with_name(f"{arguments.output}.png"))
