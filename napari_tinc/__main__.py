"""``python -m napari_tinc`` is the command line."""

from napari_tinc.cli import main

if __name__ == "__main__":
    main()
