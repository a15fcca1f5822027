"""Runs -> the text of one page in which each head of each layer can be looked at.

The page holds all values, packed, and the specifications of our own figures; a script puts the
values of the chosen head into them. Nothing is fetched, and no text becomes markup or code.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.folders import name_folder
from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.overview import summarise
from headgrid.charts.scales import ColorScale, frame_places, palette_for
from headgrid.errors import CaptureError, OptionError, check_choice
from headgrid.options import ColorRange, FigureOptions, PaletteName
from headgrid.survey.model import Input, Survey
from headgrid.tables.measures import MEASURES
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import DIGITS, round_values
from headgrid.text import count_noun, shorten_list, shorten_text
from headgrid.web import assets, livespecs
from headgrid.web.page import write_document, write_script
from headgrid.web.places import name_places, name_queries, pool_capture, pool_sizes

#: Pairs of a map up to which each is a cell of its own. Of more it is an image, as a redraw would
#: take longer than a tenth of a second.
MAX_CELLS = 6_000
#: Values of a page: 12 million take 30 MB, beyond which browsers become slow to open it.
MAX_VALUES = 12_000_000

# The whole number that stands for "no value"; others stay below 10,000 in magnitude.
_NO_VALUE = -32768
_SCRIPTS = ("explorer_values.js", "explorer_charts.js", "explorer_takeout.js", "explorer.js")
_NO_RUN = "headgrid pick draws heads of one run, and this is a mean over runs: "


@dataclass(frozen=True)
class ExplorerOptions:
    """What a page shows, and how; see `headgrid.explore`. Checked when made."""

    statistic: str | None = None
    color_range: str | tuple[float, float] = "symmetric"
    palette: PaletteName = "rdbu"
    title: str | None = None
    #: The role of each head, by layer and head; None: there are none.
    roles: Mapping[tuple[int, int], str] | None = None

    def __post_init__(self) -> None:
        if self.statistic is not None:
            check_choice("statistic", self.statistic, MEASURES)
        if isinstance(self.color_range, str):
            known = ["symmetric", "head", "shared", "quantile", "LO,HI (two numbers)"]
            check_choice("color range", self.color_range, known)
        if self.title is not None and not isinstance(self.title, str):
            raise OptionError(f"title is {self.title!r}, expected text")
        FigureOptions(palette=self.palette, color_range=self.color_range)  # type: ignore[arg-type]


@dataclass(frozen=True)
class View:
    """What a page shows at a time: the mean over the runs of a set, or its only run.

    ``pick`` is how the command ``headgrid pick`` begins that draws its heads, empty where there is
    none, and ``heads`` what stands before the layer there, by the place of the run.
    """

    survey: Survey
    set: str
    pick: str = ""
    heads: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def captures(self) -> dict[int, Capture]:
        """One capture a layer, pooled where it has more places than a page."""
        captures = self.survey.captures_of(self.set)
        return {layer: pool_capture(capture) for layer, capture in captures.items()}

    @cached_property
    def first(self) -> Capture:
        """The capture whose axes and statistic are those of all."""
        return next(iter(self.survey.captures_of(self.set).values()))

    @property
    def has_maps(self) -> bool:
        """Whether there is a full matrix."""
        return self.first.full_frame_attention is not None

    @property
    def runs(self) -> int:
        """How many runs it is the mean of."""
        return self.survey.num_runs_of[self.set]

    @property
    def name(self) -> str:
        """What is shown: that it is a mean, or which run; of a run without a name its folder."""
        if self.runs > 1:
            return f"mean over {self.runs} runs" + (f" of {self.set}" if self.set else "")
        folder = name_folder(Path(self.input.source).parent) if self.input.digest else ""
        return shorten_text(self.input.place.text or folder, 120)

    @property
    def input(self) -> Input:
        """The first of its inputs."""
        return next(one for one in self.survey.inputs() if one.place.set == self.set)

    def describe(self) -> Iterator[str]:
        """Yield what the page says of its captures, piece by piece."""
        present = len(self.captures)
        yield f"{count_noun(present, 'layer')} x {count_noun(self.survey.num_heads, 'head')}"
        if missing := len(self.survey.layers) - present:
            yield f"{missing} missing"
        query, key = self.first.query_axis, self.first.key_axis
        queries = f"{len(query.numbers):,} {name_queries(query, key)} x " if self.has_maps else ""
        number = len(key.numbers)
        yield f"{queries}{number:,} key {key.noun if number == 1 else key.nouns}"
        rows, columns = pool_sizes(self.first)
        if rows > 1 or columns > 1:
            noun = "" if query.name == key.name else f" {query.nouns}"
            what = f"cell pools {rows}{noun} x" if self.has_maps else "bar pools"
            yield f"a {what} {columns} {key.nouns} and shows the value of largest magnitude"
        if self.first.block_sizes:
            yield f"blocks [{shorten_list(self.first.block_sizes)}]"
        yield STATISTICS[self.first.statistic].title.lower()


def write_explorer(views: Sequence[View], options: ExplorerOptions) -> str:
    """Return the page of some views, of the first at first; see `headgrid.explore`."""
    values = sum(capture.num_visible for view in views for capture in view.captures.values())
    if values > MAX_VALUES:
        raise CaptureError(
            f"the captures have {values:,} visible values, expected at most {MAX_VALUES:,} in an "
            f"explorer; give the files of fewer layers{' or fewer runs' if len(views) > 1 else ''}"
        )
    models = [_describe_model(view, options) for view in views]
    title = shorten_text(options.title or "", 120) or "Attention Explorer"
    runs = [_describe_run(views, number, model) for number, model in enumerate(models)]
    style = f" --palette {options.palette}" if options.palette != "rdbu" else ""
    heads = {(n, h) for view in views for n in view.captures for h in range(view.first.num_heads)}
    if options.roles is not None and heads.isdisjoint(options.roles):
        raise OptionError(
            "roles: no row is of a head of these captures, expected their layers and heads; give "
            "the table that was made of them"
        )
    roles = {f"{n}:{head}": role for (n, head), role in (options.roles or {}).items()}
    page = {"title": title, "style": style, "roles": roles or None, "runs": runs}
    data = {"vega": (vega := assets.load_bundle()).encode("utf-8")}
    for name, found in [("page", page), *((f"model-{n}", one) for n, one in enumerate(models))]:
        text = json.dumps(found, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        data[name] = text.encode("ascii")
    for number, view in enumerate(views):
        for layer, capture in view.captures.items():
            data[f"layer-{number}-{layer}"] = pack_capture(capture)
    elements = "\n".join(
        f'<script type="application/octet-stream" id="{name}">'
        f"{base64.b64encode(zlib.compress(content, 9)).decode('ascii')}</script>"
        for name, content in data.items()
    )
    code = "\n".join(map(assets.read_file, _SCRIPTS))
    scripts = [
        write_script(vega, elements),
        write_script(assets.start_code()),
        write_script(assets.check_script(f'(() => {{\n"use strict";\n\n{code}}})();')),
    ]
    first, look = views[0].first, assets.read_style("explorer.css")
    queries, nouns = name_queries(first.query_axis, first.key_axis), first.key_axis.nouns
    body = assets.read_file("explorer.html").format(
        title=escape(title),
        about=escape(runs[0]["about"]),
        axes=escape(f"{queries} and key {nouns}"),
        last=escape(models[0]["lastBlock"]),
        maps="" if views[0].has_maps else " hidden",
    )
    return write_document("explorer", title, body, scripts, style=look)


def _describe_run(views: Sequence[View], number: int, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page says of a view, and what its addresses may name."""
    view, several = views[number], len(views) > 1
    remedy = "choose a run." if several else "write the page with --runs all."
    plain = re.fullmatch(r"[\w./-]{1,80}", view.name, re.ASCII)
    address = view.name if plain else f"~{number}"
    stem = re.sub(r"\W+", "_", view.name[:60], flags=re.ASCII).strip("_")
    return {
        "name": view.name,
        "prompt": shorten_text(view.first.prompt, 300),
        "about": " · ".join(shorten_text(text) for text in view.describe()),
        "stem": f"{stem}_" if stem else "",
        "pick": view.pick and (view.pick if view.runs == 1 else _NO_RUN + remedy),
        "head": view.heads.get(view.input.place.text) if view.runs == 1 else None,
        "layers": list(view.captures),
        "heads": list(range(model["heads"])),
        "queries": model["queries"],
        "measures": list(model["measures"]),
        "address": address if several else "",
    }


def _describe_model(shown: View, options: ExplorerOptions) -> dict[str, Any]:
    """Return what the script has to know, beside the values."""
    captures = shown.captures
    whole, first = shown.first, next(iter(captures.values()))
    palette = palette_for(first.statistic, options.palette)
    levels = ColorScale(ColorRange(-1.0, 1.0, "fixed"), palette).colors()
    quantile = resolve_color_range("quantile", captures.values())
    asked = options.color_range
    fixed = quantile if isinstance(asked, str) else resolve_color_range(asked, [])
    measures = _draw_measures(shown, options)
    vectors = len(first.query_frames) * len(first.key_frames) <= MAX_CELLS
    preferred = options.statistic or "sink"
    rows, columns = pool_sizes(whole)
    return {
        "statistic": first.statistic,
        "title": STATISTICS[first.statistic].title,
        "unit": STATISTICS[first.statistic].unit,
        "heads": first.num_heads,
        "queries": list(first.query_frames) if shown.has_maps else [],
        "keys": list(first.key_frames),
        "places": {
            "query": name_places(whole.query_axis, rows),
            "key": name_places(whole.key_axis, columns),
        },
        "lastBlock": _tell_last_block(whole),
        "measures": measures,
        "wordRoom": livespecs.word_room(first),
        "maps": [
            livespecs.draw_live_map(first, palette, width, vectors=vectors)
            for width in livespecs.MAP_WIDTHS * shown.has_maps
        ],
        "axes": [frame_places(axis) for axis in (first.query_frames, first.key_frames)],
        "image": not vectors,
        "colors": (levels.astype(int) @ [1 << 16, 1 << 8, 1]).tolist(),
        "diverging": palette.diverging,
        "stops": len(palette.colors),
        "profiles": [livespecs.draw_live_profile(first, width) for width in livespecs.MAP_WIDTHS],
        "ranges": {
            "symmetric": {
                n: _ends(resolve_color_range("symmetric", [c])) for n, c in captures.items()
            },
            "head": {n: _head_ends(c) for n, c in captures.items()},
            "shared": _ends(resolve_color_range("symmetric", captures.values())),
            "quantile": _ends(quantile),
        },
        "extents": {n: list(c.value_range) for n, c in captures.items()},
        "start": {
            "statistic": preferred if preferred in measures else next(iter(measures)),
            "range": asked if isinstance(asked, str) else "fixed",
            "fixed": _ends(fixed),
        },
    }


def _tell_last_block(capture: Capture) -> str:
    """Return the queries of the last block: ``frames 18, 19, 20``, or with labels."""
    axis, numbers = capture.query_axis, capture.last_block_query_frames
    noun = axis.noun if len(numbers) == 1 else axis.nouns
    named = name_places(axis) if axis.labels else {}
    shown = [named[n]["name"].removeprefix(f"{axis.noun} ") if n in named else n for n in numbers]
    return f"{noun} {shorten_list(shown, 4 if named else 8)}"


def _draw_measures(shown: View, options: ExplorerOptions) -> dict[str, Any]:
    """Return every measure that some head has, each with its overview."""
    found, look = shown.survey, FigureOptions(palette=options.palette)
    measures = {}
    for name in MEASURES:
        summary = summarise(found, name)
        table = summary.table[summary.table["set"] == shown.set].assign(set="")
        # One that was asked for is drawn even so, and the figure says why it can not be.
        if not table["mean"].notna().any() and name != options.statistic:
            continue
        measures[name] = {
            "title": summary.title,
            "description": summary.meaning,
            "spec": livespecs.draw_live_overview(summary._replace(table=table), found.layers, look),
        }
    return measures


def _head_ends(capture: Capture) -> list[list[float]]:
    signed = STATISTICS[capture.statistic].signed
    ranges = [capture.head_range(head) for head in range(capture.num_heads)]
    seen = [(low, high) if low <= high else (0.0, 0.0) for low, high in ranges]
    return [_ends(ColorRange.around_zero(*ends, signed, "head")) for ends in seen]


def _ends(color_range: ColorRange) -> list[float]:
    return [color_range.low, color_range.high]


def pack_capture(capture: Capture) -> bytes:
    r"""Return the numbers of a capture: which pairs are visible, and their values.

    A bit for each (query, key) that is visible in some head, the first pair in the highest
    bit of the first byte (none without a full matrix); then `pack_numbers` of the last-block
    rows [heads, key] and, behind them, of the visible pairs [heads, pair].

    >>> pack_capture(Capture.from_array([[[1.5, 0.0], [2.0, -3.0]]], block_sizes=[1, 1]))[:1]
    b'\xb0'
    """
    rows = capture.last_block_rows.ravel()
    if capture.full_frame_attention is None:
        return pack_numbers(rows)
    matrices = [capture.head_matrix(head) for head in range(capture.num_heads)]
    seen = np.logical_or.reduce([~np.isnan(matrix) for matrix in matrices])
    numbers = np.concatenate([rows, *(matrix[seen] for matrix in matrices)])
    return np.packbits(seen).tobytes() + pack_numbers(numbers)


def pack_numbers(values: npt.NDArray[np.floating]) -> bytes:
    """Return n numbers as four planes of n bytes: whole number low, high, exponent low, high.

    Four significant digits are a whole number times a power of ten. Bytes of equal meaning stand
    together, as deflate makes most of them so. NaN becomes `_NO_VALUE`.
    """
    rounded = round_values(values)
    size = np.abs(rounded)
    some = size > 0  # neither zero nor NaN
    exponents = np.zeros(rounded.shape, dtype="<i2")
    exponents[some] = np.floor(np.log10(size[some])) - (DIGITS - 1)
    whole = np.zeros(rounded.shape, dtype="<i2")
    # A number of so few digits: what powers of ten lack in the last bit is rounded away.
    whole[some] = np.rint(rounded[some] / 10.0 ** exponents[some].astype(np.float64))
    whole[np.isnan(rounded)] = _NO_VALUE
    planes = [numbers.view(np.uint8).reshape(-1, 2).T for numbers in (whole, exponents)]
    return np.concatenate(planes).tobytes()
