import errno
import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from headgrid import OutputError
from headgrid.batch.manifest import NAME, Manifest, hash_output, name_inputs
from headgrid.capture.files import remove_leftovers, replace_file, write_bytes

OPTIONS = {"columns": 4, "title": 'a "jobs": {} title\n "jobs": {}'}


def hash_bytes(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def draw(tmp_path):
    """Return a function that writes a file and gives its path and hash."""

    def write(name, content=b"<svg/>"):
        path = write_bytes(tmp_path / name, content)
        return {path: hash_bytes(content)}

    return write


def finish(folder, jobs, options=OPTIONS, **more):
    """Write the manifest of finished jobs, as one run does."""
    with Manifest(folder, "render", options, **more) as manifest:
        for key, (digest, outputs) in jobs.items():
            manifest.add(key, digest, outputs)
    return manifest


def is_done(folder, key, digest, command="render", options=OPTIONS, **more):
    again = Manifest(folder, command, options, **{"resume": True, **more})
    return again.find_done(key, digest) is not None


def test_the_file_says_what_was_made_of_what(tmp_path, draw):
    finish(tmp_path, {"b.pt": ("22", draw("x/b.svg"))}, color_range=(-2.0, 2.0))
    found = json.loads((tmp_path / NAME).read_bytes())
    assert found["command"] == "render"
    assert found["options"] == OPTIONS
    assert found["color_range"] == [-2.0, 2.0]
    assert set(found["versions"]) == {"altair", "pillow", "vl-convert-python"}
    outputs = {"x/b.svg": hash_bytes(b"<svg/>")}
    assert found["jobs"] == {"b.pt": {"digest": "22", "outputs": outputs}}


def test_the_order_of_the_jobs_does_not_change_the_bytes(tmp_path, draw):
    jobs = {f"{name}.pt": (name, draw(f"{name}.svg")) for name in "cab"}
    texts = []
    for some in (jobs, dict(sorted(jobs.items()))):
        finish(tmp_path, some)
        texts.append((tmp_path / NAME).read_text())
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]


def test_an_unchanged_job_is_done_and_stays_listed(tmp_path, draw):
    made = draw("a.svg")
    finish(tmp_path, {"a.pt": ("11", made), "b.pt": ("22", draw("b.svg"))})
    with Manifest(tmp_path, "render", OPTIONS, resume=True) as again:
        assert again.find_done("a.pt", "11") == made
        assert again.find_done("a.pt", "11", [*made]) == made
        assert again.find_done("a.pt", "11", [tmp_path / "elsewhere.svg"]) is None
        assert again.find_done("c.pt", "11") is None
    # b.pt was not asked for: its input is no longer there.
    assert list(json.loads((tmp_path / NAME).read_bytes())["jobs"]) == ["a.pt"]


@pytest.mark.parametrize("change", ["missing", "altered", "input"])
def test_what_has_changed_is_not_done(tmp_path, draw, change):
    finish(tmp_path, {"a.pt": ("11", draw("a.svg") | draw("b.svg"))})
    if change == "missing":
        (tmp_path / "b.svg").unlink()
    if change == "altered":
        (tmp_path / "b.svg").write_bytes(b"<svg />")
    assert not is_done(tmp_path, "a.pt", "12" if change == "input" else "11")


def test_of_a_pdf_only_counts_that_it_is_there(tmp_path, draw):
    texts = []
    for content in (b"%PDF-1.7 a", b"%PDF-1.7 b"):
        (path,) = draw("a.pdf", content)
        finish(tmp_path, {"a.pt": ("11", {path: hash_output(path)})})
        texts.append((tmp_path / NAME).read_text())
    assert texts[0] == texts[1]
    path.write_bytes(b"%PDF-1.7 c")
    assert is_done(tmp_path, "a.pt", "11")
    with Manifest(tmp_path, "render", OPTIONS) as manifest:
        assert manifest.remove_outdated() == []
    path.unlink()
    assert not is_done(tmp_path, "a.pt", "11")


@pytest.mark.parametrize(
    "other",
    [
        {"command": "survey"},
        {"options": {"columns": 3}},
        {"color_range": (-1.0, 1.0)},
        {"resume": False},
    ],
)
def test_another_command_or_option_starts_anew(tmp_path, draw, other):
    finish(tmp_path, {"a.pt": ("11", draw("a.svg"))})
    assert is_done(tmp_path, "a.pt", "11")
    assert not is_done(tmp_path, "a.pt", "11", **other)


def test_other_versions_start_anew(tmp_path, draw, monkeypatch):
    finish(tmp_path, {"a.pt": ("11", draw("a.svg"))})
    monkeypatch.setattr("headgrid.batch.manifest.__version__", "99")
    assert not is_done(tmp_path, "a.pt", "11")


@pytest.mark.parametrize(
    "content", [b"", b"[1", b"\xff\xfe", b"[]", b"{}", b"[" * 100_000, b'{"jobs": 1}']
)
def test_a_damaged_manifest_counts_as_none(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert not is_done(tmp_path, "a.pt", "11")


@pytest.mark.parametrize(
    "job",
    [
        1,
        {"digest": "11"},
        {"digest": "11", "outputs": {}},
        {"digest": "11", "outputs": {}, "more": 1},
        {"digest": "11", "outputs": ["a.svg"]},
        *(
            {"digest": "11", "outputs": {name: hash_bytes(b"<svg/>")}}
            for name in ("../secret", "/etc/hostname", "a\x00.svg", "a\ud800.svg", "x" * 300, ".")
        ),
    ],
)
def test_a_job_that_no_run_writes_is_not_done(tmp_path, draw, job):
    finish(tmp_path, {"a.pt": ("11", draw("a.svg"))})
    found = json.loads((tmp_path / NAME).read_bytes())
    found["jobs"]["a.pt"] = job
    (tmp_path / NAME).write_text(json.dumps(found))
    assert not is_done(tmp_path, "a.pt", "11")


def test_nothing_is_written_where_nothing_was_finished(tmp_path, draw):
    finish(tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
    finish(tmp_path, {"a.pt": ("11", draw("a.svg"))})
    finish(tmp_path, {})  # but a list of which nothing is left is emptied
    assert json.loads((tmp_path / NAME).read_bytes())["jobs"] == {}


def test_thousands_of_jobs_are_written_a_few_times(tmp_path, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr("headgrid.batch.manifest.time.monotonic", lambda: now[0])
    manifest = Manifest(tmp_path, "render", OPTIONS)
    flush = manifest.flush
    monkeypatch.setattr(manifest, "flush", lambda: (written.append(now[0]), flush()))
    for number in range(3_000):
        now[0] += 0.008  # 24 seconds in all
        manifest.add(f"run/layer{number}.pt", "11", {tmp_path / f"{number}.svg": "22"})
    manifest.flush()
    assert len(written) <= 26
    assert all(b - a >= 1 for a, b in pairwise(written[:-1]))
    assert len(json.loads((tmp_path / NAME).read_bytes())["jobs"]) == 3_000


def test_a_full_disk_is_forgiven_until_the_end(tmp_path, draw, monkeypatch):
    def refuse(source, target, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outputs = draw("a.svg")
    manifest = Manifest(tmp_path, "render", OPTIONS)
    with monkeypatch.context() as full:
        full.setattr(Path, "replace", refuse)
        manifest.add("a.pt", "11", outputs)
        with pytest.raises(OutputError, match=rf"{NAME}: can not be written \(No space left"):
            manifest.flush()
    manifest.flush()
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", NAME}


# names of inputs


def test_names_start_where_the_inputs_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/set_a/run_0").mkdir(parents=True)
    Path("data/set_b").mkdir(parents=True)
    paths = [Path("data/set_a/run_0/layer0.pt"), tmp_path / "data/set_b/layer0.pt"]
    assert name_inputs(paths, ["data/set_a", str(tmp_path / "data/set_b")]) == [
        "set_a/run_0/layer0.pt",
        "set_b/layer0.pt",
    ]
    assert name_inputs(paths[:1], paths[:1]) == ["layer0.pt"]


def test_names_do_not_depend_on_the_spelling_of_the_inputs(tmp_path, monkeypatch):
    (tmp_path / "in/run_0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in")
    for given in (".", "../in", tmp_path / "in"):
        assert name_inputs([Path(given, "run_0/layer1.pt")], [given]) == ["run_0/layer1.pt"]


# leftovers


def test_only_our_own_temporary_files_that_no_process_writes_are_removed(tmp_path):
    kept = [".layer1.svg.tmp", "layer1.svg", ".a-0123456789abcdef.svg", "b-0123456789abcdef.tmp"]
    kept.append(f".a.svg-{os.getppid():08x}01234567.tmp")
    for name in kept:
        (tmp_path / name).touch()
    with replace_file(tmp_path / "layer12345_a_name_that_is_longer_than_forty_letters.svg"):
        (name,) = {path.name for path in tmp_path.iterdir()} - {*kept}
    for left in (name, ".a.svg-ffffffff01234567.tmp"):  # as a killed process leaves it
        (tmp_path / left).touch()
    remove_leftovers([tmp_path, tmp_path / "nowhere", tmp_path / "layer1.svg"])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*kept, "layer12345_a_name_that_is_longer_than_forty_letters.svg"}


def test_files_that_only_an_earlier_run_made_are_removed_if_nobody_has_touched_them(tmp_path):
    made = {name: tmp_path / name for name in ("same.svg", "old/gone.svg", "edited.svg")}
    for path in made.values():
        write_bytes(path, b"<svg/>")
    with Manifest(tmp_path, "survey", {"by": None}) as first:
        first.add("all", "f00d", dict.fromkeys(made.values(), hash_bytes(b"<svg/>")))
    made["edited.svg"].write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    with Manifest(tmp_path, "survey", {"by": "set"}) as second:
        second.add("all", "beef", {made["same.svg"]: hash_bytes(b"<svg/>")})
        assert second.remove_outdated() == [made["old/gone.svg"]]
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["edited.svg", "headgrid-jobs.json", "notes.txt", "same.svg"]


def test_a_list_can_not_name_files_outside_its_folder(tmp_path):
    outside, folder = write_bytes(tmp_path / "outside.txt", b"mine"), tmp_path / "out"
    folder.mkdir()
    with Manifest(folder, "survey", {}) as first:
        first.add("all", "f00d", {folder / "a": hash_bytes(b"mine")})
    text = first.path.read_text(encoding="utf-8")
    for name in ("../outside.txt", str(outside)):
        first.path.write_text(text.replace('"a"', f'"{name}"'), encoding="utf-8")
        assert Manifest(folder, "survey", {}).remove_outdated() == []
    assert outside.exists()
