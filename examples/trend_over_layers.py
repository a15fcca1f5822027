"""A measure of all heads over the layers, and its mean."""

import numpy as np

import headgrid


def chart():
    """Draw the sink scores of six layers of four heads."""
    captures = []
    for layer in range(6):
        row = np.cos(np.arange(12) / 2.0)
        rows = [head * row / 4 for head in range(4)]
        for head, values in enumerate(rows):
            values[0] += layer * (head + 1) / 4
        captures.append(headgrid.Capture.from_array(last_block=rows, layer=layer))
    return headgrid.trend(headgrid.survey(captures))


if __name__ == "__main__":
    print(headgrid.save(chart(), "trend_over_layers.svg"))
