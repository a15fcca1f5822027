"""The package's own data -> a folder of synthetic captures to draw.

Logits of 21 frames in blocks of 3 and 12 heads, made by ``examples/make_demo_captures.py`` and not
recorded from a model. A second folder holds one layer of all-MiniLM-L6-v2 (Apache-2.0), recorded by
``examples/make_real_demo.py``: 12 heads, 20 sentences as frames.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

#: Title template of the demo's figures: nobody shall take them for a recording.
TITLE = "Layer {layer} of a synthetic demonstration (not recorded from a model)"

REAL_TITLE = "Layer {layer} of all-MiniLM-L6-v2 (sentences as frames)"


def demo_folder(*, real: bool = False) -> AbstractContextManager[Path]:
    """Give the folder that holds the bundled captures, the synthetic or the recorded ones."""
    return as_file(files("headgrid.capture") / ("demo_real" if real else "demo_captures"))
