"""What is loaded when: an import is paid for by whoever uses it."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import headgrid

SOURCE = Path(headgrid.__file__).parent
HEAVY = {"torch", "pandas", "altair", "vl_convert", "matplotlib", "rich", "PIL", "lxml"}


def loaded_after(code, *arguments):
    """Return the top-level modules that are loaded at the end of a program."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', *{m.partition('.')[0] for m in sys.modules}))\n"
        f"sys.argv = ['headgrid', *{list(map(str, arguments))!r}]\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_headgrid_loads_nothing_heavy():
    assert not loaded_after("import headgrid") & {*HEAVY, "numpy"}


@pytest.mark.parametrize("arguments", [["--help"], ["render", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    assert not loaded_after("from headgrid.cli.main import main; main()", *arguments) & HEAVY


def test_reading_a_capture_loads_neither_torch_nor_altair(capture_file):
    code = "import headgrid, sys; headgrid.load_capture(sys.argv[1])"
    assert not loaded_after(code, capture_file()) & (HEAVY - {"pandas"})


def test_statistics_load_neither_torch_nor_altair(capture_file):
    code = "from headgrid.cli.main import main; main()"
    assert not loaded_after(code, "stats", capture_file()) & (HEAVY - {"pandas"})


def test_rendering_loads_neither_torch_nor_matplotlib(capture_file, tmp_path):
    code = "if __name__ == '__main__':\n from headgrid.cli.main import main; main()"
    loaded = loaded_after(code, "render", capture_file(), "-o", tmp_path / "out")
    assert "altair" in loaded
    assert not loaded & {"torch", "matplotlib", "seaborn"}


def test_every_public_name_is_there_and_documented():
    for name in headgrid.__all__:
        assert getattr(headgrid, name).__doc__, name
    assert set(headgrid.__all__) <= set(dir(headgrid))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'headgrid' has no attribute 'nosuch'"):
        headgrid.nosuch  # noqa: B018


# The design's list, top to bottom; `testing` stands aside, as nothing imports it.
ORDER = [
    "cli",
    "batch",
    "planning",
    "surveyfiles",
    "surveys",
    "surveyed",
    "sheets",
    "panels",
    "picks",
    "contrasts",
    "saving",
    "render",
    "page",
    "assets",
    "engine",
    "svg",
    "charts",
    "grids",
    "layout",
    "looks",
    "labels",
    "options",
    "measures",
    "stability",
    "scales",
    "stats",
    "moments",
    "tidy",
    "store",
    "capture",
    "quantiles",
    "errors",
]


@cache
def imported_modules(path):
    """Return the modules of headgrid that a file imports when it runs, late imports included."""
    return list(_imported_modules(path))


def _imported_modules(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headgrid"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("headgrid."):
                    yield alias.name.split(".")[1]


MODULES = sorted(p.stem for p in SOURCE.glob("*.py") if p.stem not in ("__init__", "_pytest"))


def reachable_from(name):
    """Return every module that running a module can import, directly or through others."""
    seen, waiting = set(), [name]
    while waiting:
        for other in imported_modules(SOURCE / f"{waiting.pop()}.py"):
            if other in MODULES and other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_itself_by_a_detour(name):
    assert name not in reachable_from(name)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_down_the_list(name):
    above = set(ORDER[: ORDER.index(name)])
    assert not reachable_from(name) & above


def test_the_list_is_that_of_the_package():
    assert set(ORDER) <= set(MODULES)
    assert "testing" not in set().union(*map(reachable_from, MODULES))


@pytest.mark.parametrize("name", [m for m in MODULES if m != "engine"])
def test_only_the_engine_talks_to_vl_convert(name):
    assert "import vl_convert" not in (SOURCE / f"{name}.py").read_text(encoding="utf-8")


def test_nothing_in_the_package_imports_matplotlib():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import matplotlib" not in text
        assert "import seaborn" not in text


def test_no_module_has_the_name_of_a_public_function():
    """Importing such a module would put it in the function's place."""
    assert not set(MODULES) & {*headgrid.__all__, "record"}


def test_saving_works_after_the_test_helpers_were_imported():
    loaded_after("import headgrid.testing, headgrid; assert headgrid.save.__name__ == 'save'")
