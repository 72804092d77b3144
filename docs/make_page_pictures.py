"""Make the pictures of docs/share.md: ``python docs/make_page_pictures.py``.

Needs node, Chromium, and ``npm ci && node build.mjs tests`` in ``web/``. Look at every picture before you commit it.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from napari_tinc import Target, compress, samples
from napari_tinc.share import Shareable, write_page

IMAGES = Path(__file__).parent / "images"
CAMERA = Path(__file__).parents[1] / "web/build/tests/screenshots.mjs"
# Picture, sample, colours of the page, pixels, keys that are pressed.
SCENES = (("share_neuron", "neuron", "light", "1280x860", "q"), ("share_vessel", "vessel", "dark", "1280x860", "q"))


def main() -> None:
    """Make them all."""
    for name, sample, scheme, size, keys in SCENES:
        array, metadata = samples.load(sample)
        volume = compress(array, Target.ratio(64), metadata=metadata)
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.html"
            write_page(page, [Shareable.of(f"{sample}.tinc", volume.to_bytes())])
            subprocess.run(["node", CAMERA, page, IMAGES / f"{name}.png", scheme, size, keys], check=True)


if __name__ == "__main__":
    main()
