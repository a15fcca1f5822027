"""Draw the golden specifications with the installed engine, or compare two folders of drawings.

python tests/engines.py draw FOLDER
python tests/engines.py compare FOLDER OTHER
"""

import json
import re
import sys
from pathlib import Path

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
#: By how much a drawing may be larger, and what stands in it moved, where letters are measured
#: otherwise: a unit at each side.
TOLERANCE = 2.0


def draw(folder):
    """Write the finished SVG of every golden specification."""
    from headgrid.render.convert import render_svg
    from headgrid.render.vega import find_versions

    print(find_versions())
    folder.mkdir(parents=True)
    for file in sorted(Path("specs").glob("*.vl.json")):
        svg = render_svg(json.loads(file.read_text(encoding="utf-8")))
        (folder / file.name).with_suffix(".svg").write_text(svg, encoding="utf-8")


def compare(folder, other):
    """Say how two drawings of each figure differ; leave with 1 where that is more than letters."""
    failed = False
    files = sorted(folder.glob("*.svg"))
    for file in files:
        a, b = (
            # Names are made of the content.
            re.sub(r"\bh[0-9a-f]{10}-", "", (place / file.name).read_text(encoding="utf-8"))
            for place in (folder, other)
        )
        numbers = [[float(text) for text in NUMBER.findall(drawing)] for drawing in (a, b)]
        alike = NUMBER.sub("0", a) == NUMBER.sub("0", b)
        moved = max((abs(x - y) for x, y in zip(*numbers, strict=True)), default=0) if alike else 0
        failed |= not alike or moved > TOLERANCE
        print(f"{file.name}: {'other marks' if not alike else f'within {moved:.2f} pt'}")
    return 1 if failed or not files else 0


if __name__ == "__main__":
    task, *folders = sys.argv[1:]
    sys.exit({"draw": draw, "compare": compare}[task](*map(Path, folders)))
