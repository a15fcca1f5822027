"""``python -m headgrid`` and the ``headgrid`` command -> `headgrid.cli.main`."""

import gc
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line."""
    # Imported late: a rendering process imports this module again, and needs nothing of it.
    from headgrid.cli.main import main as run

    # Told to end, a command ends its processes as well; a recorded script decides for itself.
    if sys.argv[1:2] != ["record"]:
        gc.set_threshold(100_000, 20, 20)  # imports make 400,000 objects that stay
        for name in ("SIGTERM", "SIGALRM"):
            if number := getattr(signal, name, None):
                signal.signal(number, _end)
    run()


def _end(_: int, frame: FrameType | None) -> None:
    """End the command, a little later where it is importing, which may lose an exception."""
    while frame is not None and hasattr(signal, "setitimer"):
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.setitimer(signal.ITIMER_REAL, 0.02)  # SIGALRM
            return
        frame = frame.f_back
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
