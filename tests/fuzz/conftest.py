"""Fixtures of the fuzz tests."""

import pytest
from fuzz_lab import Lab


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory):
    laboratory = Lab(tmp_path_factory.mktemp("lab"))
    yield laboratory
    laboratory.close()


@pytest.fixture
def lab(laboratory):
    """Yield a laboratory whose canaries have to be as they were in the end."""
    laboratory.clear()
    yield laboratory
    assert laboratory.tree() == laboratory.before
