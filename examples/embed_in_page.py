"""A figure -> a web page that draws it: the specification in the page, Vega from a CDN.

The page has the figure twice: as an SVG, which needs no script at all, and as a
Vega-Lite chart with tooltips, which needs Vega from the network.
"""

import json
from pathlib import Path

import headgrid
from headgrid.demo import TITLE, demo_folder

# Pinned to what altair's schema and headgrid's renderer speak.
SCRIPTS = ("vega@6.2.0", "vega-lite@6.4.1", "vega-embed@7.0.2")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Attention of layer 0</title>
{scripts}
<h1>Attention of layer 0</h1>
<h2>As a picture</h2>
<figure>{picture}</figure>
<h2>With tooltips</h2>
<div id="chart"></div>
<script type="application/json" id="spec">{spec}</script>
<script>
const spec = JSON.parse(document.getElementById("spec").textContent);
// Without the network there is no vegaEmbed, and the picture above stands alone.
if (window.vegaEmbed) vegaEmbed("#chart", spec, {{ast: true, actions: false}});
</script>
</html>
"""


def write_page(path):
    """Write the page of the first demonstration capture."""
    with demo_folder() as folder:
        capture = headgrid.load_capture(folder / "layer0.pt")
    figure = headgrid.heatmap(capture, title=TITLE)
    picture = headgrid.save(figure, Path(path).with_suffix(".svg")).read_text(encoding="utf-8")
    # In a script element "<" could end it, whatever a prompt says; in JSON \\u003c is the same.
    spec = json.dumps(headgrid.to_spec(figure)).replace("<", "\\u003c")
    scripts = "\n".join(
        f'<script src="https://cdn.jsdelivr.net/npm/{name}"></script>' for name in SCRIPTS
    )
    Path(path).write_text(
        PAGE.format(scripts=scripts, picture=picture, spec=spec), encoding="utf-8"
    )


if __name__ == "__main__":
    write_page("embed_in_page.html")
    print("embed_in_page.html")
