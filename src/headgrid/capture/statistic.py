"""Name of a statistic -> what its values are: title, unit, meaning and sign."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Statistic:
    """What the values of a capture are.

    ``name`` stands in files and heads the value column of every table, ``title`` a value axis and
    a colour bar, ``unit`` stands behind the title of a measure, ``meaning`` in captions, one
    sentence without a full stop. ``signed`` values have two signs, with zero in the middle of the
    palette. ``base`` is the statistic that this one is derived from (its own name where it is
    not), and ``derived`` how: "mean" or "std" over runs, "difference" of two captures.
    """

    name: str
    title: str
    unit: str
    meaning: str
    signed: bool
    base: str
    derived: str = ""

    @property
    def has_mean(self) -> bool:
        """Whether values of several runs can be averaged: no deviations, no differences."""
        return self.derived in ("", "mean")

    @property
    def adds_up(self) -> bool:
        """Whether values of a row have a sum that means something: masses, but no deviations."""
        return self.base == "mass" and self.derived != "std"

    def derive(self, how: str) -> Statistic:
        """Return the statistic that is the mean, std or difference of this one."""
        title, unit, meaning = _DERIVED[how]
        return Statistic(
            f"{self.name}_{how}",
            title.format(self.title),
            unit.format(self.unit),
            meaning.format(self.meaning),
            how == "difference" or (self.signed and how == "mean"),
            self.name,
            how,
        )


# How titles, units and meanings change: over runs, and of two captures.
_DERIVED = {
    "mean": ("Mean {}", "mean {}", "mean over runs of: {}"),
    "std": (
        "Std. Dev. of {}",
        "std. dev. of {}",
        "standard deviation over runs, with n \u2212 1, of: {}",
    ),
    "difference": ("Difference of {}", "difference of {}", "difference of two captures of: {}"),
}

#: What a recorder gives, one value a frame pair.
_RECORDED = [
    Statistic(
        "logit",
        "Attention Logits",
        "logits",
        "mean over token pairs of q·k·scale, before the softmax",
        True,
        "logit",
    ),
    Statistic("mass", "Attention Mass", "mass", "attention after the softmax", False, "mass"),
    Statistic(
        "entropy",
        "Attention Entropy (nats)",
        "nats",
        "\u2212p·ln p of the attention p after the softmax, summed over a frame's keys",
        False,
        "entropy",
    ),
    Statistic(
        "max_logit",
        "Maximum Attention Logit",
        "max. logits",
        "largest q·k·scale of the token pairs, before the softmax",
        True,
        "max_logit",
    ),
]

#: What a value can be, by name: what is recorded, then what is derived of each.
STATISTICS: MappingProxyType[str, Statistic] = MappingProxyType(
    {statistic.name: statistic for statistic in _RECORDED}
    | {derived.name: derived for base in _RECORDED for derived in map(base.derive, _DERIVED)}
)
