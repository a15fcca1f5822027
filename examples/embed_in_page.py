"""Figures -> a web page of one's own: as a picture, and with tooltips.

The page has each figure twice: as an SVG, which needs no script at all, and as a
fragment with tooltips. One script draws all fragments of a site and fetches
nothing, so the page works offline and where a Content-Security-Policy allows only
the site's own files.
"""

from pathlib import Path

import headgrid
from headgrid.capture.demo import TITLE, demo_folder

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention of layer 0</title>
<script src="{script}" defer></script>
<h1>Attention of layer 0</h1>
<h2>As a picture</h2>
<img src="{picture}" alt="Twelve heatmaps, one for each head" width="100%">
<h2>With tooltips</h2>
{fragments}
</html>
"""


def write_page(path):
    """Write the page of the first demonstration capture, and the script beside it."""
    with demo_folder() as folder:
        capture = headgrid.load_capture(folder / "layer0.pt")
    heatmap = headgrid.heatmap(capture, title=TITLE)
    perhead = headgrid.perhead(capture, title=TITLE)
    path = Path(path)
    page = PAGE.format(
        script=headgrid.write_assets(path.parent).name,
        picture=headgrid.save(heatmap, path.with_suffix(".svg")).name,
        fragments="\n".join(headgrid.fragment(c, loader=False) for c in (heatmap, perhead)),
    )
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write_page("embed_in_page.html")
    print("embed_in_page.html")
