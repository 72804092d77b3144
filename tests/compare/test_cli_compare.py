"""``napari-tinc compare`` as a user types it."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
import tifffile
from synthetic import blobs
from typer.testing import CliRunner

from napari_tinc.cli.app import app

QUICK = ["--time-limit", "0.3", "--ratio", "12"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    volume = blobs((24, 30, 27))
    tifffile.imwrite(tmp_path / "v.tif", volume)
    tifffile.imwrite(tmp_path / "mask.tif", (volume > 2000).astype("u1"))
    tifffile.imwrite(tmp_path / "small.tif", volume[:5])
    return tmp_path / "v.tif"


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_whole_journey(source):
    report, csv = source.with_name("out.html"), source.with_name("out.csv")
    files = ["--report", report, "--csv", csv, "--mask", source.with_name("mask.tif")]
    chosen = ["--strategies", "siren,even/equal@2", "--peers", "sperr,sz3"]
    done = run(source, *QUICK, "--ratio", "24", *chosen, *files, "--jobs", "2")
    assert done.exit_code == 0, done.output
    for word in ("siren fast", "even/equal@2 fast", "sperr", "sz3", "Dice(mask)", "Best of all was"):
        assert word in done.stdout
    table = pd.read_csv(csv)
    assert len(table) == 8
    assert (table["bytes"] <= table["budget"]).all()
    assert report.read_text().startswith("<!DOCTYPE html>")
    again = run(source, *QUICK, "--ratio", "24", *chosen, *files)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    third = run(source, *QUICK, "--ratio", "24", *chosen, *files, "--overwrite")
    assert third.stderr.count(", stored") == 8
    assert third.stdout == done.stdout


def test_json_is_one_object_and_nothing_else(source):
    done = run(source, *QUICK, "--strategies", "none", "--peers", "sperr,zfp", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert done.stderr == ""
    assert [row["candidate"] for row in said["results"]] == ["sperr", "zfp"]
    assert said["results"][0]["psnr_clean"] is None
    assert math.isfinite(said["results"][0]["psnr"])
    assert said["recommended"].endswith("/equal")
    assert said["verdicts"][0]["right"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategies", "sideways"], "'sideways'"),
        (["--peers", "zip"], "'zip'"),
        (["--strategies", "none", "--peers", "none"], "at least one"),
        (["--mask", "small.tif"], "mask of the volume's shape"),
        (["--clean", "nowhere.tif"], "nowhere.tif"),
        (["--ratio", "0"], "positive"),
        (["--jobs", "0"], "at least one job"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(source, monkeypatch, arguments, said):
    monkeypatch.chdir(source.parent)
    done = run(source, "--peers", "sperr", "--strategies", "none", *arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_label_image_is_refused_unless_forced(source):
    labels = np.kron(np.arange(64).reshape(4, 4, 4), np.ones((6, 6, 30))).astype("i4")
    path = source.with_name("labels.tif")
    tifffile.imwrite(path, labels)
    arguments = [path, "--ratio", "4", "--strategies", "none", "--peers", "sperr"]
    assert "label image" in run(*arguments).stderr
    assert run(*arguments, "--force").exit_code == 0


def test_ctrl_c_says_that_the_finished_are_kept(source, monkeypatch):
    from napari_tinc.compare.engine import Comparison

    def interrupted(self, jobs, scheduler):
        yield from self.stored()
        raise KeyboardInterrupt

    monkeypatch.setattr(Comparison, "run", interrupted)
    done = run(source, *QUICK, "--strategies", "none", "--peers", "sperr")
    assert done.exit_code == 130
    assert "continues from there" in done.stderr


def test_a_table_can_be_read_back(source):
    csv = source.with_name("t.csv")
    run(source, *QUICK, "--strategies", "none", "--peers", "sperr", "--csv", csv)
    table = pd.read_csv(io.StringIO(csv.read_text()))
    assert table["octants_below_bar"].between(0, 1).all()
