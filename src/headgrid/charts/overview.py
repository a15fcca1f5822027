"""A table across layers and runs -> the overview: one measure as a matrix of layers and heads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from headgrid.capture.axis import Axis
from headgrid.capture.form import expected_layers
from headgrid.capture.quantiles import QuantileSketch
from headgrid.charts import axes
from headgrid.charts.axes import INK, UNSEEN_COLOR, Look, color_channel, find_look, panel_width
from headgrid.charts.panels import CELLS, facet_panels
from headgrid.charts.scales import ColorScale, find_scale
from headgrid.charts.spec import finish_chart, write_title
from headgrid.errors import CaptureError, check_choice
from headgrid.options import CellsName, ColorChoice, FigureOptions, FontName, PaletteName, ThemeName
from headgrid.survey.model import Survey, expect_survey
from headgrid.survey.roles import role_votes
from headgrid.tables.measures import MEASURES, Summary
from headgrid.tables.tidy import round_values
from headgrid.text import shorten_text

SET_GAP = 24
_MEAN = "mean"  # the place of marginal means on an axis
_MOST_TEXTS, _SMALLEST_TEXT = 4_000, 6


def overview(
    survey: Survey,
    statistic: str = "sink",
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorChoice = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
    roles: pd.DataFrame | None = None,
) -> alt.FacetChart:
    """Draw one measure of every head of every layer as a matrix, with marginal means.

    Parameters
    ----------
    survey : Survey
        From `headgrid.survey`.
    statistic : str
        One of the measures of `headgrid.tables.measures.MEASURES`.
    columns, palette, color_range, title, cells, theme, font, width
        See `FigureOptions`.
    roles : DataFrame, optional
        Of `headgrid.head_roles` or `headgrid.role_votes`, which outline the cells.

    Returns
    -------
    altair.FacetChart
        Layers down, heads across; mean over runs, in the colour and as a number; the
        last column is the mean over a layer's heads, the last row that over a head's
        layers. Sets stand side by side.

    Raises
    ------
    OptionError
        For an unknown measure or option.
    CaptureError
        Where no head has the measure, and for roles of heads that the survey has not.

    Examples
    --------
    >>> from headgrid import Capture, survey
    >>> rows = [[[3.0, 1.0, 1.0, 0.0]], [[5.0, 1.0, 1.0, 0.0]]]
    >>> found = survey([Capture.from_array(last_block=r, layer=n) for n, r in enumerate(rows)])
    >>> overview(found).to_dict()["usermeta"]["headgrid"]["color_range"]
    [-4.0, 4.0]
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    summary = summarise(survey, statistic)
    return draw_overview(summary, options, layers=survey.layers, roles=roles)


def draw_overview(
    summary: Summary,
    options: FigureOptions,
    *,
    layers: Sequence[int] | None = None,
    roles: pd.DataFrame | None = None,
    change: str = "",
) -> alt.FacetChart:
    """Draw the overview of a summary with options that are built already.

    ``layers`` are the rows, where not given those of the summary; ``change`` follows titles of
    differences.
    """
    expect_values(summary)
    table, name, names = summary.table, summary.name, list[str]()
    values = table.loc[table["head"].notna(), "mean"].dropna().to_numpy()
    ends = float(values.min()), float(values.max())
    like = "logit" if change or summary.diverges else "mass"
    scale = find_scale([_Values(ends, QuantileSketch.of(values), like)], options)
    heads = sorted(int(head) for head in table["head"].dropna().unique())
    rows = [int(n) for n in (layers if layers is not None else sorted(table["layer"].unique()))]
    look, title = find_look(options), summary.title + change
    sets = table["set"].nunique()
    width = set_width(options, sets)
    table = _with_margins(table)
    if roles is not None:
        table, names = _with_roles(table, role_votes(roles))
    matrix = _Matrix(name, title, rows, heads, scale, look, ends, sets, width, names)
    return finish_summary(
        matrix.draw(),
        summary._replace(table=table),
        options,
        {"figure": "overview", **scale.meta},
        by=f"Layer and Head{change}",
        layers=rows,
        what=", layer x head",
        caption=f"Color range {scale.text}. The last column is the mean over a layer's heads, the "
        "last row the mean over a head's layers; grey and blank cells have no value."
        + (" The outline of a cell is the role that most runs give to the head." if names else ""),
    )


class _Values(NamedTuple):
    """Numbers that a colour rule is applied to."""

    value_range: tuple[float, float]
    value_sketch: QuantileSketch
    statistic: str


@dataclass(frozen=True)
class _Matrix:
    """The overview's panel: a cell for each layer and head, and the margins."""

    name: str
    title: str
    layers: list[int]
    heads: list[int]
    scale: ColorScale
    look: Look
    values: tuple[float, float]
    sets: int
    width: float | None  # the colour bar stands below where one is wanted, to leave room for cells
    roles: list[str]  # that cells are outlined with

    @property
    def _cell(self) -> tuple[int, int]:
        return cell_of(len(self.heads) + 1.3, len(self.layers) + 1.3, self.look, self.width)

    def draw(self) -> alt.LayerChart | alt.FacetChart:
        (width, height), known = self._cell, f"isValid(datum.{self.name})"
        rest: Any = (self.look, [_MEAN])
        x = axis_of(alt.X("column:N"), self.heads, width, *rest, offset=apart_gap(height))
        y = axis_of(alt.Y("row:N"), self.layers, height, *rest, offset=0)
        across, down = width * (len(self.heads) + 1), height * (len(self.layers) + 1)
        # The means stand a little apart. They lie on no grid of whole cells then.
        apart: dict[str, Any] = {
            "xOffset": {"expr": f"isValid(datum.head)?0:{apart_gap(width)}"},
            "yOffset": {"expr": f"isValid(datum.layer)?0:{apart_gap(height)}"},
        }
        base = alt.Chart().encode(x=x, y=y)
        color = base.transform_filter(known)
        color = color.transform_calculate(color=self.scale.expression(self.name)).encode(
            color=self._color(across + apart_gap(width), down + apart_gap(height)),
            tooltip=["set:N", "layer:O", "head:O", f"{self.name}:Q", "std:Q", "runs:Q"],
        )
        inner = "isValid(datum.head)&&isValid(datum.layer)"
        layers = [
            base.mark_rect(fill=UNSEEN_COLOR, aria=False, **apart).transform_filter(f"!{known}"),
            color.mark_rect(aria=False).transform_filter(inner).properties(name=CELLS),
            color.mark_rect(aria=False, **apart)
            .transform_filter(f"!({inner})")
            .properties(name=f"means_{CELLS}"),
            *(self._outlines(base) if self.roles else []),
            *self._numbers(base, known, apart),
        ]
        size = {"width": across, "height": down}
        return alt.layer(*layers).properties(**size, view=alt.ViewBackground(stroke=None))

    def _outlines(self, base: alt.Chart) -> list[alt.Chart]:
        """Return a frame inside each cell in the colour of its role, with a white one in it."""
        line, key = min(1.2, min(self._cell) / 11), {"symbolFillColor": "transparent"}
        color, marks = axes.role_channel(alt.Stroke("role:N"), self.roles, self.look, **key), []
        for inset, wide, stroke in ((2.4, 0.4, alt.value("white")), (1.0, 1.0, color)):
            width, height = ({"band": 1 - inset * line / length} for length in self._cell)
            mark: dict[str, Any] = {"width": width, "height": height, "strokeWidth": wide * line}
            marks.append(base.mark_rect(filled=False, aria=False, **mark).encode(stroke=stroke))
        return [mark.transform_filter("isValid(datum.role)") for mark in marks]

    def _color(self, across: float, down: float) -> Any:
        """Return the color channel, its bar beside the cells or below those of all sets."""
        gaps = (self.sets - 1) * (SET_GAP + self.look.left_room)
        length, below = self.sets * across + gaps if self.width else down, bool(self.width)
        bar: Any = (self.scale, self.title, self.values, length, self.look)
        color = color_channel(alt.Color("color:Q"), *bar, below=below)
        color["legend"]["offset"] = self.look.bar_offset + apart_gap(self._cell[0])
        return color

    def _numbers(self, base: alt.Chart, known: str, apart: dict[str, Any]) -> list[alt.Chart]:
        """Return the value in each cell, with all decimals that fit, white where it is dark."""
        (width, height), ends = self._cell, self.values
        many = (len(self.heads) + 2) * (len(self.layers) + 2) > _MOST_TEXTS
        largest = max(map(abs, ends))
        styles = (".3f", ".2f") if largest < 1 else (".2f", ".1f")  # no 0 for 0.3
        styles = (".1e", ".0e") if 0 < largest < 0.05 else styles
        sizes = {min(self.look.tick_label, height - 2), _SMALLEST_TEXT, _SMALLEST_TEXT - 0.5}
        fitting = [
            (style, size)
            for style in styles
            for size in sorted(sizes, reverse=True)
            if max(_letters(format(end, style)) for end in ends) * size <= width - 1.4
        ]
        if height < _SMALLEST_TEXT + 2 or many or not fitting:
            return []
        limits = zip(("<", ">="), self.scale.dark_beyond(), strict=True)
        tests = [f"datum.{self.name}{sign}{end!r}" for sign, end in limits if np.isfinite(end)]
        ink, white = alt.value(INK), alt.value("white")
        style, size = fitting[0]
        numbers = base.mark_text(fontSize=size, aria=False, **apart).transform_filter(known)
        text = alt.Text(f"{self.name}:Q", format=style)
        color = alt.condition("||".join(tests), white, ink) if tests else ink
        return [numbers.encode(text=text, color=color)]


def cell_of(columns: float, rows: float, look: Look, wanted: float | None) -> tuple[int, int]:
    """Return width and height of a cell in whole points, smaller where there are many."""
    widest, highest = (20, 9) if look.border_axes else (28, 14)
    width, height = round((1400 if wanted is None else wanted) / columns), round(1400 / rows)
    return max(3, min(widest, width) if wanted is None else width), max(3, min(highest, height))


def axis_of(
    channel: Any, numbers: list[int], size: int, look: Look, apart: list[str], **more: Any
) -> Any:
    """Give a channel an axis with the numbers that fit, its title over these, and what is apart."""
    heads = isinstance(channel, alt.X)
    step = max(1, -(-int(look.tick_label * (2.2 if heads else 1.15)) // size))
    test = "||".join(f"datum.value=={name!r}" for name in apart) or "false"
    moved = {"condition": {"test": test, "value": apart_gap(size)}, "value": 0}
    more |= {"titleX" if heads else "titleY": size * len(numbers) / 2}
    domain, ticks = ([*map(str, part), *apart] for part in (numbers, numbers[::step]))
    plain: dict[str, Any] = {"labelAngle": 0, "labelOverlap": False, "ticks": False, "zindex": 0}
    scaled = channel.title("Head" if heads else "Layer")
    scaled = scaled.scale(domain=domain, paddingInner=0, paddingOuter=0)
    return scaled.axis(values=ticks, labelOffset=moved, **plain, **more)


def apart_gap(size: int) -> int:
    """Return the gap before cells that stand apart, in points, whole as the cells are."""
    return min(8, max(3, size // 3))


def _letters(number: str) -> float:
    """Return the width of a number as a share of its size, in Arial."""
    return 0.556 * len(number) - 0.278 * number.count(".") + 0.028 * number.count("-")


def set_width(options: FigureOptions, sets: int = 1) -> float | None:
    """Return what a wanted width leaves for the panel of each set; None without one."""
    if options.points is None:
        return None
    look = find_look(options)
    fixed = sets * look.left_room + (sets - 1) * SET_GAP + 2 * look.padding
    return panel_width(options.points, fixed, sets, 60)


def summarise(survey: Survey, measure: str) -> Summary:
    """Return the summary of a measure, after a look at what was given."""
    check_choice("statistic", measure, MEASURES)
    expect_survey(survey)
    about = survey.statistic, survey.form.key_name, survey.description
    return Summary(survey.summary(measure), measure, *about)


def expect_values(summary: Summary) -> None:
    """Refuse a summary in which no head has the measure."""
    if not summary.table["mean"].notna().any():
        raise CaptureError(
            f"{summary.name} has no value in any head, as the captures hold {summary.statistic}; "
            "expected a measure that they have (entropy and effective_keys need masses, a sink "
            f"score key {Axis(summary.key_name, ()).noun} 0 and three visible keys)"
        )


def _with_margins(summary: pd.DataFrame) -> pd.DataFrame:
    """Add the means over layers: of each head, and of the layers' means."""
    heads = summary.groupby(["set", "head"], dropna=False, sort=False, as_index=False)
    margins = heads.agg({"mean": "mean", "runs": "max"}).assign(layer=None, std=np.nan)
    margins = margins[summary.columns].astype(summary.dtypes)
    return pd.concat([summary, margins], ignore_index=True)


def _with_roles(table: pd.DataFrame, votes: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Add the role of each head, and return the roles; refuse those of other heads."""
    places, names = ["set", "layer", "head"], [*votes["role"].cat.categories]
    known = votes.dropna(subset="role").astype({"layer": "Int64", "head": "Int64", "role": object})
    lacking = known.merge(table, how="left", on=places, indicator=True).query("_merge!='both'")
    for row in lacking[:1].itertuples():
        raise CaptureError(
            f"roles tell of set {row.set!a}, layer {row.layer}, head {row.head}, expected heads of "
            "the survey; make them with headgrid.head_roles of the same survey"
        )
    return table.merge(known[[*places, "role"]], how="left", on=places), names


def finish_summary(
    panel: Any,
    summary: Summary,
    options: FigureOptions,
    meta: dict[str, Any],
    *,
    by: str,
    layers: Sequence[int],
    what: str,
    caption: str,
) -> alt.FacetChart:
    """Finish a figure of a measure: what it draws of it, by what, and what else there is to say."""
    table, name, description = summary.table, summary.name, summary.description
    least, most = int(table["runs"].min()), int(table["runs"].max())
    runs = f"{most}" if least == most else f"{least} to {most}"
    found = {int(layer) for layer in table.loc[table["runs"].notna(), "layer"].dropna()}
    missing = ", ".join(str(n) for n in expected_layers([*layers, *found]) if n not in found)
    caption += f" Missing layers: {missing}." if missing else ""
    named = {name: "mean", "std": "std"}.items()
    values = {column: round_values(table[of].to_numpy()) for column, of in named}
    chart = finish_sets(
        panel,
        table.filter(["set", "layer", "head", "runs", "role"]).assign(**values),
        options,
        own=[f"{summary.title} by {by}", *([f"Mean over {runs} Runs"] if most > 1 else [])],
        layers=layers,
        caption=f"{summary.title} ({summary.meaning}){what}"
        f"{description and f', {description}'}. {caption}",
        meta={**meta, "measure": name, "statistic": summary.statistic},
    )
    place = "isValid(datum.{0})?''+datum.{0}:'{1}'".format
    return chart.transform_calculate(column=place("head", _MEAN), row=place("layer", _MEAN))


def finish_sets(
    panel: Any,
    table: pd.DataFrame,
    options: FigureOptions,
    *,
    own: Sequence[str],
    layers: Sequence[int],
    caption: str,
    meta: Mapping[str, Any],
) -> alt.FacetChart:
    """Put a panel for each set of a table side by side, with its rows as records.

    What is missing is in no record, so that it is not valid.
    """
    look, sets = find_look(options), table["set"].map(str)
    codes, names = pd.factorize(sets)
    shown = table.assign(panel=codes, set=sets.map(lambda text: shorten_text(text) or None))
    records = [
        {str(name): value for name, value in row.items() if not pd.isna(value)}
        for row in shown.to_dict("records")
    ]
    return finish_chart(
        facet_sets(panel, list(names), look, SET_GAP + look.left_room),
        records,
        look,
        title=write_title(options, look, own, [], 70, layers),
        caption=caption,
        meta=meta,
    )


def facet_sets(panel: Any, sets: Sequence[str], look: Look, gap: float = 0) -> alt.FacetChart:
    """Put a panel for each set side by side, each under its name, by the field ``panel``."""
    names = [shorten_text(name, 60) for name in sets]
    label = f"{json.dumps(names)}[datum.value]"
    bare: dict[str, Any] = {} if any(names) else {"labelPadding": 0}
    size = look.map_title if any(names) else 0
    header = alt.Header(title=None, labelExpr=label, labelFontSize=size, **bare)
    return facet_panels(panel, "panel", header, len(sets), gap)
