"""``python -m headgrid`` and the ``headgrid`` command -> `headgrid.cli.main`."""

import gc
import signal
import sys


def main() -> None:
    """Run the command line."""
    # Imported late: a rendering process imports this module again, and needs nothing of it.
    from headgrid.cli.main import main as run

    # Told to end, a command ends its processes as well; a recorded script decides for itself.
    if sys.argv[1:2] != ["record"]:
        gc.set_threshold(100_000, 20, 20)  # imports make 400,000 objects that stay
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run()


if __name__ == "__main__":
    main()
