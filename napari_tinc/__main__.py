"""``python -m napari_tinc`` is the command line."""

import gc
import sys


def main() -> None:
    """Run the command line, or say that it was interrupted before it began."""
    gc.disable()  # what is imported stays: a tenth of the start is spent on looking for garbage in it
    try:
        from napari_tinc.cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted: nothing was begun", file=sys.stderr)
        sys.exit(130)
    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
