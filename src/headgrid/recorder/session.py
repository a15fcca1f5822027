"""Options and a ``with`` block, or many prompts -> recordings, and their captures in folders."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headgrid.errors import OptionError, RecordError
from headgrid.recorder.model import explain_unknown
from headgrid.recorder.options import Position, RecordOptions, read_options
from headgrid.recorder.place.segments import Boundaries
from headgrid.recorder.recording import Model, Recording
from headgrid.recorder.sum import shards
from headgrid.recorder.watch.intercept import observe
from headgrid.recorder.watch.sites import module_path, unwrap
from headgrid.text import shorten_text


@contextlib.contextmanager
def record(
    model: Model = None,
    *,
    tokens_per_frame: int | None = None,
    segments: Boundaries | None = None,
    query_segments: Boundaries | None = None,
    key_segments: Boundaries | None = None,
    pool: str = "both",
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
    stream: int | str | None = None,
    check_keys: bool = True,
    functions: Mapping[str, Any] | None = None,
    memory: float = 4.0,
    query_labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
    shard: str | None = None,
    group: Any = None,
    prompt: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Iterator[Recording]:
    """Record the frame attention of a model that runs inside the block.

    Attention functions are watched from outside: the model and its outputs stay as they are.

    Parameters
    ----------
    model : torch.nn.Module, str or None
        The model, a module that holds it, the name of its class (a glob), or None for the one
        with most layers among those that run and have such frames.
    tokens_per_frame : int, optional
        Tokens of one frame; not needed where the model states them (Wan and its like).
    segments, query_segments, key_segments : sequence or mapping, optional
        Boundaries ``[0, 12, 30]`` of frames in tokens, pairs of them, or parts by name,
        ``{"text": (0, 226), "video": (226, 17776, 1350)}`` (the third number: tokens of a frame,
        else the part is one place); for one axis or both.
    pool : {"both", "queries", "keys", "none"}
        Which axes are pooled; on the others each token is a place of its own.
    key_tokens_per_frame : int, optional
        Tokens of a key frame, in cross-attention.
    layers : int, str or sequence of them, optional
        Layers by number (in order of modules) or glob of module paths; all by default.
    attention : {"self", "cross"}
        Which attention counts.
    forwards : {"first", "last", "mean", "all"} or int, optional
        Which of repeated forwards of a block count (the first is the noisiest, the last is
        clean). By default a repeated forward is an error.
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
        Estimate mass or entropy from so many query tokens a frame; metadata has the error.
    seed : int
        Of the sample; the model's own random numbers are left alone.
    irregular_mask : {"error", "mean", "ignore"}
        What to do with logits where a mask or bias is not constant over a frame pair:
        stop, take the exact mean over visible token pairs, or leave masks out.
    gaps : {"error", "keep"}
        What to do where query frames are missing or incomplete.
    stream : {0, 1, "both"}, optional
        Which of two forwards counts that alternate, each with a cache of its own (conditional
        and unconditional); both are captures of ``stream_0`` and ``stream_1``.
    check_keys : bool
        Stop where a cached frame's keys change (a cache that rolled or was encoded again).
    functions : mapping of dotted path to reader, optional
        More attention functions, each with a function of the same arguments that
        returns an `AttentionCall`, or the name of a ready one ("flash", "wan", ...).
    memory : float
        Gibibytes that all matrices together may take. A model that needs more is an error at
        its first call, which says how much.
    query_labels, key_labels : sequence of str, optional
        Words of the tokenizer, for the places of an axis that are one token each.
    shard, group : {"queries", "sequence", "heads"}, process group, optional
        What torch.distributed has cut (queries only, queries and keys, or heads), and where.
    prompt, metadata
        Written into the captures.

    Yields
    ------
    Recording
        Its ``captures`` and ``save`` are ready when the block has ended.

    Raises
    ------
    OptionError, RecordError
        Where an option cannot be; where the calls do not fit, inside the block or at its end.

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
    with observe(recording.prepare, options.functions):
        yield recording
    recording.finish()


def _check_model(model: object, options: RecordOptions) -> None:
    """Refuse what can be seen to be wrong before the model runs."""
    if options.shard is not None and not shards.is_running():
        raise RecordError(
            f"shard={options.shard!r} needs torch.distributed, which is not initialised; call "
            "torch.distributed.init_process_group first, or leave shard out"
        )
    if model is not None and not isinstance(model, (torch.nn.Module, str)):
        names = ("transformer", "unet", "model")
        parts = [n for n in names if isinstance(getattr(model, n, None), torch.nn.Module)]
        hint = f"; pass its .{parts[0]}" if parts else ""
        raise OptionError(
            f"model is a {type(model).__name__}, expected a torch.nn.Module, the name of its "
            f"class, or None{hint}"
        )
    if not isinstance(model, torch.nn.Module):
        return
    paths = [module_path(model, part) for part in unwrap(model).modules()]
    for wanted in options.unknown_globs(paths):
        raise OptionError(explain_unknown(wanted, paths, type(unwrap(model)).__name__))


@dataclass(frozen=True, repr=False)
class Run:
    """One prompt's run; ``index`` is its position among all prompts, over all processes."""

    index: int
    prompt: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"run_{self.index:03d}"

    def __repr__(self) -> str:
        return f"<Run {self.name}: seed {self.seed}, {shorten_text(self.prompt, 60)!r}>"


def plan_runs(
    prompts: Sequence[str], seeds: int | Sequence[int] = 0, *, every_process: bool = False
) -> list[Run]:
    """Return the runs that fall to this process: every n-th, for n processes."""
    listed = [seeds] * len(prompts) if isinstance(seeds, int) else list(seeds)
    if not prompts or len(listed) != len(prompts):
        raise OptionError(
            f"there are {len(prompts)} prompts and {len(listed)} seeds, expected at least one "
            "prompt, and one seed for all or one each"
        )
    runs = [Run(i, p, s) for i, (p, s) in enumerate(zip(prompts, listed, strict=True))]
    return runs if every_process else runs[shards.rank() :: shards.world_size()]


def record_runs(
    model: Model,
    prompts: Sequence[str],
    generate: Callable[[str, int], Any],
    directory: str | Path,
    *,
    seeds: int | Sequence[int] = 0,
    **options: Any,
) -> list[Path]:
    """Run a model over many prompts and write each run's captures.

    Parameters
    ----------
    model : torch.nn.Module, str or None
        As in `record`.
    prompts : sequence of str
    generate : callable
        Runs the model; gets the prompt and the seed.
    directory : path
        Gets a folder ``run_000``, ``run_001``, ... for each prompt. With several
        processes each runs its share of the prompts.
    seeds, **options
        One seed for all or one each; what `record` takes. Where prompts differ, ``query_labels``
        and ``key_labels`` are functions of the prompt: ``tokenizer.tokenize``.

    Returns
    -------
    list of Path
        The folders that this process wrote.

    Raises
    ------
    OptionError, RecordError
        As in `record`, and where there are no prompts, or other than one seed a prompt.

    Examples
    --------
    >>> import tempfile, torch
    >>> def generate(prompt, seed):
    ...     q = torch.ones(1, 2, 6, 4) * seed
    ...     torch.nn.functional.scaled_dot_product_attention(q, q, q)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = record_runs(
    ...         None, ["an eagle", "a river"], generate, folder, seeds=[1, 2], tokens_per_frame=3
    ...     )
    ...     [path.name for path in paths]
    ['run_000', 'run_001']
    """
    folders = []
    labels = {name: options.pop(name, None) for name in ("query_labels", "key_labels")}
    for name, of in labels.items():
        if of is not None and not callable(of) and len({*prompts}) > 1:
            raise OptionError(
                f"{name} is one list for {len(prompts)} prompts, expected a function that "
                f"gives the words of a prompt ({name}=tokenizer.tokenize)"
            )
    for run in plan_runs(prompts, seeds, every_process=options.get("shard") is not None):
        own = {name: of(run.prompt) if callable(of) else of for name, of in labels.items()}
        with record(model, prompt=run.prompt, **options, **own) as recording:
            generate(run.prompt, run.seed)
        folders.append(save_run(recording, run, directory))
    return folders


def save_run(recording: Recording, run: Run, directory: str | Path, **more: Any) -> Path:
    """Write one run's captures and its ``run.json``."""
    folder = Path(directory) / run.name
    captures = recording.captures
    paths = recording.write(folder)
    if not paths:
        return folder
    facts = {
        "run": run.name,
        "prompt": run.prompt,
        "seed": run.seed,
        "options": recording.options.describe() | {"statistic": recording.options.statistic},
        "layers": sorted({capture.layer_index for capture in captures}),
        "files": sorted(str(path.relative_to(folder)) for path in paths),
        "packages": captures[0].metadata["packages"],
        **more,
    }
    text = json.dumps(facts, indent=2, ensure_ascii=False, sort_keys=True)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")
    return folder
