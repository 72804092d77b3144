from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_tinc.errors import InputError
from napari_tinc.plugin.layers.octants import MEASURES, OctantModel, go_to_octant
from napari_tinc.plugin.layers.overlays import show_quality, shown_measure, toggle_quality
from napari_tinc.plugin.layers.results import add_result


@pytest.fixture
def shown(stack: Any) -> tuple[ViewerModel, Any]:
    viewer = ViewerModel()
    result = add_result(viewer, stack)
    return viewer, result


@pytest.fixture(scope="module")
def sparse() -> Any:
    """A file of ``sci``: most of the volume is one value, so that blocks are not octants."""
    from synthetic import blobs

    from napari_tinc.encode.compression import compress
    from napari_tinc.target import Target

    volume = np.full((32, 64, 60), 300, "u2")
    volume[:8, :20, :18] = blobs((8, 20, 18))
    return compress(volume, Target.size(16000), model="sci", time_limit=0.3, device="cpu")


def octant_at(volume: Any, *voxel: int) -> Any:
    """The definition: the octant whose box contains the voxel."""
    (found,) = [
        o for o in volume.octants
        if o.item == 0 and all(s.start <= v < s.stop for s, v in zip(o.box, voxel, strict=True))
    ]  # fmt: skip
    return found


def test_the_heat_map_shows_every_octants_psnr_where_it_lies(shown: tuple[ViewerModel, Any], stack: Any) -> None:
    viewer, result = shown
    heat_map = show_quality(viewer, result)[0]
    for octant in stack.octants:
        middle = [(span.start + span.stop - 1) / 2 for span in octant.box]
        world = result.data_to_world(middle)
        assert heat_map.data[tuple(np.round(heat_map.world_to_data(world)).astype(int))] == pytest.approx(octant.psnr)
    assert heat_map.colorbar.visible


@pytest.mark.parametrize("measure", ["nbytes", "max_error", "dice"])
def test_the_heat_map_shows_other_measures(shown: tuple[ViewerModel, Any], stack: Any, measure: str) -> None:
    viewer, result = shown
    heat_map = show_quality(viewer, result, measure)[0]
    assert heat_map.data[0, 0, 0] == pytest.approx(getattr(octant_at(stack, 0, 0, 0), measure), rel=1e-6)
    assert heat_map.data[-1, -1, -1] == pytest.approx(getattr(octant_at(stack, 17, 32, 29), measure), rel=1e-6)


@pytest.mark.parametrize("plane", [0, 5, 20])
def test_bytes_are_shown_with_the_borders_of_the_networks_blocks(sparse: Any, plane: int) -> None:
    viewer = ViewerModel()
    result = add_result(viewer, sparse)
    outlines = show_quality(viewer, result, "nbytes")[1]
    viewer.dims.set_current_step(0, plane)
    assert len({tuple(s.stop - s.start for s in box) for box in sparse.parts}) > 1, "the partition is no grid"
    voxels = np.zeros(sparse.shape, int)
    for number, box in enumerate(sparse.parts):
        voxels[box] += number + 1
    assert len(np.unique(voxels)) == len(sparse.parts), "they cover the volume once"
    met = {tuple((s.start, s.stop) for s in box[1:]) for box in sparse.parts if box[0].start <= plane < box[0].stop}
    drawn = {tuple(start[1:]) + tuple((start + along)[1:]) for start, along in outlines.data}
    rows, columns = sparse.shape[1:]
    assert (outlines.data[:, 0, 0] == plane).all()
    for (top, bottom), (left, right) in met:
        y, below = max(top - 0.5, 0), min(bottom - 0.5, rows - 1)
        x, beside = max(left - 0.5, 0), min(right - 0.5, columns - 1)
        assert {(y, x, below, x), (y, x, y, beside), (y, beside, below, beside), (below, x, below, beside)} <= drawn
    assert len(outlines.data) == 4 * len(met)
    show_quality(viewer, result, "psnr")
    assert (
        len(outlines.data)
        == sum(len(edges) for edges in OctantModel(result).edges.values())
        - 1
        - sparse.tree.counts(sparse.tree.depth)[0]
    ), "octants' lines go through the whole plane"


def test_an_unknown_measure_is_refused(shown: tuple[ViewerModel, Any]) -> None:
    with pytest.raises(InputError, match="expected a measure among"):
        show_quality(*shown, "beauty")


def test_the_status_bar_tells_the_psnr_under_the_cursor(shown: tuple[ViewerModel, Any], stack: Any) -> None:
    viewer, result = shown
    numbers = show_quality(viewer, result)[2]
    assert viewer.layers.selection.active is numbers
    for voxel in ((0, 0, 0), (15, 3, 28), (7, 30, 2)):
        viewer.dims.current_step = voxel
        status = numbers.get_status(result.data_to_world(voxel), world=True)["value"]
        assert f"psnr: {octant_at(stack, *voxel).psnr:.3g}" in status


def test_no_slider_changes_its_range(shown: tuple[ViewerModel, Any]) -> None:
    viewer, result = shown
    before = viewer.dims.range
    show_quality(viewer, result)
    assert viewer.dims.range == before
    viewer.dims.order = (2, 1, 0)
    assert viewer.dims.range == before


def test_outlines_lie_on_the_octants_borders_in_the_plane_that_is_shown(
    shown: tuple[ViewerModel, Any], stack: Any
) -> None:
    viewer, result = shown
    outlines = show_quality(viewer, result)[1]
    viewer.dims.set_point(0, 6.0)  # plane 3: voxels are 2 µm high
    cuts = {axis: {o.box[axis].start - 0.5 for o in stack.octants} - {-0.5} for axis in range(3)}
    assert (outlines.data[:, 0, 0] == 3).all()
    assert not outlines.data[:, 1, 0].any()
    assert cuts[1] <= {line[0, 1] for line in outlines.data if line[1, 2]}
    assert cuts[2] <= {line[0, 2] for line in outlines.data if line[1, 1]}
    viewer.dims.order = (1, 0, 2)
    assert cuts[0] <= {line[0, 0] for line in outlines.data if line[1, 2]}
    assert not outlines.data[:, 1, 1].any()


def test_in_three_dimensions_the_worst_octants_are_boxes(shown: tuple[ViewerModel, Any], stack: Any) -> None:
    viewer, result = shown
    heat_map, outlines, _ = show_quality(viewer, result)
    assert [layer.visible for layer in (heat_map, outlines)] == [True, True]
    viewer.dims.ndisplay = 3
    boxes, edges = viewer.layers[-2:]
    assert [layer.visible for layer in (heat_map, outlines, boxes, edges)] == [False, False, True, True]
    vertices, faces, psnr = boxes.data
    count = len(psnr) // 8
    assert count == min(8, -(-len(stack.octants) // 8))
    assert sorted(psnr[::8]) == sorted(o.psnr for o in stack.octants)[:count]
    assert (len(faces), len(edges.data)) == (count * 12, count * 12)
    for corners, value in zip(vertices.reshape(-1, 8, 3), psnr[::8], strict=True):
        inside = np.round(corners.mean(axis=0)).astype(int)
        assert octant_at(stack, *inside).psnr == value
    # Every triangle of a closed surface has its edges shared with one other.
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(sides, axis=0, return_counts=True)[1] == 2).all()


def test_an_overlay_that_was_hidden_stays_hidden_in_three_dimensions(shown: tuple[ViewerModel, Any]) -> None:
    viewer, result = shown
    layers = show_quality(viewer, result)
    for layer in layers:
        layer.visible = False
    viewer.dims.ndisplay = 3
    assert not any(layer.visible for layer in viewer.layers if layer is not result)
    viewer.dims.ndisplay = 2
    assert not any(layer.visible for layer in layers)


def test_the_dice_of_a_file_that_was_opened_again_is_true(shown: tuple[ViewerModel, Any], stack: Any) -> None:
    grid = np.stack(np.meshgrid(*(np.linspace(0, 4, n) for n in (18, 33, 30)), indexing="ij"))
    original = (2000 + 1500 * np.sin(grid[0] * 2) * np.cos(grid[1] + grid[2])).astype(np.uint16)
    marked, found = (volume >= stack.threshold() for volume in (original, stack.decode()))
    heat_map = show_quality(*shown, "dice")[0]
    for octant in stack.octants:
        both, either = (marked & found)[octant.box].sum(), marked[octant.box].sum() + found[octant.box].sum()
        middle = shown[1].data_to_world([(span.start + span.stop - 1) / 2 for span in octant.box])
        there = heat_map.data[tuple(np.round(heat_map.world_to_data(middle)).astype(int))]
        assert there == pytest.approx(2 * both / either if either else 1, abs=1 / 255)


def test_a_series_shows_the_octants_of_every_channel_and_time_point(movie: Any) -> None:
    viewer = ViewerModel()
    heat_map, _, numbers = show_quality(viewer, add_result(viewer, movie))
    assert heat_map.data.shape == numbers.data.shape == (3, 2, 2, 2, 2)
    leaves = movie.tree.leaves
    for time, channel in np.ndindex(3, 2):
        octants = movie.octants[(2 * time + channel) * leaves :][:leaves]
        assert sorted(heat_map.data[time, channel].ravel()) == pytest.approx(sorted(o.psnr for o in octants))
        assert heat_map.data[time, channel, 0, 0, 0] == pytest.approx(octants[0].psnr)
    assert len(np.unique(numbers.data)) == 6 * leaves


def test_a_result_has_one_overlay_that_shows_what_was_asked_for_last(
    shown: tuple[ViewerModel, Any], stack: Any
) -> None:
    viewer, result = shown
    show_quality(viewer, result)
    there = list(viewer.layers)
    for measure, title in MEASURES.items():
        show_quality(viewer, result, measure)
        assert list(viewer.layers) == there
        assert shown_measure(viewer, result) == measure
        heat_map = next(layer for layer in viewer.layers if layer.name.startswith(title))
        values = [getattr(octant, measure) for octant in stack.octants]
        assert sorted(heat_map.data.ravel()) == pytest.approx(sorted(values), rel=1e-5)
        low, high = min(values), max(values)
        assert heat_map.contrast_limits == pytest.approx([low, high if high > low else low + 1], rel=1e-5)
    toggle_quality(viewer, result, "dice")
    assert list(viewer.layers) == [result]
    assert shown_measure(viewer, result) == ""


def test_the_overlay_goes_with_the_result(shown: tuple[ViewerModel, Any]) -> None:
    viewer, result = shown
    show_quality(viewer, result)
    gc.collect()
    viewer.dims.current_step = (2, 0, 0)
    viewer.layers.remove(result)
    assert len(viewer.layers) == 0
    viewer.dims.current_step = (3, 0, 0)


def test_parts_of_the_overlay_can_be_removed_and_duplicated(shown: tuple[ViewerModel, Any]) -> None:
    viewer, result = shown
    heat_map, outlines, _ = show_quality(viewer, result)
    assert copy.deepcopy(outlines.metadata)["tinc_overlay"] is None
    viewer.layers.remove(outlines)
    viewer.dims.current_step = (1, 0, 0)
    viewer.layers.remove(heat_map)
    assert list(viewer.layers) == [result], "without the heat-map there is nothing left to see"
    viewer.dims.current_step = (2, 0, 0)
    viewer.dims.ndisplay = 3
    viewer.layers.remove(result)


def test_going_to_an_octant_centres_it(shown: tuple[ViewerModel, Any], stack: Any) -> None:
    viewer, result = shown
    model = OctantModel(result)
    for number in (0, 5, len(stack.octants) - 1):
        box = stack.octants[number].box
        go_to_octant(viewer, model, number)
        assert box[0].start <= viewer.dims.current_step[0] < box[0].stop
        expected = [0.5 * (span.start + span.stop - 1) / 2 for span in box[1:]]
        assert viewer.scene.camera.center[1:] == pytest.approx(expected)


def test_a_uniform_volume_has_an_overlay() -> None:
    from napari_tinc.encode.compression import compress
    from napari_tinc.target import Target

    viewer = ViewerModel()
    volume = compress(np.full((5, 6, 7), 3, np.uint8), Target.ratio(1.1))
    result = add_result(viewer, volume)
    heat_map, *_ = show_quality(viewer, result)
    assert np.isinf(heat_map.data).all()
    viewer.dims.ndisplay = 3


def test_a_flat_image_has_an_overlay_without_boxes() -> None:
    from napari_tinc.encode.compression import compress
    from napari_tinc.target import Target

    image = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    volume = compress(image, Target.ratio(4), preset="fast", time_limit=0.5, levels=2, device="cpu")
    viewer = ViewerModel()
    result = add_result(viewer, volume)
    assert len(show_quality(viewer, result)) == 3
