"""The package's own data -> a folder of synthetic captures to draw.

Block-causal logits of 21 frames in blocks of 3 and 12 heads, made by
``examples/make_demo_captures.py``: sink, recent, diagonal, periodic, uniform
and other shapes that a reader recognises. Nothing was recorded from a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

#: Title template of the demo's figures: nobody shall take them for a recording.
TITLE = "Layer {layer} of a synthetic demonstration (not recorded from a model)"


@contextmanager
def demo_folder() -> Iterator[Path]:
    """Give the path of the folder that holds the bundled captures.

    Examples
    --------
    >>> with demo_folder() as folder:
    ...     sorted(path.name for path in folder.glob("*.pt"))
    ['layer0.pt', 'layer1.pt']
    """
    with as_file(files("headgrid") / "demo_captures") as folder:
        yield folder
