"""The pytest plugin: the `headgrid_golden` fixture and ``--headgrid-refresh``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting."""
    group = parser.getgroup("headgrid")
    group.addoption(
        "--headgrid-refresh",
        action="store_true",
        help="write the golden Vega-Lite specifications instead of comparing with them",
    )
    parser.addini(
        "headgrid_specs",
        help="folder of the golden specifications, relative to the root folder",
        default="specs",
    )


@pytest.fixture
def headgrid_golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare a chart with ``NAME.vl.json`` in the folder of golden specifications.

    ``headgrid_golden(chart, name=None, tolerance=0.0)``; the name is that of the
    test, without ``test_``, where none is given.
    """
    from headgrid.testing import SUFFIX, assert_matches_golden

    folder = Path(request.config.rootpath) / str(request.config.getini("headgrid_specs"))
    refresh = bool(request.config.getoption("--headgrid-refresh"))

    def check(chart: Any, name: str | None = None, *, tolerance: float = 0.0) -> None:
        __tracebackhide__ = True
        stem = name or request.node.name.removeprefix("test_")
        assert_matches_golden(
            chart, folder / f"{stem}{SUFFIX}", refresh=refresh, tolerance=tolerance
        )

    return check
