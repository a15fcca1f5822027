"""Names of heads, and captures -> one figure of those heads, for a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from string import ascii_lowercase
from typing import Any, Literal, get_args

import altair as alt

from headgrid.capture.form import expect_alike
from headgrid.capture.model import Capture, expect_capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts import labels, scales
from headgrid.charts.axes import Records, Stack, describe_range, fill, finish_chart
from headgrid.charts.heatmap import as_vectors
from headgrid.charts.look import Look, fit_maps, fit_profiles
from headgrid.charts.panels import Panels, draw_maps, map_size
from headgrid.charts.profiles import draw_profiles, profile_gap, shared_domain, value_extent
from headgrid.charts.tiles import pool_factor
from headgrid.errors import CaptureError, OptionError, check_choice, near_miss
from headgrid.options import (
    CellsName,
    ColorRange,
    ColorRule,
    FigureOptions,
    FontName,
    PaletteName,
    ThemeName,
)
from headgrid.tables.ranges import resolve_color_range
from headgrid.text import shorten_list, shorten_text

PickFigure = Literal["heatmap", "perhead", "both"]
PICK_FIGURES: tuple[str, ...] = get_args(PickFigure)

_HEAD = re.compile(r"(?:(?P<run>.+)/)?(?P<layer>\d{1,9}):(?P<head>\d{1,9})")
#: Average width of a bold letter, as a share of its size: measured on Liberation Sans.
_LETTER = 0.6


@dataclass(frozen=True)
class HeadName:
    """Which head is meant: ``layer:head``, or ``run/layer:head`` where there are several runs."""

    layer: int
    head: int
    run: str = ""

    @classmethod
    def read(cls, text: object) -> HeadName:
        """Read ``3:0`` or ``run_002/28:2``.

        Raises
        ------
        OptionError
            For anything else.

        Examples
        --------
        >>> HeadName.read("run_002/28:2")
        HeadName(layer=28, head=2, run='run_002')
        """
        found = _HEAD.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            shown = shorten_text(str(text), 40)
            raise OptionError(
                f"head is {shown!r}, expected LAYER:HEAD or RUN/LAYER:HEAD, as in 3:0 or "
                "run_002/28:2"
            )
        return cls(int(found["layer"]), int(found["head"]), found["run"] or "")

    def __str__(self) -> str:
        run = f"{self.run}/" if self.run else ""
        return f"{run}{self.layer}:{self.head}"


@dataclass(frozen=True)
class Source:
    """A capture that can be asked for: its place and layer, and what loads it.

    ``place`` is the run, or the path that ends with it (``SET/run_002``).
    """

    place: str
    layer: int
    load: Callable[[], Capture]

    def is_of(self, run: str) -> bool:
        """Return whether a run's name, or the end of its path, means this one."""
        return not run or self.place == run or self.place.endswith(f"/{run}")


def pick(
    captures: Iterable[Capture],
    heads: str | Iterable[str],
    *,
    figure: PickFigure = "heatmap",
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorRule | tuple[float, float] | ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
) -> alt.TopLevelMixin:
    """Draw chosen heads of one or several captures side by side, on one scale, with letters.

    Parameters
    ----------
    captures : iterable of Capture
        With the same statistic and frames.
    heads : str or iterable of str
        ``"3:0"`` (layer 3, head 0) or ``"run_002/28:2"``, in the order of the panels.
    figure : {"heatmap", "perhead", "both"}
        Maps, profiles, or both in paired rows.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`: ``theme="paper"`` and ``width="13.97cm"`` make a figure for
        a paper. A rule for the color range is applied to the chosen heads together.

    Returns
    -------
    altair.FacetChart or altair.VConcatChart

    Raises
    ------
    CaptureError
        Where a head does not exist (the text names the nearest that does), is in
        several runs, or where captures do not go together.
    OptionError
        For an unknown option, or a head that is not written so.

    Examples
    --------
    >>> capture = Capture.from_array([[[4.0, 0.0], [3.0, 1.0]]] * 2, layer=3)
    >>> chart = pick([capture], ["3:1", "3:0"])
    >>> chart.to_dict()["usermeta"]["headgrid"]["panels"]
    ['(a) layer 3, head 1, sink n/a', '(b) layer 3, head 0, sink n/a']
    """
    check_choice("figure", figure, PICK_FIGURES)
    listed = [captures] if isinstance(captures, Capture) else list(captures)
    for capture in listed:
        expect_capture(capture)
    if not listed:
        raise CaptureError("there is no capture to pick from, expected at least one")
    sources = [Source(c.run, c.layer_index, partial(_itself, c)) for c in listed]
    names = [HeadName.read(head) for head in ([heads] if isinstance(heads, str) else heads)]
    return draw_pick(
        select_heads(sources, names),
        figure,
        FigureOptions(columns, palette, color_range, title, cells, theme, font, width),
    )


def _itself(capture: Capture) -> Capture:
    return capture


def select_heads(sources: Sequence[Source], names: Sequence[HeadName]) -> list[tuple[Capture, int]]:
    """Return the captures and heads that are meant, each capture loaded once.

    Raises
    ------
    CaptureError
        Where a head does not exist, or is in several runs.
    """
    if not names:
        raise OptionError("no head is named, expected at least one, as in 3:0 or run_002/28:2")
    loaded: dict[int, Capture] = {}
    chosen = []
    for name in names:
        position = sources.index(_find_source(sources, name))
        if position not in loaded:
            loaded[position] = sources[position].load()
        capture = loaded[position]
        if name.head >= capture.num_heads:
            nearest = replace(name, head=capture.num_heads - 1)
            raise CaptureError(
                f"{capture.source}: there is no head {name.head} in layer {name.layer}, which has "
                f"heads 0 to {capture.num_heads - 1}; did you mean {nearest}?"
            )
        chosen.append((capture, name.head))
    return chosen


def _find_source(sources: Sequence[Source], name: HeadName) -> Source:
    of_run = [source for source in sources if source.is_of(name.run)]
    if not of_run:
        places = list(dict.fromkeys(source.place for source in sources))
        shown = shorten_list([shorten_text(place, 60) or "(no run)" for place in places])
        known = [place for place in places if place]
        short = [place.rpartition("/")[2] for place in known]
        hint = near_miss(name.run, known if "/" in name.run else [*dict.fromkeys(short)])
        raise CaptureError(
            f"{shorten_text(str(name), 80)}: there is no run of that name, expected one of "
            f"{shown}{hint}"
        )
    found = [source for source in of_run if source.layer == name.layer]
    if not found:
        layers = sorted({source.layer for source in of_run})
        nearest = min(layers, key=lambda layer: (abs(layer - name.layer), layer))
        raise CaptureError(
            f"{name}: there is no layer {name.layer}, expected one of {shorten_list(layers)}; did "
            f"you mean {replace(name, layer=nearest)}?"
        )
    if len(found) > 1:
        places = sorted({source.place for source in found})
        if len(places) == 1:
            raise CaptureError(
                f"{name}: {len(found)} captures are of that run and layer, expected one; give one "
                "of them"
            )
        example = replace(name, run=places[0])
        shown = shorten_list([shorten_text(place, 60) for place in places])
        raise CaptureError(
            f"{name} is in {len(places)} runs ({shown}), expected one; name the run, as in "
            f"{shorten_text(str(example), 80)}"
        )
    return found[0]


def draw_pick(
    heads: Sequence[tuple[Capture, int]], figure: PickFigure, options: FigureOptions
) -> alt.TopLevelMixin:
    """Draw chosen heads with options that are built already."""
    captures = list({id(capture): capture for capture, _ in heads}.values())
    expect_alike(
        captures,
        "captures of one figure to share it; draw them separately",
        ["statistic", "query_frames", "key_frames"],
    )
    chosen = _Chosen(heads, captures, min(options.columns, len(heads)), options)
    chart, records, spacing, look = chosen.draw(figure)
    title = [] if options.title is None else labels.group_title(options.title, captures, 90)
    caption, meta = chosen.describe(figure)
    drawn: alt.TopLevelMixin = finish_chart(
        chart, records, title, caption, spacing, meta, look, options.points
    )
    return drawn


@dataclass(frozen=True)
class _Chosen:
    """The heads of a figure, and how they are arranged."""

    heads: Sequence[tuple[Capture, int]]
    captures: list[Capture]
    columns: int
    options: FigureOptions

    @cached_property
    def color_range(self) -> ColorRange:
        return resolve_color_range(self.options.color_range, [self._panels(Look())])

    def draw(self, figure: PickFigure) -> tuple[Any, Records | None, Any, Look]:
        """Return the chart, its data, the gaps between panels and the look."""
        if figure == "perhead":
            look = replace(fit_profiles(self.options, self.columns), shared_values=True)
            panels = self._panels(look, look.profile_width, look.profile_title)
            chart, records = draw_profiles(panels, look)
            gaps = {"row": look.profile_row_gap, "column": profile_gap(panels, look)}
            return chart, records, gaps, look
        first = self.captures[0]
        across = -(-len(first.key_frames) // pool_factor(len(first.key_frames)))
        look = replace(fit_maps(self.options, self.columns, across), shared_values=True)
        panels = self._panels(look, look.map_panel, look.map_title)
        palette = scales.palette_for(first.statistic, self.options.palette)
        scale = scales.ColorScale(self.color_range, palette)
        count = sum(capture.head_visible(head) for capture, head in self.heads)
        vectors = as_vectors(
            f"{first.source}: the figure", self.captures, count, self.options.cells
        )
        if figure == "both":
            return self._pair(panels, scale, look, vectors), None, look.stack_gap, look
        chart, records = draw_maps(panels, scale, look, vectors=vectors)
        return chart, records, {"row": look.map_row_gap, "column": look.map_column_gap}, look

    def _pair(self, panels: Panels, scale: scales.ColorScale, look: Look, vectors: bool) -> Stack:
        """Return rows of maps, each with the profiles of the same heads under it."""
        rows = []
        # The gaps of the maps, so that both stand in the same columns.
        look = replace(look, profile_width=float(map_size(panels.first, look)[0]))
        panels = replace(
            panels,
            extent=value_extent(panels, look),
            value_domain=shared_domain(panels, look),
        )
        for start in range(0, len(self.heads), self.columns):
            row = panels.part(start, start + self.columns)
            below = len(self.heads[start + self.columns : start + 2 * self.columns])
            maps, records = draw_maps(
                replace(row, has_keys=not look.border_axes),
                scale,
                look,
                vectors=vectors,
                legend=start == 0,
            )
            lower = replace(
                row.with_labels(self._sinks(row)),
                below=below,
                has_keys=not look.border_axes or below < len(row.heads),
            )
            profiles, values = draw_profiles(lower, look)
            gap = max(look.map_column_gap, profile_gap(panels, look))
            for grid, data in ((maps, records), (profiles, values)):
                rows.append(fill(grid.properties(spacing=gap, bounds="flush"), data))
        return Stack(vconcat=rows)

    def _sinks(self, row: Panels) -> list[str]:
        return [f"sink={labels.sink_texts(capture)[head]}" for capture, head in row.heads]

    def _panels(self, look: Look, width: float = 0, size: float = 1) -> Panels:
        """Return the panels with the longest labels that fit into so many units of width."""
        forms = list(zip(*map(self._names, range(len(self.heads))), strict=True))
        fitting = (names for names in forms if max(map(len, names)) * _LETTER * size <= width)
        names = next(fitting, forms[-1])  # one form for all panels
        label = f"{json.dumps(names)}[datum.value]"
        return Panels(tuple(self.heads), label, self.columns, "panel", tuple(names))

    def _names(self, number: int) -> list[str]:
        """Return what a panel may be called, the longest name first."""
        capture, head = self.heads[number]
        letter, layer = f"({_letter(number)})", capture.layer_index
        runs = {capture.run for capture, _ in self.heads}
        run = f"{shorten_text(capture.run, 24)}, " if capture.run and len(runs) > 1 else ""
        long = f"{letter} {run}Layer {layer}, Head {head}"
        short = f"{letter} {run.replace(',', '')}L{layer} H{head}"
        return [long, short, f"{letter} L{layer} H{head}", letter]

    def describe(self, figure: PickFigure) -> tuple[str, dict[str, Any]]:
        """Return the caption, and what ``usermeta`` says."""
        statistic = self.captures[0].statistic
        panels = [
            f"({_letter(number)}) {_describe(capture, head)}"
            for number, (capture, head) in enumerate(self.heads)
        ]
        meta: dict[str, Any] = {"figure": "pick", "statistic": statistic, "panels": panels}
        text = f"{STATISTICS[statistic].title}: {'; '.join(panels)}."
        if figure != "perhead":
            low, high, rule = self.color_range.low, self.color_range.high, self.color_range.rule
            meta |= describe_range(self.color_range)
            text += f" One color range for all maps, {low:g} to {high:g} ({rule})."
        if figure != "heatmap":
            text += " Profiles: mean over the last block's queries, by key frame, on one axis."
        return text, meta


def _describe(capture: Capture, head: int) -> str:
    run = f"{shorten_text(capture.run, 60)}, " if capture.run else ""
    sink = labels.sink_texts(capture)[head]
    return f"{run}layer {capture.layer_index}, head {head}, sink {sink}"


def _letter(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ...

    >>> _letter(0), _letter(25), _letter(26)
    ('a', 'z', 'aa')
    """
    rest, last = divmod(number, 26)
    return (_letter(rest - 1) if rest else "") + ascii_lowercase[last]
