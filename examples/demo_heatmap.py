"""A capture file -> the heatmap grid of its twelve heads."""

import headgrid
from headgrid.capture.demo import TITLE, demo_folder


def chart():
    """Draw the first of the synthetic captures that come with headgrid."""
    with demo_folder() as folder:
        capture = headgrid.load_capture(folder / "layer0.pt")
    return headgrid.heatmap(capture, title=TITLE)


if __name__ == "__main__":
    print(headgrid.save(chart(), "demo_heatmap.svg"))
