"""A case -> how it ended, and what it took; in a process of its own, as cases may end theirs.

To look at a case that was kept: ``python tests/fuzz/fuzz_child.py FILE``.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

#: What no message may hold: controls, surrogates, line separators, changes of direction.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")
#: Where a figure holds numbers; none of them may have become anything else.
NUMERIC = ("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "points")
#: What Python says of itself while it runs something: nothing that reading a file needs.
FORBIDDEN = ("pickle.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")
FORBIDDEN += ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "socket.", "shutil.")
READING: list[str] = []
HEARD: list[str] = []


def listen(event: str, arguments: tuple) -> None:
    """Take notice of what the reading of a file makes Python do."""
    unwanted = event == "import" and str(arguments[0]).startswith(("torch", "antigravity"))
    if READING and (unwanted or event.startswith(FORBIDDEN)):
        HEARD.append(f"{event} {arguments!r}"[:200])


def check_sentence(text: str) -> None:
    assert not UNPRINTABLE.search(text), f"a message holds what can not be printed: {text!r}"
    assert len(text) < 1500, f"a message has {len(text):,} characters: {text[:300]!r}"
    assert "internal error" not in text, text


def draw(chart, *, formats=("svg",), ours: bool = True) -> None:
    """Draw a chart or a specification, as SVG first; what we place is placed by numbers."""
    from lxml import etree

    from headgrid.charts.spec import to_spec
    from headgrid.web.save import begin_save

    contents = begin_save(to_spec(chart, validate=False), list(formats), ppi=72)()
    assert all(contents), "an empty file"
    for element in etree.fromstring(contents[0], etree.XMLParser(huge_tree=True)).iter():
        for name in NUMERIC if ours else ():
            value = element.get(name, "")
            assert not re.search(r"NaN|Infinity|undefined|null", value), (name, value[:80])


def draw_both(capture, **options) -> str:
    import headgrid

    headgrid.head_statistics(capture)
    if capture.full_frame_attention is not None:
        draw(headgrid.heatmap(capture, **options))
    draw(headgrid.perhead(capture, **options))
    return "figures"


def run_file(path: str, *, figures: bool) -> str:
    """Read a capture file, which runs nothing else, and perhaps draw it."""
    import headgrid

    HEARD.clear()
    READING.append(path)
    try:
        capture = headgrid.load_capture(path)
    finally:
        READING.clear()
        assert not HEARD, f"reading has run {HEARD}"
    return draw_both(capture) if figures else "read"


def run_capture(data: dict, run: str, options: dict) -> str:
    import headgrid

    return draw_both(headgrid.Capture.from_dict(data, layer=0, run=run), **options)


def run_pick(runs: list[str], heads: list[str], options: dict) -> str:
    import headgrid

    rows = {"full_frame_attention": [[[1.0, 2.0], [3.0, 4.0]]] * 2}
    captures = [headgrid.Capture.from_dict(rows, layer=3, run=run) for run in runs]
    draw(headgrid.pick(captures, heads, **options))
    return "figures"


def run_spec(spec: dict, nested: int, *, around: bool) -> str:
    import headgrid

    for _ in range(nested):  # deeper than pickle can write
        spec = {"title": [spec]} if around else {**spec, "title": [spec.get("title")]}
    draw(spec, formats=("svg", "json"), ours=False)
    headgrid.fragment(spec)
    return "figures"


def run_command(arguments: list[str]) -> str:
    """A command line: exit code 0, 1 or 2, and nothing but sentences on stderr."""
    from click.testing import CliRunner

    from headgrid.cli.main import main

    with warnings.catch_warnings():
        result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0 or (result.exit_code in (1, 2) and result.stderr), result
    for line in result.stderr.splitlines():
        check_sentence(line)
        assert line.startswith("headgrid: ") or result.exit_code == 2, line
    return f"exit {result.exit_code}"


def run_code(code: str) -> str:
    exec(code)  # with which a test goes wrong, to see that it is seen
    return "code"


def run_case(kind: str, case: dict) -> str:
    import headgrid

    try:
        with warnings.catch_warnings(record=True) as odd:
            warnings.simplefilter("error")
            warnings.simplefilter("always", headgrid.HeadgridWarning)
            outcome = globals()[f"run_{kind}"](**case)
    except headgrid.HeadgridError as error:
        outcome = f"{type(error).__name__}: {error}"
    for text in (outcome, *(str(warning.message) for warning in odd)):
        check_sentence(text)
    return outcome


def memory(name: str) -> int:
    """Return what Linux says of this process, in bytes."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class Found(NamedTuple):
    """How a case ended, what was wrong, its processor time, peak of memory and what that added."""

    outcome: str
    wrong: str = ""
    seconds: float = 0.0
    peak: int = 0
    added: int = 0


def measure(kind: str, case: dict) -> Found:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, started, wrong, outcome = memory("VmRSS"), time.process_time(), "", ""
    try:
        outcome = run_case(kind, case)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        wrong = "".join(traceback.format_exception(error))[-3000:]
    seconds, peak = time.process_time() - started, memory("VmHWM")
    return Found(outcome, wrong, seconds, peak, peak - before)


def move_in(folder: Path) -> None:
    """Make a process at home in a folder, and let it listen to itself."""
    os.chdir(folder / "work")
    os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    sys.addaudithook(listen)
    from headgrid.render.vega import warm_up

    warm_up()


if __name__ == "__main__":
    kept = Path(sys.argv[1])  # a pickle was written by the tests themselves
    file = ("file", {"path": str(kept), "figures": True})
    print(measure(*(pickle.loads(kept.read_bytes()) if kept.suffix == ".case" else file)))
