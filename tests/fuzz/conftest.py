"""Fixtures of the fuzz tests."""

import pytest
from fuzz_harness import Lab


@pytest.fixture
def lab(tmp_path):
    """Yield a laboratory whose canaries have to be as they were in the end."""
    laboratory = Lab(tmp_path / "lab")
    yield laboratory
    laboratory.close()
    laboratory.check_tree()
