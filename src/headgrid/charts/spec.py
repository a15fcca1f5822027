"""altair chart -> canonical Vega-Lite specification, and its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from headgrid.errors import RenderError
from headgrid.text import shorten_text

Spec: TypeAlias = dict[str, Any]


#: V8's heap ends at 1.4 GB, and with it the process, without an exception: between
#: 0.6 and 1.39 million marks, as measured with vl-convert 1.9.
MAX_MARKS = 400_000

# Stands for the records while the outline is written with indentation.
_RECORDS = "headgrid-records-5b1f0c"


class ChartLike(Protocol):
    """What can be drawn: an altair chart, or anything with ``to_dict``."""

    def to_dict(self, validate: bool = True) -> Spec:
        """Return a Vega-Lite specification."""


def to_spec(chart: ChartLike | Mapping[str, Any], *, validate: bool = True) -> Spec:
    """Return the canonical Vega-Lite specification of a chart.

    Parameters
    ----------
    chart : altair chart or mapping
        A mapping is taken to be a specification already.
    validate : bool
        Let altair check the chart against Vega-Lite's schema, which takes longer
        than all else; for charts that nobody customised it finds nothing.

    Returns
    -------
    dict
        JSON-able. The same chart gives the same specification, with its data
        inline; stable within a minor version of headgrid.

    Raises
    ------
    RenderError
        For anything that is neither, and for values that JSON does not have.

    Examples
    --------
    >>> to_spec({"mark": "bar", "data": {"values": []}})["mark"]
    'bar'
    """
    if isinstance(chart, Mapping):
        spec = dict(chart)
    elif hasattr(chart, "to_dict"):
        spec = chart.to_dict(validate=validate)
    else:
        raise RenderError(
            f"found {type(chart).__name__}, expected an altair chart or a Vega-Lite specification"
        )
    try:
        return _with_inline_data(spec)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None


def to_json(chart: ChartLike | Mapping[str, Any]) -> str:
    """Return the canonical text of a specification: sorted keys, one line a record, UTF-8.

    Raises
    ------
    RenderError
        For values that JSON does not have (NaN, infinity, numpy scalars).

    Examples
    --------
    >>> print(to_json({"mark": "bar", "data": {"values": [{"b": 1, "a": 2}]}}), end="")
    {
     "data": {
      "values": [
       {"a":2,"b":1}
      ]
     },
     "mark": "bar"
    }
    """
    spec = to_spec(chart)
    data = spec.get("data")
    records = data.get("values") if isinstance(data, Mapping) else None
    try:
        if not isinstance(records, list):
            return _dump(spec, indent=1) + "\n"
        rest = {**spec, "data": {**data, "values": None}}  # type: ignore[dict-item]
        stand_in = _RECORDS
        while stand_in in _dump(rest):  # a title may hold any text
            stand_in += "-"
        outline = _dump({**rest, "data": {**rest["data"], "values": stand_in}}, indent=1)
        lines = ",\n".join(f"   {_dump(record)}" for record in records)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None
    return outline.replace(f'"{stand_in}"', f"[\n{lines}\n  ]", 1) + "\n"


def _unwritable(error: Exception) -> RenderError:
    found = shorten_text(str(error).partition("\n")[0], 200)
    return RenderError(
        f"the specification holds a value that JSON does not have ({found}); "
        "expected text, finite numbers, lists and dictionaries"
    )


def _dump(value: Any, indent: int | None = None) -> str:
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        indent=indent,
        separators=separators,
        sort_keys=True,
    )
    # A lone surrogate has no UTF-8; JSON's escape for it is kept instead.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _with_inline_data(spec: Spec) -> Spec:
    """Put the data set that altair moved to the top under a hash back where it is used."""
    data, datasets = spec.get("data"), spec.get("datasets")
    if not (isinstance(data, Mapping) and isinstance(datasets, Mapping)):
        return spec
    name = data.get("name")
    if not isinstance(name, str) or name not in datasets or not name.startswith("data-"):
        return spec
    others = {key: value for key, value in datasets.items() if key != name}
    rest = {key: value for key, value in spec.items() if key != "datasets"}
    if f'"{name}"' in json.dumps({**rest, "data": None}, default=str):
        return spec
    inline = {**data, "values": datasets[name]}
    del inline["name"]
    return {**rest, "data": inline, **({"datasets": others} if others else {})}
