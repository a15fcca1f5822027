"""Captures -> files of a MkDocs site: specifications, pictures, and the script that draws.

Nothing is written beside the pages: MkDocs is told of generated files, and the
site that it builds loads nothing from elsewhere.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

import headgrid
from headgrid.capture.demo import TITLE, demo_folder

# The charts plugin looks for these three names among the scripts of a site. headgrid's one
# script holds them all; its name has a hash, so that browsers can keep it for ever.
SCRIPTS = "vega+vega-lite+vega-embed"


@cache
def charts():
    """Return the figures of the site, by the names that its pages use."""
    with demo_folder() as folder:
        capture = headgrid.load_capture(folder / "layer0.pt")
    return {
        "heatmap": headgrid.heatmap(capture, title=TITLE, columns=3),
        "perhead": headgrid.perhead(capture, title=TITLE),
    }


@cache
def generated():
    """Return the content of every generated file, by its place in the site."""
    files = {}
    with TemporaryDirectory() as folder:
        script = headgrid.write_assets(folder)
        files[f"{SCRIPTS}/{script.name}"] = script.read_bytes()
        for name, chart in charts().items():
            for suffix in ("svg", "json"):
                path = headgrid.save(chart, Path(folder, f"{name}.{suffix}"))
                place = f"figures/{name}.svg" if suffix == "svg" else f"figures/{name}.vl.json"
                files[place] = path.read_bytes()
    return files


@event_priority(100)  # before the charts plugin looks
def on_config(config):
    """Let every page load the script."""
    config.extra_javascript += [place for place in generated() if place.endswith(".js")]


def on_files(files, config):
    """Add the generated files to the site."""
    for place, content in generated().items():
        files.append(File.generated(config, place, content=content))


def on_page_markdown(markdown, **_):
    """Put figures where a page has ``<!-- headgrid: NAME -->``, as fragments."""
    for name, chart in charts().items():
        html = headgrid.fragment(chart, loader=False)
        markdown = markdown.replace(f"<!-- headgrid: {name} -->", html)
    return markdown
