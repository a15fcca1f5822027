"""Vega's SVG -> small, seamless, deterministic SVG with live text.

Only marks that headgrid named are redrawn, and only where each is exactly as
headgrid draws it; whatever a user changed or added stays as Vega drew it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias
from xml.sax.saxutils import escape

from lxml import etree

from headgrid.errors import RenderError
from headgrid.render.svg.cells import join_rows, merge_cells
from headgrid.render.svg.marks import (
    SVG,
    is_named,
    merge_mark,
    merge_rules,
    shorten_color,
    shorten_number,
    shorten_numbers,
    shorten_rectangle,
)
from headgrid.text import clean_text, quote_text

_Stops: TypeAlias = Sequence[tuple[float, str]]

_MARKS = re.compile(
    r'<g class="mark-\w+ role-mark (?:\w+_)?headgrid_'
    r'(?:cells|tiles|frame|bars|line|points|faint)_marks"'
)
_SIZE = re.compile(r'^<svg[^<>]* width="([\d.]+)pt" height="([\d.]+)pt"')
#: Ten thousand pages; PDF readers give up long before.
_MAX_POINTS = 10_000_000
_VIEW_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_REFERENCE = re.compile(r"url\(#([^()]+)\)")
# Most of the elements of a figure draw nothing; they need not be parsed.
_BLANKS = re.compile(
    r'<path class="(?:foreground" aria-hidden="true" d="'
    r'|background" aria-hidden="true" d="M0,0h0v0h0Z)"(?: pointer-events="none"| display="none")*/>'
)
_QUOTE = {'"': "&quot;"}
_LABELS = ("aria-labelledby", "aria-describedby")
# libxml2 refuses texts above 10 MB unless it is told.
_HUGE = 5_000_000
_PLACE = re.compile(r"translate\(([^(),]+),([^(),]+)\)")
_RULES = ("mark-rule role-axis-tick", "mark-rule role-axis-grid")
_ROLES = ("group mark container", "title")
_TEXT_DEFAULTS = {"opacity": "1", "text-anchor": "start", "font-weight": "normal"}
_INHERITED = ("text-anchor", "font-size", "font-weight", "font-style", "fill")


def finish(
    raw: str,
    layout_font: str,
    family: str,
    description: str = "",
    *,
    title: str | None = None,
    gradients: Sequence[_Stops] = (),
) -> str:
    """Return Vega's SVG as the file that a reader gets.

    The same text for the same figure, on every call and in every process. Texts that
    are in ``layout_font`` get the ``family`` list; ``description`` and ``title`` (by default
    what is drawn) become its ``<desc>`` and ``<title>``; ``gradients`` are the true stops
    (offset from 0 to 1, colour) of the colour bars in their order, one for all where there is one.

    Raises
    ------
    RenderError
        Where the renderer's text is no XML.
    """
    named = _MARKS.search(raw) is not None
    root = _parse(_BLANKS.sub("", merge_cells(raw)) if named else raw)
    if named:
        _tidy(root)
        join_rows(root)
        if gradients:
            _set_gradients(root, gradients)
    title = _find_title(root) if title is None else title
    _write_head(root, clean_text(title), clean_text(description))
    _set_family(root, layout_font, family, once=named)
    _name_ids(root)
    etree.cleanup_namespaces(root)
    return etree.tostring(root, encoding="unicode") + "\n"


def size(drawing: str) -> tuple[float, float]:
    """Return width and height of a finished drawing in points."""
    found = _SIZE.search(drawing)
    assert found
    return float(found[1]), float(found[2])


def set_width(drawing: str, width: float) -> str:
    """Return a finished drawing at exactly so many points of width, its height in proportion."""
    old = size(drawing)
    height = old[1] * width / old[0]
    start = drawing.index(">")
    head = re.sub(
        r' width="[\d.]+pt" height="[\d.]+pt"',
        f' width="{shorten_number(width)}pt" height="{shorten_number(height)}pt"',
        drawing[:start],
    )
    return head + drawing[start:]


def for_layout(drawing: str, family: str, layout_font: str) -> str:
    """Return a finished drawing as the renderer wants it: its own font, no unit on its size."""
    # Only attributes: no "<" or ">" inside a tag is unescaped.
    wanted = re.escape(escape(family, _QUOTE))
    font = rf'\1"{escape(layout_font, _QUOTE)}"'
    drawing = re.sub(rf'(<(?:svg|text|tspan)\b[^<>]* font-family=)"{wanted}"', font, drawing)
    # A joined character that its font lacks would stop the search for fonts for the rest of
    # the line; two people beside each other are better than a line of boxes.
    drawing = drawing.replace("\u200d", "").replace("\ufe0f", "")
    start = drawing.index(">")
    return re.sub(r' (width|height)="([\d.]+)pt"', r' \1="\2"', drawing[:start]) + drawing[start:]


def _parse(raw: str) -> etree._Element:
    if not raw.startswith("<svg"):  # so there is no document type, and no entity
        raise RenderError(f"the renderer's text starts with {raw[:20]!r}, expected <svg")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=len(raw) > _HUGE, remove_comments=True
    )
    try:
        return etree.fromstring(raw.encode("utf-8"), parser)
    except etree.XMLSyntaxError as error:
        raise RenderError(f"the renderer's SVG can not be read ({error})") from None


def _own(element: etree._Element) -> Iterator[etree._Element]:
    """Walk the figure's structure, children before parents; what is inside marks is left out."""
    classes = element.get("class", "")
    structure = classes.startswith("mark-group") and "role-mark" not in classes
    if structure or not classes.startswith("mark-"):
        for child in element:
            yield from _own(child)
    yield element


def _tidy(root: etree._Element) -> None:
    for element in list(_own(root)):
        if element.get("class") == "background" and element.tag == f"{SVG}path":
            _drop(element, "aria-hidden", "pointer-events")
            if "fill" in element.attrib or "stroke" in element.attrib:
                shorten_rectangle(element)
            else:
                _remove(element)
        elif element.tag == f"{SVG}g":
            _tidy_group(element)


def _tidy_group(group: etree._Element) -> None:
    classes = group.get("class", "")
    if classes.endswith("headgrid_labels_marks"):
        _tidy_labels(group)
        return
    if "role-mark" in classes:
        if is_named(classes):
            _drop_noise(group)
            merge_mark(group)
            _sharpen_background(group)
        return
    _drop_noise(group)
    if classes in _RULES and len(group):
        merge_rules(group)
    elif classes.startswith("mark-text role-"):
        _tidy_texts(group)
    if group.tag == f"{SVG}g":
        _join_groups(group)


def _tidy_labels(group: etree._Element) -> None:
    """Draw the labels inside panels once, each with its halo as the outline of its letters."""
    _drop_noise(group)
    _tidy_texts(group)
    halo = group.getprevious()
    if halo is None or not halo.get("class", "").endswith("headgrid_halo_marks") or not len(halo):
        return
    pen = halo[0].get("stroke-width", "")
    texts = ["".join(map(str, text.itertext())) for text in (*halo, *group)]
    if texts[: len(halo)] != texts[len(halo) :]:
        return
    _remove(halo)
    for name, value in (("stroke", "#fff"), ("stroke-width", pen), ("stroke-linejoin", "round")):
        group.set(name, value)
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
        _remove(group)
    elif not group.attrib:
        index = parent.index(group)
        parent[index : index + 1] = list(group)
    elif len(group) == 1 and set(group.attrib) == {"class"} and not _is_panel(group[0]):
        inner = group[0]
        if inner.tag == f"{SVG}g" and set(inner.attrib) == {"transform"}:
            group.set("transform", inner.get("transform", ""))
            group[:] = list(inner)


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


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
    texts = list(group)
    for name in _INHERITED:
        values = {text.get(name) for text in texts}
        if len(texts) > 1 and len(values) == 1 and None not in values and name not in group.attrib:
            group.set(name, str(values.pop()))
            for text in texts:
                _drop(text, name)


def _tidy_text(text: etree._Element) -> None:
    for name, default in _TEXT_DEFAULTS.items():
        if text.get(name) == default:
            _drop(text, name)
    for name, shorten in (("transform", shorten_numbers), ("fill", shorten_color)):
        if name in text.attrib:
            text.set(name, shorten(text.get(name, "")))
    place = _PLACE.fullmatch(text.get("transform", ""))
    if place is not None and not len(text):
        _drop(text, "transform")
        text.set("x", place[1])
        text.set("y", place[2])


def _drop(element: etree._Element, *names: str) -> None:
    for name in names:
        if name in element.attrib:
            del element.attrib[name]


def _sharpen_background(cells: etree._Element) -> None:
    """Give a panel's background the edges that its merged cells have."""
    panel = cells.getparent()
    background = panel[0] if panel is not None else None
    if background is None or cells.get("shape-rendering") != "crispEdges":
        return
    whole = re.fullmatch(r"M0 0h\d+v\d+h-\d+Z", background.get("d", ""))
    if background.get("class") == "background" and whole and "stroke" not in background.attrib:
        background.set("shape-rendering", "crispEdges")


def _set_gradients(root: etree._Element, scales: Sequence[_Stops]) -> None:
    """Give each colour bar its true stops, where it is clear whose they are."""
    bars = root.findall(f".//{SVG}g[@class='mark-rect role-legend-gradient']/{SVG}path")
    gradients = {gradient.get("id"): gradient for gradient in root.iter(f"{SVG}linearGradient")}
    if len(bars) != len(gradients) or len(scales) not in (1, len(bars)):
        return
    for bar, stops in zip(
        bars, scales if len(scales) > 1 else [scales[0]] * len(bars), strict=True
    ):
        gradient = gradients.get((bar.get("fill") or "").removeprefix("url(#").removesuffix(")"))
        if gradient is not None:
            _set_gradient(gradient, stops)


def _set_gradient(gradient: etree._Element, stops: _Stops) -> None:
    if len(gradient) < 2:
        return
    # Both ends tell whether the stops are of this scale.
    ends = [gradient[end].get("stop-color", "") for end in (0, -1)]
    if [_hex(color) for color in ends] != [stops[end][1].lower() for end in (0, -1)]:
        return
    for stop in list(gradient):
        gradient.remove(stop)
    for offset, color in stops:
        place = f"{offset:.6f}".rstrip("0").rstrip(".")
        etree.SubElement(gradient, f"{SVG}stop", {"offset": place, "stop-color": color})


def _hex(color: str) -> str:
    """Return ``rgb(r, g, b)`` as ``#rrggbb``."""
    channels = re.findall(r"\d+", color) if color.startswith("rgb(") else []
    return "#" + "".join(f"{int(channel):02x}" for channel in channels)


def _find_title(root: etree._Element) -> str:
    """Return the title over the whole figure, without its last line, which names the frames."""
    for text in root.iterfind(f".//{SVG}g[@class='mark-text role-title-text']/{SVG}text"):
        if any("role-scope" in group.get("class", "") for group in text.iterancestors()):
            continue  # a panel's
        lines = [str(line.text or "") for line in text.iterfind(f"{SVG}tspan")]
        return " ".join(lines[:-1]) if len(lines) > 1 else "".join(map(str, text.itertext()))
    return ""


def _write_head(root: etree._Element, title: str, description: str) -> None:
    """Put size, role, title and description where screen readers and layouts look for them."""
    box = _VIEW_BOX.search(f'viewBox="{root.get("viewBox")}"')
    width, height = (float(box[1]), float(box[2])) if box else (0.0, 0.0)
    if not (0 < width <= _MAX_POINTS and 0 < height <= _MAX_POINTS):
        found = quote_text(str(root.get("viewBox")), 60)
        raise RenderError(
            f"the drawing has the viewBox {found}, expected a width and a height above 0, up to "
            f"{_MAX_POINTS:,} points; correct the chart's width and height"
        )
    root.attrib.clear()
    root.set("class", "marks")
    root.set("width", f"{shorten_number(width)}pt")
    root.set("height", f"{shorten_number(height)}pt")
    root.set("viewBox", f"0 0 {shorten_number(width)} {shorten_number(height)}")
    root.set("role", "img")
    texts = (("title", "aria-labelledby", title), ("desc", "aria-describedby", description))
    for position, (name, reference, text) in enumerate(pair for pair in texts if pair[2]):
        element = etree.Element(f"{SVG}{name}", {"id": name})
        element.text = text
        root.insert(position, element)
        root.set(reference, name)


def _set_family(root: etree._Element, layout_font: str, family: str, *, once: bool) -> None:
    """Replace the layout font on every text, or drop it there and name the family on the root."""
    if once:
        root.set("font-family", family)
    for element in root.iter(f"{SVG}text", f"{SVG}tspan"):
        if element.get("font-family") == layout_font:
            _drop(element, "font-family")
            if not once:
                element.set("font-family", family)


def _name_ids(root: etree._Element) -> None:
    """Name ids after the figure's content, so that figures can stand on one page."""
    named = _find_all(root, "//*[@id]")
    labels = [(root, name) for name in _LABELS if name in root.attrib]
    drawn = len(named) > len(labels)  # with something of a name: a gradient, a clip
    users = _find_all(root, "//*[@*[contains(., 'url(#')]]") if drawn else []
    references = [(e, str(n)) for e in users for n, v in e.attrib.items() if "url(#" in str(v)]
    references += labels
    ids = {str(element.get("id")): str(number) for number, element in enumerate(named)}
    _rename(named, references, ids)
    digest = hashlib.blake2b(etree.tostring(root), digest_size=5).hexdigest()
    _rename(named, references, {number: f"h{digest}-{number}" for number in ids.values()})


def _rename(
    named: Sequence[etree._Element],
    references: Sequence[tuple[etree._Element, str]],
    ids: Mapping[str, str],
) -> None:
    for element in named:
        element.set("id", ids[str(element.get("id"))])
    for element, name in references:
        value = str(element.get(name))
        if name in _LABELS:
            element.set(name, ids[value])
        else:
            value = _REFERENCE.sub(lambda match: f"url(#{ids.get(match[1], match[1])})", value)
            element.set(name, value)


def _find_all(root: etree._Element, path: str) -> list[etree._Element]:
    found = root.xpath(path)
    assert isinstance(found, list)
    return [element for element in found if isinstance(element, etree._Element)]
