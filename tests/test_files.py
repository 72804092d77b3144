"""Volumes from files and to files, checked with tifffile, numpy and zarr as the other side."""

from __future__ import annotations

import errno
import itertools
import json
import re
import struct
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from napari_tinc.arrays.inputs import check_volume
from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.errors import InputError
from napari_tinc.files import check_output, read_volume, write_volume

FULL = Metadata(
    "zcyx",
    (2.5, 1.0, 0.25, 0.5),
    ("micrometer", "", "micrometer", "micrometer"),
    ("DAPI", "GFP <µ>", "405 & 488"),
    "cortex 7",
)


def ramp(*shape: int, dtype: str = "u2") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text
    assert "got" in text
    assert ";" in text  # what to do about it
    return text


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- TIFF in


def test_imagej_hyperstack_keeps_its_axis_order_spacing_and_unit(tmp_path):
    volume = ramp(4, 3, 20, 24)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, volume, imagej=True, metadata={"spacing": 2.5, "unit": "um"}, resolution=(1 / 0.5, 1 / 0.25))
    read = read_volume(path)
    np.testing.assert_array_equal(read.data, volume)
    assert read.metadata.axes == "zcyx"
    assert read.metadata.voxel_size == pytest.approx((2.5, 1.0, 0.25, 0.5))
    assert read.metadata.units == ("micrometer", "", "micrometer", "micrometer")


@pytest.mark.parametrize("unit", ["µm", "\u03bcm", "um", "micron", "microns", "\\u00B5m", "Micrometers", "micrometer"])
def test_every_spelling_of_a_micrometer_is_understood(tmp_path, unit):
    path = tmp_path / "a.tif"
    said = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": unit}
    tifffile.imwrite(path, ramp(5, 6, 7), ome=True, metadata=said)
    assert read_volume(path).metadata.units[2] == "micrometer"


def test_ome_tiff_gives_physical_size_units_and_channel_names(tmp_path):
    said = {
        "axes": "TCZYX",
        "Name": "embryo",
        "PhysicalSizeX": 100.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.1,  # OME's default unit is µm
        "PhysicalSizeZ": 1.5,
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": 30.0,
        "TimeIncrementUnit": "s",
        "Channel": {"Name": ["red", "green"]},
    }
    volume = ramp(2, 2, 3, 8, 9)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, volume, ome=True, photometric="minisblack", metadata=said)
    read = read_volume(path)
    np.testing.assert_array_equal(read.data, volume)
    units = ("second", "", "micrometer", "micrometer", "nanometer")
    assert read.metadata == Metadata("tczyx", (30.0, 1.0, 1.5, 0.1, 100.0), units, ("red", "green"), "embryo")


def test_single_time_and_channel_axes_are_dropped(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, ramp(1, 1, 5, 8, 9), ome=True, metadata={"axes": "TCZYX"})
    read = read_volume(path)
    assert (read.metadata.axes, read.data.shape) == ("zyx", (5, 8, 9))


def test_a_plain_stack_is_zyx_even_with_three_planes_named_so(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(5, 8, 9), metadata=None, photometric="minisblack")
    assert read_volume(path).metadata == Metadata.default(3, "a")


def test_resolution_tags_in_centimeters_give_the_pixel_size(tmp_path):
    path = tmp_path / "a.tif"
    options = {"resolution": (20000, 40000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, ramp(8, 9), metadata=None, photometric="minisblack", **options)
    read = read_volume(path)
    assert read.metadata.voxel_size == pytest.approx((0.25, 0.5))
    assert read.metadata.units == ("micrometer", "micrometer")


def test_dots_per_inch_are_no_pixel_size(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(8, 9), metadata=None, resolution=(72, 72), resolutionunit="INCH")
    assert read_volume(path).metadata.voxel_size == (1.0, 1.0)


def test_big_endian_voxels_come_in_native_order(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(5, 8, 9), byteorder=">", metadata={"axes": "ZYX"}, photometric="minisblack")
    read = read_volume(path)
    assert read.data.dtype.isnative
    np.testing.assert_array_equal(read.data, ramp(5, 8, 9))


def test_given_axes_count_over_the_files(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(5, 8, 9), metadata={"axes": "ZYX"}, photometric="minisblack")
    assert read_volume(path, axes="TYX").metadata.axes == "tyx"
    assert "'zcyx'" in refusal(read_volume, path, axes="zcyx")


def test_an_rgb_image_is_refused_unless_its_axes_are_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(8, 9, 3, dtype="u1"), photometric="rgb")
    assert "RGB" in refusal(read_volume, path)
    assert read_volume(path, axes="yxc").data.shape == (8, 9, 3)


def test_several_axes_without_meaning_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(2, 3, 8, 9), metadata={"axes": "ZQYX"}, photometric="minisblack")
    assert "--axes" in refusal(read_volume, path)
    assert read_volume(path, axes="zcyx").metadata.axes == "zcyx"


WAYS = {
    "plain": {"metadata": None},
    "plain zlib": {"metadata": None, "compression": "zlib"},
    "shaped": {"metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "ome zlib": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_cut_tiff_is_refused_or_complete_and_never_part_of_the_volume(tmp_path, way):
    volume = np.random.Generator(np.random.PCG64(0)).integers(0, 60000, (6, 16, 16)).astype("u2")
    tifffile.imwrite(tmp_path / "whole.tif", volume, photometric="minisblack", **WAYS[way])
    whole = (tmp_path / "whole.tif").read_bytes()
    path = tmp_path / "cut.tif"
    refused = 0
    for length in [*range(9, len(whole), 97), len(whole) - 40, len(whole) - 1]:
        path.write_bytes(whole[:length])
        try:
            read = read_volume(path)
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(read.data, volume)
            assert read.metadata.axes == "zyx"
    assert refused > 30


def test_an_ome_tiff_with_a_missing_sister_file_is_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, ramp(4, 8, 9), ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    xml = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, xml.replace('SizeZ="4"', 'SizeZ="8"').encode())
    refusal(read_volume, path)


def with_tag(data: bytes, code: int, count: int, entries: bytes) -> bytes:
    """Give a tag of the first page of a little-endian TIFF other 32-bit entries, appended to the file."""
    (directory,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, directory)
    changed = bytearray(data)
    for place in range(directory + 2, directory + 2 + 12 * tags, 12):
        if struct.unpack_from("<H", data, place)[0] == code:
            value = entries if len(entries) == 4 else struct.pack("<I", len(data))
            struct.pack_into("<HHI4s", changed, place, code, 4, count, value)
    return bytes(changed) + entries


TILED = {"tile": (16, 16), "photometric": "minisblack", "metadata": None}


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", ["tiles", "strips"])
@pytest.mark.parametrize("code", ["offsets", "sizes"])
def test_a_tiff_with_fewer_tiles_or_strips_than_its_shape_needs_is_refused(tmp_path, compression, layout, code):
    path = tmp_path / "a.tif"
    kept = {"tile": (16, 16)} if layout == "tiles" else {"rowsperstrip": 16}
    tifffile.imwrite(path, ramp(64, 64), photometric="minisblack", metadata=None, compression=compression, **kept)
    with tifffile.TiffFile(path) as whole:
        page = whole.pages[0]
        listed = page.dataoffsets if code == "offsets" else page.databytecounts
    number = {"tiles": {"offsets": 324, "sizes": 325}, "strips": {"offsets": 273, "sizes": 279}}[layout][code]
    data = path.read_bytes()
    for entries in (listed[:-1], listed[:1], (0,) * len(listed) if code == "sizes" else listed[:2]):
        path.write_bytes(with_tag(data, number, len(entries), struct.pack(f"<{len(entries)}I", *entries)))
        assert "expected a complete TIFF" in refusal(read_volume, path)


def test_a_small_tiff_cannot_ask_for_gigabytes_of_zeros(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(64, 64), **TILED, compression="zlib")
    data = path.read_bytes()
    for code in (256, 257):
        data = with_tag(data, code, 1, struct.pack("<I", 2**16))
    path.write_bytes(data)
    assert len(data) < 8000
    tracemalloc.start()
    try:
        assert "expected a complete TIFF" in refusal(read_volume, path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


# --- any file in


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refusal(read_volume, tmp_path / "none.tif")


def test_text_renamed_to_tif_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("hello, this is no picture")
    assert "hello" in refusal(read_volume, path)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    refusal(read_volume, tmp_path / name)


def test_a_folder_that_is_no_zarr_is_refused(tmp_path):
    assert "not a Zarr" in refusal(read_volume, tmp_path)


def test_a_suffix_does_not_matter_where_the_content_is_known(tmp_path):
    np.save(tmp_path / "a.npy", ramp(3, 4, 5))
    path = (tmp_path / "a.npy").rename(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_volume(path).data, ramp(3, 4, 5))


# --- NPY


def test_npy_is_read_with_default_axes_whatever_its_memory_order(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(ramp(2, 3, 4, 5, dtype=">u2")))
    read = read_volume(tmp_path / "a.npy")
    np.testing.assert_array_equal(read.data, ramp(2, 3, 4, 5))
    assert read.data.dtype.isnative
    assert read.metadata == Metadata.default(4, "a")


def test_npy_axes_can_be_given(tmp_path):
    np.save(tmp_path / "a.npy", ramp(2, 3, 4, 5))
    assert read_volume(tmp_path / "a.npy", axes="zcyx").metadata.axes == "zcyx"


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refusal(read_volume, tmp_path / "a.npy")


def test_a_cut_npy_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, ramp(3, 4, 5))
    whole = path.read_bytes()
    for length in range(7, len(whole), 9):
        path.write_bytes(whole[:length])
        refusal(read_volume, path)


@pytest.mark.parametrize("shape", [(7,), (), (1, 1, 1, 1, 3, 3)])
def test_npy_with_too_few_or_too_many_axes_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, "u2"))
    assert "2 to 5 axes" in refusal(read_volume, tmp_path / "a.npy")


def test_a_header_that_promises_more_than_memory_holds_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, ramp(3, 4, 5))
    small, large = b"(3, 4, 5), }", b"(9999999, 999999, 999), }"
    bomb = path.read_bytes().replace(small + b" " * (len(large) - len(small)), large)
    assert large in bomb
    path.write_bytes(bomb)
    refusal(read_volume, path)


# --- Zarr in


def ome_zarr(path: Path, version: str, levels: int = 2, **multiscale) -> np.ndarray:
    """Write an OME-Zarr with zarr alone: CZYX, two levels, a scale on the level and one on the whole."""
    volume = ramp(2, 4, 8, 10)
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for level in range(levels):
        group.create_array(str(level), data=volume[:, :, :: 2**level, :: 2**level])
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": letter, "type": "space", "unit": "micrometer"} for letter in "zyx"]
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 0.5 * 2**level, 0.5]}]}
        for level in range(levels)
    ]
    image = {"name": "tail", "axes": axes, "datasets": datasets, **multiscale}
    image["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 2, 1]}]
    window = {"start": 0, "end": 1, "min": 0, "max": 1}
    channels = [{"label": name, "color": "FFFFFF", "window": window} for name in ("membrane", "nuclei")]
    ome = {
        "multiscales": [image | {"version": version} if version == "0.4" else image],
        "omero": {"channels": channels},
    }
    group.attrs.update(ome if version == "0.4" else {"ome": ome | {"version": version}})
    return volume


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_gives_the_finest_level_with_its_scale_units_and_channels(tmp_path, version):
    volume = ome_zarr(tmp_path / "a.zarr", version)
    read = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read.data, volume)
    units = ("", "micrometer", "micrometer", "micrometer")
    expected = Metadata("czyx", (1.0, 2.0, 1.0, 0.5), units, ("membrane", "nuclei"), "tail")
    assert read.metadata.displayed(Display()) == expected


def test_broken_ome_zarr_metadata_is_refused(tmp_path):
    ome_zarr(tmp_path / "a.zarr", "0.5", axes=[{"name": "c", "type": "channel"}])
    assert "OME-Zarr 0.4 or 0.5" in refusal(read_volume, tmp_path / "a.zarr")


def test_an_ome_zarr_level_that_is_missing_is_refused(tmp_path):
    ome_zarr(tmp_path / "a.zarr", "0.5")
    (tmp_path / "a.zarr" / "0" / "zarr.json").unlink()
    refusal(read_volume, tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_bare_zarr_array_is_read(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "a.zarr", data=ramp(3, 4, 5), zarr_format=zarr_format)
    read = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read.data, ramp(3, 4, 5))
    assert read.metadata == Metadata.default(3, "a")


def test_dimension_names_of_a_zarr_array_are_its_axes(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=ramp(3, 2, 4, 5), dimension_names=("z", "c", "y", "x"))
    assert read_volume(tmp_path / "a.zarr").metadata.axes == "zcyx"


def test_a_group_that_is_no_image_is_refused_with_its_members(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("raw", data=ramp(3, 4, 5))
    assert "raw" in refusal(read_volume, tmp_path / "a.zarr")


def test_a_damaged_chunk_is_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=ramp(30, 40, 50))
    for chunk in (tmp_path / "a.zarr" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-20])
    refusal(read_volume, tmp_path / "a.zarr")


def test_damaged_zarr_json_is_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=ramp(3, 4, 5))
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    refusal(read_volume, tmp_path / "a.zarr")


# --- out


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".ome.tif", ".ome.tiff"])
def test_a_written_tiff_is_an_ome_tiff_that_tifffile_understands(tmp_path, suffix):
    volume, path = ramp(4, 3, 8, 9), tmp_path / f"a{suffix}"
    write_volume(path, volume, FULL)
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "ZCYX"
        np.testing.assert_array_equal(tif.asarray(), volume)
        root = ElementTree.fromstring(tif.ome_metadata)
    space = {"": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
    pixels = root.find("Image/Pixels", space)
    assert root.find("Image", space).get("Name") == "cortex 7"
    assert [pixels.get(f"PhysicalSize{letter}") for letter in "ZYX"] == ["2.5", "0.25", "0.5"]
    assert [pixels.get(f"PhysicalSize{letter}Unit") for letter in "ZYX"] == ["µm"] * 3
    assert [channel.get("Name") for channel in pixels.findall("Channel", space)] == list(FULL.channel_names)


def test_a_written_ome_zarr_is_valid_and_zarr_understands_it(tmp_path):
    volume, path = ramp(4, 3, 8, 9), tmp_path / "a.ome.zarr"
    write_volume(path, volume, FULL)
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["0"][...], volume.transpose(1, 0, 2, 3))  # OME-Zarr wants channels first
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    image = yaozarrs.validate_ome_object(attributes, yaozarrs.v05.Image)
    assert [axis.name for axis in image.multiscales[0].axes] == list("czyx")
    assert [axis.unit for axis in image.multiscales[0].axes[1:]] == ["micrometer"] * 3
    assert image.multiscales[0].datasets[0].scale_transform.scale == [1.0, 2.5, 0.25, 0.5]
    assert [channel.label for channel in image.omero.channels] == list(FULL.channel_names)


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx", "cyx", "czyx", "tzyx", "tcyx", "tczyx"])
def test_everything_known_about_a_volume_survives_the_round_trip(tmp_path, suffix, axes):
    known = {"t": (30.0, "second"), "c": (1.0, ""), "z": (2.0, "nanometer"), "y": (0.3, ""), "x": (0.7, "angstrom")}
    steps, units = zip(*(known[letter] for letter in axes), strict=True)
    names = ("a", "b", "c") if "c" in axes else ("only",)
    display = Display()
    if suffix == ".zarr":  # which has room for it
        translate = tuple({"t": 60.0, "c": 0.0, "z": -8.5, "y": 0.0, "x": 3.25}[letter] for letter in axes)
        colors = ("#ff00ff", "#00ff00", "#123abc")[: len(names)]
        display = Display(translate, (), tuple((5.0, 50.0 + i) for i in range(len(names))), colors)
    metadata = Metadata(axes, steps, units, names, "name", display)
    volume = ramp(*({"t": 2, "c": 3, "z": 4, "y": 8, "x": 9}[letter] for letter in axes))
    write_volume(tmp_path / f"a{suffix}", volume, metadata)
    read = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read.data, volume)
    assert read.metadata == metadata


@pytest.mark.parametrize("axes", ["".join(order) + "yx" for order in itertools.permutations("tcz")])
def test_tiff_keeps_the_order_of_leading_axes(tmp_path, axes):
    volume = ramp(2, 3, 4, 8, 9)
    write_volume(tmp_path / "a.tif", volume, Metadata(axes, (1.0,) * 5, ("",) * 5))
    read = read_volume(tmp_path / "a.tif")
    assert read.metadata.axes == axes
    np.testing.assert_array_equal(read.data, volume)


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_a_single_plane_of_a_stack_stays_a_stack(tmp_path, suffix):
    write_volume(tmp_path / f"a{suffix}", ramp(1, 8, 9), Metadata.default(3))
    assert read_volume(tmp_path / f"a{suffix}").metadata.axes == "zyx"


def test_three_planes_are_not_taken_for_colours(tmp_path):
    write_volume(tmp_path / "a.tif", ramp(3, 8, 9), Metadata.default(3))
    assert read_volume(tmp_path / "a.tif").metadata.axes == "zyx"


def test_an_array_with_x_first_is_written_as_planes(tmp_path):
    volume = ramp(9, 8, 4)
    write_volume(tmp_path / "a.tif", volume, Metadata("xyz", (1.0, 2.0, 3.0), ("micrometer",) * 3))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), volume.T)
    assert read_volume(tmp_path / "a.tif").metadata.voxel_size == (3.0, 2.0, 1.0)


DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "b1", "i8", "u8"]


@pytest.mark.parametrize(("suffix", "dtype"), [(s, d) for s in (".tif", ".npy", ".zarr") for d in DTYPES])
def test_every_dtype_can_be_written(tmp_path, suffix, dtype):
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif" and dtype in ("f2", "i8", "u8"):
        assert np.dtype(dtype).name in refusal(write_volume, path, ramp(3, 4, 5, dtype=dtype), Metadata.default(3))
        return
    write_volume(path, ramp(3, 4, 5, dtype=dtype), Metadata.default(3))
    read = read_volume(path)
    assert read.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read.data, ramp(3, 4, 5, dtype=dtype))


# --- nothing lost, nothing left


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.zarr"])
def test_an_existing_output_is_refused_and_replaced_when_asked(tmp_path, name):
    path = tmp_path / name
    write_volume(path, ramp(3, 4, 5), Metadata.default(3))
    assert "--overwrite" in refusal(write_volume, path, ramp(2, 4, 5), Metadata.default(3))
    np.testing.assert_array_equal(read_volume(path).data, ramp(3, 4, 5))
    write_volume(path, ramp(2, 4, 5), Metadata.default(3), overwrite=True)
    np.testing.assert_array_equal(read_volume(path).data, ramp(2, 4, 5))
    assert leftovers(tmp_path) == [name]


WRITERS = {"a.tif": "tifffile.imwrite", "a.npy": "numpy.save", "a.zarr": "zarr.create_array"}


@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_or_ctrl_c_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, name, cause):
    path = tmp_path / name
    write_volume(path, ramp(3, 4, 5), Metadata.default(3))

    def fail_half_way(*arguments, **options):
        if isinstance(arguments[0], Path):
            arguments[0].write_bytes(b"half")
        raise cause

    with monkeypatch.context() as patch:
        patch.setattr(WRITERS[name], fail_half_way)
        if isinstance(cause, OSError):
            text = refusal(write_volume, path, ramp(2, 4, 5), Metadata.default(3), overwrite=True)
            assert "No space left" in text
        else:
            with pytest.raises(KeyboardInterrupt):
                write_volume(path, ramp(2, 4, 5), Metadata.default(3), overwrite=True)
    assert leftovers(tmp_path) == [name]
    np.testing.assert_array_equal(read_volume(path).data, ramp(3, 4, 5))


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    refusal(write_volume, tmp_path / "file" / "a.tif", ramp(3, 4, 5), Metadata.default(3))


def test_a_missing_folder_is_refused(tmp_path):
    refusal(check_output, tmp_path / "none" / "a.tif")


def test_a_folder_that_denies_writing_is_refused(tmp_path, monkeypatch):
    def deny(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", deny)  # root is denied nothing, so the folder's answer is made up
    assert "Permission denied" in refusal(check_output, tmp_path / "a.tif")


def test_overwriting_never_removes_a_folder_that_is_no_zarr(tmp_path):
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "holiday.jpg").touch()
    refusal(write_volume, folder, ramp(3, 4, 5), Metadata.default(3), overwrite=True)
    assert leftovers(folder) == ["holiday.jpg"]


def test_an_unknown_suffix_is_refused(tmp_path):
    assert ".zarr" in refusal(write_volume, tmp_path / "a.png", ramp(3, 4, 5), Metadata.default(3))


def test_an_unknown_unit_is_refused_on_writing_and_dropped_on_reading(tmp_path, caplog):
    metadata = Metadata("yx", (1.0, 2.0), ("furlong", ""))
    for name in ("a.tif", "a.zarr"):
        assert "furlong" in refusal(write_volume, tmp_path / name, ramp(4, 5), metadata)
    said = {"axes": "YX", "PhysicalSizeX": 2.0, "PhysicalSizeXUnit": "furlong"}
    tifffile.imwrite(tmp_path / "b.tif", ramp(4, 5), ome=True, metadata=said)
    read = read_volume(tmp_path / "b.tif")
    assert (read.metadata.voxel_size, read.metadata.units) == ((1.0, 2.0), ("", ""))
    assert "furlong" in caplog.text


HOSTILE_NAMES = ["a\0b", "a\tb", "a\nb", "\x1b[31m", "\ufffe", "\x85", "\u202ea", "a&<>\"'b", "é😀"]


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_that_is_written_can_be_read_again(tmp_path, suffix, name, caplog):
    metadata = Metadata("cyx", (1.0,) * 3, ("",) * 3, (name, "red"), name)
    write_volume(tmp_path / f"a{suffix}", ramp(2, 8, 9), metadata)
    spelt = re.sub(
        "[\x00-\x1f\x7f-\x9f\ufffe]",
        lambda found: {"\t": "\\t", "\n": "\\n", "\ufffe": "\\ufffe"}.get(found[0], f"\\x{ord(found[0]):02x}"),
        name,
    )
    read = read_volume(tmp_path / f"a{suffix}").metadata
    assert (read.name, read.channel_names) == (spelt, (spelt, "red"))
    assert ("spelt out" in caplog.text) == (spelt != name)


def test_names_and_steps_of_other_peoples_files_are_made_fit_for_ours(tmp_path, caplog):
    volume = ome_zarr(tmp_path / "a.zarr", "0.5", name="a\x1b[31m\nb")
    assert read_volume(tmp_path / "a.zarr").metadata.name == r"a\x1b[31m\nb"
    ome_zarr(tmp_path / "b.zarr", "0.5", name="x" * 70000)
    assert read_volume(tmp_path / "b.zarr").metadata.name == ""
    assert "left out" in caplog.text
    for number, step in enumerate(["1e-400", "1e400", "-1", "0", "nan", "9" * 400, "one"]):
        path = tmp_path / f"{number}.ome.tif"
        tifffile.imwrite(
            path, ramp(4, 8, 9), ome=True, photometric="minisblack", metadata={"axes": "ZYX", "PhysicalSizeX": 2}
        )
        tifffile.tiffcomment(path, tifffile.tiffcomment(path).replace('X="2"', f'X="{step}"').encode())
        read = read_volume(path).metadata
        check_volume(volume[0, :4, :8, :9], read)
        assert read.voxel_size == (1.0, 1.0, 1.0)
