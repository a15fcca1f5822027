"""Captures and a rule -> their colour scale; counts of frames -> ticks, sizes."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headgrid.capture.model import Capture
from headgrid.capture.statistic import STATISTICS
from headgrid.errors import OptionError
from headgrid.options import SMALLEST_SPAN, ColorRange, FigureOptions
from headgrid.tables.ranges import Ranged, resolve_color_range
from headgrid.text import shorten_float, write_number

#: Colours are quantised to so many steps, as matplotlib's colour maps are.
STEPS = 256
#: A value as a share of its panel's unit.
_UNITS = re.compile(r"\(datum\.\w+/(\[[\d., e+-]+\])\[datum\.(\w+)\]\)")
#: Cells along an axis of a map beyond which they are pooled: a panel of so many points.
MAX_PIXELS = 512

# Low to high. ColorBrewer's RdBu with 11 classes, red high.
_RDBU = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"
# The second palette of the figures' first version, turned so that red is high.
_CUSTOM = "1d4680 3c7fb9 79b0d4 c2deec f0f4f5 fddac3 eea17e d15c4c 98202c"
# Every fifth colour of viridis (CC0, by S. van der Walt and N. Smith): linear
# RGB between them stays within one level of the 256 published colours.
_VIRIDIS = (
    "440154 46085c 471063 481769 481d6f 482475 472a7a 46307e 453781 433d84 414287 3f4889 3d4e8a "
    "3a538b 38598c 355e8d 33638d 31688e 2e6d8e 2c718e 2a768e 297b8e 27808e 25848e 23898e 218e8d "
    "20928c 1f978b 1e9c89 1fa188 21a585 24aa83 28ae80 2eb37c 35b779 3dbc74 46c06f 50c46a 5ac864 "
    "65cb5e 70cf57 7cd250 89d548 95d840 a2da37 b0dd2f bddf26 cae11f d8e219 e5e419 f1e51d fde725"
)


@dataclass(frozen=True)
class Palette:
    """Colour stops from low to high, equally spaced, with linear RGB between them."""

    name: str
    colors: tuple[str, ...] = field(repr=False)
    diverging: bool


_PALETTES = {
    name: Palette(name, tuple(f"#{color}" for color in colors.split()), name != "viridis")
    for name, colors in (("rdbu", _RDBU), ("custom", _CUSTOM), ("viridis", _VIRIDIS))
}


@dataclass(frozen=True)
class ColorScale:
    """A colour range on a palette, in `STEPS` steps.

    A diverging palette keeps its middle colour at zero, each side scaled on its own. Of the rule
    ``log``, steps are equal shares of decades. Where there are ``units``, the range is of values
    divided by those of their panel, whose number is in the field ``by``.
    """

    range: ColorRange
    palette: Palette
    units: tuple[float, ...] = ()
    by: str = ""
    unit: float = 1.0

    @property
    def text(self) -> str:
        """The range and its rule, for captions."""
        if self.units:
            return "of each head its own (head)"
        ends = write_number(self.range.low), write_number(self.range.high)
        return f"{' to '.join(ends)} ({self.range.rule})"

    @property
    def meta(self) -> dict[str, object]:
        """The range and its rule, and what each panel's values are shares of, for ``usermeta``."""
        units = {"color_units": list(self.units)} if self.units else {}
        ends = [self.range.low, self.range.high]
        return {"color_range": ends, "color_rule": self.range.rule, **units}

    @property
    def stops(self) -> list[tuple[float, str]]:
        """The value and the colour of every palette stop within the range, increasing."""
        colors, (low, high) = self.palette.colors, self._span()
        positions = np.linspace(0.0, 1.0, len(colors)).tolist()
        return [
            (shorten_float(self._value_at(position)), color)
            for position, color in zip(positions, colors, strict=True)
            if low <= position <= high
        ]

    def steps(self, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the palette step, 0 to 255, of each value; values beyond the range clamp."""
        numbers = np.asarray(values, dtype=np.float64) / self.unit
        if self.is_log:
            with np.errstate(divide="ignore", invalid="ignore"):  # no magnitude: the lowest step
                numbers = np.where(numbers > 0, np.log(numbers), -np.inf) / math.log(10)
        steps = [_find_steps(numbers, *piece) for piece in self._pieces]
        return steps[0] if len(steps) == 1 else np.where(numbers < 0, *steps)

    def rgb(self, values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return the colour of each value, shape (..., 3), one of 256."""
        return np.asarray(self.colors()[self.steps(values)])

    def colors(self) -> npt.NDArray[np.uint8]:
        """Return the colour of each palette step, shape (256, 3)."""
        stops = np.array([list(bytes.fromhex(color[1:])) for color in self.palette.colors])
        at, positions = np.linspace(0.0, 1.0, len(stops)), np.arange(STEPS) / (STEPS - 1)
        channels = [np.interp(positions, at, channel) for channel in stops.T]
        return np.floor(np.stack(channels, axis=-1) + 0.5).astype(np.uint8)

    def dark_beyond(self) -> tuple[float, float]:
        """Return the values below and above which colours are dark, and what is on them is white.

        Dark is a relative luminance below 0.25, where white has more contrast (WCAG 2).
        """
        linear = (self.colors() / 255.0) ** 2.2
        dark = linear @ np.array([0.2126, 0.7152, 0.0722]) < 0.25
        start, end = self._span()
        used = dark[int(start * STEPS) : int(end * STEPS)]
        lowest, highest = int(np.argmin(used)), int(np.argmin(used[::-1]))
        below = self._value_at(start + lowest / STEPS) if lowest else -math.inf
        above = self._value_at(end - highest / STEPS) if highest else math.inf
        return shorten_float(below), shorten_float(above)

    def expression(self, field: str) -> str:
        """Return the Vega expression of the value whose colour is that of ``datum.field``."""
        number = f"datum.{field}"
        if self.units:
            number = f"({number}/{json.dumps(self.units)}[datum.{self.by}])"
        if self.is_log:
            number = f"(log(max({number},0))/LN10)"
        pieces = [_step_expression(number, *piece) for piece in self._pieces]
        return pieces[0] if len(pieces) == 1 else f"{number}<0?{pieces[0]}:{pieces[1]}"

    @property
    def is_log(self) -> bool:
        """Whether steps are equal shares of decades."""
        return self.range.rule == "log"

    @property
    def ends(self) -> tuple[float, float]:
        """The values that the colour bar has at its ends: the range, or its logarithms."""
        ends = self.range.low, self.range.high
        if self.is_log:
            ends = shorten_float(math.log10(ends[0])), shorten_float(math.log10(ends[1]))
        return ends

    def of_panel(self, number: int) -> ColorScale:
        """Return the scale of one panel."""
        return replace(self, units=(), unit=self.units[number]) if self.units else self

    def part(self, start: int, stop: int) -> ColorScale:
        """Return the scale of some of the panels, numbered from 0."""
        return replace(self, units=self.units[start:stop])

    def names(self, panels: Sequence[str], absent: Collection[int] = ()) -> list[str]:
        """Return the names of panels, each with its own range, if it has one and any values."""
        form = " (±{})" if self.palette.diverging else " (0 to {})"
        ranges = [form.format(write_number(unit, ".3g")) for unit in self.units]
        told = ["" if n in absent else text for n, text in enumerate(ranges or [""] * len(panels))]
        return [name + text for name, text in zip(panels, told, strict=True)]

    @property
    def _pieces(self) -> list[tuple[float, float, int, int]]:
        """The values at the ends of each straight piece of the scale, its first step and stop."""
        (low, high), middle = self.ends, STEPS // 2
        if self._two_sided and not math.isclose(-low, high):
            return [(low, 0.0, 0, middle), (0.0, high, middle, STEPS)]
        start, end = self._span()
        return [(low, high, int(start * STEPS), int(end * STEPS))]

    @property
    def _two_sided(self) -> bool:
        return self.palette.diverging and self.ends[0] < 0 < self.ends[1]

    def _span(self) -> tuple[float, float]:
        """Return the part of the palette that the range uses."""
        if not self.palette.diverging:
            return 0.0, 1.0
        return (0.5 if self.ends[0] >= 0 else 0.0), (0.5 if self.ends[1] <= 0 else 1.0)

    def _value_at(self, position: float) -> float:
        low, high = self.ends
        if self._two_sided:
            return low - low * 2 * position if position < 0.5 else high * 2 * (position - 0.5)
        start, end = self._span()
        return low + (position - start) / (end - start) * (high - low)


def palette_for(statistic: str, name: str) -> Palette:
    """Return the palette of a statistic: the named one where values have two signs, or viridis."""
    return _PALETTES[name if STATISTICS[statistic].signed else "viridis"]


def match_scale(scale: Mapping[str, Any], expression: str, field: str) -> ColorScale | None:
    """Return the scale whose colours a channel's scale and a field's expression describe."""
    domain, colors = scale["domain"], scale["range"]
    ours = {"domain": domain, "range": colors, "interpolate": "rgb", "clamp": True}
    if scale != {**ours, "type": "linear"}:
        return None
    low, high, rule = float(domain[0]), float(domain[-1]), "fixed"
    if "LN10" in expression:
        low, high, rule = 10.0**low, 10.0**high, "log"
    units = _UNITS.search(expression)
    own_units = (tuple(json.loads(units[1])), units[2]) if units else ((), "")
    for palette in _PALETTES.values():
        found = ColorScale(ColorRange(low, high, rule), palette, *own_units)
        stops = [*zip(domain, colors, strict=True)]
        if expression == found.expression(field) and found.stops == stops:
            return found
    return None


def find_scale(
    values: Sequence[Ranged],
    options: FigureOptions,
    heads: Sequence[tuple[Capture, int]] = (),
    by: str = "",
) -> ColorScale:
    """Return the one scale of captures, or of what has values like them.

    Where ``heads`` are shown, each in the panel of its number in the field ``by``, they may have
    scales of their own.
    """
    first, rule = values[0], options.color_range
    palette = palette_for(first.statistic, options.palette)
    if rule == "head" and heads:
        ranges = [capture.head_range(head) for capture, head in heads]
        sizes = [max(-low, high) if low <= high else 0.0 for low, high in ranges]
        units = tuple(shorten_float(s) if s > SMALLEST_SPAN else 1.0 for s in sizes)
        share = ColorRange(-1.0 if palette.diverging else 0.0, 1.0, "head")
        return ColorScale(share, palette, units, by)
    found = resolve_color_range(rule, values)
    if found.rule == "log" and not (found.low > 0 and not palette.diverging):
        raise OptionError(
            f"color range is {found.low:g} to {found.high:g} by magnitude, expected numbers above "
            "0 of a statistic without sign"
        )
    return ColorScale(found, palette)


def frame_ticks(count: int) -> list[int]:
    """Return the positions, 0 to ``count - 1``, that get a tick: never more than 8.

    Every 5 frames up to 30, every 10 up to 60, every 20 beyond (or the next round step that keeps
    to 8), and the last, to which a regular tick closer than half a step gives way; the first,
    where sinks are, never does.
    """
    base = 5 if count <= 30 else 10 if count <= 60 else 20
    steps = [base, *(m * 10**e for e in range(1, 19) for m in (1, 2, 5) if m * 10**e > base)]
    last = count - 1
    ticks = ([t for t in range(0, last, step) if not t or last - t >= step / 2] for step in steps)
    return next([*regular, last] for regular in ticks if len(regular) < 8)


def frame_runs(frames: Sequence[int]) -> list[list[int]]:
    """Return the frames in runs: a gap is where another frame, as near as the nearest two, fits.

    Frames that nothing but gaps separates are one run.

    >>> frame_runs([0, 1, 2, 15, 16]), frame_runs([0, 4, 9])
    ([[0, 1, 2], [15, 16]], [[0, 4, 9]])
    """
    steps = [after - frame for frame, after in itertools.pairwise(frames)]
    widest = 2 * min(steps, default=1)
    ends = [n + 1 for n, step in enumerate(steps) if step >= widest]
    if 2 * len(ends) > len(frames):
        return [list(frames)]
    return [list(frames[a:b]) for a, b in itertools.pairwise([0, *ends, len(frames)])]


def frame_places(frames: Sequence[int], pixels: int = MAX_PIXELS) -> list[int]:
    """Return what stands along an axis: the frames, and in each gap a frame that is left blank.

    Pooled maps, of fewer pixels, have no room for gaps.
    """
    runs = frame_runs(frames)
    runs = runs if len(frames) + len(runs) - 1 <= pixels else [list(frames)]
    return [*itertools.chain(*([*run, run[-1] + 1] for run in runs))][:-1]


def value_ticks(low: float, high: float, count: int) -> list[float]:
    """Return round values between two limits, about ``count`` of them, at steps of 1, 2 or 5.

    >>> value_ticks(-1.0, 8.3, 6)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    low, high = float(low), float(high)
    if not high - low > SMALLEST_SPAN:
        return [low]
    rough = (high - low) / count
    power = math.floor(math.log10(rough))
    error = rough / 10.0**power
    # The limits between the steps are their geometric means.
    factor = 10 if error >= 50**0.5 else 5 if error >= 10**0.5 else 2 if error >= 2**0.5 else 1
    step = factor * 10.0**power
    return [shorten_float(n * step) for n in range(math.ceil(low / step), int(high // step) + 1)]


def cell_size(count: int, panel: int = 216) -> int:
    """Return the whole points that a cell of ``count`` takes, for a panel of about ``panel``."""
    return max(1, round(panel / count))


def pool_factor(count: int, pixels: int = MAX_PIXELS) -> int:
    """Return how many frames along an axis share a pixel, of at most so many pixels."""
    return -(-count // pixels)


def count_pixels(count: int, pixels: int = MAX_PIXELS) -> int:
    """Return how many cells or pixels so many frames take, of at most so many pixels."""
    return -(-count // pool_factor(count, pixels))


def _find_steps(
    numbers: npt.NDArray[np.float64], low: float, high: float, first: int, stop: int
) -> npt.NDArray[np.int64]:
    """Return the palette step of each value on a straight piece, bit for bit as Vega finds it."""
    index = np.floor((numbers - low) * ((stop - first) / (high - low)) + first)
    return np.clip(index, first, stop - 1).astype(np.int64)


def _step_expression(number: str, low: float, high: float, first: int, stop: int) -> str:
    """Return the expression for one straight piece of the scale."""
    offset = f"+{first}" if first else ""
    scale = _number((stop - first) / (high - low))
    above = f"({number}{_minus(low)})" if low else number
    index = f"clamp(floor({above}*{scale}{offset}),{first},{stop - 1})"
    index = f"({index}{_minus(first / STEPS * (STEPS - 1))})" if first else index
    width = _number((high - low) / (stop - first) * STEPS / (STEPS - 1))
    return f"{index}*{width}{_minus(-low)}"


def _number(value: float) -> str:
    """Return a number as short text that loses no bit."""
    return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _minus(value: float) -> str:
    """Return the text that subtracts a number in a Vega expression."""
    return "" if value == 0 else f"{'-' if value > 0 else '+'}{_number(abs(float(value)))}"


def saturates(values: tuple[float, float], color_range: ColorRange) -> tuple[bool, bool]:
    """Return whether the smallest value lies below, and the largest above, the colour range."""
    low, high = _open_range(color_range)
    return values[0] < low, values[1] > high


def count_saturated(
    capture: Capture, color_range: ColorRange, heads: Sequence[int] | None = None
) -> int:
    """Return how many visible values, of all or of some heads, lie beyond the colour range."""
    if capture.full_frame_attention is None or not any(saturates(capture.value_range, color_range)):
        return 0
    low, high = _open_range(color_range)
    matrices = map(capture.head_matrix, range(capture.num_heads) if heads is None else heads)
    return sum(int(np.count_nonzero((matrix > high) | (matrix < low))) for matrix in matrices)


def _open_range(color_range: ColorRange) -> tuple[float, float]:
    """Return the range with the slack that its ends, rounded to 9 digits, need."""
    low, high = color_range.low, color_range.high
    slack = 1e-8 * max(abs(low), abs(high))
    return low - slack, high + slack
