"""Options and a ``with`` block -> a `Recording` that watches while the block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from headgrid.errors import OptionError, near_miss
from headgrid.recorder.options import Position, RecordOptions, match_path, read_options
from headgrid.recorder.recording import Model, Recording
from headgrid.recorder.sum import shards
from headgrid.recorder.watch.intercept import observe
from headgrid.recorder.watch.sites import module_path, unwrap


@contextlib.contextmanager
def record(
    model: Model = None,
    *,
    tokens_per_frame: int | None = None,
    segments: Sequence[Any] | None = None,
    query_segments: Sequence[Any] | None = None,
    key_segments: Sequence[Any] | None = None,
    key_tokens_per_frame: int | None = None,
    layers: int | str | Sequence[int | str] | None = None,
    attention: str = "self",
    forwards: str | int | None = None,
    batch: int | str | None = None,
    query_position: Position | None = None,
    key_position: Position | None = None,
    statistic: str = "logit",
    sample: int | None = None,
    seed: int = 0,
    irregular_mask: str = "error",
    gaps: str = "error",
    check_keys: bool = True,
    functions: Mapping[str, Any] | None = None,
    shard: str | None = None,
    group: Any = None,
    prompt: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[Recording]:
    """Record the frame attention of a model that runs inside the block.

    The model is left as it is; its attention functions are watched from outside,
    and its outputs are those it has without a recorder.

    Parameters
    ----------
    model : torch.nn.Module, str or None
        The model, the name of its class (a glob), or None for the only one that runs.
    tokens_per_frame : int, optional
        Tokens of one frame. This or ``segments`` is needed.
    segments, query_segments, key_segments : sequence, optional
        Boundaries ``[0, 12, 30]`` of frames in tokens, or pairs of them, for both
        axes or for one.
    key_tokens_per_frame : int, optional
        Tokens of a key frame, in cross-attention.
    layers : int, str or sequence of them, optional
        Layers by number (in the order of their first call) or by a glob of module
        paths; all by default.
    attention : {"self", "cross"}
        Which attention counts.
    forwards : {"first", "last", "mean", "all"} or int, optional
        Which of repeated forwards of a block count: the first is the noisiest, the
        last is clean. By default a repeated forward is an error.
    batch : int, "mean" or "all", optional
        Which batch element counts; needed where there is more than one.
    query_position, key_position : str or callable, optional
        Where the tokens of a call lie: "growing" (a cache that grows), "counted:5"
        (blocks follow one another, five forwards each), "argument:current_start",
        "sink:1,window:6" (frames that the cache holds), "whole", or a function of a
        `CallInfo` that returns frame numbers.
    statistic : {"logit", "mass", "entropy", "max_logit"}
        Mean of ``q·k * scale`` plus constant biases; share of the softmax; its
        ``-p log p`` in nats (summed over a row of keys: the entropy); largest logit.
    sample : int, optional
        Estimate mass or entropy from so many query tokens a frame; the standard
        error is written into the metadata.
    seed : int
        Of the sample. The model's own random numbers are left alone.
    irregular_mask : {"error", "mean", "ignore"}
        What to do with logits where a mask or bias is not constant over a frame pair:
        stop, take the exact mean over visible token pairs, or leave masks out.
    gaps : {"error", "keep"}
        What to do where query frames are missing or incomplete.
    check_keys : bool
        Stop where a cached frame's keys change (a cache that rolled or was encoded again).
    functions : mapping of dotted path to reader, optional
        More attention functions, each with a function of the same arguments that
        returns an `AttentionCall`, or the name of a ready one ("flash", "wan", ...).
    shard : {"queries", "sequence", "heads"}, optional
        What torch.distributed has cut: queries only, queries and keys, or heads.
    group : process group, optional
        Of the cut.
    prompt, metadata
        Written into the captures.

    Yields
    ------
    Recording
        Its ``captures`` and ``save`` are ready when the block has ended.

    Raises
    ------
    OptionError
        Where an option cannot be.
    RecordError
        Where the calls do not fit the options, inside the block or at its end.

    Examples
    --------
    >>> import torch, headgrid.recorder
    >>> q = k = v = torch.ones(1, 2, 6, 4)
    >>> with headgrid.recorder.record(tokens_per_frame=3) as recording:
    ...     _ = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    >>> recording.captures
    [<Capture layer 0: logit, 2 heads, 2 query x 2 key frames, blocks [2]>]
    """
    given = {name: value for name, value in locals().items() if name != "model"}
    given["metadata"] = dict(metadata or {})
    options = read_options(**given)
    _check_model(model, options)
    recording = Recording(model, options)
    with observe(recording, options.functions):
        yield recording
    recording.finish()


def _check_model(model: object, options: RecordOptions) -> None:
    """Refuse what can be seen to be wrong before the model runs."""
    if options.shard is not None:
        shards.check_running(options.shard)
    if model is not None and not isinstance(model, (torch.nn.Module, str)):
        parts = [
            name
            for name in ("transformer", "unet", "model")
            if isinstance(getattr(model, name, None), torch.nn.Module)
        ]
        hint = f"; pass its .{parts[0]}" if parts else ""
        raise OptionError(
            f"model is a {type(model).__name__}, expected a torch.nn.Module, the name of its "
            f"class, or None{hint}"
        )
    if not isinstance(model, torch.nn.Module):
        return
    names = [module_path(model, part) for part in unwrap(model).modules()]
    for wanted in options.layers or ():
        if isinstance(wanted, str) and not any(match_path(name, wanted) for name in names):
            leaf = wanted.rpartition(".")[2]
            close = [name for name in names if leaf and leaf in name][:3]
            near = f"; there are {', '.join(close)}" if close else near_miss(wanted, names)
            raise OptionError(
                f"layers={wanted!r} matches none of the {len(names)} module paths of "
                f"{type(unwrap(model)).__name__} (such as {', '.join(names[1:4])}){near}"
            )
