"""A Sphinx site with headgrid's figures: ``sphinx-build examples/docs/sphinx site``.

Needs: pip install sphinx sphinxext-altair
"""

import json
from pathlib import Path
from types import SimpleNamespace

from sphinxext_altair import altairplot

import headgrid
from headgrid.capture.demo import TITLE, demo_folder
from headgrid.inert import make_inert

project = "Attention of a synthetic layer"
extensions = ["sphinxext_altair.altairplot"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1200px"}
html_show_sourcelink = False

# Figures for the pages that show them as pictures and as fragments, and the script that
# draws all others: the site loads nothing from elsewhere.
generated = Path(__file__).parent / "_generated"
exclude_patterns = ["_generated"]
html_static_path = ["_static", "_generated"]

with demo_folder() as folder:
    capture = headgrid.load_capture(folder / "layer0.pt")
headgrid.save(headgrid.heatmap(capture, title=TITLE), generated / "heatmap.svg")
fragment = headgrid.fragment(headgrid.perhead(capture, title=TITLE), loader=False)
(generated / "perhead.html").write_text(fragment, encoding="utf-8")
script = headgrid.write_assets(generated)

altairplot_vega_js_url = script.name
altairplot_vegalite_js_url = script.name
altairplot_vegaembed_js_url = script.name

# The extension writes a specification into a script element as it is, where a prompt or a
# title with "</script>" in it would end the script, and run what follows.
altairplot.json = SimpleNamespace(dumps=lambda value: make_inert(json.dumps(value)))
