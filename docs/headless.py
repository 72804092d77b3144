"""What the Compress widget does, without napari: every button of the plugin is a few lines of Python.

Run this file as a script, or cell by cell in an editor that knows ``# %%``. It takes some ten seconds.
"""

# %% Source: any array with its axes and voxel size; here a simulated neuron
import tempfile
import threading
from pathlib import Path

import numpy as np

from napari_tinc import CompressedVolume, Target, compress_steps, samples
from napari_tinc.measures import metrics
from napari_tinc.settings import Settings

volume, metadata = samples.load("neuron")
print(f"{metadata.name}: {volume.shape} {volume.dtype}, voxel size {metadata.voxel_size} {metadata.units[0]}")

# %% Target: the widget shows the size at once; so does a target
target = Target.ratio(64)  # or Target.size(bytes), Target.bits_per_voxel(bits), Target.psnr(dB)
print(f"{volume.nbytes} bytes will become at most {target.budget(volume.nbytes, volume.size)}")

# %% Importance: bright voxels count ten times as much, and get more bytes ("map")
weights = np.where(volume > np.percentile(volume, 99), np.float32(10), np.float32(1))

# %% Compress: a generator that tells how far it is. Setting `stop` is the widget's Stop button: training ends and what
# was learnt is kept. Closing the generator (steps.close()) drops it.
stop = threading.Event()
steps = compress_steps(
    volume,
    target,
    Settings(preset="fast", within="map", time_limit=20),
    metadata=metadata,
    weights=weights,
    should_stop=stop.is_set,
)
curve, plane = [], None
while True:
    try:
        progress = next(steps)
    except StopIteration as end:
        result = end.value
        break
    if progress.phase in ("training", "quantising"):
        curve.append((progress.seconds, progress.psnr))
    if progress.decode is not None and plane is None and progress.step * 2 > progress.steps:
        plane = progress.decode((32,))  # the live preview: plane 32, with the weights of the moment
        print(f"half way: {progress.psnr:.1f} dB, {progress.eta:.0f} s left")

# %% The result card
worst = min(result.octants, key=lambda octant: octant.psnr)
decoded = result.decode()
print(f"file size    {result.nbytes} bytes, 1 : {result.ratio:.1f}")
print(f"PSNR         {metrics.psnr(volume, decoded):.2f} dB")
print(f"SSIM         {metrics.ssim(volume, decoded):.4f}")
print(f"worst octant {worst.psnr:.1f} dB, Dice {worst.dice:.2f}, at {[(part.start, part.stop) for part in worst.box]}")

# %% The octant quality map, as numbers: one per leaf of the octree
print(result.octant_map().round(1))

# %% Save, reopen, look at one plane: only that plane is decoded
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "neuron.tinc"
    result.save(path)
    reopened = CompressedVolume.open(path)
    np.testing.assert_array_equal(reopened.decode((32,)), decoded[32])
    overview = reopened.decode(scale=0.25)
    print(f"reopened {path.name}: a plane {decoded[32].shape}, an overview {overview.shape}")

# %% The same in napari, once a viewer is open:
#
#     from napari_tinc.plugin.layers.side_by_side import toggle_comparison
#     from napari_tinc.plugin.layers.difference import add_difference
#     from napari_tinc.plugin.layers.results import add_result
#     from napari_tinc.plugin.layers.overlays import show_quality
#
#     source = viewer.add_image(volume, scale=metadata.voxel_size)
#     layer = add_result(viewer, result, source)
#     show_quality(viewer, layer)
#     add_difference(viewer, source, layer)
#     toggle_comparison(viewer, source, layer)  # side by side; once more for the single view
