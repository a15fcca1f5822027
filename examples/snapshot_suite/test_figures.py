"""Someone else's test suite, which keeps its figures as golden specifications.

pytest --headgrid-refresh    # writes specs/*.vl.json; look at them, commit them
pytest                       # compares, and says which cells and encodings differ
"""

import numpy as np
import pytest

import headgrid


@pytest.fixture
def capture():
    query, key = np.indices((6, 6))
    logits = np.stack([4.0 / (1 + key), 3.0 - abs(query - key)])
    return headgrid.Capture.from_array(logits, block_sizes=[2, 2, 2], layer=5)


def test_the_maps_of_layer_5(headgrid_golden, capture):
    headgrid_golden(headgrid.heatmap(capture))


def test_the_profiles_of_layer_5(headgrid_golden, capture):
    headgrid_golden(headgrid.perhead(capture), "layer5_profiles")
