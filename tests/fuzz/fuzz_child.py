"""Paths of cases on stdin -> one line of JSON each: how the case ended, and what it took.

A process of its own, so that a case that kills it, hangs it or eats its memory is
seen from outside. To look at a saved case again:

    python tests/fuzz/fuzz_child.py FILE
"""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

#: What no message may hold: controls, surrogates, line separators, changes of direction.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")
MAX_MESSAGE = 1500
#: Where a figure holds numbers; none of them may have become anything else.
NUMERIC = ("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "points")
DRAWN: dict[str, str] = {}


class WrongError(AssertionError):
    """A case that ended neither in a sound figure nor in a sentence."""


def check_sentence(text: str) -> str:
    if bad := UNPRINTABLE.search(text):
        raise WrongError(f"a message holds {bad.group()!r}: {text!r}")
    if len(text) > MAX_MESSAGE:
        raise WrongError(f"a message has {len(text):,} characters: {text[:300]!r}")
    if "internal error" in text:
        raise WrongError(text)
    return text


def check_drawing(drawing: str, *, ours: bool) -> None:
    """Refuse what is no SVG, and in figures of ours a place that is no number."""
    from lxml import etree

    if not drawing.endswith("</svg>\n"):
        raise WrongError(f"a drawing ends in {drawing[-20:]!r}")
    for element in etree.fromstring(drawing.encode(), etree.XMLParser(huge_tree=True)).iter():
        for name in NUMERIC if ours else ():
            value = element.get(name, "")
            if re.search(r"NaN|Infinity|undefined|null", value):
                raise WrongError(f"{element.tag} has {name}={value[:80]!r}")


def draw(chart, *, formats=("svg",), ours: bool = True) -> None:
    """Draw a chart or a specification; the same one only once."""
    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    spec = to_spec(chart, validate=False)
    with suppress(TypeError, ValueError, RecursionError):
        known = f"{formats}{json.dumps(spec, sort_keys=True)}"
        if known in DRAWN:
            return
        DRAWN[known] = ""
    contents = begin_save(spec, list(formats), ppi=72)()
    for format, content in zip(formats, contents, strict=True):
        if format == "svg":
            check_drawing(content.decode(), ours=ours)
        elif not content:
            raise WrongError(f"an empty {format}")


def draw_both(capture, **options) -> str:
    import headgrid

    headgrid.head_statistics(capture)
    if capture.full_frame_attention is None:
        draw(headgrid.perhead(capture, **options))
        return "one figure"
    draw(headgrid.heatmap(capture, **options))
    draw(headgrid.perhead(capture, **options))
    return "figures"


def run_file(path: Path) -> str:
    import headgrid

    return draw_both(headgrid.load_capture(path))


def run_capture(case: dict) -> str:
    """A dictionary with the keys of the schema, drawn with options."""
    import headgrid

    capture = headgrid.Capture.from_dict(case["data"], layer=0, run=case["run"])
    return draw_both(capture, **case["options"])


def run_pick(case: dict) -> str:
    import headgrid

    rows = {"full_frame_attention": [[[1.0, 2.0], [3.0, 4.0]]] * 2}
    captures = [headgrid.Capture.from_dict(rows, layer=3, run=run) for run in case["runs"]]
    how = {"figure": case["figure"], **case["options"]}
    draw(headgrid.pick(captures, case["heads"], **how))
    return "figures"


def run_spec(case: dict) -> str:
    import headgrid

    spec = dict(case["spec"])
    for _ in range(case["nested"]):  # deeper than pickle can write
        spec = {"title": [spec]} if case["around"] else {**spec, "title": [spec.get("title")]}
    draw(spec, formats=("svg", "json"), ours=False)
    headgrid.fragment(spec)
    return "figures"


def run_command(case: dict) -> str:
    """A command line: exit code 0, 1 or 2, and nothing but sentences on stderr."""
    from click.testing import CliRunner

    from headgrid.cli.main import main

    with warnings.catch_warnings():
        result = CliRunner().invoke(main, case["arguments"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 1, 2):
        raise WrongError(f"exit code {result.exit_code}: {result.stderr}")
    if result.exit_code and not result.stderr:
        raise WrongError(f"exit code {result.exit_code} without a word")
    for line in result.stderr.splitlines():
        check_sentence(line)
        usage = result.exit_code == 2
        if not usage and not line.startswith("headgrid: "):
            raise WrongError(f"a line of stderr is {line!r}")
    return f"exit {result.exit_code}"


def misbehave(case: dict) -> str:
    """Go wrong, so that a test can see that it is seen."""
    if case["kind"] == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if case["kind"] == "hang":
        time.sleep(3600)
    if case["kind"] == "eat":
        return str(len(bytearray(os.urandom(2**20)) * 1200))
    if case["kind"] == "write":
        Path("stray.txt").write_text("stray")
        return "figures"
    until = time.process_time() + 6
    while time.process_time() < until:
        pass
    return "figures"


RUNS = {
    **dict.fromkeys(("die", "hang", "eat", "write", "spin"), misbehave),
    "capture": run_capture,
    "pick": run_pick,
    "spec": run_spec,
    "command": run_command,
}


def run_case(path: Path) -> str:
    import headgrid

    try:
        with warnings.catch_warnings(record=True) as odd:
            warnings.simplefilter("error")
            warnings.simplefilter("always", headgrid.HeadgridWarning)
            if path.suffix == ".case":
                case = pickle.loads(path.read_bytes())  # written by the tests themselves
                outcome = RUNS[case["kind"]](case)
            else:
                outcome = run_file(path)
        for warning in odd:
            check_sentence(str(warning.message))
    except headgrid.HeadgridError as error:
        check_sentence(str(error))
        return f"{type(error).__name__}: {error}"
    return outcome


def reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak memory since `reset_peak`; since the start where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    except (OSError, TypeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(path: Path) -> dict:
    reset_peak()
    started = time.process_time()
    wrong = None
    outcome = ""
    try:
        outcome = run_case(path)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        wrong = "".join(traceback.format_exception(error))[-3000:]
    return {
        "outcome": outcome,
        "wrong": wrong,
        "seconds": time.process_time() - started,
        "peak": peak_bytes(),
    }


def main() -> None:
    if len(sys.argv) > 1:
        for name in sys.argv[1:]:
            print(json.dumps(measure(Path(name)), indent=1).replace("\\n", "\n"))
        return
    # What the code under test prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    os.dup2(2, 1)
    from headgrid.render.vega import warm_up

    warm_up()
    answers.write("ready\n")
    for line in sys.stdin:
        answers.write(json.dumps(measure(Path(json.loads(line)))) + "\n")


if __name__ == "__main__":
    main()
