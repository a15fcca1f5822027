"""Names of heads, and captures -> one figure of those heads, for a paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Any, Literal, get_args

import altair as alt

from headgrid.capture.form import AXES, expect_alike
from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.charts.axes import Look, fit_maps
from headgrid.charts.bands import tell_segments
from headgrid.charts.frames import tell_gaps
from headgrid.charts.grids import Stack
from headgrid.charts.heatmap import as_vectors
from headgrid.charts.panels import Panels, draw_maps, map_size
from headgrid.charts.profiles import (
    draw_profiles,
    fit_grid,
    profile_gap,
    sink_texts,
    value_extent,
    value_limits,
)
from headgrid.charts.scales import ColorScale, find_scale
from headgrid.charts.spec import Records, fill, finish_chart, write_title
from headgrid.errors import CaptureError, OptionError, check_choice, near_miss
from headgrid.options import (
    CellsName,
    ColorChoice,
    FigureOptions,
    FontName,
    PaletteName,
    ThemeName,
    ValueAxisName,
)
from headgrid.tables.stats import each_capture
from headgrid.text import measure_text, shorten_list, shorten_text

PickFigure = Literal["heatmap", "perhead", "both"]
PICK_FIGURES: tuple[str, ...] = get_args(PickFigure)

_HEAD = re.compile(r"(?:(?P<run>.+)/)?(?P<layer>\d{1,9}):(?P<head>\d{1,9})")


@dataclass(frozen=True)
class HeadName:
    """Which head is meant: ``layer:head``, or ``run/layer:head`` where there are several runs."""

    layer: int
    head: int
    run: str = ""

    @classmethod
    def read(cls, text: object) -> HeadName:
        """Read ``3:0`` or ``run_002/28:2``."""
        found = _HEAD.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise OptionError(
                f"head is {shorten_text(str(text), 40)!r}, expected LAYER:HEAD or RUN/LAYER:HEAD, "
                "as in 3:0 or run_002/28:2"
            )
        return cls(int(found["layer"]), int(found["head"]), found["run"] or "")

    def is_in(self, place: str) -> bool:
        """Return whether its run, a name or the end of a path, means a place; without one, any."""
        return not self.run or place == self.run or place.endswith(f"/{self.run}")

    def __str__(self) -> str:
        run = f"{self.run}/" if self.run else ""
        return f"{run}{self.layer}:{self.head}"


@dataclass(frozen=True)
class Source:
    """A capture that can be asked for: its place and layer, and what loads it."""

    place: str  # the run, or the path that ends with it (SET/run_002)
    layer: int
    load: Callable[[], Capture]


def pick(
    captures: Iterable[Capture],
    heads: str | Iterable[str],
    *,
    figure: PickFigure = "heatmap",
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
    value_axis: ValueAxisName = "shared",
    marks: str | Sequence[int | str] = (),
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
    columns, palette, color_range, title, cells, theme, font, width, value_axis, marks
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
    listed = list(each_capture(captures))
    if not listed:
        raise CaptureError("there is no capture to pick from, expected at least one")
    sources = [Source(c.run, c.layer_index, lambda c=c: c) for c in listed]  # type: ignore[misc]
    names = [HeadName.read(head) for head in ([heads] if isinstance(heads, str) else heads)]
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    options = replace(options, value_axis=value_axis, marks=marks)
    return draw_pick(select_heads(sources, names), figure, options)


def select_heads(sources: Sequence[Source], names: Sequence[HeadName]) -> list[tuple[Capture, int]]:
    """Return the captures and heads that are meant, each capture loaded once."""
    if not names:
        raise OptionError("no head is named, expected at least one, as in 3:0 or run_002/28:2")
    loaded: dict[Source, Capture] = {}
    chosen = []
    for name in names:
        source = _find_source(sources, name)
        if source not in loaded:
            loaded[source] = source.load()
        capture = loaded[source]
        if name.head >= capture.num_heads:
            nearest = replace(name, head=capture.num_heads - 1)
            raise CaptureError(
                f"{capture.source}: there is no head {name.head} in layer {name.layer}, which has "
                f"heads 0 to {capture.num_heads - 1}; did you mean {nearest}?"
            )
        chosen.append((capture, name.head))
    return chosen


def _find_source(sources: Sequence[Source], name: HeadName) -> Source:
    of_run = [source for source in sources if name.is_in(source.place)]
    if not of_run:
        places = list(dict.fromkeys(source.place for source in sources))
        known = places if "/" in name.run else [place.rpartition("/")[2] for place in places]
        hint = near_miss(name.run, [*dict.fromkeys(filter(None, known))])
        raise CaptureError(
            f"{shorten_text(str(name), 80)}: there is no run of that name, expected one of "
            f"{_list_places(places)}{hint}"
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
        example = shorten_text(str(replace(name, run=places[0])), 80)
        raise CaptureError(
            f"{name}: {len(found)} captures are of that run and layer, expected one; give one of "
            "them"
            if len(places) == 1
            else f"{name} is in {len(places)} runs ({_list_places(places)}), expected one; name "
            f"the run, as in {example}"
        )
    return found[0]


def _list_places(places: Sequence[str]) -> str:
    return shorten_list([shorten_text(place, 60) or "(no run)" for place in places])


def draw_pick(
    heads: Sequence[tuple[Capture, int]], figure: PickFigure, options: FigureOptions
) -> alt.TopLevelMixin:
    """Draw chosen heads with options that are built already."""
    captures = list(dict.fromkeys(capture for capture, _ in heads))
    purpose = "captures of one figure to share it; draw them separately"
    expect_alike(captures, purpose, ["statistic", *AXES])
    first, statistic = captures[0], captures[0].statistic
    columns = min(options.columns, len(heads))
    options = replace(options, value_axis=options.value_axis or "shared")
    panels = Panels(tuple(heads), [], columns, marks=options.marks)
    letters = [f"({_letter(n)}) " for n in range(len(heads))] if len(heads) > 1 else [""]
    listed = [
        f"{letter}{f'{shorten_text(capture.run, 60)}, ' if capture.run else ''}"
        f"layer {capture.layer_index}, head {head}, sink {sink_texts(capture)[head]}"
        for letter, (capture, head) in zip(letters, heads, strict=True)
    ]
    meta: dict[str, Any] = {"figure": "pick", "statistic": statistic, "panels": listed}
    caption = f"{STATISTICS[statistic].title}: {'; '.join(listed)}."
    chart: alt.TopLevelMixin
    records: Records | None
    if figure == "perhead":
        look = fit_grid(options, panels)
        panels = _name_panels(panels, letters, look)
        chart, records = draw_profiles(panels, look)
    else:
        count = sum(capture.head_visible(head) for capture, head in heads)
        vectors = as_vectors(f"{first.source}: the figure", first, count, options.cells)
        look = fit_maps(options, columns, first, vectors=vectors)
        scale = find_scale([panels], options, heads, "panel")
        panels = _name_panels(panels, letters, look, scale)
        meta |= scale.meta
        of = "Color range" if scale.units else "One color range for all maps,"
        caption += f" {of} {scale.text}."
        draw = draw_maps if figure == "heatmap" else _draw_pairs
        chart, records = draw(panels, scale, look, vectors=vectors)
    if figure != "heatmap":
        axis = first.key_axis.noun + (", on one axis" if look.shared_values else "")
        caption += f" Profiles: mean over the last block's queries, by key {axis}."
    broken = tell_gaps(query=first.query_axis, key=first.key_axis)
    caption = " ".join(filter(None, (caption, broken, tell_segments(first))))
    title = write_title(options, look, [], captures, 90)
    return finish_chart(chart, records, look, title=title, caption=caption, meta=meta)


def _draw_pairs(
    panels: Panels, scale: ColorScale, look: Look, *, vectors: bool
) -> tuple[Stack, None]:
    """Draw rows of maps, each with the profiles of the same heads under it."""
    # The gaps of the maps, so that both stand in the same columns.
    look = replace(look, profile_width=float(map_size(panels.first, look)[0]))
    # One axis for all rows.
    domain = value_limits(panels, look)[0] if look.shared_values else None
    panels = replace(panels, extent=value_extent(panels, look), value_domain=domain)
    gap = max(look.map_column_gap, profile_gap(panels, look))
    columns, rows = panels.columns, []
    for start in range(0, len(panels.heads), columns):
        row = panels.part(start, start + columns)
        below = len(panels.part(start + columns, start + 2 * columns).heads)
        upper = replace(row, below=len(row.heads))
        names = [f"sink={sink_texts(capture)[head]}" for capture, head in row.heads]
        lower = replace(row, names=names, below=below)
        own = scale.part(start, start + columns)
        maps, records = draw_maps(upper, own, look, vectors=vectors, legend=start == 0)
        profiles, values = draw_profiles(lower, look)
        for grid, data in ((maps, records), (profiles, values)):
            rows.append(fill(grid.properties(spacing=gap, bounds="flush"), data))
    return Stack(vconcat=rows, spacing=look.stack_gap), None


def _name_panels(
    panels: Panels, letters: list[str], look: Look, scale: ColorScale | None = None
) -> Panels:
    """Return the panels with the longest names that fit: of maps, where there is a scale."""
    width, size, gap = look.map_panel, look.map_title, min(look.map_column_gap, 2 * look.bar_offset)
    if scale is None:  # what stands beside the last panel is the margin of the page
        width, size = look.profile_width, look.profile_title
        gap = min(look.profile_column_gap, 2 * look.padding)
    width += 0 if look.inside_labels else gap - size / 2
    shown = [(capture.run, capture.layer_index, head) for capture, head in panels.heads]
    several = len({run for run, *_ in shown}) > 1
    named = [(shorten_text(run, 24) if several else "", n, h) for run, n, h in shown]
    forms = [
        [f"{run and f'{run}, '}Layer {n}, Head {h}" for run, n, h in named],
        [f"{run and f'{run} '}L{n} H{h}" for run, n, h in named],
        [f"L{n} H{h}" for _, n, h in named],
    ]
    labels = [
        [f"{letter}{name}" for letter, name in zip(letters, names, strict=True)]
        for names in forms
        if len({*names}) == len({*shown})  # else some would read alike
    ]
    last = [letter.strip() or name for letter, name in zip(letters, forms[-1], strict=True)]
    if scale is not None:
        last, *labels = (scale.names(names, panels.absent) for names in (last, *labels))
    # Bold type of names takes 3 % more, of prose 10 %.
    fitting = (names for names in labels if max(map(measure_text, names)) * 1.1 * size <= width)
    return replace(panels, names=next(fitting, last))  # one form for all panels


def _letter(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    rest, last = divmod(number, 26)
    return (_letter(rest - 1) if rest else "") + ascii_lowercase[last]
