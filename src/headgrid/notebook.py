"""A value -> the card that a notebook shows of it.

Cards are drawn above everything that they show. The import in this module is the one that
goes up for them, while a notebook asks.
"""

from __future__ import annotations


class Card:
    """A base of captures, surveys, recordings and colour ranges: shown as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from headgrid.web.cards import show_card

        return show_card(self)
