"""Three chosen heads for a paper: maps over profiles, letters, exactly 13.97 cm wide."""

import numpy as np

import headgrid


def captures():
    """Return two layers: a head with a sink, one that looks back a few frames, one periodic."""
    query, key = np.meshgrid(np.arange(12), np.arange(12), indexing="ij")
    sink = 6.0 * (key == 0) + 0.3 * np.cos(query)
    recent = 5.0 * np.exp(-(query - key) / 2.0)
    periodic = 4.0 * np.cos((query - key) * np.pi / 3)
    return [
        headgrid.Capture.from_array(np.stack(heads), block_sizes=[3] * 4, layer=layer)
        for layer, heads in ((3, (sink, recent)), (15, (periodic, sink)))
    ]


def chart():
    """Draw both rows; all maps have one colour range, all profiles one axis."""
    return headgrid.pick(
        captures(), ["3:0", "3:1", "15:0"], figure="both", theme="paper", width="13.97cm"
    )


if __name__ == "__main__":
    print(headgrid.save(chart(), "paper_panels.svg"))
