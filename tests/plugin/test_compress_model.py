"""The compress widget's mind, without a window: sizes, states, refusals, and where the preview goes."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
from napari.components import Dims, ViewerModel
from napari.layers import Image

from napari_tinc import settings
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.errors import InputError
from napari_tinc.plugin.compress import model as compress_model
from napari_tinc.plugin.compress.model import CompressModel, Form, Source, State, importance_weights, source_of
from napari_tinc.plugin.compress.preview import MAX_SAMPLES, Placement, Preview, View
from napari_tinc.plugin.compress.report import Report, duration_text, size_text
from napari_tinc.plugin.window.axes import axes_text, possible_axes
from napari_tinc.target import Target

SOURCE = Source((10, 20, 30), np.dtype("u2"), Metadata.default(3, "test"))  # 12000 bytes
REPORT = Report(12000, 3000, 40.0, 0.9, "", 4.2, 35.0, "[0:5, 0:10, 0:15]")


def model_of(**form: object) -> CompressModel:
    return CompressModel(form=Form(**form), source=SOURCE)


def progress(phase: str, step: int = 0, seconds: float = 0.0, psnr: float = 30.0) -> SimpleNamespace:
    return SimpleNamespace(phase=phase, step=step, steps=100, seconds=seconds, psnr=psnr, eta=7.0)


def test_every_kind_of_target_is_offered():
    assert compress_model.TARGETS.keys() == {
        target.kind
        for target in (
            Target.ratio(1),
            Target.size(1),
            Target.bits_per_voxel(1),
            Target.psnr(1),
            Target.ssim(0.5),
            Target.max_error(1),
        )
    }


def test_every_setting_of_the_form_is_one_that_the_library_takes():
    assert Form().settings() == settings.Settings()


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ({"target_kind": "ratio", "target_value": 4.0}, "12 kB → 3 kB\n4 : 1, 4 bits/voxel"),
        ({"target_kind": "bytes", "target_value": 1.5}, "12 kB → 1.5 kB\n8 : 1, 2 bits/voxel"),
        ({"target_kind": "bits_per_voxel", "target_value": 1.0}, "12 kB → 750 B\n16 : 1, 1 bits/voxel"),
        ({"target_kind": "psnr", "target_value": 42.0}, "12 kB → the smallest file that reaches 42 dB"),
        (
            {"target_kind": "max_error", "target_value": 2.5},
            "12 kB → the smallest file that keeps every voxel within 2.5",
        ),
        ({"target_kind": "ssim", "target_value": 0.98}, "12 kB → the smallest file of an SSIM of 0.98"),
        ({"target_kind": "max_error", "target_value": 0.0}, "12 kB → the smallest file that loses nothing"),
    ],
)
def test_the_resulting_size_is_shown_at_once(form, shown):
    assert model_of(**form).size_preview() == shown


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"target_kind": "ratio", "target_value": 1.0}, "raise the ratio"),
        ({"target_kind": "bytes", "target_value": 12.0}, "smaller than the volume"),
        ({"target_kind": "bytes", "target_value": 0.0004}, "which the smallest file of such a volume takes, got 0"),
        ({"target_value": 1e9}, "smallest file"),
        ({"within": "map"}, "importance layer"),
        ({"target_kind": "max_error", "preset": "best"}, "for a largest error"),
    ],
)
def test_a_form_that_cannot_work_says_why_and_does_not_start(form, said):
    model = model_of(**form)
    assert said in model.size_preview()
    with pytest.raises(InputError, match=said):
        model.begin()
    assert model.state is State.IDLE


def test_a_form_recalls_a_target_in_its_own_unit():
    assert Form.of_target(Target.size(1500)).target_value == 1.5
    assert Form.of_target(Target.size(1500)).target() == Target.size(1500)
    assert Form.of_target(Target.psnr(41)).target() == Target.psnr(41)


def test_a_compression_passes_through_its_states():
    model, seen = model_of(), []
    model.state_changed.connect(seen.append)
    model.begin()
    model.advance(progress("preparing"))
    model.advance(progress("training", 50, 1.0))
    model.advance(progress("quantising", 75, 2.0, 31.0))
    assert model.done == 0.75
    assert model.curve == [(1.0, 30.0), (2.0, 31.0)]
    assert "31.0 dB" in model.status()
    assert "7.0 s left" in model.status()
    model.finish(REPORT)
    assert seen == [State.PREPARING, State.TRAINING, State.DONE]


def test_starting_while_running_is_refused():
    model = model_of()
    model.begin()
    with pytest.raises(InputError, match="stop it first"):
        model.begin()


def test_stopping_before_anything_was_learnt_keeps_nothing():
    model = model_of()
    model.begin()
    assert not model.stop()
    assert model.state is State.STOPPING


@pytest.mark.parametrize("keep", [True, False])
def test_stopping_keeps_what_was_learnt_if_wished(keep):
    model = model_of()
    model.keep = keep
    model.begin()
    model.advance(progress("training", 1))
    assert model.stop() == keep


def test_stopping_twice_drops_it():
    model = model_of()
    model.begin()
    model.advance(progress("training", 1))
    assert model.stop()
    assert not model.stop()
    model.discard()
    assert model.state is State.IDLE
    assert "nothing was kept" in model.status()


def test_after_a_failure_one_can_start_again_and_late_news_are_ignored():
    model = model_of()
    model.begin()
    model.fail("out of memory")
    model.advance(progress("training", 5))
    assert model.state is State.FAILED
    assert model.curve == []
    assert "out of memory" in model.status()
    model.begin()
    assert model.state is State.PREPARING


def test_the_second_round_towards_a_psnr_starts_a_new_curve():
    model = model_of(target_kind="psnr", target_value=40.0)
    model.begin()
    model.advance(progress("training", 90, 5.0))
    model.advance(progress("preparing"))
    model.advance(progress("training", 1, 0.1))
    assert model.curve == [(0.1, 30.0)]


def test_the_result_card_has_all_figures():
    rows = dict(REPORT.rows())
    assert rows["Raw size"] == "12 kB"
    assert rows["File size"] == "3 kB"
    assert rows["Ratio"] == "4.0"
    assert rows["PSNR"] == "40.00 dB"
    assert rows["SSIM"] == "0.9000"
    assert rows["Time"] == "4.2 s"
    assert rows["Worst octant"] == "35.0 dB"
    assert rows["at"] == "[0:5, 0:10, 0:15]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.25, "4.2 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (math.nan, "")]
)
def test_times_are_written_for_people(seconds, text):
    assert duration_text(seconds) == text


def test_sizes_are_written_for_people():
    assert [size_text(n) for n in (999, 8190, 67108864, 3e9)] == ["999 B", "8.19 kB", "67.1 MB", "3 GB"]


def test_marked_voxels_weigh_more():
    weights = importance_weights(np.array([[0, 3], [1, 0]]), 10)
    np.testing.assert_array_equal(weights, [[1, 10], [10, 1]])


def image(shape=(10, 20, 30), dtype="u2", **options):
    return ViewerModel().add_image(np.zeros(shape, dtype), contrast_limits=(0, 1), **options)


def test_a_layers_scale_and_units_become_the_voxel_size():
    source = source_of(image(scale=(2, 0.5, 0.5), units=("um", "um", "um"), name="cells"))
    assert source.metadata == Metadata("zyx", (2.0, 0.5, 0.5), ("micrometer",) * 3, name="cells")
    assert source.nbytes == 12000


def test_axis_labels_that_are_axes_are_believed_and_the_users_own_win():
    layer = image((4, 5, 6, 7), axis_labels=("t", "z", "y", "x"))
    assert source_of(layer).metadata.axes == "tzyx"
    assert source_of(layer, "czyx").metadata.axes == "czyx"
    assert source_of(image((4, 5, 6, 7), axis_labels=("Time", "Z", "Y", "X"))).metadata.axes == "tzyx"


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((20, 30), "yx"), ((3, 20, 30), "zyx"), ((3, 40, 20, 30), "czyx"), ((40, 3, 20, 30), "zcyx"),
     ((9, 4, 40, 20, 30), "tczyx"), ((9, 40, 4, 20, 30), "tzcyx"), ((2, 9, 40, 20, 30), "ctzyx")],
)  # fmt: skip
def test_the_short_axis_is_taken_for_channels(shape, axes):
    assert source_of(image(shape)).metadata.axes == axes


@pytest.mark.parametrize("shape", [(4, 5, 20, 30), (12, 40, 20, 30), (9, 12, 40, 20, 30), (2, 3, 4, 20, 30)])
def test_in_doubt_the_axes_are_asked_for(shape):
    with pytest.raises(InputError, match="does not name them: choose them"):
        source_of(image(shape))
    assert len(possible_axes(shape)) == 6


def test_axes_are_put_into_words():
    assert axes_text("zcyx", (20, 3, 64, 64)) == "z c y x: 3 channels of 20 planes"
    assert axes_text("tzyx", (1, 7, 64, 64)) == "t z y x: 1 time point of 7 planes"
    assert axes_text("yx", (64, 64)) == "y x: one plane"


def test_pixels_are_no_unit():
    assert source_of(image()).metadata.units == ("", "", "")


def test_a_multiscale_layer_is_compressed_at_full_resolution():
    levels = [np.zeros((8, 16, 16), "u1"), np.zeros((4, 8, 8), "u1")]
    layer = ViewerModel().add_image(levels, multiscale=True, contrast_limits=(0, 1))
    assert source_of(layer).shape == (8, 16, 16)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: image((20, 30, 3), "u1", rgb=True), "Split RGB"),
        (lambda: image(dtype="i8"), "int32"),
        (lambda: image((1, 2, 1, 4, 5, 6)), "2 to 5 axes"),
    ],
)
def test_layers_that_cannot_be_compressed_are_refused_with_advice(layer, said):
    with pytest.raises(InputError, match=said):
        source_of(layer())


def placed(viewer, shape=(10, 20, 30), **options):
    layer = viewer.add_image(np.zeros(shape, "u2"), contrast_limits=(0, 9), name="source", **options)
    return layer, Placement.of(layer, Metadata.default(len(shape)).axes, shape)


def test_the_preview_is_asked_for_the_plane_on_the_screen():
    viewer = ViewerModel()
    _, placement = placed(viewer, scale=(2, 1, 1), translate=(100, 0, 0))
    viewer.dims.set_point(0, 100 + 2 * 7)
    assert View.of(viewer.dims, placement) == View((7, slice(None), slice(None)), 1.0)


def test_the_preview_follows_rolled_axes_and_a_viewer_of_more_axes():
    viewer = ViewerModel()
    _, placement = placed(viewer)
    viewer.add_image(np.zeros((3, 10, 20, 30)), contrast_limits=(0, 1))
    viewer.dims.order = (0, 3, 1, 2)
    viewer.dims.set_point(3, 12)
    assert View.of(viewer.dims, placement) == View((slice(None), slice(None), 12), 1.0)


@pytest.mark.parametrize("ndisplay", [2, 3])
def test_the_preview_never_costs_more_than_a_bounded_number_of_samples(ndisplay):
    shape = (500, 3000, 2000)
    dims = Dims(ndim=3, ndisplay=ndisplay, range=tuple((0, side - 1, 1) for side in shape), point=(250, 0, 0))
    placement = Placement("big", "zyx", shape, {"scale": (1.0,) * 3, "translate": (0.0,) * 3}, {})
    view = View.of(dims, placement)
    sides = [math.ceil(n * view.scale) for n, entry in zip(shape, view.region, strict=True) if entry == slice(None)]
    assert len(sides) == ndisplay
    assert math.prod(sides) <= 1.1 * MAX_SAMPLES
    if ndisplay == 2:  # the coarse plane that holds plane 250
        assert abs((view.region[0] + 0.5) / view.scale - 0.5 - 250) <= 0.5 / view.scale


def test_the_preview_lies_where_the_source_lies():
    viewer = ViewerModel()
    source, placement = placed(viewer, (10, 20, 40), scale=(3, 2, 1), translate=(5, 6, 7))
    preview = Preview(viewer, placement)
    coarse = np.arange(200, dtype="u2").reshape(10, 20)  # the plane at half its resolution
    preview.show(coarse, View((2, slice(None), slice(None)), 0.5))
    layer = preview.layer
    np.testing.assert_allclose(layer.extent.world[1] - layer.extent.world[0] + layer.scale,
                               source.extent.world[1] - source.extent.world[0] + source.scale)  # fmt: skip
    # Coarse sample (3, 4) covers the fine voxels 6…7 and 8…9: its centre lies between them.
    centre = source.data_to_world((0, 6.5, 8.5))
    assert layer.get_value(centre, world=True) == coarse[3, 4]
    assert layer.get_value(source.data_to_world((9, 6.5, 8.5)), world=True) == coarse[3, 4]


def test_the_preview_changes_neither_the_selection_nor_what_the_user_has_deleted():
    viewer = ViewerModel()
    source, placement = placed(viewer)
    preview = Preview(viewer, placement)
    view = View((0, slice(None), slice(None)), 1.0)
    preview.show(np.zeros((20, 30), "u2"), view)
    assert viewer.layers.selection == {source}
    viewer.layers.remove(preview.layer)
    preview.show(np.ones((20, 30), "u2"), view)
    preview.remove()
    assert list(viewer.layers) == [source]


def test_opening_the_widget_loads_no_torch():
    code = "import sys, napari_tinc.plugin.compress.widget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_a_ratio_that_only_a_volume_of_one_value_could_reach_is_refused_where_voxels_differ():
    rng = np.random.default_rng(0)
    noise, one_value = rng.integers(0, 900, (52, 65, 65)).astype("u2"), np.ones((52, 65, 65), "u2")
    refused = {}
    for name, data in (("noise", noise), ("one value", one_value), ("unread", da.from_array(noise))):
        model = CompressModel(Form(target_value=4400), source_of(Image(data)))
        refused[name] = "smallest file" in model.error()
    assert refused == {"noise": True, "one value": False, "unread": False}
