"""Make the compressed sample that the plugin ships: run again whenever the format changes.

python scripts/make_sample_tinc.py
"""

from pathlib import Path

from napari_tinc.encode.compression import compress
from napari_tinc.samples import load
from napari_tinc.target import Target

PATH = Path(__file__).parents[1] / "napari_tinc" / "data" / "brain_hipct_64.tinc"


def main() -> None:
    """Compress the brain sample 32-fold."""
    array, metadata = load("brain")
    volume = compress(array, Target.ratio(32), metadata=metadata, preset="balanced", device="cpu")
    volume.save(PATH, overwrite=True)
    print(f"{PATH.name}: {volume.nbytes} bytes, {volume.provenance['psnr']} dB")


if __name__ == "__main__":
    main()
