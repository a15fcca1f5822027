"""Examples -> the figures, the gallery and the script of the documentation site.

Nothing is written beside the pages: MkDocs is told of generated files, and the
site that it builds loads nothing from elsewhere.
"""

import ast
import re
import runpy
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

import headgrid
from headgrid.testing import read_table

EXAMPLES = Path(__file__).parents[2]

# The charts plugin looks for these three names among the scripts of a site. headgrid's one
# script holds them all; its name has a hash, so that browsers can keep it for ever.
SCRIPTS = "vega+vega-lite+vega-embed"


@cache
def examples():
    """Return the code of every example, by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.py"))}


@cache
def charts():
    """Return the figure of every example that draws one, by name."""
    drawing = [name for name, code in examples().items() if "\ndef chart(" in code]
    return {name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["chart"]() for name in drawing}


@cache
def tutorial():
    """Return the figures of the tutorial, by name: its model is recorded anew."""
    toy = runpy.run_path(str(EXAMPLES / "record_toy_model.py"))
    torch = toy["torch"]
    torch.manual_seed(0)
    with headgrid.record(tokens_per_frame=toy["TOKENS"], forwards="last") as recording:
        toy["generate"](toy["ToyVideoModel"]().eval())
    layers = recording.captures
    heads = ["0:0", "1:2", "2:3"]
    panel = headgrid.pick(layers, heads, figure="both", theme="paper", width="13.97cm")
    return {"tutorial_layer": headgrid.heatmap(layers[1]), "tutorial_panel": panel}


@cache
def generated():
    """Return the content of every generated file, by its place in the site."""
    files = {}
    with TemporaryDirectory() as folder:
        script = headgrid.write_assets(folder)
        files[f"{SCRIPTS}/{script.name}"] = script.read_bytes()
        for name, chart in (charts() | tutorial()).items():
            spec = headgrid.to_spec(chart)
            picture = headgrid.save(spec, Path(folder, f"{name}.svg"))
            files[f"figures/{name}.svg"] = picture.read_bytes()
            files[f"figures/{name}.vl.json"] = headgrid.to_json(spec)
            with suppress(headgrid.HeadgridError):  # neither maps nor profiles
                files[f"figures/{name}.csv"] = read_table(spec).to_csv(index=False)
    return files


def describe(name):
    """Return the first paragraph of what an example says of itself, and its code in a fold."""
    code = examples()[name]
    told = (ast.get_docstring(ast.parse(code)) or "").partition("\n\n")[0].replace("\n", " ")
    block = "\n".join(f"    {line}".rstrip() for line in f"```python\n{code}```".splitlines())
    return f'{told}\n\n??? example "examples/{name}.py"\n\n{block}\n'


def gallery():
    """Return the page of all examples: thumbnails, then figure, code, specification and data."""
    shown = " ".join(f"[![{name}](figures/{name}.svg)](#{name})" for name in charts())
    parts = [f'<div class="thumbnails" markdown="span">{shown}</div>']
    for name in charts():
        parts.append(f"## {name.replace('_', ' ').capitalize()} {{ #{name} }}")
        parts.append(describe(name))
        parts.append(f"![{name}](figures/{name}.svg){{ loading=lazy }}")
        table = f", [table](figures/{name}.csv)" if f"figures/{name}.csv" in generated() else ""
        parts.append(f"[Specification with its data](figures/{name}.vl.json){table}")
    parts.append("## Scripts { #scripts }")
    for name in (name for name in examples() if name not in charts()):
        parts += [f"### {name.replace('_', ' ').capitalize()} {{ #{name} }}", describe(name)]
    return "\n\n".join(parts)


@event_priority(100)  # before the charts plugin looks
def on_config(config):
    """Let every page load the script."""
    config.extra_javascript += [place for place in generated() if place.endswith(".js")]


def on_files(files, config):
    """Add the generated files to the site."""
    for place, content in generated().items():
        files.append(File.generated(config, place, content=content))


def on_page_markdown(markdown, **_):
    """Put figures where a page has ``<!-- headgrid: NAME -->``, as fragments; fill the gallery."""
    if "<!-- gallery -->" in markdown:
        return markdown.replace("<!-- gallery -->", gallery())

    def draw(found):
        return headgrid.fragment(charts()[found[1]], loader=False)

    return re.sub("<!-- headgrid: (\\w+) -->", draw, markdown)


def on_post_page(output, **_):
    """Give the search of the theme a name for screen readers."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')
