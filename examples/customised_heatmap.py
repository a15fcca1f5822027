"""A headgrid chart is an altair chart: options first, then altair's own means."""

import numpy as np

import headgrid


def chart():
    """Draw two heads in the second palette, with a larger title at the left."""
    head, query, key = np.meshgrid(np.arange(2), np.arange(8), np.arange(8), indexing="ij")
    logits = (1 - 2 * head) * (query - key) / 2.0
    capture = headgrid.Capture.from_array(logits, layer=12, run="run_004")
    grid = headgrid.heatmap(
        capture,
        columns=2,
        palette="custom",
        color_range=(-3, 3),
        title="{run}, layer {layer}: who looks ahead?",
    )
    return grid.configure_title(fontSize=18, anchor="start")


if __name__ == "__main__":
    print(headgrid.save(chart(), "customised_heatmap.svg"))
