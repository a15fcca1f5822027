"""Many prompts -> ``run_000/``, ``run_001/``, ... with captures and a ``run.json`` each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgrid.errors import OptionError
from headgrid.recorder.recording import Model, Recording
from headgrid.recorder.session import record
from headgrid.recorder.sum import shards
from headgrid.text import shorten_text


@dataclass(frozen=True, repr=False)
class Run:
    """One prompt's run.

    Attributes
    ----------
    index : int
        Position among all prompts, over all processes.
    prompt : str
    seed : int
    """

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
    step = 1 if every_process else shards.world_size()
    return runs[0 if every_process else shards.rank() :: step]


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
    seeds : int or sequence of int
    **options
        Of `record`.

    Returns
    -------
    list of Path
        The folders that this process wrote.

    Raises
    ------
    OptionError
        Where there are no prompts, other than one seed a prompt, or an option cannot be.
    RecordError
        Where the calls do not fit the options.

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
    for run in plan_runs(prompts, seeds, every_process=options.get("shard") is not None):
        with record(model, prompt=run.prompt, **options) as recording:
            generate(run.prompt, run.seed)
        folders.append(save_run(recording, run, directory))
    return folders


def save_run(recording: Recording, run: Run, directory: str | Path, **more: Any) -> Path:
    """Write one run's captures and its ``run.json``."""
    folder = Path(directory) / run.name
    paths = recording.save(folder)
    if not paths:
        return folder
    captures = recording.captures
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


def read_prompts(path: str | Path) -> list[str]:
    """Return the prompts of a text file, one a line; empty lines are left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def iterate_arguments(arguments: Sequence[str], run: Run) -> Iterator[str]:
    """Yield a script's arguments with ``{prompt}``, ``{seed}`` and ``{run}`` filled in."""
    for argument in arguments:
        filled = argument.replace("{seed}", str(run.seed)).replace("{run}", run.name)
        yield filled.replace("{prompt}", run.prompt)
