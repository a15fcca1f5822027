"""Vega's SVG -> small, seamless, deterministic SVG with live text.

Only marks that headgrid named are redrawn, and only where each is exactly as
headgrid draws it; whatever a user changed or added stays as Vega drew it.

Text is laid out with Liberation Sans, which vl-convert carries and which has Arial's
widths, so that the same specification gives the same SVG on every machine; the family
list that a reader should see is written in here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from xml.sax.saxutils import escape

from lxml import etree

from headgrid.errors import RenderError
from headgrid.options import FONT_FAMILY, SERIF_FAMILY
from headgrid.render.svg import bars, cells, marks
from headgrid.render.svg.bars import Stops
from headgrid.render.svg.marks import SVG, shorten_color, shorten_number, shorten_numbers
from headgrid.render.svg.panels import Panels
from headgrid.text import PNG_URI, clean_text, leads_out, quote_text

LAYOUT_FONT = "Liberation Sans"
#: What pictures are drawn with: only the first of the second list may be missing on a machine.
PICTURE_FONTS = {
    FONT_FAMILY: LAYOUT_FONT,
    SERIF_FAMILY: f"Liberation Serif, Times New Roman, DejaVu Serif, {LAYOUT_FONT}",
}

# One character that the layout font lacks ("▁", "␣") gives all of a text any font that has it.
_FOREIGN = re.compile("<text(?![^<>]* font-family=)(?=[^>]*>[^<]*[\u0600-\u1dff\u2400-\u25ff])")
_AS_WIDE = f'<text font-family="DejaVu Sans, {LAYOUT_FONT}" font-stretch="condensed"'

_MARKS = re.compile(
    r'<g class="mark-\w+ role-mark (?:\w+_)?headgrid_'
    r'(?:cells|tiles|frame|bars|line|points|faint)_marks"'
)
_SIZE = re.compile(r'^<svg[^<>]* width="([\d.]+)pt" height="([\d.]+)pt"')
#: Ten thousand pages; PDF readers give up long before.
_MAX_POINTS = 10_000_000
_VIEW_BOX = re.compile(r"0 0 ([\d.]+) ([\d.]+)")
# Most of the elements of a figure draw nothing; they need not be parsed.
_BLANKS = re.compile(
    r'<path class="(?:foreground" aria-hidden="true" d="'
    r'|background" aria-hidden="true" d="M0,0h0v0h0Z)"(?: pointer-events="none"| display="none")*/>'
)
# Inside a tag, neither "<" nor ">" is unescaped.
_NAMING_TAG = re.compile(r'<[^<>]*?(?: id="|url\(#| aria-(?:labelled|described)by=")[^<>]*>')
_NAME = re.compile(r'( (?:id|aria-labelledby|aria-describedby)="|url\(#)([^"()]*)(["\)])')
_ID = re.compile(r' id="([^"]*)"')
# libxml2 refuses texts above 10 MB unless it is told.
_HUGE = 5_000_000
_PLACE = re.compile(r"translate\(([^(),]+),([^(),]+)\)")
_N = r"(-?[0-9.]+(?:e[-+]?[0-9]+)?)"
_ASIDE = re.compile(rf"translate\({_N},{_N}\) rotate\((-?90)\) translate\(0,{_N}\)")
_RULES = ("mark-rule role-axis-tick", "mark-rule role-axis-grid")
_HIDDEN = "headgrid_hidden_"  # marks that a scale or a key needs, and that show nothing
_ROLES = ("group mark container", "title")
_TEXT_DEFAULTS = {"opacity": "1", "text-anchor": "start", "font-weight": "normal"}
_INHERITED = ("text-anchor", "font-size", "font-weight", "font-style", "fill")


def finish(
    raw: str,
    family: str = FONT_FAMILY,
    *,
    title: str = "",
    description: str = "",
    gradients: Sequence[Stops] = (),
    width: float | None = None,
    maps: Iterable[cells.Cells] | None = None,
    panels: Panels | None = None,
) -> str:
    """Return Vega's SVG as the file that a reader gets: the same text for the same figure.

    ``title`` and ``description`` become its ``<title>`` and ``<desc>``; ``gradients`` are
    the true stops (offset from 0 to 1, colour) of the colour bars in their order, one for
    all where there is one; ``width`` is the exact one, in points; ``maps`` are the cells of
    which Vega has drawn one a panel, ``panels`` all those of a grid of which it has drawn some
    rows (a LookupError if it has not).
    """
    named = _MARKS.search(raw) is not None
    text = _BLANKS.sub("", cells.merge_cells(raw, maps)) if named else raw
    parser = etree.XMLParser(huge_tree=len(text) > _HUGE)
    root = etree.fromstring(text.encode("utf-8"), parser)
    for group in root.iterfind(f"{SVG}g[@stroke-miterlimit]"):
        group.set("stroke-miterlimit", "10")  # as browsers draw; one engine says 4
    if panels is not None:
        panels.grow(root)
    if named:
        _tidy(root)
        cells.join_rows(root)
        bars.set_gradients(root, gradients)
        bars.dress_bars(root)
    _write_head(root, clean_text(title), clean_text(description))
    _set_family(root, family, once=named)
    drawing = _name_ids(root, width, str if panels is None else panels.complete(root))
    if "href=" in drawing or leads_out(drawing):  # which a label may as well
        _check_references(root)
    return drawing


def size(drawing: str) -> tuple[float, float]:
    """Return width and height of a finished drawing in points."""
    found = _SIZE.search(drawing)
    assert found
    return float(found[1]), float(found[2])


def for_layout(drawing: str) -> str:
    """Return a finished drawing as the renderer wants it: its own font, no unit on its size."""
    for family, fonts in PICTURE_FONTS.items():
        drawing = re.sub(
            rf'(<(?:svg|text|tspan)\b[^<>]* font-family=)"{re.escape(escape(family))}"',
            rf'\1"{escape(fonts)}"',
            drawing,
        )
    if f' font-family="{LAYOUT_FONT}"' in drawing[: drawing.index(">")]:
        drawing = _FOREIGN.sub(_AS_WIDE, drawing)
    # A joined character that its font lacks would stop the search for fonts for the rest of
    # the line; two people beside each other are better than a line of boxes.
    drawing = drawing.replace("\u200d", "").replace("\ufe0f", "")
    start = drawing.index(">")
    return re.sub(r' (width|height)="([\d.]+)pt"', r' \1="\2"', drawing[:start]) + drawing[start:]


def _tidy(element: etree._Element) -> None:
    """Tidy the figure's structure, children before parents; inside marks there is none."""
    classes = element.get("class", "")
    is_mark = "role-mark" in classes
    if not classes.startswith("mark-") or (classes.startswith("mark-group") and not is_mark):
        for child in list(element):
            _tidy(child)
    if classes == "background" and element.tag == f"{SVG}path":
        _drop(element, "aria-hidden", "pointer-events")
        if "fill" in element.attrib or "stroke" in element.attrib:
            marks.shorten_rectangle(element)
        else:
            marks.remove(element)
    elif element.tag == f"{SVG}g":
        (_tidy_mark if is_mark else _tidy_group)(element, classes)


def _tidy_mark(group: etree._Element, classes: str) -> None:
    if _HIDDEN in classes:
        marks.remove(group)
    elif classes.endswith("headgrid_labels_marks"):
        _tidy_labels(group)
    elif marks.merge_mark(group):
        _drop_noise(group)
        _sharpen_background(group)


def _tidy_group(group: etree._Element, classes: str) -> None:
    _drop_noise(group)
    if classes in _RULES and len(group):
        marks.merge_rules(group)
    elif classes.startswith("mark-text role-"):
        _tidy_texts(group)
    if group.tag == f"{SVG}g":
        _join_groups(group)
    if classes == "mark-group role-axis":
        texts = [part if "fill" in part.attrib else part[0] for part in group if len(part)]
        if len(texts) > 1:
            _hoist(group, texts, ("fill", "text-anchor"))  # ticks have no area to fill


def _tidy_labels(group: etree._Element) -> None:
    """Draw the labels inside panels once, each with its halo as the outline of its letters."""
    _drop_noise(group)
    _tidy_texts(group)
    halo = group.getprevious()
    if halo is None or not halo.get("class", "").endswith("headgrid_halo_marks"):
        return
    if not len(halo) == len(group) > 0:
        return
    pen = halo[0].get("stroke-width", "")
    marks.remove(halo)
    group.attrib.update({"stroke": "#fff", "stroke-width": pen, "stroke-linejoin": "round"})
    group.set("paint-order", "stroke")


def _drop_noise(group: etree._Element) -> None:
    """Drop what says nothing in a still image, and digits beyond single precision."""
    _drop(group, "aria-hidden", "pointer-events")
    if group.get("aria-roledescription") in _ROLES:
        _drop(group, "role", "aria-roledescription", "aria-label")
    if "transform" in group.attrib:
        group.set("transform", shorten_numbers(group.get("transform", "")))
    if group.get("transform") == "translate(0,0)" and not _is_panel(group):
        _drop(group, "transform")


def _join_groups(group: etree._Element) -> None:
    """Remove a group that says nothing, and join one that only holds another."""
    parent = group.getparent()
    if parent is None or group.text or group.tail:
        return
    if not len(group):
        parent.remove(group)
    elif not group.attrib:
        for child in list(group):  # not by its index, which takes as long as there are panels
            group.addprevious(child)
        parent.remove(group)
    elif len(group) == 1 and set(group.attrib) == {"class"} and not _is_panel(group[0]):
        inner = group[0]
        if inner.tag == f"{SVG}g" and set(inner.attrib) == {"transform"}:
            group.set("transform", inner.get("transform", ""))
            group[:] = list(inner)


def _is_panel(element: etree._Element) -> bool:
    """Return whether an element is one panel of a facetted figure."""
    parent = element.getparent()
    return parent is not None and "role-scope" in parent.get("class", "")


def _tidy_texts(group: etree._Element) -> None:
    """Shorten labels, and move what they share to their group; each stays a text."""
    if any(item.tag != f"{SVG}text" for item in group):
        return
    for text in list(group):
        visible = "0" not in (text.get("opacity"), text.get("fill-opacity"))
        if (len(text) or text.text) and visible:
            _tidy_text(text)
        else:
            group.remove(text)  # a label or title that its expression left out
    if len(group) > 1:
        _hoist(group, list(group), _INHERITED)


def _hoist(group: etree._Element, items: Sequence[etree._Element], names: Sequence[str]) -> None:
    """Move what all of several items say to their group."""
    for name in names:
        values = {item.get(name) for item in items}
        if len(values) == 1 and None not in values and name not in group.attrib:
            group.set(name, str(values.pop()))
            for item in items:
                _drop(item, name)


def _tidy_text(text: etree._Element) -> None:
    for name, default in _TEXT_DEFAULTS.items():
        if text.get(name) == default:
            _drop(text, name)
    if "transform" in text.attrib:
        text.set("transform", shorten_numbers(_ASIDE.sub(_join_moves, text.get("transform", ""))))
    if "fill" in text.attrib:
        text.set("fill", shorten_color(text.get("fill", "")))
    place = _PLACE.fullmatch(text.get("transform", ""))
    if place is not None and not len(text):
        _drop(text, "transform")
        text.set("x", place[1])
        text.set("y", place[2])


def _join_moves(match: re.Match[str]) -> str:
    """Return what places an upright text as one move and a turn."""
    aside = float(match[4]) * (1 if match[3] == "-90" else -1)
    return f"translate({float(match[1]) + aside},{match[2]})rotate({match[3]})"


def _drop(element: etree._Element, *names: str) -> None:
    for name in names:
        element.attrib.pop(name, "")


def _sharpen_background(cells: etree._Element) -> None:
    """Give a panel's background the edges that its merged cells have."""
    parent = cells.getparent()
    if parent is None or cells.get("shape-rendering") != "crispEdges":
        return
    background = parent[0]
    whole = re.fullmatch(r"M0 0h\d+v\d+h-\d+Z", background.get("d", ""))
    if background.get("class") == "background" and whole and "stroke" not in background.attrib:
        background.set("shape-rendering", "crispEdges")


def _write_head(root: etree._Element, title: str, description: str) -> None:
    """Put size, role, title and description where screen readers and layouts look for them."""
    box = _VIEW_BOX.fullmatch(root.get("viewBox") or "")
    width, height = (float(box[1]), float(box[2])) if box else (0.0, 0.0)
    if not (0 < width <= _MAX_POINTS and 0 < height <= _MAX_POINTS):
        found = quote_text(str(root.get("viewBox")), 60)
        raise RenderError(
            f"the drawing has the viewBox {found}, expected a width and a height above 0, up to "
            f"{_MAX_POINTS:,} points; correct the chart's width and height"
        )
    wide, high = shorten_number(width), shorten_number(height)
    root.attrib.clear()
    root.attrib.update({"class": "marks", "width": f"{wide}pt", "height": f"{high}pt"})
    root.attrib.update({"viewBox": f"0 0 {wide} {high}", "role": "img"})
    texts = (("title", "aria-labelledby", title), ("desc", "aria-describedby", description))
    for position, (name, reference, text) in enumerate(pair for pair in texts if pair[2]):
        element = etree.Element(f"{SVG}{name}", {"id": name})
        element.text = text
        root.insert(position, element)
        root.set(reference, name)


def _set_family(root: etree._Element, family: str, *, once: bool) -> None:
    """Replace the layout font on every text, or drop it there and name the family on the root."""
    if once:
        root.set("font-family", family)
    for element in root.iter(f"{SVG}text", f"{SVG}tspan"):
        if element.get("font-family") == LAYOUT_FONT:
            _drop(element, "font-family")
            if not once:
                element.set("font-family", family)


def _check_references(root: etree._Element) -> None:
    """Refuse a drawing that names something outside itself; labels may say what they like."""
    for element in root.iter():
        for name, value in {str(k): str(v) for k, v in element.attrib.items()}.items():
            link = name.endswith("href") and not value.startswith(("#", PNG_URI))
            if link or (not name.startswith("aria-") and leads_out(value)):
                raise RenderError(
                    f"the drawing names {quote_text(value)} in {name}, expected nothing outside "
                    "itself; nothing is fetched or linked"
                )


def _name_ids(root: etree._Element, width: float | None, complete: Callable[[str], str]) -> str:
    """Return the whole drawing, its ids named after what it shows, so that many share a page."""
    text = etree.tostring(root, encoding="unicode")
    tags = "".join(_NAMING_TAG.findall(text))
    ids = {name: str(number) for number, name in enumerate(_ID.findall(tags))}
    content = complete(_rename(text, ids)).encode("ascii", "xmlcharrefreplace")
    digest = hashlib.blake2b(content, digest_size=5).hexdigest()
    if width is not None:
        old = size(text)
        root.set("width", f"{shorten_number(width)}pt")
        root.set("height", f"{shorten_number(old[1] * width / old[0])}pt")
    etree.cleanup_namespaces(root)
    names = {name: f"h{digest}-{number}" for name, number in ids.items()}
    return complete(_rename(etree.tostring(root, encoding="unicode"), names)) + "\n"


def _rename(text: str, names: dict[str, str]) -> str:
    def rename(tag: re.Match[str]) -> str:
        return _NAME.sub(lambda m: f"{m[1]}{names.get(m[2], m[2])}{m[3]}", tag.group())

    return _NAMING_TAG.sub(rename, text)
