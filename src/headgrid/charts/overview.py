"""A table across layers and runs -> the overview: one measure as a matrix of layers and heads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import altair as alt
import numpy as np
import pandas as pd

from headgrid.capture.model import Capture
from headgrid.capture.quantiles import QuantileSketch
from headgrid.charts import labels, scales
from headgrid.charts.axes import (
    UNSEEN_COLOR,
    Grid,
    Records,
    color_channel,
    describe_range,
    finish_chart,
)
from headgrid.charts.look import INK, Look, find_look
from headgrid.errors import CaptureError, OptionError, check_choice
from headgrid.options import (
    CellsName,
    ColorRange,
    ColorRule,
    FigureOptions,
    FontName,
    PaletteName,
    ThemeName,
)
from headgrid.tables.measures import MEASURES, measure_diverges, measure_title
from headgrid.tables.ranges import resolve_color_range
from headgrid.tables.tidy import round_values
from headgrid.text import shorten_text

#: The mark that the finishing stage shortens like that of the maps.
CELLS = "headgrid_cells"
SET_GAP = 24
#: Place of the marginal means on an axis, behind an empty band.
_GAP, _MEAN = " ", "mean"
_MOST_TEXTS = 4_000
_SMALLEST_PANEL = 60


class Surveyed(Protocol):
    """What the charts read of a survey."""

    @property
    def statistic(self) -> str:
        """What the values are."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers expected in a run, missing ones included."""

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets."""

    @property
    def captures(self) -> Mapping[tuple[str, int], Capture]:
        """One capture for each set and layer: the run's, or the mean over runs."""

    @property
    def description(self) -> str:
        """How many runs, layers and heads there are."""

    def summary(self, name: str = "sink") -> pd.DataFrame:
        """Return mean and spread over runs, see `draw_overview`."""


def overview(
    survey: Surveyed,
    statistic: str = "sink",
    *,
    columns: int = 4,
    palette: PaletteName = "rdbu",
    color_range: ColorRule | tuple[float, float] | ColorRange = "symmetric",
    title: str | None = None,
    cells: CellsName = "auto",
    theme: ThemeName = "default",
    font: FontName = "sans",
    width: float | str | None = None,
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
        Where no head has the measure.

    Examples
    --------
    >>> from headgrid.survey.read import survey
    >>> rows = [[[3.0, 1.0, 1.0, 0.0]], [[5.0, 1.0, 1.0, 0.0]]]
    >>> found = survey([Capture.from_array(last_block=r, layer=n) for n, r in enumerate(rows)])
    >>> overview(found).to_dict()["usermeta"]["headgrid"]["color_range"]
    [-4.0, 4.0]
    """
    options = FigureOptions(columns, palette, color_range, title, cells, theme, font, width)
    table, about = summarise(survey, statistic), survey.description
    held, layers = survey.statistic, survey.layers
    return draw_overview(table, statistic, held, options, layers=layers, description=about)


def draw_overview(
    summary: pd.DataFrame,
    name: str,
    statistic: str,
    options: FigureOptions,
    *,
    layers: Sequence[int] | None = None,
    description: str = "",
) -> alt.FacetChart:
    """Draw the overview of a summary with options that are built already.

    A row of the summary has ``set``, ``layer``, ``head`` (missing in that of a layer's mean
    over heads), ``runs``, ``mean`` and ``std`` over runs (NaN where fewer than two). ``layers``
    are the rows of the matrix, those of the summary where not given; one without values is
    blank. ``description`` says in the caption how many runs, layers and heads there are.
    """
    expect_values(summary, name, statistic)
    table = _with_margins(summary)
    rows = list(layers if layers is not None else sorted(summary["layer"].unique()))
    heads = sorted(int(head) for head in summary["head"].dropna().unique())
    body = table[table["head"].notna() & table["layer"].notna()]
    values = body["mean"].dropna().to_numpy()
    diverging = measure_diverges(name, statistic)
    ends = float(values.min()), float(values.max())
    pooled = _Values(ends, QuantileSketch.of(values), "logit" if diverging else "mass")
    color_range = resolve_color_range(options.color_range, [pooled])
    scale = scales.ColorScale(color_range, scales.palette_for(pooled.statistic, options.palette))
    look = find_look(options)
    beside = look.bar_offset + look.bar_thickness + look.bar_room
    wanted = set_width(options, summary["set"].nunique(), beside)
    matrix = _Matrix(name, statistic, rows, heads, scale, look, pooled.value_range, wanted)
    chart = facet_sets(matrix.draw(), table, matrix.look)
    records = summary_records(table, name)
    title = summary_title(
        options, f"{measure_title(name, statistic)} by Layer and Head", rows, summary
    )
    caption = (
        f"{measure_title(name, statistic)} ({MEASURES[name].description}), layer x head"
        f"{', ' + description if description else ''}. Color range {color_range.low:g} to "
        f"{color_range.high:g} ({color_range.rule}). The last column is the mean over a layer's "
        "heads, the last row the mean over a head's layers; grey and blank cells have no value."
    )
    meta = {"figure": "overview", "measure": name, "statistic": statistic}
    return finish_chart(
        chart,
        records,
        title if matrix.look.own_title or options.title else [],
        caption,
        SET_GAP + matrix.look.left_room,
        {**meta, **describe_range(color_range)},
        matrix.look,
        options.points,
    )


@dataclass(frozen=True)
class _Values:
    """Numbers that a colour rule is applied to."""

    value_range: tuple[float, float]
    value_sketch: QuantileSketch
    statistic: str


@dataclass(frozen=True)
class _Matrix:
    """The overview's panel: a cell for each layer and head, and the margins."""

    name: str
    statistic: str
    layers: list[int]
    heads: list[int]
    scale: scales.ColorScale
    look: Look
    values: tuple[float, float]
    width: float | None = None

    @property
    def _cell(self) -> tuple[int, int]:
        """Width and height of a cell in whole points, smaller where there are many."""
        widest, highest = (20, 9) if self.look.border_axes else (28, 14)
        across = len(self.heads) + 2
        width = round((1400 if self.width is None else self.width) / across)
        height = min(highest, round(1400 / (len(self.layers) + 2)))
        return max(3, min(widest, width) if self.width is None else width), max(3, height)

    @property
    def _number_size(self) -> float:
        return min(self.look.tick_label, self._cell[1] - 2)

    def _number_style(self) -> str | None:
        """Return the format with the most decimals whose longest number fits into a cell."""
        width, height = self._cell
        if height < 8 or (len(self.heads) + 2) * (len(self.layers) + 2) > _MOST_TEXTS:
            return None
        ends = self.values
        styles = [".2f", ".1f", ".0f"] if max(map(abs, ends)) >= 0.05 else [".1e", ".0e"]
        for style in styles:
            longest = max(len(format(end, style)) for end in ends)
            if 0.56 * self._number_size * longest <= width - 1:
                return style
        return None

    def draw(self) -> alt.LayerChart | alt.FacetChart:
        """Return the panel."""
        width, height = self._cell
        across = [*map(str, self.heads), _GAP, _MEAN]
        down = [*map(str, self.layers), _GAP, _MEAN]
        x = self._axis(alt.X("column:N"), across, "Head", self.heads, width)
        y = self._axis(alt.Y("row:N"), down, "Layer", self.layers, height)
        known = f"isValid(datum.{self.name})"
        tooltip = ["set:N", "layer:O", "head:O", f"{self.name}:Q", "std:Q", "runs:Q"]
        base = alt.Chart().encode(x=x, y=y)
        absent = base.mark_rect(fill=UNSEEN_COLOR, aria=False).transform_filter(f"!{known}")
        title = measure_title(self.name, self.statistic)
        size = height * len(down)
        cells = (
            base.mark_rect(aria=False)
            .transform_filter(known)
            .transform_calculate(color=self.scale.expression(self.name))
            .encode(
                color=color_channel(
                    alt.Color("color:Q"), self.scale, title, self.values, size, self.look
                ),
                tooltip=tooltip,
            )
            .properties(name=CELLS)
        )
        layers = [absent, cells]
        style = self._number_style()
        if style is not None:
            layers.append(self._numbers(base, known, style))
        return alt.layer(*layers).properties(
            width=width * len(across), height=size, view=alt.ViewBackground(stroke=None)
        )

    def _axis(
        self, channel: Any, domain: list[str], title: str, numbers: list[int], size: int
    ) -> Any:
        """Give a channel an axis with as many numbers as fit, and the word for the margin."""
        room = self.look.tick_label * (2.2 if title == "Head" else 1.15)
        step = max(1, -(-int(room) // size))
        shown = [str(number) for position, number in enumerate(numbers) if position % step == 0]
        return (
            channel.title(title)
            .scale(domain=domain, paddingInner=0, paddingOuter=0)
            .axis(
                values=[*shown, _MEAN],
                labelAngle=0,
                labelOverlap=False,
                ticks=False,
                zindex=0,
            )
        )

    def _numbers(self, base: alt.Chart, known: str, style: str) -> alt.Chart:
        """Return the value in each cell, white where the cell is dark."""
        below, above = self.scale.dark_beyond()
        tests = [
            f"datum.{self.name}{sign}{limit!r}"
            for sign, limit in (("<", below), (">=", above))
            if np.isfinite(limit)
        ]
        color = (
            alt.condition("||".join(tests), alt.value("white"), alt.value(INK))
            if tests
            else alt.value(INK)
        )
        numbers: alt.Chart = (
            base.mark_text(fontSize=self._number_size, aria=False)
            .transform_filter(known)
            .encode(text=alt.Text(f"{self.name}:Q", format=style), color=color)
        )
        return numbers


def set_width(options: FigureOptions, sets: int, bar: float) -> float | None:
    """Return what a wanted width leaves for the panel of each set; None without one."""
    if options.points is None:
        return None
    look = find_look(options)
    fixed = sets * look.left_room + (sets - 1) * SET_GAP + bar + 2 * look.padding
    width = (options.points - fixed) / sets
    if width < _SMALLEST_PANEL:
        raise OptionError(
            f"width is {options.points:g} pt, which leaves {max(width, 0):.0f} pt for each of "
            f"{sets} panels, expected at least {_SMALLEST_PANEL} pt; widen the figure"
        )
    return width


def summarise(survey: Surveyed, measure: str) -> pd.DataFrame:
    """Return the summary of a measure, after a look at what was given."""
    check_choice("statistic", measure, MEASURES)
    if not hasattr(survey, "summary"):
        raise CaptureError(
            f"found {type(survey).__name__}, expected a survey; make it of captures or paths, with "
            "headgrid.survey"
        )
    return survey.summary(measure)


def expect_values(summary: pd.DataFrame, name: str, statistic: str) -> None:
    """Refuse a summary in which no head has the measure."""
    if not summary["mean"].notna().any():
        raise CaptureError(
            f"{name} has no value in any head, as the captures hold {statistic}; expected a "
            "measure that they have (entropy and effective_keys need masses, a sink score key "
            "frame 0 and three visible keys)"
        )


def _with_margins(summary: pd.DataFrame) -> pd.DataFrame:
    """Add the means over layers: of each head, and of the layers' means."""
    margins = (
        summary.groupby(["set", "head"], dropna=False, sort=False)
        .agg(mean=("mean", "mean"), runs=("runs", "max"))
        .reset_index()
    )
    margins["layer"] = pd.NA
    margins["std"] = np.nan
    rows = [summary, margins[summary.columns].astype(summary.dtypes)]
    return pd.concat(rows, ignore_index=True)


def summary_records(table: pd.DataFrame, name: str) -> Records:
    """Return one record a row; a number that is missing is left out, so that it is not valid."""
    sets = list(dict.fromkeys(map(str, table["set"])))
    means, deviations = (round_values(table[name].to_numpy()) for name in ("mean", "std"))
    records: Records = []
    columns: list[list[Any]] = [table[key].tolist() for key in ("set", "layer", "head", "runs")]
    for of_set, layer, head, runs, mean, deviation in zip(*columns, means, deviations, strict=True):
        record: dict[str, Any] = {"panel": sets.index(str(of_set))}
        if of_set:
            record["set"] = shorten_text(str(of_set))
        known = {"layer": layer, "head": head, "runs": runs}
        record |= {key: int(value) for key, value in known.items() if not pd.isna(value)}
        numbers = {name: float(mean), "std": float(deviation)}
        record |= {key: number for key, number in numbers.items() if number == number}
        records.append(record)
    return records


def facet_sets(panel: Any, table: pd.DataFrame, look: Look) -> alt.FacetChart:
    """Put the sets side by side, each under its name."""
    sets = list(dict.fromkeys(table["set"]))
    names = json.dumps([shorten_text(name, 60) for name in sets])
    header = alt.Header(title=None, labelExpr=f"{names}[datum.value]", labelFontSize=look.map_title)
    grid = Grid(
        spec=panel,
        facet=alt.Facet("panel:O", header=header),
        data=alt.InlineData(values=[]),
        columns=len(sets),
    )
    chart: alt.FacetChart = (
        grid.transform_calculate(column="isValid(datum.head)?''+datum.head:'mean'")
        .transform_calculate(row="isValid(datum.layer)?''+datum.layer:'mean'")
        .resolve_axis(x="independent", y="independent")
    )
    return chart


def summary_title(
    options: FigureOptions, own: str, layers: Sequence[int], summary: pd.DataFrame
) -> list[str]:
    """Return the title lines of a figure of a summary."""
    if options.title is None:
        least, most = int(summary["runs"].min()), int(summary["runs"].max())
        runs = f"{most}" if least == most else f"{least} to {most}"
        return [own, f"Mean over {runs} Runs"] if most > 1 else [own]
    return labels.group_title(options.title, [], 70, layers)
