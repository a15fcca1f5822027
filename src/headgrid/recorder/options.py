"""Keywords of `headgrid.record` -> one frozen, checked `RecordOptions`."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from headgrid.errors import OptionError, RecordError, check_choice, near_miss
from headgrid.recorder.place.positions import CallInfo, Policy, read_policy
from headgrid.recorder.place.segments import Boundaries, Segments
from headgrid.recorder.read.readers import Reader
from headgrid.recorder.watch.targets import read_functions
from headgrid.text import shorten_text

_CHOICES = {
    "attention": ("self", "cross"),
    "statistic": ("logit", "mass", "entropy", "max_logit"),
    "irregular_mask": ("error", "mean", "ignore"),
    "gaps": ("error", "keep"),
    "shard": ("queries", "sequence", "heads"),
    "pool": ("both", "queries", "keys", "none"),
}
_FORWARDS = ("first", "last", "mean", "all")

#: A policy, its spelling (``"counted:5"``), or a function of a `CallInfo`.
Position = str | Policy | Callable[[CallInfo], Any]


class MisfitError(RecordError):
    """A model has other frames than the options say: it may be another that is meant."""


class UnknownLayerError(MisfitError):
    """A model has no such layers."""


@dataclass(frozen=True)
class RecordOptions:
    """What to record, and how it is read; see `headgrid.record` for each field."""

    query_segments: Segments
    key_segments: Segments
    layers: tuple[int | str, ...] | None
    attention: str
    forwards: str | int | None
    batch: int | str | None
    query_position: Policy
    query_position_inferred: bool
    key_position: Policy
    statistic: str
    sample: int | None
    seed: int
    irregular_mask: str
    gaps: str
    stream: int | str | None
    check_keys: bool
    functions: Mapping[str, Reader]
    memory: float
    query_labels: Sequence[str] | None
    key_labels: Sequence[str] | None
    shard: str | None
    group: Any
    prompt: str
    metadata: Mapping[str, Any]

    def wants(self, number: int, path: str) -> bool:
        """Return whether a layer is asked for, by number or by module path."""
        return self.layers is None or any(fits_layer(one, number, path) for one in self.layers)

    def names_exactly(self, path: str) -> bool:
        """Return whether a layer is asked for by a glob that spells its last name out."""
        globs = [one for one in self.layers or () if isinstance(one, str)]
        last = path.rpartition(".")[2]
        return any(match_path(path, one) and one.rpartition(".")[2] == last for one in globs)

    def names(self, path: str) -> bool:
        """Return whether a layer is asked for by its module path."""
        return any(isinstance(one, str) and match_path(path, one) for one in self.layers or ())

    def unknown_globs(self, paths: Collection[str]) -> list[str]:
        """Return the globs that fit none of the module paths."""
        globs = [one for one in self.layers or () if isinstance(one, str)]
        return [one for one in globs if not any(match_path(path, one) for path in paths)]

    def describe(self) -> dict[str, Any]:
        """Return the observation policy as plain values, for the capture's metadata."""
        return {
            "attention": self.attention,
            "forwards": "once" if self.forwards is None else self.forwards,
            "batch": "only" if self.batch is None else self.batch,
            "query_position": str(self.query_position),
            "key_position": str(self.key_position),
            "query_frames": self.query_segments.describe(),
            "key_frames": self.key_segments.describe(),
            "irregular_mask": self.irregular_mask,
            "gaps": self.gaps,
            "stream": "only" if self.stream is None else self.stream,
            "check_keys": self.check_keys,
            "sample": 0 if self.sample is None else self.sample,
            "sample_seed": self.seed,
            "shard": self.shard or "none",
        }


def fits_layer(wanted: int | str, number: int, path: str) -> bool:
    """Return whether a layer is the one that a number or a glob asks for."""
    return number == wanted if isinstance(wanted, int) else match_path(path, wanted)


def match_path(path: str, pattern: str) -> bool:
    """Return whether a module path fits a glob; ``layers.*`` fits ``model.layers.3`` too."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"*.{pattern}")


def read_options(
    *,
    tokens_per_frame: int | None,
    segments: Boundaries | None,
    query_segments: Boundaries | None,
    key_segments: Boundaries | None,
    pool: str,
    key_tokens_per_frame: int | None,
    **given: Any,
) -> RecordOptions:
    """Check the keywords of `headgrid.record` and build the options."""
    for name, choices in _CHOICES.items():
        if name != "shard" or given[name] is not None:
            check_choice(name, pool if name == "pool" else given[name], choices)
    if not isinstance(given["memory"], (int, float)) or not given["memory"] > 0:
        raise OptionError(f"memory is {given['memory']!r}, expected gibibytes, above 0")
    _check_forwards(given["forwards"], given["statistic"])
    batch = given["batch"]
    if batch is not None and not _is_whole(batch) and batch not in ("mean", "all"):
        raise OptionError(
            f"batch is {batch!r}, expected a whole number, 'mean' or 'all'"
            f"{near_miss(str(batch), ('mean', 'all'))}"
        )
    if given["stream"] not in (None, 0, 1, "both"):
        raise OptionError(
            f"stream is {given['stream']!r}, expected 0 or 1, in order of calls, or 'both'"
        )
    _check_sample(given["sample"], given["statistic"])
    for name in ("query_labels", "key_labels"):
        _check_labels(name, given[name])
    cross = given["attention"] == "cross"
    both = _choose("tokens_per_frame", tokens_per_frame, "segments", segments)
    queries = _choose("tokens_per_frame", None, "query_segments", query_segments) or both
    keys = _choose("key_tokens_per_frame", key_tokens_per_frame, "key_segments", key_segments)
    keys = keys or (None if cross else both)
    if keys is None and cross and pool not in ("queries", "none"):
        raise OptionError(
            "the frames of the keys are not given, expected key_tokens_per_frame=1 (each text "
            "token for itself), or boundaries key_segments=[0, 12, 30]"
        )
    queries, keys = queries or Segments(), keys or Segments()  # to be found in the model
    queries = queries.unpooled() if pool in ("keys", "none") else queries
    keys = keys.unpooled() if pool in ("queries", "none") else keys
    given["layers"] = _read_layers(given["layers"])
    given["functions"] = read_functions(given["functions"])
    given["query_position_inferred"] = given["query_position"] is None
    for axis, of_cross in (("query", "self"), ("key", "whole")):
        name = f"{axis}_position"
        given[name] = read_policy(given[name] or (of_cross if cross else "growing"), axis)
    return RecordOptions(query_segments=queries, key_segments=keys, **given)


def _check_forwards(forwards: str | int | None, statistic: str) -> None:
    number = _is_whole(forwards) and forwards >= 0
    if forwards is not None and not number and forwards not in _FORWARDS:
        raise OptionError(
            f"forwards is {forwards!r}, expected one of {', '.join(_FORWARDS)}, or the number of a "
            f"forward from 0{near_miss(str(forwards), _FORWARDS)}"
        )
    if forwards == "mean" and statistic == "max_logit":
        raise OptionError(
            "forwards is 'mean' and statistic is 'max_logit', but a maximum has no mean over "
            "forwards; expected forwards 'first', 'last' or 'all'"
        )


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_sample(sample: int | None, statistic: str) -> None:
    fits = _is_whole(sample) and sample >= 2 and statistic in ("mass", "entropy")
    if sample is not None and not fits:
        raise OptionError(
            f"sample is {sample!r} and statistic is {statistic!r}, expected a number of query "
            "tokens a frame, at least 2, and statistic 'mass' or 'entropy'; a logit or a maximum "
            "cannot be estimated from some tokens"
        )


def _check_labels(name: str, labels: Any) -> None:
    """Refuse, before a model runs, what can not be the labels of an axis."""
    is_list = isinstance(labels, (Sequence, np.ndarray)) and not isinstance(labels, (str, bytes))
    kinds = (str, int, float, np.number) if is_list else ()
    odd = [one for one in (labels if is_list else [labels]) if not isinstance(one, kinds)]
    if labels is not None and odd:
        raise OptionError(
            f"{name} {'holds' if is_list else 'is'} {shorten_text(repr(odd[0]), 60)}, expected a "
            "list of texts or numbers, one for each token"
        )


def _read_layers(layers: Any) -> tuple[int | str, ...] | None:
    if layers is None:
        return None
    items = [layers] if isinstance(layers, (int, str)) else list(layers)
    if not items or not all(isinstance(i, str) or (_is_whole(i) and i >= 0) for i in items):
        raise OptionError(
            f"layers is {layers!r}, expected layer numbers from 0 or module-path globs "
            "('blocks.*.attn1')"
        )
    return tuple(items)


def _choose(name: str, size: int | None, other: str, bounds: Boundaries | None) -> Segments | None:
    if size is not None and bounds is not None:
        raise OptionError(f"{name} and {other} are both given, expected one of them")
    if size is not None:
        return Segments.equal(size, name)
    return None if bounds is None else Segments.explicit(bounds, other)
