"""Several layers on one colour scale: resolve the range once, draw each layer with it."""

import numpy as np

import headgrid


def captures():
    """Return three layers whose logits grow with depth."""
    query, key = np.meshgrid(np.arange(6), np.arange(6), indexing="ij")
    shape = 4.0 / (1 + np.abs(query - key)) - 1.0
    return [
        headgrid.Capture.from_array(np.stack([shape, -shape]) * growth, layer=layer)
        for layer, growth in ((0, 1.0), (15, 2.0), (29, 5.0))
    ]


def chart():
    """Draw the middle layer; equal colours mean equal logits in all three."""
    layers = captures()
    shared = headgrid.resolve_color_range("shared", layers)
    charts = [headgrid.heatmap(layer, color_range=shared) for layer in layers]
    return charts[1]


if __name__ == "__main__":
    print(headgrid.save(chart(), "compare_layers_on_one_scale.svg"))
