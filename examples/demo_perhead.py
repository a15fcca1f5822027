"""A capture file -> the per-head grid, the sink score over each head."""

import headgrid
from headgrid.capture.demo import TITLE, demo_folder


def chart():
    """Draw the first of the synthetic captures that come with headgrid."""
    with demo_folder() as folder:
        capture = headgrid.load_capture(folder / "layer0.pt")
    return headgrid.perhead(capture, title=TITLE)


if __name__ == "__main__":
    print(headgrid.save(chart(), "demo_perhead.svg"))
