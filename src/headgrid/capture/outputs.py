"""Attention that comes as arrays alone, from a model or a file -> captures of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headgrid.capture import schema
from headgrid.capture.arrays import fit_array
from headgrid.capture.axis import TOKEN
from headgrid.capture.files import let_go
from headgrid.capture.model import Capture
from headgrid.capture.schema import FULL, Array, try_array
from headgrid.errors import CaptureError, HeadgridWarning, OptionError
from headgrid.notebook import Card
from headgrid.text import shorten_list

#: How far from 1 a row of masses may be: they were rounded to the 8 bits of bfloat16, or summed so.
_TOLERANCE = 2**-7
_NO_ATTENTION = (
    "expected the attention of every layer: load the model with attn_implementation='eager' and "
    "call it with output_attentions=True"
)


class Layers(list[Capture], Card):
    """Captures of layers, in order: a list that a notebook shows as one card."""

    __slots__ = ()


def read_bare(array: Array, *, source: str, layer: int | None, run: str) -> Capture:
    """Return the capture of a file that holds one array, with a warning of what it was taken for.

    Values of which none is negative and every row sums to 1 are masses, all others logits.
    """
    given: dict[str, Any] = dict.fromkeys(schema.KEYS - {"is_logits"})
    given |= {"layer_index": layer, "statistic": "logit", "source": source, "run": run}
    given[FULL] = fit_array(array, FULL, 3, source)
    full: Any = schema.read_array(given, FULL)
    sums, is_causal, is_signed = _look(full)
    taken = "logits, as some value is negative or some row does not sum to 1"
    if _are_one(sums) and not is_signed:
        taken = "attention after the softmax, as no value is negative and every row sums to 1"
        given["statistic"] = "mass"
        if is_causal:
            taken += ", and for causal, as all above the diagonal is 0"
            given["block_sizes"] = [1] * full.shape[1]
    warning = (
        f"{source}: holds an array alone, which was taken for {taken}; to say otherwise, save a "
        f"dictionary with {FULL}, statistic and block_sizes (Capture.from_array, save_capture)"
    )
    return Capture(**given | {"warnings": (warning,)})


def from_attentions(
    attentions: Sequence[Any],
    *,
    tokens: Sequence[Any] | None = None,
    query_tokens: Sequence[Any] | None = None,
    layers: int | Sequence[int] | None = None,
    batch: int | None = None,
    causal: bool | None = None,
    name: str = TOKEN,
    query_name: str | None = None,
    run: str = "",
    prompt: str = "",
) -> list[Capture]:
    """Make captures of the attention that a model of Hugging Face transformers returns.

    Parameters
    ----------
    attentions : sequence of array, each of shape (batch, heads, query, key)
        The attention after the softmax, layer by layer: ``outputs.attentions``, or its
        ``encoder_attentions``, ``decoder_attentions``, ``cross_attentions``; torch tensors or
        numpy arrays. Of ``generate()``, with a sequence for each step, the steps are put together;
        keys that a step did not have are NaN, and the last token is none of them.
    tokens : sequence of str or number, optional
        A label for each key, and for the queries where there are as many, or where they are the
        last ones of a causal model; also a list of one such list.
    query_tokens : sequence of str or number, optional
        A label for each query: what cross-attention needs.
    layers : int or sequence of int, optional
        Which layers, counted from 0; all by default.
    batch : int, optional
        Which sequence; needed where there are several. Beam search reorders them between steps.
    causal : bool, optional
        Whether each query attends the keys up to its own. By default it does where queries and
        keys are as many, and all above the diagonal is 0 in every layer.
    name, query_name : str
        What one place of the axes is called, or of the queries: ``"Patch"``.
    run, prompt : str
        Provenance.

    Returns
    -------
    list of Capture
        One for each layer, statistic ``"mass"``, with the values and the dtype of the model
        (bfloat16 as float32), ready for `heatmap`, `survey` and `explore`.

    Raises
    ------
    CaptureError
        Where there is no attention, or its shapes or the tokens do not fit.
    OptionError
        Where there is no such layer or sequence, or several and none was chosen.

    Warns
    -----
    HeadgridWarning
        Where a row does not sum to 1, as of a model in training mode.

    Examples
    --------
    >>> layer = np.array([[[[1.0, 0.0], [0.5, 0.5]]]])
    >>> captures = from_attentions([layer, layer], tokens=["The", "cat"])
    >>> captures[1]
    <Capture layer 1: mass, 1 head, 2 query x 2 key tokens, blocks [1, 1]>
    >>> captures[1].key_labels
    ('The', 'cat')
    """
    found = _list_layers(attentions)
    layers = range(len(found)) if layers is None else layers
    chosen = [*layers] if isinstance(layers, Iterable) else [layers]
    for layer in chosen:
        is_whole = isinstance(layer, (int, np.integer)) and not isinstance(layer, bool)
        if not is_whole or layer not in range(len(found)):
            raise OptionError(f"layers names {layer!r}, expected numbers of 0 to {len(found) - 1}")
    matrices = [_read_layer(found[layer], layer, batch) for layer in chosen]
    looks = [_look(matrix) for matrix in matrices]
    for layer, (sums, *_) in zip(chosen, looks, strict=True):
        if not _are_one(sums):
            text = f"rows of layer {layer} sum to {sums.min():.3g} to {sums.max():.3g}, expected 1"
            hint = "if the model is in training mode, call model.eval() first"
            warnings.warn(f"attentions: {text}; {hint}", HeadgridWarning, stacklevel=2)
            break
    if causal is None:
        causal = query_tokens is None and all(is_causal for _, is_causal, _ in looks)
    keys, asked = _unbatch(tokens), _unbatch(query_tokens)
    captures = Layers()
    for layer, matrix in zip(chosen, matrices, strict=True):
        _, queries, length = matrix.shape
        if isinstance(keys, (Sequence, np.ndarray)) and len(keys) != length:
            raise CaptureError(
                f"attentions: layer {layer} has {length} keys and tokens lists {len(keys)}, "
                "expected one for each key; pass those that the model was given"
            )
        if query_tokens is None and isinstance(keys, (Sequence, np.ndarray)):
            asked = keys[-queries:] if causal or queries == length else None
        capture = Capture.from_array(
            matrix,
            layer=layer,
            causal=causal,
            query_labels=asked,
            key_labels=keys,
            query_name=query_name or name,
            key_name=name,
            statistic="mass",
            run=run,
            prompt=prompt,
        )
        captures.append(capture)
    return captures


def _unbatch(labels: Sequence[Any] | None) -> Sequence[Any] | None:
    if isinstance(labels, (list, tuple)) and len(labels) == 1:
        return labels[0] if isinstance(labels[0], (list, tuple)) else labels
    return labels


def _list_layers(attentions: Any) -> list[tuple[Any, ...]]:
    """Return the steps of each layer: one, or those of `generate`."""
    if attentions is None or (isinstance(attentions, (tuple, list)) and not attentions):
        raise CaptureError(f"attentions is {attentions!r}, {_NO_ATTENTION}")
    if not isinstance(attentions, (tuple, list)) and getattr(attentions, "ndim", 0) != 5:
        raise CaptureError(
            f"attentions is {schema.describe_value(attentions)}, expected a tuple with an array "
            "(batch, heads, query, key) for each layer: outputs.attentions, or [array] of one layer"
        )
    if not all(isinstance(step, (tuple, list)) for step in attentions):
        return [(layer,) for layer in attentions]
    if not all(attentions):
        raise CaptureError(f"attentions has a step without a layer, {_NO_ATTENTION}")
    is_generated = any(part is None or getattr(part, "ndim", 0) == 4 for part in attentions[0])
    return [*zip(*attentions, strict=True)] if is_generated else [(layer,) for layer in attentions]


def _read_layer(steps: Sequence[Any], layer: int, batch: int | None) -> Array:
    """Return the matrix [heads, query, key] of one layer, its steps one below the other."""
    parts = [_read_step(step, f"attentions: layer {layer}", batch) for step in steps]
    if len(parts) == 1:
        return parts[0]
    _, queries, keys = np.transpose([part.shape for part in parts])
    # Where the first query sees the first key alone, keys that stay are those of a cache, which
    # has to have room for all.
    has_room = parts[0][:, 0, 1:].any() or sum(queries) <= keys[0]
    if (np.diff(keys) != queries[1:]).any() and (np.ptp(keys) or not has_room):
        raise CaptureError(
            f"attentions: layer {layer} has {shorten_list(keys.tolist())} keys in its steps "
            f"of {shorten_list(queries.tolist())} queries, expected keys that grow by the queries, "
            "or stay the same ones; give the attention of one forward over the finished text"
        )
    pads = [((0, 0), (0, 0), (0, keys[-1] - part.shape[2])) for part in parts]
    padded = [np.pad(*pair, constant_values=np.nan) for pair in zip(parts, pads, strict=True)]
    return np.concatenate(padded, axis=1)


def _read_step(value: Any, source: str, batch: int | None) -> Array:
    if value is None:
        raise CaptureError(f"{source} is None, {_NO_ATTENTION}, or leave it out with layers=")
    array = try_array(value)
    if array.ndim != 4 or not array.size or array.dtype.kind not in "fiu":
        found = schema.describe_value(value)
        raise CaptureError(f"{source} is {found}, expected numbers (batch, heads, query, key)")
    if (len(array) > 1 or batch is not None) and batch not in range(len(array)):
        raise OptionError(
            f"batch is {batch!r}, but the attention is of {len(array)} sequences (shape "
            f"{array.shape}), expected the number of the one to show, from 0 (batch=0)"
        )
    matrix = array[int(batch or 0)]
    return np.asarray(matrix, None if array.dtype.kind == "f" else np.float64)


@np.errstate(over="ignore", invalid="ignore")
def _look(matrix: Array) -> tuple[Array, bool, bool]:
    """Return sums of rows that hold a value, if all above the diagonal is 0, and any below 0."""
    sums, is_causal, is_signed = [], matrix.shape[1] == matrix.shape[2] > 1, False
    for head in matrix:
        of_rows = np.asarray(np.nansum(head, axis=1, dtype=np.float64))
        sums.append(of_rows[~np.isnan(head).all(axis=1)])
        is_causal = is_causal and not np.nan_to_num(np.triu(head, 1)).any()
        is_signed = is_signed or bool((head < 0).any())
        let_go(matrix)
    return np.concatenate(sums), bool(is_causal), is_signed


def _are_one(sums: Array) -> bool:
    return bool((abs(sums - 1) <= _TOLERANCE).all())
