"""The HTML report: one file, complete, small, and nothing in it but what was found."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from comparisons import RATIOS

from napari_tinc.arrays.metadata import Metadata
from napari_tinc.compare import pictures
from napari_tinc.compare.candidates import Candidate
from napari_tinc.compare.engine import Comparison
from napari_tinc.compare.report import html_report
from napari_tinc.errors import InputError


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data) -> None:
        self.texts.append(data)

    def images(self) -> list[np.ndarray]:
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        return [imagecodecs.png_decode(base64.b64decode(source.partition(",")[2])) for source in sources]


@pytest.fixture(scope="module")
def page(finished) -> Page:
    return Page(html_report(finished))


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:image/png", "data:", "#"))
    policies = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert policies[0].startswith("default-src 'none'")


def test_every_candidate_and_ratio_is_there_with_its_number(page, finished):
    text = " ".join(page.texts)
    for ratio in RATIOS:
        assert f"Ratio {ratio:g}" in text
    for result in finished.results:
        assert f"{result.candidate.name}: {result.measures.psnr:.2f} dB" in text
    assert "Global consistency" in text


def test_what_lost_nothing_is_called_exact_in_the_table_and_over_the_curves(volume, cache):
    flat = np.where(volume > np.quantile(volume, 0.8), 200, 10).astype("u1")
    comparison = Comparison(
        flat, candidates=[Candidate.tinc("default"), Candidate("sperr")], ratios=[4, 8], cache=cache
    )
    list(comparison.run())
    assert comparison.result("default fast", 4).measures.psnr == np.inf
    text = " ".join(Page(html_report(comparison)).texts)
    assert "default fast: exact" in text
    assert re.search(r"\bexact\b", text.replace("default fast: exact", ""))
    assert not re.search(r"\binf\b", text)
    figure = pictures.rate_distortion(comparison.table(), ("psnr",))
    assert figure.axes[0].get_title().replace("\n", " ") == "no loss: default fast at 4, default fast at 8"


def test_the_noise_of_the_volume_is_told(page):
    assert re.search(r"Noise, estimated from blocks of it: (none found|variance .* · intensity)", " ".join(page.texts))


def test_slices_show_the_volumes_and_octants_their_grid(page, finished, volume):
    images = [image for image in page.images() if image.shape != pictures_scale_shape()]
    plane = int(np.argmax(volume.std((1, 2))))
    low, high = np.percentile(volume[plane], (1, 99.5))

    def shown(array: np.ndarray) -> np.ndarray:
        return np.rint(np.clip((array[plane].astype(float) - low) / (high - low), 0, 1) * 255).astype("u1")

    originals = [image for image in images if image.ndim == 2]
    np.testing.assert_array_equal(originals[0], shown(volume))
    for image, result in zip(originals[1:5], finished.results[:4], strict=True):
        np.testing.assert_array_equal(image, shown(result.decode()))
    assert [image.shape[:2] for image in images if image.ndim == 3] == [finished.truth.octants.counts(1)[1:]] * 8


def pictures_scale_shape() -> tuple[int, ...]:
    return imagecodecs.png_decode(pictures.scale_png()).shape


def test_text_of_the_user_stays_text(volume, cache, finished):
    evil = "<script>alert(1)</script>&\"'"
    metadata = replace(Metadata.default(3), name=evil)
    comparison = Comparison(volume, metadata=metadata, candidates=[Candidate("sperr")], ratios=[12], cache=cache)
    for _ in comparison.run():
        pass
    page = Page(html_report(comparison))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert any(evil in text for text in page.texts)


def test_what_a_codec_said_stays_text(volume, cache):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
    comparison = Comparison(volume, candidates=[Candidate("sperr"), Candidate("zfp")], ratios=[12], cache=cache)
    for _ in comparison.run():
        pass
    (sperr, ratio), found = next(iter(comparison._found.items()))
    comparison._found[sperr, ratio] = replace(found, measures=None, octants=None, problem=evil, same_as=evil)
    page = Page(html_report(comparison))
    assert not [tag for tag, attributes in page.tags if tag == "script" or "onerror" in attributes]
    assert evil in page.texts
    assert f"sperr = {evil}" in page.texts


def test_a_large_report_stays_below_five_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 60000, (2, 320, 300), dtype="u2")
    comparison = Comparison(noise, candidates=[Candidate("sperr")], ratios=[2], cache=tmp_path)
    for _ in comparison.run():
        pass
    # What would be a day's work: the result of one ratio stands in for those of a hundred.
    found = comparison.results[0]
    comparison.ratios = tuple(2 + i / 100 for i in range(100))
    for ratio in comparison.ratios:
        comparison._found[found.candidate, ratio] = replace(found, target_ratio=ratio)
    assert 2_000_000 < len(html_report(comparison)) < 5_000_000


def test_without_results_there_is_no_report(volume, tmp_path):
    with pytest.raises(InputError, match="run it first"):
        html_report(Comparison(volume, candidates=[Candidate("sperr")], cache=tmp_path))


def test_curves_with_several_ratios_and_bars_with_one(finished):
    table = finished.table()
    lines = pictures.rate_distortion(table).axes
    assert [axes.get_ylabel() for axes in lines] == list(pictures.MEASURE_LABELS.values())
    drawn = {line.get_label(): line.get_xydata() for line in lines[0].lines}
    for name, rows in table.groupby("candidate"):
        expected = rows.sort_values("ratio")[["ratio", "psnr"]].to_numpy(float)
        np.testing.assert_allclose(drawn[name], expected)
    bars = pictures.rate_distortion(table[table["target_ratio"] == 12.0], ("psnr",)).axes[0]
    assert sorted(patch.get_width() for patch in bars.patches) == sorted(table[table["target_ratio"] == 12.0]["psnr"])


def test_a_curve_of_nothing_is_empty_and_no_error(finished):
    empty = pd.DataFrame(columns=finished.table().columns)
    assert not pictures.rate_distortion(empty, ("psnr",)).axes[0].patches


def test_pictures_in_two_dimensions(tmp_path):
    from synthetic import blobs

    comparison = Comparison(blobs((60, 70)), candidates=[Candidate("jpegxl")], ratios=[4], cache=tmp_path)
    for _ in comparison.run():
        pass
    assert (60, 70) in [image.shape for image in Page(html_report(comparison)).images()]
