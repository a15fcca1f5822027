"""A running torch model -> captures of its frame attention.

`record` watches the attention functions that a model calls, pools queries and
keys by frame, and leaves the model as it was. A name is imported when it is first
used: the command line lists its commands without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgrid.errors import RecordError
    from headgrid.recorder.calls import AttentionCall
    from headgrid.recorder.policy import CallInfo, Counted, FromArgument, Growing, SinkWindow
    from headgrid.recorder.recording import Recording
    from headgrid.recorder.runs import record_runs
    from headgrid.recorder.session import record

_HOME = {
    "AttentionCall": "calls",
    "CallInfo": "policy",
    "Counted": "policy",
    "FromArgument": "policy",
    "Growing": "policy",
    "RecordError": "session",
    "Recording": "recording",
    "SinkWindow": "policy",
    "record": "session",
    "record_runs": "runs",
}

__all__ = [
    "AttentionCall",
    "CallInfo",
    "Counted",
    "FromArgument",
    "Growing",
    "RecordError",
    "Recording",
    "SinkWindow",
    "record",
    "record_runs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'headgrid.recorder' has no attribute {name!r}")
    value = getattr(import_module(f"headgrid.recorder.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
