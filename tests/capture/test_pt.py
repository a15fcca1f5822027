"""Reading .pt without torch: what torch wrote comes back, and nothing in a file ever runs."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same import assert_same

from headgrid.capture.store import load_capture, read_values
from headgrid.errors import CaptureError

torch = pytest.importorskip("torch")

NAMES = (
    "float16 bfloat16 float32 float64 uint8 int8 int16 int32 int64 uint16 uint32 uint64 bool "
    "complex64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz"
)
DTYPES = [getattr(torch, name) for name in NAMES.split()]
WIDENED = (torch.bfloat16, *DTYPES[-4:])
VIEWS = [
    lambda tensor: tensor,
    lambda tensor: tensor.transpose(0, 2)[1:],
    lambda tensor: tensor[:, ::2, 3:],
    lambda tensor: tensor[:, :1].expand(3, 6, 5),
    lambda tensor: tensor.unsqueeze(1)[2:],
    lambda tensor: tensor[1, 2, 3],
    lambda tensor: tensor[:0],
]
FULL = "full_frame_attention"
many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

#: Torch of Python 3.10 does not have it.
EXPONENTS = [torch.float8_e8m0fnu] if hasattr(torch, "float8_e8m0fnu") else []


def read_all(content: bytes) -> tuple[Any, tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layer3.pt")
        path.write_bytes(content)
        return read_values(path)


def read_bytes(content: bytes) -> Any:
    value, warnings = read_all(content)
    assert not warnings
    return value


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def reread(value: Any, **options: Any) -> Any:
    return read_bytes(saved(value, **options))


def zipped(program: bytes, *, method: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """A `.pt` around a pickle; keyword `_0=...` is the storage `data/0`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in entries.items():
            inner = f"data/{name[1:]}" if name.startswith("_") else name
            archive.writestr(f"archive/{inner}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tuple_of(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def tensor(
    size: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: int = 0,
    length: int = 6,
    storage: str = "FloatStorage",
    key: str = "0",
) -> bytes:
    """The operations that rebuild a tensor."""
    reference = tuple_of(
        text("storage"), f"ctorch\n{storage}\n".encode(), text(key), text("cpu"), number(length)
    )
    arguments = tuple_of(
        reference + b"Q",
        number(offset),
        tuple_of(*map(number, size)),
        tuple_of(*map(number, strides)),
        b"\x89",
        b"ccollections\nOrderedDict\n)R",
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def expected(value: Any) -> Any:
    """What `read_pt` should make of a value, by way of torch's own conversion."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype in (*WIDENED, *EXPONENTS) else value).numpy()
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, dict):
        return {key: expected(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(expected(part) for part in value)
    return value


def refusal(content: bytes) -> str:
    with pytest.raises(CaptureError, match=r"\Alayer3\.pt: [^\n]*expected[^\n]*\Z") as caught:
        read_bytes(content)
    assert len(str(caught.value)) < 400
    return str(caught.value)


# What torch wrote comes back


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=20)
    | st.sampled_from([torch.float16, torch.bfloat16, torch.device("cuda:1"), torch.Size([2, 3])]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tensor_equals_the_one_that_torch_saved(dtype: Any) -> None:
    """Cut, turned, expanded, sharing their storage, as they come out of models."""
    base = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)) * 8
    signed = dtype.is_floating_point or dtype == torch.bool
    base = (base if signed else base.abs()).to(dtype)
    if dtype.is_floating_point:
        base[1, 2, 3] = float("nan")
    values = [view(base) for view in VIEWS]
    found = reread(values)
    assert_same(found, expected(values))
    assert dtype in WIDENED or np.shares_memory(found[0], found[1])


@many
@given(plain, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_come_back_with_their_types(value: Any, protocol: int) -> None:
    assert_same(reread({"value": value}, pickle_protocol=protocol), expected({"value": value}))


def test_every_bfloat16_and_float8_value_is_exact() -> None:
    bits16 = torch.arange(2**16).to(torch.int32).to(torch.uint16)
    bits8 = torch.arange(256).to(torch.uint8)
    for dtype in (*WIDENED, *EXPONENTS):
        raw = bits16 if dtype == torch.bfloat16 else bits8
        assert_same(reread(raw.view(dtype)), expected(raw.view(dtype)))


def test_parameters_sets_paths_and_more_become_plain_values() -> None:
    state, parameter = torch.nn.Linear(3, 2).state_dict(), torch.nn.Parameter(torch.ones(2))
    marked = torch.ones(2)
    marked.note = "x"
    value = {"state": dict(state), "parameter": parameter, "marked": marked, "z": 1 + 2j}
    plain = {"tags": {"a", "b"}, "frozen": frozenset({1}), "pair": {(1, 2): 3}, "np": np.str_("")}
    found = reread({**value, **plain, "state": state, "p": Path("/a/b"), "r": range(3, 6)})
    assert_same(found, expected(value) | plain | {"np": "", "p": "/a/b", "r": [3, 4, 5]})
    conjugate = torch.tensor([1 + 2j, 3 - 4j]).conj()
    for view in (conjugate, conjugate.imag):
        assert_same(reread(view), view.resolve_conj().resolve_neg().numpy())


@pytest.mark.parametrize(
    "dtype", ["?", "<i8", ">i4", "u2", "<f2", ">f4", "f8", "c16", "<U5", ">U5"]
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_numpy_arrays_and_scalars_inside_are_read(dtype: str, protocol: int) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    value = {"c": array, "f": np.asfortranarray(array), "same": array, "scalar": array[1, 2]}
    found = reread(value | {"empty": array[:0]}, pickle_protocol=protocol)
    for name in ("c", "f", "same"):
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype.isnative
    assert found["same"] is found["c"]
    assert found["empty"].shape == (0, 4)
    assert found["scalar"] == array[1, 2].item()
    assert not isinstance(found["scalar"], np.generic)


def test_big_endian_and_repacked_files_are_read() -> None:
    values = np.array([1.5, -2.0, 3.25, 0, 5, 6], dtype=">f4")
    content = zipped(program(tensor((2, 3), (3, 1))), _0=values.tobytes(), byteorder=b"big")
    assert_same(read_bytes(content), values.reshape(2, 3).astype("=f4"))
    assert "damaged" in refusal(content.replace(b"big", b"odd"))
    packed = zipped(program(tensor((6,), (1,))), method=zipfile.ZIP_DEFLATED, _0=bytes(24))
    assert_same(read_bytes(packed), np.zeros(6, "<f4"))


def test_any_file_name_may_be_the_prefix_and_arrays_are_read_only(tmp_path: Path) -> None:
    for name in ("layer3.pt", "注意力.pt", "run:1 é.pt"):
        torch.save([torch.ones(2), torch.ones(2).bfloat16()], str(tmp_path / name))
        found, _ = read_values(tmp_path / name)
        assert_same(found, [np.ones(2, dtype=np.float32)] * 2)
        assert not any(array.flags.writeable for array in found)


def test_large_files_are_mapped_and_not_copied(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    torch.save({"a": torch.zeros(64, 1024, 1024, dtype=torch.float16)}, tmp_path / "layer3.pt")
    code = """
import resource, sys
from pathlib import Path
from headgrid.capture.store import read_values
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
a = read_values(Path(sys.argv[1]))[0]['a']
assert a.shape == (64, 1024, 1024) and a[63, 5, 5] == 0
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) // 1024)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "layer3.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 40, done.stderr  # of 128 MiB


# What is no plain value is a word


class Anything:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    scale: float = 0.5


METADATA = {
    "argparse.Namespace": argparse.Namespace(layers=[1, 2]),
    "test_pt.Color": Color.RED,
    "test_pt.Settings": Settings(),
    "datetime.datetime": datetime.datetime(2026, 1, 2),
    "collections.defaultdict": collections.defaultdict(list, {"a": [1]}),
    "float32": np.dtype("float32"),
    "numpy.float32": np.float32,
    "numpy.dtype O8": np.array([Color.RED], dtype=object),
    "numpy.dtype M8": np.datetime64("2026-01-02"),
    "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
    "torch._utils._rebuild_sparse_tensor": torch.eye(3).to_sparse(),
    "torch.storage.UntypedStorage": torch.ones(2).untyped_storage(),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", METADATA)
@pytest.mark.filterwarnings("ignore")
def test_metadata_of_any_class_is_kept_as_a_word(name: str, protocol: int) -> None:
    content = saved(
        {"x": METADATA[name], "list": [(METADATA[name], 1)], "a": 3}, pickle_protocol=protocol
    )
    value, (warning,) = read_all(content)
    assert value == {"x": name, "list": [(name, 1)], "a": 3}
    assert type(value["x"]) is str
    assert warning.startswith(f"layer3.pt: objects of {'numpy dtype ' * (name == 'float32')}{name}")


@pytest.mark.filterwarnings("ignore")
def test_a_needed_tensor_of_another_kind_is_an_error(tmp_path: Path) -> None:
    ones, path = torch.ones(1, 2, 2), tmp_path / "layer3.pt"
    for value, found in [
        ({FULL: ones.to_sparse()}, f"{FULL} is the text 'torch._utils._rebuild_sparse_tensor'"),
        ({FULL: torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8)}, "_rebuild_qtensor', exp"),
        (torch.nn.Linear(1, 1), "found the text 'torch.nn.modules.linear.Linear', expected a dict"),
    ]:
        torch.save(value, path)
        with pytest.raises(CaptureError, match=re.escape(found)):
            load_capture(path)


def test_the_format_before_zip_says_how_to_save_it_anew() -> None:
    content = saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    assert "torch before 1.6" in refusal(content)
    assert "save it anew: torch.save(torch.load(file), file)" in refusal(content)


# What is code runs nothing


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (exec, ("open('ran', 'w')",), "builtins.exec"),
        (getattr, ("", "join"), "builtins.getattr"),
        (subprocess.run, (["touch", "ran"],), "(subprocess|commands).run"),
        (os.mkdir, ("ran",), "posix.mkdir"),
        (pickle.loads, (b"N.",), "_?pickle.loads"),
    ],
)
def test_code_in_a_file_does_not_run(
    function: Any, arguments: Any, named: str, protocol: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = Anything(function, arguments, {"a": 1})
    value, warnings = read_all(zipped(pickle.dumps({"a": bomb, "b": 2}, protocol)))
    assert re.fullmatch(named, value["a"])  # protocol 2 uses the names of Python 2
    assert len(warnings) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_with_a_name_gives_the_name_and_other_calls_are_refused() -> None:
    ran = text("ran") + b"\x85"
    for body, found in [
        (b"c__builtin__\neval\n" + ran + b"R", "builtins.eval"),
        (b"cos\nmkdir\n" + ran + b"}\x92", "os.mkdir"),
        (b"cos\nmkdir\n" + ran + b"\x81}b]a(NNu(Ne", "os.mkdir"),
        (b"ctorch\nFloatStorage\n)R", "torch.FloatStorage"),
        (text("os") + text("mkdir") + b"\x93" + ran + b"R", "os.mkdir"),
    ]:
        value, warnings = read_all(zipped(program(b"]" + body + b"a")))
        assert (value, len(warnings)) == ([found], 1)
    for body in (text("os") + b")R", b"]}b", b"})R", b"\x82\x01", b"(ios\nmkdir\n"):
        assert "damaged" in refusal(zipped(program(body)))


# What is broken or hostile is refused


@pytest.mark.parametrize(
    ("size", "strides", "offset", "length", "found"),
    [
        ((7,), (1,), 0, 6, "reaches value 6 of the 6 stored"),
        ((6,), (1,), 1, 6, "reaches value 6 of the 6 stored"),
        ((2, 2), (5, 1), 0, 6, "reaches value 6 of the 6 stored"),
        ((2,), (2**47,), 0, 6, "reaches value"),
        ((-1,), (1,), 0, 6, "impossible shape, stride or offset"),
        ((2,), (-1,), 1, 6, "impossible"),
        ((2,), (1,), -1, 6, "impossible"),
        ((2**63,), (0,), 0, 6, "impossible"),
        ((2**40,), (0,), 0, 6, "repeats 6 stored values"),
        ((2**30, 2**30, 2**30), (0, 0, 0), 0, 6, "repeats 6 stored values"),
        ((2, 2), (1,), 0, 6, "damaged"),
        ((1,) * 33, (1,) * 33, 0, 6, "impossible"),
        ((7,), (1,), 0, 7, "has 24 bytes of 28"),
        ((2**40,), (1,), 0, 2**40, "has 24 bytes of"),
        ((0, 2**47, 2**47), (1, 1, 1), 0, 6, "damaged"),
    ],
)
def test_a_view_never_leaves_its_storage(
    size: Any, strides: Any, offset: int, length: int, found: str
) -> None:
    body = tensor(size, strides, offset=offset, length=length)
    assert found in refusal(zipped(program(body), _0=bytes(24)))


@many
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=4), st.integers(0, 30))
def test_a_view_is_read_exactly_if_it_fits(axes: list[tuple[int, int]], offset: int) -> None:
    size, strides = tuple(n for n, _ in axes), tuple(step for _, step in axes)
    values = np.arange(20, dtype="<f4")
    content = zipped(program(tensor(size, strides, offset=offset, length=20)), _0=values.tobytes())
    positions = [
        offset + sum(i * step for i, step in zip(index, strides, strict=True))
        for index in np.ndindex(*size)
    ]
    if positions and max(positions) >= 20:
        assert "reaches value" in refusal(content)
    else:
        found = read_bytes(content)
        assert found.shape == size
        assert found.ravel().tolist() == positions


# 60 levels, each of which holds the one before twice.
TUPLES, LISTS = b")" + b"q\x00h\x00h\x00\x86" * 60, b"]" + b"q\x00](h\x00h\x00e" * 60

HOSTILE = [
    (b"]" * 100_000 + b"a" * 99_999, "nested more than"),
    (b")" + b"\x85" * 150_000, "nested more than"),
    (b"})" + b"\x85" * 150_000 + b"Ns", "member is a long or odd tuple"),
    (TUPLES, "are repeated"),
    (TUPLES + b"}h\x00Ns", "member is a long or odd tuple"),
    (TUPLES + b")R", "damaged"),
    (LISTS, "are repeated"),
    (LISTS + text("x") + b"\x93", "a name that is no text"),
    (text("x" * 10**6) + b"q\x00]" + b"h\x00a" * 90_000, "are repeated"),
    (b"]q\x00h\x00a", "nested more than"),
    (b"}q\x00Nh\x00s", "nested more than"),
    (b"Nr\xff\xff\xff\xffj\xfe\xff\xff\xff", "damaged"),
    (b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6, "an integer of 7,999,999 bits"),
    (b"\x8b" + struct.pack("<i", -1), "damaged"),
    (b"\x8d" + struct.pack("<Q", 2**62) + b"x", "damaged"),
    (b"\x96" + struct.pack("<Q", 2**40) + b"x", "damaged"),
    (b"X\x02\x00\x00\x00\xff\xff", "damaged"),
    (b"N" * 2_000_000, "operations"),
    (b"]" * 3_000_000, "operations"),
    (
        text("x" * 10**6) + b"q\x00c_codecs\nencode\nq\x01]" + b"(h\x01h\x00\x85Re" * 5_000,
        "makes more than",
    ),
    (b"c__builtin__\nxrange\n\x8a\x08" + struct.pack("<q", 2**62) + b"\x85R", "makes more|damaged"),
    (
        b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(1, 30_000)) + b"u",
        "member is a long or odd int",
    ),
    (tensor((6,), (1,), key="k" * 10**6), "is missing"),
    (tensor((6,), (1,), key="../0"), "is missing"),
    (b"}]Ns", "member is a long or odd list"),
    (b"a", "damaged"),
    (b"t", "damaged"),
    (b"}(Nu", "damaged"),
    (b"(", "damaged"),
    (b"h\x07", "damaged"),
    (b"\xff", "damaged"),
    (b"Pabc\n", "operation PERSID"),
    (tensor((1,), (1,), length=-6), "impossible"),
    (tensor((2**60,) * 32, (1,) * 32, length=0), "is missing"),
    (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R", "without content"),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_pickles_end_in_one_sentence(number: int) -> None:
    body, found = HOSTILE[number]
    assert re.search(found, refusal(zipped(program(body))))


GOOD = saved({"layer_index": 3, "a": torch.arange(6.0).half(), "b": [1, 2], "c": np.ones(2)})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"not a capture", "is no whole zip (it starts with b'not a ca'"),
        (pickle.dumps({"a": 1}), "is a bare pickle"),
        (GOOD[: len(GOOD) // 2], "cut short"),
        (GOOD[:100], "cut short"),
        (zipped(b"")[:-1], "cut short"),
        (zipped(b""), "damaged"),
        (zipped(b"N.", **{"constants.pkl": b""}), "TorchScript"),
        (zipped(b"N.").replace(b"data.pkl", b"data.npy"), "name a numpy archive .npz"),
        (zipped(b"N.").replace(b"data.pkl", b"text.xml"), "is a zip of 'archive/text.xml'"),
    ],
)
def test_files_that_are_no_captures_are_told_apart(content: bytes, found: str) -> None:
    assert found in refusal(content)


def test_compressed_bombs_are_refused() -> None:
    body = tensor((2**25,), (1,), length=2**25)
    bomb = zipped(program(body), method=zipfile.ZIP_DEFLATED, _0=bytes(2**27))
    assert "makes more than 64 MiB" in refusal(bomb)
    small = zipped(program(tensor((6,), (1,))), method=zipfile.ZIP_DEFLATED, _0=bytes(2**24))
    assert read_bytes(small).tolist() == [0] * 6  # no more than the tensor needs is unpacked


def test_text_of_numpy_that_is_none_is_refused() -> None:
    whole = saved({"a": np.array(["鹰鹰"])}, pickle_protocol=5)
    content = whole.replace("鹰".encode("utf-32-le"), b"\xff" * 4)
    assert content != whole
    assert "text with a character" in refusal(content)
