"""A survey -> the text of one page in which each head of each layer can be looked at.

The page holds all values, packed, and the specifications of our own figures; a script puts the
values of the chosen head into them. Nothing is fetched, and no text becomes markup or code.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.scales import ColorScale, Palette, frame_places, palette_for
from headgrid.errors import CaptureError, OptionError, check_choice
from headgrid.options import ColorRange, FigureOptions, PaletteName
from headgrid.survey.model import Survey
from headgrid.tables.measures import MEASURES, describe_measure, measure_title
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import DIGITS, round_values
from headgrid.text import count_noun, shorten_list, shorten_text
from headgrid.web import assets
from headgrid.web.livespecs import (
    MAP_WIDTHS,
    draw_live_map,
    draw_live_overview,
    draw_live_profile,
    map_width,
    word_room,
)
from headgrid.web.page import write_document, write_script
from headgrid.web.places import name_places, name_queries, pool_capture, pool_size

#: Pairs of a map up to which each is a cell of its own. Of more it is an image, as a redraw would
#: take longer than a tenth of a second.
MAX_CELLS = 6_000
#: Values of a page: 12 million take 30 MB, beyond which browsers become slow to open it.
MAX_VALUES = 12_000_000

# The whole number that stands for "no value"; others stay below 10,000 in magnitude.
_NO_VALUE = -32768


@dataclass(frozen=True)
class ExplorerOptions:
    """What a page shows, and how; see `headgrid.explore`. Checked when made."""

    set: str | None = None
    statistic: str | None = None
    color_range: str | tuple[float, float] = "symmetric"
    palette: PaletteName = "rdbu"
    title: str | None = None

    def __post_init__(self) -> None:
        if self.statistic is not None:
            check_choice("statistic", self.statistic, MEASURES)
        if isinstance(self.color_range, str):
            known = ["symmetric", "head", "quantile", "LO,HI (two numbers)"]
            check_choice("color range", self.color_range, known)
        if self.title is not None and not isinstance(self.title, str):
            raise OptionError(f"title is {self.title!r}, expected text")
        FigureOptions(palette=self.palette, color_range=self.color_range)  # type: ignore[arg-type]


def write_explorer(found: Survey, options: ExplorerOptions) -> str:
    """Return the page of a survey; see `headgrid.explore` for what it refuses."""
    shown = _Shown(found, options)
    _check_size(shown.captures)
    model = _describe_model(shown)
    title = shorten_text(options.title or "", 120) or "Attention Explorer"
    body = _write_body(shown, model, title)
    vega = assets.load_bundle()
    text = json.dumps(model, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    data = {"vega": vega.encode("utf-8"), "model": text.encode()}
    data |= {f"layer-{n}": pack_capture(capture) for n, capture in shown.captures.items()}
    elements = "\n".join(
        f'<script type="application/octet-stream" id="{name}">'
        f"{base64.b64encode(zlib.compress(content, 9)).decode('ascii')}</script>"
        for name, content in data.items()
    )
    scripts = [
        write_script(vega, elements),
        write_script(assets.start_code()),
        write_script(assets.check_script(assets.read_file("explorer.js"))),
    ]
    style = assets.read_style("explorer.css")
    return write_document("explorer", title, body, scripts, style=style)


def _write_body(shown: _Shown, model: dict[str, Any], title: str) -> str:
    prompt = shorten_text(shown.first.prompt, 300) if shown.runs == 1 else ""
    template = assets.read_file("explorer.html").strip()
    query, key = shown.first.query_axis, shown.first.key_axis
    return template.format(
        title=escape(title),
        about=escape(" · ".join(shorten_text(text) for text in shown.describe())),
        prompt=f'<p class="prompt">{escape(prompt)}</p>\n' if prompt else "",
        statistics="".join(
            f'<option value="{name}">{escape(measure["title"])}</option>'
            for name, measure in model["measures"].items()
        ),
        layers=_options(shown.captures),
        heads=_options(range(shown.first.num_heads)),
        axes=escape(f"{name_queries(query, key)} and key {key.nouns}"),
        last=escape(model["lastBlock"]),
        maps="" if shown.has_maps else " hidden",
    )


@dataclass(frozen=True)
class _Shown:
    """What a page shows of a survey: one set, the mean over its runs or its only run."""

    survey: Survey
    options: ExplorerOptions

    @cached_property
    def set(self) -> str:
        sets, wanted = self.survey.sets, self.options.set
        if wanted is None and len(sets) == 1:
            return sets[0]
        if wanted in sets:
            return wanted
        listed = shorten_list([shorten_text(name, 40) or "(none)" for name in sets])
        given = "not given" if wanted is None else repr(shorten_text(wanted, 40))
        raise OptionError(
            f"set is {given}, expected one of {listed}; a page shows one set (set=, --set), or "
            "one run of it (run=, --run)"
        )

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
    def pools(self) -> tuple[int, int]:
        """How many queries and keys share a place."""
        queries = pool_size(self.first.query_axis) if self.has_maps else 1
        return queries, pool_size(self.first.key_axis)

    @property
    def has_maps(self) -> bool:
        return self.first.full_frame_attention is not None

    @property
    def runs(self) -> int:
        return self.survey.num_runs_of[self.set]

    def describe(self) -> Iterator[str]:
        """Yield what the page says of its captures, piece by piece."""
        places = [capture.place for capture in self.survey.inputs()]
        mine = list(dict.fromkeys(p.text for p in places if p.set == self.set and p.text))
        if self.runs > 1:
            yield f"mean over {self.runs} runs" + (f" of {self.set}" if self.set else "")
        elif mine:
            yield mine[0]
        present = len(self.captures)
        yield f"{count_noun(present, 'layer')} x {count_noun(self.survey.num_heads, 'head')}"
        if missing := len(self.survey.layers) - present:
            yield f"{missing} missing"
        query, key = self.first.query_axis, self.first.key_axis
        queries = f"{len(query.numbers):,} {name_queries(query, key)} x " if self.has_maps else ""
        number = len(key.numbers)
        yield f"{queries}{number:,} key {key.noun if number == 1 else key.nouns}"
        if self.pools != (1, 1):
            noun = "" if query.name == key.name else f" {query.nouns}"
            what = f"cell pools {self.pools[0]}{noun} x" if self.has_maps else "bar pools"
            yield f"a {what} {self.pools[1]} {key.nouns} and shows the value of largest magnitude"
        if self.first.block_sizes:
            yield f"blocks [{shorten_list(self.first.block_sizes)}]"
        yield STATISTICS[self.first.statistic].title.lower()


def _check_size(captures: dict[int, Capture]) -> None:
    """Refuse captures that a browser could not show."""
    values = sum(capture.num_visible for capture in captures.values())
    if values > MAX_VALUES:
        raise CaptureError(
            f"the captures have {values:,} visible values, expected at most "
            f"{MAX_VALUES:,} in an explorer; give the files of fewer layers"
        )


def _describe_model(shown: _Shown) -> dict[str, Any]:
    """Return what the script has to know, beside the values."""
    captures = shown.captures
    whole, first = shown.first, next(iter(captures.values()))
    palette = palette_for(first.statistic, shown.options.palette)
    quantile = resolve_color_range("quantile", captures.values())
    asked = shown.options.color_range
    fixed = quantile if isinstance(asked, str) else resolve_color_range(asked, [])
    measures = _draw_measures(shown)
    preferred = shown.options.statistic or "sink"
    vectors = len(first.query_frames) * len(first.key_frames) <= MAX_CELLS
    pools = shown.pools
    keys = name_places(whole.key_axis, pools[1])
    return {
        "statistic": first.statistic,
        "unit": STATISTICS[first.statistic].unit,
        "heads": first.num_heads,
        "layers": list(captures),
        "queries": list(first.query_frames) if shown.has_maps else [],
        "keys": list(first.key_frames),
        "places": {"query": name_places(whole.query_axis, pools[0]), "key": keys},
        "lastBlock": _tell_last_block(whole),
        "measures": measures,
        "widths": [map_width(first, width) for width in MAP_WIDTHS],
        "wordRoom": word_room(first),
        "maps": [
            draw_live_map(first, palette, width, vectors=vectors)
            for width in MAP_WIDTHS * shown.has_maps
        ],
        "image": None if vectors else _describe_image(first, palette),
        "profiles": [draw_live_profile(first, w, pooled=pools[1] > 1) for w in MAP_WIDTHS],
        "ranges": {
            "symmetric": {
                str(layer): _ends(resolve_color_range("symmetric", [capture]))
                for layer, capture in captures.items()
            },
            "head": {str(layer): _head_ends(capture) for layer, capture in captures.items()},
            "quantile": _ends(quantile),
        },
        "extents": {str(layer): list(capture.value_range) for layer, capture in captures.items()},
        "start": {
            "statistic": preferred if preferred in measures else next(iter(measures)),
            "range": asked if isinstance(asked, str) else "fixed",
            "fixed": _ends(fixed),
        },
    }


def _describe_image(capture: Capture, palette: Palette) -> dict[str, Any]:
    """Return what stands along the axes of a map that is an image, and its colours, as numbers."""
    levels = ColorScale(ColorRange(-1.0, 1.0, "fixed"), palette).colors().astype(int)
    return {
        "rows": frame_places(capture.query_frames),
        "columns": frame_places(capture.key_frames),
        "colors": (levels @ [1 << 16, 1 << 8, 1]).tolist(),
        "diverging": palette.diverging,
    }


def _tell_last_block(capture: Capture) -> str:
    """Return the queries of the last block: ``frames 18, 19, 20``, or with labels."""
    axis, numbers = capture.query_axis, capture.last_block_query_frames
    noun = axis.noun if len(numbers) == 1 else axis.nouns
    named = name_places(axis) if axis.labels else {}
    shown = [named[n]["name"].removeprefix(f"{axis.noun} ") if n in named else n for n in numbers]
    return f"{noun} {shorten_list(shown, 4 if named else 8)}"


def _draw_measures(shown: _Shown) -> dict[str, Any]:
    """Return every measure that some head has, each with its overview."""
    found, key_name = shown.survey, shown.survey.form.key_name
    options = FigureOptions(palette=shown.options.palette)
    measures = {}
    for name in MEASURES:
        summary = found.summary(name)
        summary = summary[summary["set"] == shown.set]
        # One that was asked for is drawn even so, and the figure says why it can not be.
        if not summary["mean"].notna().any() and name != shown.options.statistic:
            continue
        summary = summary.assign(set="")
        measures[name] = {
            "title": measure_title(name, found.statistic, key_name),
            "description": describe_measure(name, key_name),
            "spec": draw_live_overview(summary, name, found, options),
        }
    return measures


def _head_ends(capture: Capture) -> list[list[float]]:
    signed = STATISTICS[capture.statistic].signed
    ranges = [capture.head_range(head) for head in range(capture.num_heads)]
    seen = [(low, high) if low <= high else (0.0, 0.0) for low, high in ranges]
    return [_ends(ColorRange.around_zero(*ends, signed, "head")) for ends in seen]


def _ends(color_range: ColorRange) -> list[float]:
    return [color_range.low, color_range.high]


def _options(numbers: Iterable[int]) -> str:
    return "".join(f'<option value="{number}">{number}</option>' for number in numbers)


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
