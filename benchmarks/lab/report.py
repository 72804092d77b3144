"""Turn the table of ``run.py`` into Markdown and rate–distortion curves; the newest row of a cell counts.

    python benchmarks/lab/report.py --recipes fast balanced sperr hevc-12 tthresh --output curves

prints a table per ratio and writes ``curves.png`` beside the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from run import RESULTS


def load(results: Path, recipes: list[str]) -> pd.DataFrame:
    rows = pd.read_csv(results)
    rows = rows[rows.recipe.isin(recipes)]
    return rows.drop_duplicates(["recipe", "volume", "ratio"], keep="last")


def print_tables(rows: pd.DataFrame, recipes: list[str]) -> None:
    for ratio, group in rows.groupby("ratio"):
        table = group.pivot(index="volume", columns="recipe", values="psnr_dB").reindex(columns=recipes)
        print(f"\nPSNR in dB at ratio {ratio:g}\n\n| volume | {' | '.join(recipes)} |\n|{'---|' * (len(recipes) + 1)}")
        for volume, values in table.iterrows():
            best = values.max()
            cells = ["-" if pd.isna(v) else f"**{v:.2f}**" if v == best else f"{v:.2f}" for v in values]
            print(f"| `{volume}` | {' | '.join(cells)} |")
        seconds = group.groupby("recipe").encode_s.median().reindex(recipes)
        print(f"| median seconds | {' | '.join('-' if pd.isna(s) else f'{s:.1f}' for s in seconds)} |")


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
    parser.add_argument("--output", default="curves")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the table that run.py has made")
    arguments = parser.parse_args()
    table = load(arguments.results, arguments.recipes)
    print_tables(table, arguments.recipes)
    draw(table, arguments.recipes, arguments.results.with_name(f"{arguments.output}.png"))
