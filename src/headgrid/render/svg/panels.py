"""Some rows of panels that Vega has drawn -> the whole grid, all other panels written like these.

Panels of a grid differ in a few texts alone: cells, the paths of a profile, labels, names. Where a
panel that Vega has drawn is not what another one is with its own texts, nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lxml import etree

from headgrid.render.svg.marks import SVG, expect

_PLACE = re.compile(r'<g xmlns[^<>]*? transform="translate\(([^(),]+),(\d+)\)"(>.*)', re.DOTALL)


@dataclass(frozen=True)
class Panels:
    """The panels of a grid, numbered row by row, of which Vega draws those of some rows."""

    columns: int
    pitch: int  # points from a row to the next
    drawn: Sequence[int]
    kinds: Sequence[tuple[int, bool]]  # column, and whether it is empty
    texts: Sequence[Sequence[str]]  # all in which a panel differs from others of its kind

    def grow(self, root: etree._Element) -> None:
        """Give Vega's drawing the height of the whole grid."""
        *box, high = root.get("viewBox", "").split()
        rows, drawn = (-(-len(panels) // self.columns) for panels in (self.kinds, self.drawn))
        height = str(int(high) + (rows - drawn) * self.pitch)
        root.set("viewBox", " ".join([*box, height]))
        for ground in root.iterfind(f"{SVG}rect"):
            ground.set("height", height)

    def complete(self, root: etree._Element) -> Callable[[str], str]:
        """Take the panels out of a tidy drawing; return what puts all panels into its text."""
        (grid,) = root.iterfind(f".//{SVG}g[@class='mark-group role-scope cell']")
        across, found = [], {}
        patterns: dict[tuple[int, bool], str] = {}
        for place, (number, group) in enumerate(zip(self.drawn, grid, strict=True)):
            row, column = divmod(place, self.columns)
            ((x, y, panel),) = _PLACE.findall(etree.tostring(group, encoding="unicode"))
            across.append(x)
            found[number] = panel
            if number < len(self.kinds) - self.columns:  # the lowest may have other axes
                pattern = patterns.setdefault(self.kinds[number], self._find_pattern(number, panel))
                expect(self._write(number, pattern) == panel)
            expect((x, int(y)) == (across[column], row * self.pitch))
        panels = []
        for number, kind in enumerate(self.kinds):
            row, column = divmod(number, self.columns)
            panel = found.get(number) or self._write(number, patterns[kind])
            panels.append(f'<g transform="translate({across[column]},{row * self.pitch})"{panel}')
        grid[:] = []
        grid.append(etree.Comment())
        return lambda text: text.replace("<!---->", "".join(panels), 1)

    def _find_pattern(self, number: int, panel: str) -> str:
        """Return a panel with numbers in place of its own texts."""
        for position, text in enumerate(self.texts[number]):
            expect(panel.count(text) == 1)
            panel = panel.replace(text, f"\0{position}\0")
        return panel

    def _write(self, number: int, pattern: str) -> str:
        for position, text in enumerate(self.texts[number]):
            pattern = pattern.replace(f"\0{position}\0", text)
        return pattern
