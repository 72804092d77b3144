"""``python -m napari_tinc`` is the command line."""

import sys


def main() -> None:
    """Run the command line, or say that it was interrupted before it began."""
    try:
        from napari_tinc.cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted: nothing was begun", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
