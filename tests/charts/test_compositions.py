"""What altair composes of our charts looks as its parts do, and says what is drawn."""

from collections import Counter

import altair as alt
import numpy as np
import pytest

import headgrid
from headgrid import OptionError, compare, heatmap, overview, perhead, pick, survey, trend
from headgrid.render.convert import render
from headgrid.web.mimebundle import VEGALITE
from svgreader import read_svg
from synthetic import block_capture

SMALL, LARGE = block_capture(3, (2, 3)), block_capture(3, (2, 3), scale=30.0, layer=1)
PLAIN = alt.Chart(alt.InlineData([{"a": 1}])).mark_bar().encode(x="a:Q")


def drawn(chart):
    return read_svg(render(headgrid.to_spec(chart), "svg").decode())


def looks(texts):
    return Counter((t.content, t.size, t.weight, t.family) for t in texts)


def steps(texts):
    """Return where each text stands, seen from the first."""
    places = np.array([(t.x, t.y) for t in texts])
    return (places - places[0]).round(3).tolist()


def colors(drawing):
    """Return the area of each colour of the cells of each map."""
    groups = filter(None, drawing.marks["cells"])
    areas = [Counter() for _ in range(len(drawing.marks["cells"]))]
    for area, group in zip(areas, groups, strict=False):
        for shape in group:
            for x0, y0, x1, y1 in shape.areas():
                area[shape.color] += round((x1 - x0) * (y1 - y0))
    return areas


@pytest.mark.parametrize("theme", ["default", "paper"])
@pytest.mark.parametrize(
    "compose",
    [
        lambda a, b: a | b,
        lambda a, b: a & b,
        lambda a, b: alt.concat(a, b, columns=1),
        lambda a, b: PLAIN | (a & b),
    ],
)
def test_parts_keep_their_text_and_spacing(compose, theme):
    parts = heatmap(SMALL, theme=theme, columns=2), perhead(LARGE, theme=theme, columns=2)
    alone, texts = [drawn(part).texts for part in parts], drawn(compose(*parts)).texts
    assert not looks(alone[0] + alone[1]) - looks(texts)
    start = next(
        n for n in range(len(texts)) if steps(texts[n:])[: len(alone[0])] == steps(alone[0])
    )
    rest = texts[start + len(alone[0]) :]
    assert steps(rest[: len(alone[1])]) == steps(alone[1])


@pytest.mark.parametrize("cells", ["vector", "image"])
def test_each_part_has_its_own_colours_and_bar(cells):
    parts = heatmap(SMALL, cells=cells), heatmap(LARGE, cells=cells)
    both, alone = drawn(parts[0] | parts[1]), [drawn(part) for part in parts]
    assert looks(both.texts) == looks(alone[0].texts + alone[1].texts)
    if cells == "vector":
        assert colors(both) == colors(alone[0]) + colors(alone[1])
    nested = drawn((parts[0] | PLAIN) & parts[1])
    assert not looks(alone[0].texts + alone[1].texts) - looks(nested.texts)


def test_what_a_user_configures_is_over_the_look_and_captions_are_told_one_after_the_other():
    parts = heatmap(SMALL, theme="paper"), perhead(LARGE)
    spec = headgrid.to_spec((parts[0] | parts[1]).configure_axis(labelFontSize=17))
    assert spec["config"]["axis"] == headgrid.to_spec(parts[0])["config"]["axis"] | {
        "labelFontSize": 17
    }
    told = "; ".join(headgrid.to_spec(part)["description"] for part in parts)
    assert spec["description"] == spec["usermeta"]["headgrid"]["caption"] == told
    assert "usermeta" not in str(spec["hconcat"])
    assert headgrid.to_spec(PLAIN | PLAIN)["config"].keys() == {"view"}  # altair's own


def test_a_composition_is_a_picture_in_a_notebook_unless_a_renderer_was_chosen():
    chart = heatmap(SMALL) | perhead(SMALL)
    bundle = chart._repr_mimebundle_(None, None)
    assert bundle.keys() == heatmap(SMALL)._repr_mimebundle_().keys()
    assert bundle[VEGALITE] == headgrid.to_spec(chart)
    assert bundle["text/plain"].startswith("<HConcatChart of layer 0: Attention Logits")
    assert 'src="http' not in bundle["text/html"]
    with alt.renderers.enable("html"):
        assert "vega-embed" in chart._repr_mimebundle_()["text/html"]
    assert VEGALITE not in (PLAIN | PLAIN)._repr_mimebundle_()


@pytest.mark.parametrize("size", ["width", "height"])
def test_a_size_that_altair_would_set_is_refused_at_once(size):
    found = survey([SMALL, LARGE])
    figures = heatmap(SMALL), pick([SMALL], ["0:0"], figure="both"), overview(found), trend(found)
    for figure in figures:
        with pytest.raises(
            OptionError, match=rf"found {size}=300 in properties\(\), expected width="
        ):
            figure.properties(**{size: 300})


@pytest.mark.parametrize(
    ("change", "axes"),
    [
        (lambda chart: chart, "A value axis for each head"),
        (lambda chart: chart.resolve_scale(y="shared"), "One value axis for all heads"),
        (lambda chart: chart.configure_axis(grid=False), "A value axis for each head"),
        (lambda chart: perhead(SMALL, theme="paper"), "One value axis for all heads"),
        # An axis with fixed ends stays the same for all.
        (
            lambda chart: perhead(SMALL, theme="paper").resolve_scale(y="independent"),
            "One value axis for all heads",
        ),
    ],
)
def test_the_caption_tells_of_the_value_axes_that_are_drawn(change, axes):
    chart = change(perhead(SMALL))
    spec = headgrid.to_spec(chart)
    assert f"{axes};" in spec["description"]
    assert spec["usermeta"]["headgrid"]["caption"] == spec["description"]
    svg = render(spec, "svg").decode()
    assert f"{axes};" in svg.partition("<desc")[2].partition("</desc>")[0]
    if chart.config is alt.Undefined:  # as altair wants it of parts
        assert f"{axes};" in headgrid.to_spec(heatmap(SMALL) | chart)["description"]
    ticks = Counter(t.content for t in read_svg(svg).texts if t.anchor == "end")
    if axes.startswith("One") and "paper" not in str(spec["usermeta"]):
        assert set(ticks.values()) == {3}  # the same labels in each panel


def test_the_caption_is_that_which_a_user_writes():
    spec = headgrid.to_spec(heatmap(SMALL).properties(description="Mine."))
    assert spec["usermeta"]["headgrid"]["caption"] == "Mine."


@pytest.mark.parametrize(("width", "shown"), [("17cm", True), (None, False)])
def test_a_comparison_on_paper_has_no_title_and_names_the_runs_where_that_fits(width, shown):
    runs = [SMALL.replace(run=run) for run in ("run_0", "run_1")]
    texts = {t.content for t in drawn(compare(*runs, theme="paper", width=width, columns=2)).texts}
    named = {"H0: A (run_0)", "H0: B (run_1)"} if shown else {"H0: A", "H0: B"}
    assert named | {"H0: B \u2212 A"} <= texts


@pytest.mark.parametrize("width", [None, "8.4cm"])
@pytest.mark.parametrize("cells", ["vector", "image"])
def test_a_comparison_of_one_row_has_its_bars_below_and_no_white_room(width, cells):
    pair = [block_capture(1, (3,) * 7, scale=scale) for scale in (1, 3)]
    drawing = drawn(compare(*pair, theme="paper", width=width, cells=cells))
    frames = [shape.box for group in drawing.marks["frame"] for shape in group]
    right, bottom = max(b[2] for b in frames), max(b[3] for b in frames)
    assert right > 0.9 * drawing.width
    assert bottom > 0.35 * drawing.height
    legends = [t for t in drawing.texts if "role-legend" in t.classes]
    assert {"not seen", "Logits"} <= {word for t in legends for word in (t.content, t.content[-6:])}
    assert all(t.y > bottom and t.box()[2] < drawing.width for t in legends)


@pytest.mark.parametrize(
    ("runs", "width", "names"),
    [
        (["run_0", "run_1"], "17cm", ["(a) run_0, Layer 0, Head 2", "(b) run_1, Layer 0, Head 2"]),
        (["run_0", "run_1"], "8cm", ["(a) run_0 L0 H2", "(b) run_1 L0 H2"]),
        (["cats/0", "dogs/0"], "8cm", ["(a) cats/0 L0 H2", "(b) dogs/0 L0 H2"]),
        (["run_0", "run_1"], "6cm", ["(a)", "(b)"]),
        (["run_0"], "6cm", ["Layer 0, Head 2"]),
    ],
)
def test_panels_that_would_read_alike_keep_their_runs_and_one_alone_has_no_letter(
    runs, width, names
):
    captures = [SMALL.replace(run=run) for run in runs]
    chart = pick(captures, [f"{run}/0:2" for run in runs], theme="paper", width=width)
    texts = [t.content for t in drawn(chart).texts]
    assert [t for t in texts if t.startswith("(") or "Head" in t] == names
