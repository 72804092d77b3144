"""Every benchmark works: a run of seconds of each; of those that take a minute however small, only their help."""

from __future__ import annotations

import importlib
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile
from synthetic import blobs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# Runs of seconds, one after the other in one folder, where VOLUMES holds a small volume, DOORS those that doors.py
# reads by name, and GOLDEN the golden files.
QUICK = {
    "against_authors.py": "VOLUMES/a.tif --ratio 12 --levels 1 --steps 250 --batch 1024 --preset fast --limits 0.3",
    "bounds.py": "VOLUMES --results bounds.csv",
    "bounds.py --found": "VOLUMES",
    "bounds.py --table": "--results bounds.csv",
    "cluster.py": "tasks plane --tasks 100 --plane-side 64 --chunk 64",
    "compare.py": "--strategies wavelet",
    "detail_speed.py": "--shape 32 64 64 --ratio 32",
    "families.py": "VOLUMES --ratios 12 --models wavelet siren --time-limit 0.2 --results families.csv",
    "families.py --table": "--results families.csv --ratios 12 --time-limit 0.2",
    "gaps.py": "--voxels 0.1",
    "gpu.py": "--device cpu --small",
    "leaf_latents.py": "VOLUMES --ratios 8 --shares 0.5 --steps 20 --results latents.csv",
    "leaf_latents.py --table": "--results latents.csv",
    "learned_synthesis.py": "VOLUMES --volumes a --ratios 3 --seconds 0.3",
    "lab/run.py": "VOLUMES --recipes fast detail-no-filter sperr --ratios 12 24 --results lab.csv",
    "lab/report.py": "--recipes fast sperr --results lab.csv",
    "lab/time_to_quality.py": "VOLUMES --presets fast --ratios 12 --results times.csv",
    "lab/time_to_quality.py --draw": "--results times.csv",
    "directions.py": "VOLUMES/a.tif --ratios 12 --output directions.csv",
    "video_curves.py": "VOLUMES/a.tif --codecs av1 vvc --results curves.csv",
    "video_curves.py --table": "--ours directions.csv --results curves.csv",
    "masks.py": f"VOLUMES/a.tif --against {BENCHMARKS.parent} --ratios 12",
    "parameter_coding.py": "GOLDEN/v1-mixed-zyx-u2.tinc GOLDEN/v1-detail-yx-u1.tinc",
    "presets.py": "VOLUMES --presets fast --ratios 12 --results presets.csv",
    "presets.py --table": "--results presets.csv",
    "rate_model.py": "VOLUMES --ratios 12",
    "cuts.py": "VOLUMES/a.tif --sources 4 --factors 2",
    "noise_cost.py": "VOLUMES/a.tif --ratio 8",
    "reading.py": "--side 64 --chunks 4096",
    "speed_peers.py": "--short --peers sperr --ratio 32",
    "strategies.py": "VOLUMES/a.tif --ratios 12 --strategies even/equal@1 --time-limit 0.2 --output strategies.csv",
    "warm_start.py": "VOLUMES --steps 20 --seeds 1 --results warm.csv",
    "warm_start.py --table": "--results warm.csv",
    "advice.py": "--shape 16 40 40 --seeds 7 --exposures 1 --only vessel --output advice.csv",
}
# Runs that take a minute or more.
LONG = {
    "cluster.py": "speed kills large --side 96 --chunk 32 --kill-side 64 --kills 2 --megavoxels 16",
    "doors.py": "DOORS --doors library commands --models tucker siren --ratio 4 --time-limit 0.2 --results doors.csv",
    "pruning.py": "--side 24 --ratios 64 --steps 20 --results pruning.csv",
    "autocast.py": "VOLUMES/a.tif --ratio 12",
    "compare_views.py": "--candidates detail sperr --rounds 1",
    "plugin_latency.py": "--small",
    "scale.py": "--megavoxels 1",
    "speed.py": "--shrink 4",
    "step_sizes.py": "VOLUMES/a.tif --ratio 12 --bits 6",
    "web.py": "VOLUMES/a.tif --shape 32 64 64",
    "threads.py": "--busy 0 --threads 1 --waiting passive --seconds 0.2",
}
USED = {
    "appending.py",
    "recursion.py",
    "detail_files.py",
    "lab/bd_rate.py",
    "lab/recipes.py",
}  # by others; attack.py has a test of its own


SHAPES = {
    "neuron_somata": (8, 24, 24), "tinc_demo": (8, 24, 24), "neuron_brainbow": (6, 3, 20, 20),
    "neuron_phantom_64x256x256_u16": (16, 24, 24),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where benchmarks run; those tables of theirs that are kept in the repository stay as they are."""
    before = kept()
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "GOLDEN").symlink_to(Path(__file__).parent / "golden")
    (folder / "VOLUMES").mkdir()
    tifffile.imwrite(folder / "VOLUMES" / "a.tif", blobs((16, 32, 32)), photometric="minisblack")
    (folder / "DOORS").mkdir()
    for name, shape in SHAPES.items():
        tifffile.imwrite(folder / "DOORS" / f"{name}.tif", blobs(shape), photometric="minisblack")
    yield folder
    assert kept() == before


def kept() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in BENCHMARKS.rglob("results/*")}


def run(folder: Path, script: str, arguments: str) -> str:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache"), "NAPARI_CONFIG": str(folder / "napari.yaml"),
        "TMPDIR": str(folder),
    }  # fmt: skip
    name, *options = script.split()
    command = [sys.executable, str(BENCHMARKS / name), *options, *shlex.split(arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("script", QUICK)
def test_a_short_run_of_a_benchmark_works(script: str, folder: Path) -> None:
    assert run(folder, script, QUICK[script])


def run_here(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> object:
    """Run a benchmark in this process, where much is imported already, and return its exit code."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(BENCHMARKS)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("script", LONG)
def test_a_benchmark_that_takes_long_can_be_asked_what_it_does(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, script, "--help") == 0
    assert capsys.readouterr().out.startswith("usage")


@pytest.mark.slow
@pytest.mark.parametrize("script", LONG)
def test_a_longer_run_of_a_benchmark_works(script: str, folder: Path) -> None:
    assert run(folder, script, LONG[script])


def test_no_benchmark_is_left_out() -> None:
    scripts = {str(path.relative_to(BENCHMARKS)) for path in BENCHMARKS.rglob("*.py") if path.parent.name != "attacks"}
    assert scripts == {name.split()[0] for name in QUICK} | set(LONG) | USED | {"attack.py"}


def test_families_are_drawn_with_a_line_for_each_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = "volume,voxels,ratio,model,limit_s,steps,psnr_dB\n"
    of_first = [f"first_u16,64,{ratio},{model},0,300,{40 - ratio / 16}\n"
                for ratio in (16, 64) for model in ("wavelet", "siren", "grid")]  # fmt: skip
    of_second = ["second_u8,64,16,wavelet,0,300,30\n", "second_u8,64,64,wavelet,0,300,20\n"]
    not_asked_for = ["second_u8,64,16,siren,15,0,1\n", "second_u8,64,256,wavelet,0,300,2\n"]
    results = tmp_path / "some.csv"
    results.write_text(columns + "".join([*of_first, *of_second, *not_asked_for]))
    monkeypatch.setenv("MPLBACKEND", "agg")
    arguments = f"--draw first second --ratios 16 64 --steps 300 --results {results}"
    monkeypatch.setattr(sys, "argv", ["families.py", *shlex.split(arguments)])
    monkeypatch.syspath_prepend(BENCHMARKS)
    pyplot = importlib.import_module("matplotlib.pyplot")
    try:
        runpy.run_path(str(BENCHMARKS / "families.py"), run_name="__main__")
        panels = pyplot.gcf().axes
        drawn = [{line.get_label(): list(map(float, line.get_ydata())) for line in panel.lines} for panel in panels]
        curve = [39.0, 36.0]
        assert drawn == [{"wavelet": curve, "siren": curve, "grid": curve}, {"wavelet": [30.0, 20.0]}]
        assert [panel.get_title() for panel in panels] == ["first", "second"]
    finally:
        pyplot.close("all")
    picture = pyplot.imread(tmp_path / "some.png")
    assert picture.std() > 0.01
    assert capsys.readouterr().out.strip() == str(tmp_path / "some.png")


def test_without_a_gpu_its_benchmark_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_here(monkeypatch, "gpu.py") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: expected a cuda device")


def test_the_constants_that_recipes_change_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS / "lab")
    for name, recipe in importlib.import_module("recipes").RECIPES.items():
        for path in recipe.constants:
            module, constant = path.rsplit(".", 1)
            assert hasattr(importlib.import_module(f"napari_tinc.{module}"), constant), name
