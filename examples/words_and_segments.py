"""Words on both axes, named parts beside them, and the sum of each row: text and video together."""

import numpy as np

import headgrid

WORDS = ["an", "eagle", "over", "a", "river"]


def chart():
    """Draw two heads that look at the words of a prompt, and at frames near their own."""
    labels = [*WORDS, *(f"frame {number}" for number in range(7))]
    query, key = np.meshgrid(np.arange(12), np.arange(12), indexing="ij")
    near = np.exp(-np.abs(query - key) / 1.5)
    words = np.where(key < len(WORDS), 1.0 + (key == 1), 0.05)
    mass = np.stack([near / near.sum(axis=1, keepdims=True), words / words.sum(axis=1)[:, None]])
    shown = headgrid.Capture.from_array(
        mass, labels=labels, query_name="Place", key_name="Place", statistic="mass", layer=8
    )
    parts = {"text": (0, len(WORDS)), "video": (len(WORDS), None)}
    return headgrid.heatmap(shown.with_segments(parts), columns=2, sums=True)


if __name__ == "__main__":
    print(headgrid.save(chart(), "words_and_segments.svg"))
