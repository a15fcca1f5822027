"""The captures of a run's layers: a list that a notebook shows as one card."""

from __future__ import annotations

from headgrid.capture.model import Capture
from headgrid.notebook import Card


class Layers(list[Capture], Card):
    """Captures of layers, in order."""

    __slots__ = ()
