"""Specifications in a test suite: compare with a golden file, explain the difference, refresh.

In a test, with the fixture that headgrid's pytest plugin brings::

    def test_the_heatmap_of_layer_3(headgrid_golden):
        headgrid_golden(headgrid.heatmap(capture), "layer3_heatmap")

compares with ``specs/layer3_heatmap.vl.json``; ``pytest --headgrid-refresh``
writes it.
"""

from headgrid.testing.golden import (
    SUFFIX,
    GoldenMismatchError,
    assert_matches_golden,
    compare_specs,
    find_orphans,
    read_table,
)

__all__ = [
    "SUFFIX",
    "GoldenMismatchError",
    "assert_matches_golden",
    "compare_specs",
    "find_orphans",
    "read_table",
]
