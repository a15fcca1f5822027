"""Two models: sink scores of all heads, with those named that changed most."""

import numpy as np

import headgrid


def model(seed, changed):
    """Return a survey of six layers; the sinks of two heads are those that are given."""
    numbers = np.random.default_rng(7)  # of both models
    query, key = np.meshgrid(np.arange(9), np.arange(9), indexing="ij")
    captures = []
    for layer in range(6):
        sinks = numbers.uniform(-2.0, 4.0, size=8)
        if layer == 3:
            sinks[[1, 6]] = changed
        noise = 0.2 * np.cos(query + key * (2 + layer) + seed * np.arange(8)[:, None, None])
        logits = sinks[:, None, None] * (key == 0) + noise
        captures.append(headgrid.Capture.from_array(logits, block_sizes=[3] * 3, layer=layer))
    return headgrid.survey(captures)


def chart():
    """Draw a dot for each head, the teacher across and the student up."""
    table = headgrid.compare_models(model(0, [5.0, 0.0]), model(1, [0.5, 4.0]))
    return headgrid.compare_heads(table, "scatter", names=("teacher", "student"))


if __name__ == "__main__":
    print(headgrid.save(chart(), "two_models.svg"))
