"""Files and folders to captures and back: same values, and one clear sentence otherwise."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
import zipfile
from functools import reduce
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same import assert_same

from headgrid.capture import formats
from headgrid.capture.folders import CaptureFile, find_captures
from headgrid.capture.model import Capture
from headgrid.capture.schema import KEYS
from headgrid.capture.store import load_capture, load_run, save_capture
from headgrid.errors import CaptureError, HeadgridWarning, OptionError
from places import SHARED

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

FORMATS = (".pt", ".npz", ".safetensors")
FULL = "full_frame_attention"
LAST = "last_block_frame_attention"
PROMPT = '一只鹰 <b>&"quoted"</b>\n\t🦅 ‮ 42'


def example(**changes: Any) -> Capture:
    values = np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4) - 7
    options: dict[str, Any] = {"layer": 3, "block_sizes": [1, 3], "prompt": PROMPT}
    return Capture.from_array(values, **options | changes)


def names_in(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def refusal(path: Path | str, kind: type[Exception] = CaptureError) -> str:
    with pytest.raises(kind) as caught:
        load_capture(path)
    message = str(caught.value)
    assert message.startswith((f"{Path(path).name}: ", f"{path}: "))
    assert "\n" not in message
    assert "weights_only=False" not in message
    return message


# A capture comes back as it was saved


ARRAYS = [np.arange(3).astype(kind) for kind in "?bHqefdFD"] + [np.array(5), np.array(["a", "b"])]
ARRAYS += [np.array([1.5], ">f4"), np.array([[None]]), np.zeros((0, 2)), np.ones(2, "g")]
ARRAYS += [np.float32(0.5), np.str_("x"), torch.ones(2).bfloat16(), (1, 2)]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
odd = (
    values
    | st.sampled_from(
        [*ARRAYS, b"x", 1j, 10**4000, 10**5000, 2**70, object(), {1: 2}, {2**61: 1}, "🦅" * 10**6]
    )
    | st.sampled_from([{(1, 2): 3}, {None: 1}, [np.ones(2)], {1, 2}, "x" * 10**5, {"x" * 10**5: 1}])
    | st.integers(60, 3000).map(lambda depth: reduce(lambda inner, _: [inner], range(depth), 1))
)
keys = st.text(min_size=1) | st.sampled_from(["../a", "a.npy", "headgrid_json", "\ud800", "a b", 7])
keys = keys.filter(lambda key: key not in {*KEYS, "num_heads", "num_frame_per_block"})


def as_stored(value: Any) -> Any:
    """What comes back of a value: lists of tuples, numbers and lists of some arrays."""
    if isinstance(value, (list, tuple)):
        return [as_stored(part) for part in value]
    if isinstance(value, dict):
        return {key: as_stored(part) for key, part in value.items()}
    value = value.float().numpy() if isinstance(value, torch.Tensor) else value
    if isinstance(value, (np.ndarray, np.generic)):
        is_plain = value.ndim == 0 or value.dtype.kind == "U"
        return value.tolist() if is_plain else value.astype(value.dtype.newbyteorder("="))
    return value


@st.composite
def captures(draw: st.DrawFn) -> Capture:
    blocks = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    shape = draw(st.integers(1, 3)), sum(blocks), sum(blocks)
    numbers = np.random.default_rng(draw(st.integers(0, 99)))
    full = numbers.random(size=shape).astype(draw(st.sampled_from(["f2", "f4", "f8"])))
    full[:, 1:, 0] = draw(st.sampled_from([np.nan, 0.5]))
    return Capture.from_array(
        full,
        layer=draw(st.integers(0, 99)),
        block_sizes=draw(st.sampled_from([blocks, None])),
        query_frames=range(7, 7 + sum(blocks)),
        key_frames=range(7, 7 + sum(blocks)),
        statistic=draw(st.sampled_from(["logit", "mass", "entropy"])),
        prompt=draw(st.text()),
        metadata=draw(st.dictionaries(keys, odd, max_size=4)),
    )


def check_saved(suffix: str, capture: Capture) -> None:
    """Save a capture: it comes back, or is refused before there is a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"any{suffix}")
        try:
            save_capture(capture, path)
        except CaptureError as error:
            assert str(error).startswith(f"any{suffix}: ")  # noqa: PT017
            assert names_in(folder) == []
        else:
            found = load_capture(path)
            assert_same(as_stored(found.to_dict()), as_stored(capture.to_dict()))
            assert names_in(folder) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(captures())
def test_what_is_saved_comes_back_and_all_else_is_refused(suffix: str, capture: Capture) -> None:
    check_saved(suffix, capture)


@pytest.mark.nightly
@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(captures())
def test_very_many_come_back_or_are_refused(suffix: str, capture: Capture) -> None:
    check_saved(suffix, capture)


@pytest.mark.parametrize("suffix", [*FORMATS, ".pth"])
def test_captures_of_every_kind_come_back_and_give_the_same_bytes(
    suffix: str, tmp_path: Path
) -> None:
    long = {"text": "x" * 10**6, "list": ["鹰" * 10**6], "array": np.arange(10**6)}
    captures = [
        example(metadata=long),
        Capture.from_array(last_block=np.array([[1.0, np.nan, 2.0]]), layer=4),
        *map(load_capture, sorted((SHARED / "data" / "frames21").glob("layer3.pt"))),
    ]
    for number, capture in enumerate(captures):
        path = save_capture(capture, tmp_path / "not" / "there" / f"{number}{suffix}")
        assert_same(load_capture(path).to_dict(), capture.to_dict())
        again = save_capture(capture, tmp_path / f"other{suffix}")
        assert again.read_bytes() == path.read_bytes()


def test_others_can_read_what_headgrid_saves(tmp_path: Path) -> None:
    capture = example(metadata={"seed": 7})
    by_torch = torch.load(save_capture(capture, tmp_path / "a.pt"), weights_only=True)
    assert by_torch[FULL].shape == (2, 4, 4)
    assert by_torch["block_sizes"] == [1, 3]
    with np.load(save_capture(capture, tmp_path / "a.npz")) as by_numpy:
        assert by_numpy[FULL].shape == (2, 4, 4)
        assert by_numpy["block_sizes"].tolist() == [1, 3]
        assert (by_numpy["prompt"].item(), by_numpy["seed"].item()) == (PROMPT, 7)
    by_safetensors = safetensors_torch.load_file(save_capture(capture, tmp_path / "a.safetensors"))
    assert by_safetensors[FULL].shape == (2, 4, 4)


# The files of others


FLOATS = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_floating_dtype_is_read(dtype: str, suffix: str, tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 3).to(getattr(torch, dtype))
    path = tmp_path / f"layer1{suffix}"
    save = torch.save if suffix == ".pt" else safetensors_torch.save_file
    save({FULL: tensor}, path)
    found = load_capture(path).full_frame_attention
    assert found is not None
    assert found.dtype == (dtype if hasattr(np, dtype) else "float32")
    np.testing.assert_array_equal(found, tensor.double().numpy())


def test_safetensors_metadata_of_others_is_read(tmp_path: Path) -> None:
    stated = {"prompt": "42", "block_sizes": "[1, 2]", "seed": "7", "model": "wan", "bad": "[1"}
    path = tmp_path / "layer12.safetensors"
    safetensors_torch.save_file({FULL: torch.ones(1, 3, 3)}, path, metadata=stated)
    capture = load_capture(path)
    assert (capture.layer_index, capture.prompt, capture.block_sizes) == (12, "42", (1, 2))
    assert capture.metadata == {"seed": 7, "model": "wan", "bad": "[1"}


def test_npz_of_others_is_read(tmp_path: Path) -> None:
    others = {"prompt": "a", "seed": 7, "tags": ["x", "y"], "flag": True}
    for write in (np.savez, np.savez_compressed):
        path = tmp_path / "layer_07.npz"
        write(path, **{FULL: np.ones((1, 3, 3)), "block_sizes": [1, 2]}, **others)
        capture = load_capture(path)
        assert (capture.layer_index, capture.prompt, capture.block_sizes) == (7, "a", (1, 2))
        assert capture.metadata == {"seed": 7, "tags": ["x", "y"], "flag": True}


def test_the_file_name_gives_the_layer_only_where_the_file_does_not(tmp_path: Path) -> None:
    torch.save({FULL: torch.ones(1, 2, 2)}, tmp_path / "Layer12_step3.pt")
    assert load_capture(tmp_path / "Layer12_step3.pt").layer_index == 12
    torch.save({FULL: torch.ones(1, 2, 2), "layer_index": 4}, tmp_path / "layer9.pt")
    assert load_capture(tmp_path / "layer9.pt", run="run_1").run == "run_1"
    assert load_capture(tmp_path / "layer9.pt").layer_index == 4
    torch.save({FULL: torch.ones(1, 2, 2)}, tmp_path / "a.pt")
    assert "layer_index is absent" in refusal(tmp_path / "a.pt")


def test_warnings_point_at_the_caller(tmp_path: Path) -> None:
    torch.save({FULL: torch.ones(1, 3, 3), "block_sizes": [2]}, tmp_path / "layer0.pt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_capture(tmp_path / "layer0.pt")
        load_run(tmp_path)
    assert [warning.filename for warning in caught] == [__file__, __file__]
    assert all(warning.category is HeadgridWarning for warning in caught)
    assert "layer0.pt: block_sizes sum to 2" in str(caught[0].message)


# What is no capture


def test_what_is_no_file_to_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_capture(example(), tmp_path / "layer3.npz")
    message = refusal(tmp_path / "layer3.nps")
    assert message.startswith(f"{tmp_path / 'layer3.nps'}: there is no such file")
    assert "did you mean 'layer3.npz'?" in message
    assert "there is no folder" in refusal(tmp_path / "no" / "layer3.pt")
    assert "there is no" in refusal(path / "layer3.pt")
    (tmp_path / "layer9.npz").symlink_to("nowhere.npz")
    assert "is a link to nowhere.npz, which does not exist, exp" in refusal(tmp_path / "layer9.npz")
    files, (error,) = find_captures([path, tmp_path / "layer9.npz"])
    assert ([file.path for file in files], "which does not exist" in str(error)) == ([path], True)
    assert "is a folder, expected a file" in refusal(tmp_path)
    (tmp_path / "layer3.nps").write_bytes(b"x")
    message = refusal(tmp_path / "layer3.nps")
    assert "the suffix is '.nps', expected one of .pt, .pth, .npz, .safetensors, .npy" in message
    assert "did you mean '.npz'" in message
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "layer3.pt")
        assert "device or pipe" in refusal(tmp_path / "layer3.pt")

    def deny(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setitem(formats.READERS, ".npz", deny)
    assert "can not be opened (Permission denied), expected a readable file" in refusal(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_empty_foreign_and_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = save_capture(example(), tmp_path / f"layer3{suffix}")
    whole = path.read_bytes()
    lengths = [*range(1, 64, 21), *range(64, len(whole) - 1, 97), len(whole) - 1]
    foreign = [b"a text file that is longer than a header", b"PK\x03\x04" + bytes(40)]
    for content in (b"", *foreign, *(whole[:length] for length in lengths)):
        path.write_bytes(content)
        assert ("the file is empty (0 bytes)" in refusal(path)) == (not content)


def test_other_content_is_described(tmp_path: Path) -> None:
    for value, found in [
        ("text", "found the text 'text', expected a dictionary"),
        (torch.ones(21), "full_frame_attention has shape (21,), expected (heads, query, key)"),
        ([torch.ones(2)], "found list, expected a dictionary"),
        ({}, "there is nothing like them"),
    ]:
        torch.save(value, tmp_path / "layer3.pt")
        assert found in refusal(tmp_path / "layer3.pt")


def test_packed_npz_are_read_within_limits(tmp_path: Path) -> None:
    path = tmp_path / "layer3.npz"
    np.savez_compressed(path, **{FULL: np.zeros((1, 2**12, 2**12))})
    assert "makes more than 64 MiB" in refusal(path)
    np.savez_compressed(path, **{FULL: np.ones((1, 9, 9))})
    content = path.read_bytes()
    start = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
    path.write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])
    assert "the file is damaged" in refusal(path)


HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}\n"
BAD_ENTRIES = [
    ("{'descr': '<f4', 'shape': (\n", b""),
    ("{}\n  {\n {\n", b""),
    ("-" * 9000 + "1\n", b""),
    (HEADER % ("<f4", (2**62, 2**62)), b""),
    (HEADER % ("<f4", (2**40,)), bytes(64)),
    (HEADER % ("<f4", (-1,)), bytes(64)),
    (HEADER % ("|O", ()), b"N."),
    (HEADER % ("<U1", ()), b"\xff" * 4),
    (HEADER % ("<U1", (2,)), b"\xff" * 8),
]


@pytest.mark.parametrize("number", range(len(BAD_ENTRIES)))
def test_entries_that_numpy_stumbles_over_are_refused(number: int, tmp_path: Path) -> None:
    path = save_capture(example(), tmp_path / "layer3.npz")
    header, body = BAD_ENTRIES[number]
    length = len(header).to_bytes(2, "little")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + length + header.encode() + body)
    assert "the file is damaged ('x': " in refusal(path)


def test_safetensors_headers_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "layer3.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    assert "the header claims 1,099,511,627,776 bytes" in refusal(path)
    header = json.dumps({FULL: {"dtype": "F32", "shape": [9], "data_offsets": [0, 9]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(9))
    assert "the file is damaged" in refusal(path)


# Saving


ODD = [
    ("odd", object(), "metadata 'odd' holds a object", ()),
    ("odd", {"deep": [print]}, "metadata 'odd' holds a nested builtin.*expected numbers", ()),
    ("odd", {(1, 2): 3}, "'odd' holds a dictionary with a key that is a tuple", ()),
    ("odd", b"x", "'odd' holds a bytes", ".pt"),
    ("odd", {3: 4}, "'odd' holds a dictionary with a key that is a int", ".pt"),
    ("odd", [np.ones(2)], "'odd' holds a nested ndarray", ".pt"),
    ("../odd", np.ones(2), "'../odd' holds an array under a name with signs", ".pt"),
    (7, "x", "'7' holds a key that is a int", ".pt"),
]


@pytest.mark.parametrize(("key", "value", "found", "possible"), ODD)
def test_metadata_that_the_format_can_not_hold_is_named(
    key: Any, value: Any, found: str, possible: Any, tmp_path: Path
) -> None:
    capture = example(metadata={key: value})
    for suffix in FORMATS:
        if suffix not in possible:
            with pytest.raises(CaptureError, match=found):
                save_capture(capture, tmp_path / f"a{suffix}")
    with pytest.raises(OptionError, match=r"suffix of a\.npzz is '\.npzz'.*did you mean '\.npz'"):
        save_capture(capture, tmp_path / "a.npzz")
    assert names_in(tmp_path) == []
    if possible:
        path = save_capture(capture, tmp_path / f"a{possible}")
        assert_same(dict(load_capture(path).metadata), {key: value})


def test_a_mapped_file_can_be_replaced_by_its_own_capture(tmp_path: Path) -> None:
    capture = Capture.from_array(np.zeros((2, 1500, 1500), dtype=np.float32) + 1)
    path = save_capture(capture, tmp_path / "layer0.pt")
    assert path.stat().st_size >= 2**24
    found = load_capture(path)
    save_capture(found.replace(prompt="new"), path)
    assert found.full_frame_attention is not None
    assert float(found.full_frame_attention[1, 7, 7]) == 1
    assert load_capture(path).prompt == "new"


# Folders


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_in_natural_order(tmp_path: Path) -> None:
    names = ["run_10/layer2.pt", "run_2/layer10.pt", "run_2/Layer2.npz", "run_2/layer3.safetensors"]
    hidden = [".git/layer0.pt", "run_2/.layer0.pt", "run_2/notes.txt"]
    touch(*(tmp_path / name for name in [*names, *hidden, "layer1.pt"]))
    files, errors = find_captures(tmp_path)
    assert errors == []
    assert [file.path.relative_to(tmp_path).as_posix() for file in files] == [
        "layer1.pt",
        "run_2/Layer2.npz",
        "run_2/layer3.safetensors",
        "run_2/layer10.pt",
        "run_10/layer2.pt",
    ]
    assert files[0] == CaptureFile(tmp_path / "layer1.pt", PurePath(), "")
    assert files[1] == CaptureFile(tmp_path / "run_2/Layer2.npz", PurePath("run_2"), "run_2")


def test_the_run_is_known_from_within_its_folder_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "run-3" / "sub" / "layer0.pt", tmp_path / "run-3" / "layer0.pt")
    file = tmp_path / "run-3" / "layer0.pt"
    assert find_captures([file])[0] == [CaptureFile(file, PurePath(), "run-3")]
    monkeypatch.chdir(tmp_path / "run-3")
    assert [found.run for found in find_captures(".")[0]] == ["run-3", ""]
    assert [found.run for found in find_captures("layer0.pt")[0]] == ["run-3"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "layer0.pt", tmp_path / "a" / "b" / "layer1.pt")
    (tmp_path / "layer9.pt").symlink_to(tmp_path / "a" / "layer0.pt")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "a" / "broken").symlink_to("nowhere")
    given = [tmp_path / "a" / "b" / "layer1.pt", tmp_path, tmp_path / "a" / ".." / "a"]
    files, errors = find_captures(given)
    assert [file.path.name for file in files] == ["layer1.pt", "layer9.pt"]
    assert errors == []
    assert [f.path.name for f in find_captures(tmp_path / "a")[0]] == ["layer0.pt", "layer1.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are any bytes")
def test_folders_that_differ_in_bytes_that_are_no_text_do_not_pass_as_one(tmp_path: Path) -> None:
    for name in (b"run_1\xfe", b"run_1\xff", b"run_1"):
        folder = Path(os.fsdecode(bytes(tmp_path) + b"/" + name))
        save_capture(example(), folder / "layer0.npz")
    files, (error,) = find_captures(tmp_path)
    assert [load_capture(file.path, run=file.run).run for file in files] == ["run_1", "run_1\ufffd"]
    assert "run_1\ufffd/layer0.npz: there are two such files, whose names differ in" in str(error)


def test_bad_inputs_are_reported_beside_the_good_ones(tmp_path: Path) -> None:
    touch(
        tmp_path / "run_0" / "layer0.pt", tmp_path / "plots" / "a.png", tmp_path / "plots" / "b.png"
    )
    (tmp_path / "empty").mkdir()
    files, errors = find_captures(
        [tmp_path / name for name in ("plots", "run_00", "empty", "plots/a.png", "run_0")]
    )
    assert [file.run for file in files] == ["run_0"]
    texts = [str(error) for error in errors]
    assert "holds no capture (found 2 .png), expected .pt, .pth" in texts[0]
    assert "there is no such file or folder" in texts[1]
    assert "did you mean 'run_0'?" in texts[1]
    assert "found no files" in texts[2]
    assert "the suffix is '.png'" in texts[3]


def test_a_run_is_all_layers_in_order_or_the_error_of_the_first_bad_one(tmp_path: Path) -> None:
    folder = tmp_path / "eagle"
    for layer in (10, 2, 0):
        save_capture(example(layer=layer), folder / f"layer{layer}.npz")
    captures = load_run(folder)
    assert [capture.layer_index for capture in captures] == [0, 2, 10]
    assert {capture.run for capture in captures} == {"eagle"}
    touch(folder / "layer3.npz", tmp_path / "a.txt")
    for wrong, found in [
        (folder, r"^layer3\.npz: the file is empty"),
        (tmp_path, r"holds no capture \(found 1 \.txt\)"),
        (tmp_path / "a.txt", "is a file, expected a folder"),
        (tmp_path / "eagl", r"there is no such folder.*did you mean 'eagle'"),
    ]:
        with pytest.raises(CaptureError, match=found):
            load_run(wrong)
