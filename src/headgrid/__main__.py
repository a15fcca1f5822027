"""``python -m headgrid`` and the ``headgrid`` command -> `headgrid.cli.main`."""

import gc
import signal
import sys
import threading
from types import FrameType

_ENDED = 128 + signal.SIGTERM
_waiting: list[threading.Timer] = []  # for an import, to end the command


def main() -> None:
    """Run the command line."""
    # Imported late: a rendering process imports this module again, and needs nothing of it.
    from headgrid.cli.main import main as run

    # Told to end, a command ends its processes as well; a recorded script decides for itself.
    if sys.argv[1:2] != ["record"]:
        gc.set_threshold(100_000, 20, 20)  # imports make 400,000 objects that stay
        signal.signal(signal.SIGTERM, _end)
    try:
        run()
    finally:
        if _waiting:
            sys.exit(_ENDED)


def _end(_: int, frame: FrameType | None) -> None:
    """End the command, a little later where it is importing: there the exception can be lost."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _waiting.append(threading.Timer(0.02, signal.raise_signal, [signal.SIGTERM]))
            _waiting[-1].daemon = True
            _waiting[-1].start()
            return
        frame = frame.f_back
    sys.exit(_ENDED)


if __name__ == "__main__":
    main()
