"""What was read equals what was written, types included."""

from typing import Any

import numpy as np


def assert_same(found: Any, wanted: Any) -> None:
    """Compare plain values and arrays, all the way down."""
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        with np.errstate(invalid="ignore"):  # of numbers that numpy knows by name only
            np.testing.assert_array_equal(found, wanted)
    elif isinstance(wanted, dict):
        assert set(found) == set(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted or (found != found and wanted != wanted)
