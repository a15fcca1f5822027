"""What is loaded when, and what may import what: an import is paid for by whoever uses it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import headgrid

SOURCE = Path(headgrid.__file__).parent
PUBLIC = vars(headgrid)["__all__"]
MODULES = sorted(SOURCE.rglob("*.py"))
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


def test_statistics_load_neither_torch_nor_altair(capture_file):
    code = "from headgrid.cli.main import main; main()"
    assert not loaded_after(code, "stats", capture_file()) & (HEAVY - {"pandas"})


def test_rendering_loads_neither_torch_nor_matplotlib(capture_file, tmp_path):
    code = "if __name__ == '__main__':\n from headgrid.cli.main import main; main()"
    loaded = loaded_after(code, "render", capture_file(), "-o", tmp_path / "out")
    assert "altair" in loaded
    assert not loaded & {"torch", "matplotlib", "seaborn"}


def test_help_of_the_package_tells_every_public_name_in_a_line():
    told = headgrid.__doc__
    for name in set(PUBLIC) - {"__version__"}:
        assert re.search(rf"\b{name}\b", told), name
        assert getattr(headgrid, name).__doc__, name
    assert set(PUBLIC) <= set(dir(headgrid))


def test_every_public_function_has_an_example():
    for name in set(PUBLIC) - {"__version__", "Survey"}:
        value = getattr(headgrid, name)
        if not (isinstance(value, type) and issubclass(value, (Exception, Warning))):
            held = [value.__doc__, *(getattr(part, "__doc__", "") for part in vars(value).values())]
            assert any(">>>" in (text or "") for text in held), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nosuch"):
        headgrid.nosuch  # type: ignore[attr-defined]  # noqa: B018


def test_a_public_function_is_not_hidden_by_the_package_of_its_name():
    code = "import headgrid.survey, headgrid.testing, headgrid; "
    loaded_after(code + "headgrid.overview; assert headgrid.survey.__name__ == 'survey'")


def imports_of(path):
    """Yield the dotted names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_one_module_talks_to_vl_convert_and_none_to_matplotlib():
    users = {name: set() for name in ("vl_convert", "matplotlib", "seaborn")}
    for path in MODULES:
        for name in imports_of(path):
            users.get(name.partition(".")[0], set()).add(path.relative_to(SOURCE).as_posix())
    assert users == {"vl_convert": {"render/vega.py"}, "matplotlib": set(), "seaborn": set()}


def test_no_module_of_the_package_is_imported_by_a_string():
    for path in MODULES:
        assert not re.search(r"import_module\(f?.headgrid", path.read_text(encoding="utf-8")), path
