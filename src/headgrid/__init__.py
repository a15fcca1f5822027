"""Figures of transformer attention, facetted by head.

    import headgrid

    capture = headgrid.load_capture("layer3.pt")
    headgrid.save(headgrid.heatmap(capture), "layer3_2d_heatmap.svg")

Captures in (`load_capture`, `Capture.from_array`, or `record` from a running
model), tidy tables and statistics
in the middle, altair charts on top, files out. A name is imported when it is
first used, so that ``import headgrid`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgrid.assets import write_assets
    from headgrid.capture import Capture
    from headgrid.charts import heatmap, perhead
    from headgrid.comparison import change_table, subtract
    from headgrid.contrasts import compare
    from headgrid.errors import (
        CaptureError,
        HeadgridError,
        HeadgridWarning,
        OptionError,
        OutputError,
        RenderError,
    )
    from headgrid.explorer import explore
    from headgrid.measures import measure_table
    from headgrid.options import FigureOptions
    from headgrid.page import fragment
    from headgrid.panels import overview, trend
    from headgrid.picks import pick
    from headgrid.recorder.problems import RecordError
    from headgrid.recorder.runs import record_runs
    from headgrid.recorder.session import record
    from headgrid.saving import save
    from headgrid.scales import ColorRange, resolve_color_range
    from headgrid.sheets import sheet
    from headgrid.spec import to_json, to_spec
    from headgrid.stats import head_statistics, layer_statistics, sink_scores
    from headgrid.store import load_capture, load_run, save_capture
    from headgrid.surveys import Survey, survey
    from headgrid.tidy import pair_table, profile_table

__version__ = "0.1.0"

_MODULES = {
    "assets": ["write_assets"],
    "capture": ["Capture"],
    "charts": ["heatmap", "perhead"],
    "comparison": ["change_table", "subtract"],
    "contrasts": ["compare"],
    "errors": [
        "CaptureError",
        "HeadgridError",
        "HeadgridWarning",
        "OptionError",
        "OutputError",
        "RenderError",
    ],
    "explorer": ["explore"],
    "measures": ["measure_table"],
    "options": ["FigureOptions"],
    "page": ["fragment"],
    "panels": ["overview", "trend"],
    "picks": ["pick"],
    "recorder": ["RecordError", "record", "record_runs"],
    "saving": ["save"],
    "scales": ["ColorRange", "resolve_color_range"],
    "sheets": ["sheet"],
    "spec": ["to_json", "to_spec"],
    "stats": ["head_statistics", "layer_statistics", "sink_scores"],
    "store": ["load_capture", "load_run", "save_capture"],
    "surveys": ["Survey", "survey"],
    "tidy": ["pair_table", "profile_table"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Capture",
    "CaptureError",
    "ColorRange",
    "FigureOptions",
    "HeadgridError",
    "HeadgridWarning",
    "OptionError",
    "OutputError",
    "RecordError",
    "RenderError",
    "Survey",
    "change_table",
    "compare",
    "explore",
    "fragment",
    "head_statistics",
    "heatmap",
    "layer_statistics",
    "load_capture",
    "load_run",
    "measure_table",
    "overview",
    "pair_table",
    "perhead",
    "pick",
    "profile_table",
    "record",
    "record_runs",
    "resolve_color_range",
    "save",
    "save_capture",
    "sheet",
    "sink_scores",
    "subtract",
    "survey",
    "to_json",
    "to_spec",
    "trend",
    "write_assets",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'headgrid' has no attribute {name!r}")
    value = getattr(import_module(f"headgrid.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
