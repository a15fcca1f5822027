"""A survey -> the text of one page in which each head of each layer can be looked at.

The page holds all values, packed, and the specifications of our own figures; a
script puts the values of the chosen head into them. As on every page of ours what
data say stays data: nothing is fetched, and no text becomes markup or code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.scales import palette_for
from headgrid.errors import CaptureError, OptionError, check_choice
from headgrid.options import ColorRange, FigureOptions, PaletteName
from headgrid.survey.model import Survey
from headgrid.tables.measures import MEASURES, measure_title
from headgrid.tables.ranges import resolve_color_range
from headgrid.text import shorten_list, shorten_text
from headgrid.web import assets
from headgrid.web.livespecs import (
    MAP_WIDTHS,
    draw_live_map,
    draw_live_overview,
    draw_live_profile,
    map_width,
)
from headgrid.web.packing import compress_text, pack_capture

#: Frames along an axis up to which every pair is a cell that can be pointed at.
MAX_FRAMES = 256
#: Values of a page: 12 million take 30 MB, beyond which browsers become slow to open it.
MAX_VALUES = 12_000_000
#: What the colour range can be when the page opens, beside two numbers.
RANGES = ("symmetric", "quantile")

_TITLE_LENGTH, _PROMPT_LENGTH = 120, 300

_PAGE = """\
<!doctype html>
<html lang="en" class="headgrid-explorer">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="headgrid">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#head">Skip to the chosen head</a>
<header>
<div class="about">
<h1>{title}</h1>
<p>{about}</p>
{prompt}</div>
<button type="button" id="theme" aria-pressed="false">Dark</button>
</header>
<main data-state="loading" aria-busy="true">
<section class="card" aria-labelledby="overview-title">
<div class="bar">
<h2 id="overview-title">All heads</h2>
<label>Statistic <select id="statistic">{statistics}</select></label>
</div>
<div class="chart" id="overview" role="application" tabindex="0"
 aria-label="Overview of layers and heads" aria-describedby="overview-help"></div>
<p class="note" id="overview-note"></p>
<p class="note keys" id="overview-help">Click a cell, or focus the matrix and use the arrow
keys, to look at a head.</p>
</section>
<section class="card" id="head" aria-labelledby="head-title" tabindex="-1">
<div class="bar">
<h2 id="head-title">Head</h2>
<div class="steps" role="group" aria-label="Layer and head">
<span class="step"><button type="button" id="layer-back" aria-label="Previous layer">−</button>
<label>Layer <select id="layer">{layers}</select></label>
<button type="button" id="layer-on" aria-label="Next layer">+</button></span>
<span class="step"><button type="button" id="head-back" aria-label="Previous head">−</button>
<label>Head <select id="head-number">{heads}</select></label>
<button type="button" id="head-on" aria-label="Next head">+</button></span>
</div>
</div>
<div class="maps"{maps}>
<fieldset class="range">
<legend>Color range</legend>
<label><input type="radio" name="range" value="symmetric"> This layer</label>
<label title="Without the outermost 1 % of all values"><input type="radio" name="range"
 value="quantile"> All layers</label>
<label><input type="radio" name="range" value="fixed"> Fixed</label>
<span class="ends"><input type="number" id="low" step="any" aria-label="Low end of the fixed range">
<span aria-hidden="true">to</span>
<input type="number" id="high" step="any" aria-label="High end of the fixed range"></span>
</fieldset>
<div class="chart" id="map" role="application" tabindex="0"
 aria-label="Map of query and key frames" aria-describedby="map-help"></div>
</div>
<output id="readout" aria-live="polite"></output>
<div class="bar under">
<h3 id="profile-title">Last block</h3>
<button type="button" id="to-last" hidden>Back to the last block ({last})</button>
</div>
<div class="chart" id="profile" role="img" aria-labelledby="profile-title"></div>
<p class="note keys" id="map-help"{maps}>Point at a cell to read its value; click it for the
profile of its query. With the keyboard: focus the map, move with the arrow keys, Enter for the
profile, Escape for the last block.</p>
</section>
</main>
<noscript><p class="failed">This page is drawn by a script, and this browser runs none.</p>
</noscript>
{data}
{scripts}
</body>
</html>
"""


@dataclass(frozen=True)
class ExplorerOptions:
    """What a page shows, and how; checked when made.

    Attributes
    ----------
    set, statistic, color_range, palette, title
        See `explore`.

    Raises
    ------
    OptionError
        Where a value is not one of these, with the choices and the near miss.
    """

    set: str | None = None
    statistic: str | None = None
    color_range: str | tuple[float, float] = "symmetric"
    palette: PaletteName = "rdbu"
    title: str | None = None

    def __post_init__(self) -> None:
        if self.statistic is not None:
            check_choice("statistic", self.statistic, MEASURES)
        if isinstance(self.color_range, str):
            check_choice("color range", self.color_range, [*RANGES, "LO,HI (two numbers)"])
        if self.title is not None and not isinstance(self.title, str):
            raise OptionError(f"title is {self.title!r}, expected text")
        FigureOptions(palette=self.palette, color_range=self.color_range)  # type: ignore[arg-type]


def write_explorer(found: Survey, options: ExplorerOptions) -> str:
    """Return the page of a survey.

    Raises
    ------
    CaptureError
        Where captures are too large for a page, or no head has the statistic.
    OptionError
        For an unknown set.
    """
    shown = _Shown(found, options)
    shown.check_size()
    return _write_page(shown)


@dataclass(frozen=True)
class _Shown:
    """What a page shows of a survey: one set, the mean over its runs or its only run."""

    survey: Survey
    options: ExplorerOptions

    @cached_property
    def set(self) -> str:
        """The set that is shown."""
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
        """One capture a layer."""
        return self.survey.captures_of(self.set)

    @property
    def first(self) -> Capture:
        """The capture whose frames and statistic are those of all."""
        return next(iter(self.captures.values()))

    @property
    def has_maps(self) -> bool:
        """Whether captures hold full matrices."""
        return self.first.full_frame_attention is not None

    @property
    def runs(self) -> int:
        """How many runs the values are a mean over."""
        return self.survey.num_runs_of[self.set]

    @cached_property
    def figure_options(self) -> FigureOptions:
        """How figures are drawn."""
        return FigureOptions(palette=self.options.palette)

    def check_size(self) -> None:
        """Refuse captures that a browser could not show.

        Raises
        ------
        CaptureError
            With the limit and what to do.
        """
        first = self.first
        longest = max(len(first.query_frames) if self.has_maps else 1, len(first.key_frames))
        if longest > MAX_FRAMES:
            raise CaptureError(
                f"{first.source}: has {longest} frames along an axis, expected at most "
                f"{MAX_FRAMES} in an explorer; record fewer frames or pool them, or draw figures, "
                "which pool them (headgrid render, headgrid survey)"
            )
        values = sum(capture.num_visible for capture in self.captures.values())
        if values > MAX_VALUES:
            raise CaptureError(
                f"{first.source} and others: have {values:,} visible values, expected at most "
                f"{MAX_VALUES:,} in an explorer; give the files of fewer layers"
            )

    def describe(self) -> Iterator[str]:
        """Yield what the page says of its captures, piece by piece."""
        places = [capture.place for capture in self.survey.inputs()]
        mine = list(dict.fromkeys(p.text for p in places if p.set == self.set and p.text))
        if self.runs > 1:
            yield f"mean over {self.runs} runs" + (f" of {self.set}" if self.set else "")
        elif mine:
            yield mine[0]
        present = len(self.captures)
        missing = len(self.survey.layers) - present
        yield f"{_count(present, 'layer')} x {_count(self.survey.num_heads, 'head')}"
        if missing:
            yield f"{missing} missing"
        keys = _count(len(self.first.key_frames), "key frame")
        queries = f"{len(self.first.query_frames)} query x " if self.has_maps else ""
        yield f"{queries}{keys}"
        if self.first.block_sizes:
            yield f"blocks [{shorten_list(self.first.block_sizes)}]"
        yield STATISTICS[self.first.statistic].title.lower()


@dataclass(frozen=True)
class _Measure:
    """A measure of the overview, and the figure that shows it."""

    name: str
    title: str
    description: str
    spec: dict[str, Any]


def _list_measures(shown: _Shown) -> list[_Measure]:
    """Return every measure that some head has, each with its overview."""
    found, statistic = shown.survey, shown.survey.statistic
    measures = []
    for name, measure in MEASURES.items():
        summary = found.summary(name)
        summary = summary[summary["set"] == shown.set]
        # One that was asked for is drawn even so, and the figure says why it can not be.
        if not summary["mean"].notna().any() and name != shown.options.statistic:
            continue
        summary = summary.assign(set="")
        spec = draw_live_overview(
            summary, name, statistic, shown.figure_options, layers=found.layers
        )
        title = measure_title(name, statistic)
        measures.append(_Measure(name, title, measure.description, spec))
    return measures


def _describe_model(shown: _Shown, measures: list[_Measure]) -> dict[str, Any]:
    """Return what the script has to know, beside the values."""
    first, captures = shown.first, shown.captures
    palette = palette_for(first.statistic, shown.options.palette)
    quantile = resolve_color_range("quantile", captures.values())
    asked = shown.options.color_range
    fixed = quantile if isinstance(asked, str) else resolve_color_range(asked, [])
    names = [measure.name for measure in measures]
    preferred = shown.options.statistic or "sink"
    sizes = MAP_WIDTHS if shown.has_maps else ()
    return {
        "statistic": first.statistic,
        "unit": STATISTICS[first.statistic].unit,
        "heads": first.num_heads,
        "layers": list(captures),
        "queries": list(first.query_frames) if shown.has_maps else [],
        "keys": list(first.key_frames),
        "lastBlock": _last_block(first),
        "measures": {
            measure.name: {
                "title": measure.title,
                "description": measure.description,
                "spec": measure.spec,
            }
            for measure in measures
        },
        "widths": [map_width(first, width) for width in MAP_WIDTHS],
        "maps": [draw_live_map(first, palette, width) for width in sizes],
        "profiles": [draw_live_profile(first, width) for width in MAP_WIDTHS],
        "ranges": {
            "symmetric": {
                str(layer): _ends(resolve_color_range("symmetric", [capture]))
                for layer, capture in captures.items()
            },
            "quantile": _ends(quantile),
        },
        "extents": {str(layer): list(capture.value_range) for layer, capture in captures.items()},
        "start": {
            "statistic": preferred if preferred in names else names[0],
            "range": asked if isinstance(asked, str) else "fixed",
            "fixed": _ends(fixed),
        },
    }


def _last_block(capture: Capture) -> str:
    frames = capture.last_block_query_frames
    return f"frame{'' if len(frames) == 1 else 's'} {shorten_list(frames, 8)}"


def _ends(color_range: ColorRange) -> list[float]:
    return [color_range.low, color_range.high]


def _write_page(shown: _Shown) -> str:
    measures = _list_measures(shown)
    model = _describe_model(shown, measures)
    text = json.dumps(model, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    vega = assets.load_bundle()
    data = [_data_element("vega", vega.encode("utf-8")), _data_element("model", text.encode())]
    data += [
        _data_element(f"layer-{layer}", pack_capture(capture))
        for layer, capture in shown.captures.items()
    ]
    scripts = [assets.start_code(), assets.explorer_code()]
    style = assets.explorer_style()
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(assets.hash_source(script) for script in [vega, *scripts]),
        "style-src": assets.hash_source(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    title = shorten_text(shown.options.title or "Attention Explorer", _TITLE_LENGTH)
    return _PAGE.format(
        policy=escape("; ".join(f"{name} {value}" for name, value in rules.items()), quote=True),
        title=escape(title or "Attention Explorer"),
        style=style,
        about=escape(" · ".join(shorten_text(text) for text in shown.describe())),
        prompt=_prompt_paragraph(shown),
        statistics="".join(
            f'<option value="{measure.name}">{escape(measure.title)}</option>'
            for measure in measures
        ),
        layers=_options(shown.captures),
        heads=_options(range(shown.first.num_heads)),
        last=escape(_last_block(shown.first)),
        maps="" if shown.has_maps else " hidden",
        data="\n".join(data),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _prompt_paragraph(shown: _Shown) -> str:
    prompt = shorten_text(shown.first.prompt, _PROMPT_LENGTH) if shown.runs == 1 else ""
    return f'<p class="prompt">{escape(prompt)}</p>\n' if prompt else ""


def _data_element(name: str, content: bytes) -> str:
    return f'<script type="application/octet-stream" id="{name}">{compress_text(content)}</script>'


def _options(numbers: Iterable[int]) -> str:
    return "".join(f'<option value="{number}">{number}</option>' for number in numbers)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
