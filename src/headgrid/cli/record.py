"""``headgrid record`` -> a script run under the recorder, and its captures in a folder."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgrid.cli.shared import option, path_option
from headgrid.errors import HeadgridError, HeadgridWarning, OptionError, RecordError

if TYPE_CHECKING:
    from headgrid.capture.model import Capture
    from headgrid.recorder.recording import Recording
    from headgrid.recorder.session import Run

#: Files whose frames stand between Python and the script.
_OURS = (__file__, runpy.__file__, "<frozen runpy>")


def _numbers(value: str) -> Any:
    """Read ``0,12,30``, ``0-12,14-30`` or ``text=0-226,video=226-17776/1350``."""
    try:
        items = [item.strip() for item in value.split(",")]
        if all("=" in item for item in items):
            named = [item.partition("=") for item in items]
            return {name: [int(n) for n in re.split("[-/]", ends)] for name, _, ends in named}
        if any("-" in item for item in items):
            return [tuple(int(end) for end in item.split("-")) for item in items]
        return [int(item) for item in items]
    except ValueError:
        raise click.BadParameter(
            f"{value!r}, expected token positions 0,12,30, pairs 0-12,14-30 or parts by name "
            "text=0-226,video=226-17776/1350"
        ) from None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path!r} can not be read ({error}), expected a file") from None


def _layers(values: tuple[str, ...]) -> list[int | str] | None:
    """Read ``0,5``, ``0-2`` and globs."""
    found: list[int | str] = []
    for item in (part.strip() for value in values for part in value.split(",")):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        if ends and first > last:
            raise click.BadParameter(f"{item!r}, expected layers from the lower to the higher, 0-2")
        found += range(first, last + 1) if ends else [item]
    return found or None


def _number_or_word(value: str) -> int | str:
    return int(value) if value.lstrip("-").isdigit() else value


def _functions(values: tuple[str, ...]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise click.BadParameter(
                f"{value!r}, expected PATH=READER (my_model.attention.attention=heads_last)"
            )
    return dict(value.split("=", 1) for value in values)


@click.command(options_metavar="[OPTIONS] -o DIR --")
@path_option("-o --output DIR", "", required=True)
@option("-m --module NAME", "Run a module instead of a script.")
@option("--model CLASS", "Class of the model; else the one of most layers.")
@option("--tokens-per-frame N", "Tokens of a frame, if the model does not say.", type=int)
@option(
    "--segments 0,12,30",
    "Frame boundaries, or parts by name: text=0-226,video=226-17776/1350.",
    check=_numbers,
)
@option("--query-segments 0,12,30", "", check=_numbers)
@option("--key-segments 0,12,30", "", check=_numbers)
@option("--key-tokens-per-frame N", "For cross-attention.", type=int)
@option("--pool both|queries|keys|none", "Axes that are pooled; others keep tokens.", "both")
@option("--memory GIB", "What all matrices may take.", 4.0, type=float)
@option("--key-labels FILE", "Words of the key tokens, one a line.", check=_lines)
@option("--layers N|N-N|GLOB", "By number or module path; else all.", multiple=True, check=_layers)
@option("--attention self|cross", "", "self")
@option(
    "--forwards first|last|mean|all|N",
    "Which of repeated forwards of a block count.",
    check=_number_or_word,
)
@option("--batch N|mean|all", "Which batch element counts.", check=_number_or_word)
@option(
    "--query-position POLICY",
    "growing, whole, counted:5, argument:current_start, or call:package.function.",
)
@option(
    "--key-position POLICY",
    "growing, whole, window:6, sink:1,window:6, or call:package.function.",
)
@option("--statistic logit|mass|entropy|max_logit", "", "logit")
@option("--sample N", "Query tokens a frame to estimate from.", type=int)
@option("--irregular-mask error|mean|ignore", "", "error")
@option("--gaps error|keep", "", "error")
@option("--stream 0|1|both", "Which of two alternating forwards.", check=_number_or_word)
@click.option("--check-keys/--no-check-keys", default=True, help="Stop if a cache rolled.")
@option(
    "--function functions PATH=READER",
    "One more attention function, and the reader of its arguments.",
    multiple=True,
    check=_functions,
)
@option("--shard queries|sequence|heads", "What torchrun has cut.")
@click.option("--prompt", default="", help="Written into the captures; fills {prompt}.")
@option(
    "--prompts FILE",
    "Run once a line; {prompt}, {prompt_file}, {seed}, {run} in ARGS are filled in.",
    check=_lines,
)
@option("--seed seeds N", "Fills {seed}; one, or one each.", multiple=True, type=int)
@click.argument("script", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
def record(script: tuple[str, ...], **options: Any) -> None:
    """Run a script under the recorder and write layer{L}.pt for every layer.

    The script stays as it is: put it, and its own arguments, behind two dashes.

    \b
        headgrid record --tokens-per-frame 1560 --forwards last -o captures -- \\
            inference.py --prompt "an eagle"
    """  # noqa: D301 - click reads \b
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any) -> None:
        ours = issubclass(category, HeadgridWarning)
        shown(_speak(str(message), options) if ours else message, category, *where)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            _record(list(script), **options)
    except OptionError as error:
        raise click.UsageError(_speak(str(error), options)) from None
    except HeadgridError as error:
        raise click.ClickException(_speak(str(error), options)) from None


def _speak(text: str, options: Mapping[str, Any]) -> str:
    """Return a message with options as the command line spells them."""
    names = "|".join(sorted(options, key=len, reverse=True))
    words = "|".join(name for name in names.split("|") if "_" in name)

    def spell(found: re.Match[str]) -> str:
        name, _, value = found[0].replace("'", "").partition("=")
        if name == "functions" and value:
            return "--function PATH=READER"
        if found[0] == "check_keys=False":
            return "--no-check-keys"
        if value.startswith("["):
            value = re.sub(r"[][ ]", "", value)
        return f"--{name.replace('_', '-')} {value}".rstrip()

    value = r"\{[^}]*\}|\[[^]]*\]|'[^']*'|[^\s,;)]*"
    others = r"( \.\.\. \d+)?(( \(\w+\))?(,| or) '\w+')*"
    text = re.sub(rf"\b({names})=({value}){others}", spell, text)
    return re.sub(rf"(?<![-.\w])({words})(?!\w)|^({names})(?= is | names )", spell, text)


def _record(
    script: list[str],
    output: Path,
    module: str | None,
    model: str | None,
    prompts: list[str] | None,
    prompt: str,
    seeds: tuple[int, ...],
    **options: Any,
) -> None:
    name, arguments, is_module = _split_script(script, module)
    from headgrid.recorder import session
    from headgrid.recorder.sum import shards

    for axis in ("query_position", "key_position"):
        options[axis] = _find_callable(options[axis], axis)
    output = output.absolute()  # the script may go to another folder
    if prompts is None:
        given = prompt or ("" if "{prompt" in " ".join(arguments) else _find_prompt(arguments))
        planned = [session.Run(0, given, seeds[0] if seeds else 0)]
    else:
        every = options["shard"] is not None
        seed = seeds[0] if len(seeds) == 1 else list(seeds) or 0
        planned = session.plan_runs(_clean_prompts(prompts, arguments), seed, every_process=every)
    apart = shards.name_folder(options["shard"])
    _check_output(output, [apart] if prompts is None else [run.name for run in planned])
    for run in planned:
        with (
            tempfile.TemporaryDirectory(prefix="headgrid-") as scratch,
            session.record(model, prompt=run.prompt, **options) as recording,
        ):
            filled = fill_arguments(arguments, run, Path(scratch) / "prompt.txt")
            try:
                _run_script(name, filled, module=is_module)
            except BaseException:
                # Cut queries and heads are put together by all processes; the others may go on.
                if prompts is None and options["shard"] in (None, "sequence"):
                    with contextlib.suppress(Exception):  # it is the other error that is told
                        recording.finish(ended=False)
                        _save(recording, output / apart)
                raise
        if prompts is None:
            _save(recording, output / apart)
            continue
        if len(recording.runs) > 1:
            raise RecordError(
                f"{run.name}: the script ran the model {len(recording.runs)} times, as the first "
                "block came again after later ones or for another prompt; expected one run for "
                "each line of --prompts: leave it out where the script itself reads many prompts, "
                "and each gets a folder"
            )
        folder = session.save_run(recording, run, output, script=name, arguments=arguments)
        _report(folder, recording.runs)


def _clean_prompts(lines: list[str], arguments: list[str]) -> list[str]:
    """Return the lines that are not empty, which the script must be told."""
    if not any("{prompt" in argument for argument in arguments):
        raise OptionError(
            "--prompts is given, but no argument of the script holds {prompt} or {prompt_file}, "
            "so that all runs would be the same; expected something like --prompt '{prompt}' "
            "behind the script"
        )
    return [line.strip() for line in lines if line.strip()]


def _save(recording: Recording, folder: Path) -> None:
    if recording.write(folder):
        _report(folder, recording.runs)


def _report(folder: Path, runs: list[list[Capture]]) -> None:
    """Print a line for each run that this process has written."""
    from headgrid.recorder.captures import summarize

    for captures in runs:
        own = re.match(r"run_\d+", captures[0].run)
        click.echo(f"{os.path.relpath(folder / (own[0] if own else ''))}: {summarize(captures)}")


def _find_prompt(arguments: list[str]) -> str:
    """Return what stands after ``--prompt`` among the script's arguments."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == "--prompt" or argument.startswith("--prompt="):
            return argument.partition("=")[2] or after
    return ""


def _check_output(folder: Path, own: list[str]) -> None:
    """Refuse what is no folder, and one in which an earlier recording would stand beside this."""
    near = next(path for path in (folder, *folder.parents) if path.exists())
    if not near.is_dir() or not os.access(near, os.W_OK):
        raise OptionError(f"{near} is no folder that can be written, expected one as -o")
    found = sorted(path for up in ("", "*/", "*/*/") for path in folder.glob(f"{up}layer*.pt"))
    if any(own):  # other processes may have written theirs
        found = [p for p in found if p.relative_to(folder).parts[0] in (*own, p.name)]
    if found:
        raise OptionError(
            f"{folder} holds {len(found)} captures of an earlier recording ({found[0].name} ...), "
            "which would be mixed with the new ones; remove them, or pass another folder as -o"
        )


def fill_arguments(arguments: list[str], run: Run, prompt_file: Path) -> list[str]:
    """Return a script's arguments with what stands in braces filled in."""
    prompt_file.write_text(f"{run.prompt}\n", encoding="utf-8")
    words = {"{prompt}": run.prompt, "{seed}": str(run.seed), "{run}": run.name}
    words["{prompt_file}"] = str(prompt_file)
    pattern = re.compile("|".join(map(re.escape, words)))
    return [pattern.sub(lambda found: words[found[0]], text) for text in arguments]


def _split_script(script: list[str], module: str | None) -> tuple[str, list[str], bool]:
    if module is not None:
        return module, script, True
    if script[:1] == ["-m"] and len(script) > 1:
        return script[1], script[2:], True
    if not script:
        raise OptionError(
            "no script is given, expected one behind two dashes: headgrid record -o DIR -- "
            "SCRIPT [ARGS]..."
        )
    return script[0], script[1:], False


def _find_callable(value: str | None, axis: str) -> Any:
    """Return the function that ``call:package.module.function`` names."""
    if value is None or not value.startswith("call:"):
        return value
    module, _, name = value.removeprefix("call:").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            f"{axis} is {value!r}, which cannot be imported ({error}); expected "
            "call:package.module.function"
        ) from None


def _run_script(script: str, arguments: list[str], *, module: bool) -> None:
    if not module and not Path(script).is_file():
        raise OptionError(
            f"{script}: there is no such script; give its path (without python before it), or -m "
            "and a module's name"
        )
    argv, path, folder = list(sys.argv), list(sys.path), Path.cwd()
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path.cwd()) if module else str(Path(script).resolve().parent))
    try:
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except (HeadgridError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - the script's own, shown as Python shows it
        import traceback  # late: a command that starts does not need it

        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        click.echo(f"headgrid: {script} failed; only runs that had ended are written", err=True)
        raise click.exceptions.Exit(1) from None
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise RecordError(
                f"{script} exited with {stop.code!r}, expected it to run to its end; only runs "
                "that had ended are written"
            ) from None
    finally:
        sys.argv, sys.path[:] = argv, path
        os.chdir(folder)
