"""A sound file and a random generator -> a damaged one, by ways that know the formats.

Every function takes a `random.Random` first, so that a number names a case.
"""

from __future__ import annotations

import io
import json
import pickletools
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

#: Numbers at which formats and arithmetic change their minds.
EDGES = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1)
EDGES += (2**31, 2**32 - 1, 2**48, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = ("", "layer_index", "block_sizes", "prompt", "full_frame_attention", "num_heads", "F32")
WORDS += ("last_block_frame_attention", "key_frames", "statistic", "logit", "mass", "std", "nan")
WORDS += ("a\x00b", "a\nb", "\x1b[31m", "\u202eabc", "\ud800", "x" * 5000, "1e999", "../../a", "/a")
Mutate = Callable[[random.Random, bytes], bytes]


# Bytes, whatever they mean


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, set, cut, delete, repeat, overwrite or count up bytes, once or a few times."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(content) < 9:
            return rng.randbytes(rng.randrange(9))
        at, length = rng.randrange(len(content)), rng.choice((1, 2, 8, 64, 512))
        span = content[at : at + length]
        new = rng.choice(
            (
                bytes([content[at] ^ 1 << rng.randrange(8)]) + span[1:],
                rng.choice((b"\0", b"\x7f", b"\xff", b".", b"(")) + span[1:],
                b"",
                span + span,
                rng.choice((b"\0" * len(span), b"\xff" * len(span), rng.randbytes(len(span)))),
                None,
                _edge_number(rng, len(content)),
            )
        )
        if new is None:
            content = content[: max(at, 1)] if rng.random() < 0.7 else content[at:]
        else:
            kept = len(new) if new[:1] != span[:1] and len(new) in (2, 4) else len(span)
            content = content[:at] + new + content[at + kept :]
    return content


def _edge_number(rng: random.Random, length: int) -> bytes:
    """Return an edge as a number of 2, 4 or 8 bytes."""
    width, code = rng.choice(((2, "<H"), (4, "<I"), (8, "<Q"), (4, ">I")))
    number = rng.choice((*EDGES, length, length + 1)) % 2 ** (8 * width)
    return struct.pack(code, number)


def splice(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """The start of one file and the end of another."""
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


# Zips


def read_zip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(entries: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # of two entries of one name
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


_FIELDS = {
    b"PK\x01\x02": (
        *((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2)),
        *((32, 2), (34, 2), (38, 4), (42, 4)),
    ),
    b"PK\x03\x04": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x05\x06": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}


def edit_zip_record(rng: random.Random, content: bytes) -> bytes:
    """Change a field of the directory, of an entry's own header, or of the end."""
    signature = rng.choice(list(_FIELDS))
    places = [found.start() for found in re.finditer(re.escape(signature), content)]
    if not places:
        return mutate_bytes(rng, content)
    offset, width = rng.choice(_FIELDS[signature])
    start = rng.choice(places) + offset
    if start + width > len(content):
        return content
    old = int.from_bytes(content[start : start + width], "little")
    changes = (old + 1, old - 1, old * 2, old ^ (1 << rng.randrange(8 * width)), rng.choice(EDGES))
    new = rng.choice(changes) % 2 ** (8 * width)
    return content[:start] + new.to_bytes(width, "little") + content[start + width :]


def rearrange_zip(rng: random.Random, content: bytes) -> bytes:
    """Entries swapped, lost, doubled, renamed or packed, with a sound directory."""
    entries = list(read_zip(content).items())
    for _ in range(rng.choice((1, 1, 2))):
        at, other = rng.randrange(len(entries)), rng.randrange(len(entries))
        name, body = entries[at]
        kind = rng.randrange(6)
        if kind == 0:
            entries[at], entries[other] = (name, entries[other][1]), (entries[other][0], body)
        elif kind == 1 and len(entries) > 1:
            del entries[at]
        elif kind == 2:
            entries.append((name, entries[other][1]))
        elif kind == 3:
            entries[at] = (rng.choice((*WORDS, f"{name}.npy", "\\a", "é")) or "a", body)
        elif kind == 4:
            entries[at] = (name, b"")
        else:
            entries[at] = (name, mutate_bytes(rng, body or b"\0"))
    entries = [(n.encode("utf-8", "replace").decode().split("\0")[0] or "a", b) for n, b in entries]
    return write_zip(entries, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _change_entry(
    rng: random.Random, content: bytes, wanted: str, change: Callable[[bytes], bytes]
) -> bytes:
    entries = list(read_zip(content).items())
    matching = [number for number, (name, _) in enumerate(entries) if re.search(wanted, name)]
    if not matching:
        return rearrange_zip(rng, content)
    at = rng.choice(matching)
    entries[at] = (entries[at][0], change(entries[at][1]))
    return write_zip(entries, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


# Pickles


def edit_pickle(rng: random.Random, program: bytes) -> bytes:
    """Operations lost, doubled, swapped and inserted, and their arguments changed."""
    starts = [position for _, _, position in pickletools.genops(program)]
    steps = [program[a:b] for a, b in zip(starts, [*starts[1:], len(program)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(steps)), rng.randrange(len(steps))
        kind = rng.randrange(6)
        if kind == 0 and len(steps) > 2:
            del steps[at]
        elif kind == 1:
            steps.insert(at, steps[other])
        elif kind == 2:
            steps[at], steps[other] = steps[other], steps[at]
        elif kind == 3:
            steps.insert(at, rng.choice(_OPERATIONS))
        else:
            steps[at] = _other_argument(rng, steps[at])
    return b"".join(steps)


_OPERATIONS = tuple(
    bytes([code]) for code in b"()]}lda0tR12buesQ\x81\x85\x86\x87\x88\x89\x8f\x90N."
)
_OPERATIONS += (b"ctorch\nFloatStorage\n", b"cbuiltins\nrange\n", b"cos\nsystem\n", b"h\x00")
_OPERATIONS += (b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy\ndtype\n", b"ctorch\nSize\n")
_OPERATIONS += (b"X\x03\x00\x00\x00abc", b"G\x7f\xf8\0\0\0\0\0\0", b"\x8a\x09" + b"\xff" * 9)


def _other_argument(rng: random.Random, step: bytes) -> bytes:
    if step[:1] in b"KMJ":  # small, short and signed whole numbers
        number = rng.choice(EDGES) % 2**32
        return rng.choice((b"J" + struct.pack("<I", number), b"\x8a\x08" + rng.randbytes(8)))
    if step[:1] == b"X":
        text = rng.choice(WORDS).encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + text
    if step[:1] == b"c":
        names = (b"torch\nHalfStorage", b"torch\nLongStorage", b"torch._utils\n_rebuild_parameter")
        return b"c" + rng.choice((*names, b"torch.nn\nLinear", b"numpy\nndarray")) + b"\n"
    if len(step) > 1:
        return step[:1] + mutate_bytes(rng, step[1:])
    return rng.choice(_OPERATIONS)


def edit_program(rng: random.Random, content: bytes) -> bytes:
    """Change the pickle of a `.pt`, in a zip that stays sound."""
    return _change_entry(rng, content, r"data\.pkl$", lambda program: edit_pickle(rng, program))


# Values


def flood(rng: random.Random, body: bytes) -> bytes:
    """Fill raw values with what no measurement gives: NaN of all kinds, infinities, extremes."""
    # Infinities of float16, bfloat16, float32 and float64, a signalling NaN, extremes.
    codes = "ff 00 7f 007c 807f 0000807f 000080ff 0100a07f ffff7f7f 01000000 000000000000f07f"
    pattern = rng.choice([*map(bytes.fromhex, codes.split()), rng.randbytes(4)])
    first = rng.choice((0, rng.randrange(len(body) + 1) // 8 * 8))
    last = rng.choice((len(body), rng.randrange(first, len(body) + 1) // 8 * 8))
    span = (pattern * (len(body) // len(pattern) + 1))[: max(last - first, 0)]
    return body[:first] + span + body[first + len(span) :]


def flood_entry(rng: random.Random, content: bytes) -> bytes:
    """Flood an array of a zip: a storage of a `.pt`, or what follows the header of a `.npy`."""

    def change(body: bytes) -> bytes:
        start = body.find(b"\n") + 1 if body.startswith(b"\x93NUMPY") else 0
        return body[:start] + flood(rng, body[start:])

    return _change_entry(rng, content, r"data/\d+$|attention\.npy$", change)


# Headers of .npy


def edit_npy_header(rng: random.Random, content: bytes) -> bytes:
    """Another dtype, shape or order in a `.npy`, or none that can be read."""

    def change(body: bytes) -> bytes:
        if not body.startswith(b"\x93NUMPY"):
            return mutate_bytes(rng, body)
        end = body.find(b"\n") + 1
        header = _other_header(rng, body[10:end].decode("latin1"))
        version, packed = ((1, "<H"), (2, "<I"))[rng.random() < 0.3]
        raw = header.encode("utf-8", "surrogatepass")[: 2**16 - 1]
        start = b"\x93NUMPY" + bytes([version, 0]) + struct.pack(packed, len(raw))
        return start + raw + body[end:]

    return _change_entry(rng, content, r"\.npy$", change)


def _other_header(rng: random.Random, header: str) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        codes = ["<f2", ">f4", "<f8", "<f16", "<c8", "|b1", "<i8", "|O", "<U1", "|S4", "<M8[s]"]
        codes += ["|V4", "<f3", "<U0", "|S0"]
        codes += ["f" * 3000, "\x1b[31m"]
        return re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {rng.choice(codes)!r}", header)
    if kind == 1:
        fields = "[('a\\n', '<f4'), ('b', '<f4', (2,))]"
        return re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {fields}", header)
    if kind == 2:
        sizes = [rng.choice((*EDGES, -1)) for _ in range(rng.choice((0, 1, 2, 3, 40)))]
        return re.sub(r"\([\d, ]*\)", str(tuple(sizes)), header)
    if kind == 3:
        words = ("{", "(" * 200, "-" * 9000 + "1", "[" * 3000, "", "{'descr': '<f4', 'shape': (\n")
        return rng.choice((*words, "__import__('os')", "1L", "{" + header)) + "\n"
    return mutate_bytes(rng, header.encode("latin1")).decode("latin1") + "\n"


# JSON


def edit_tree(rng: random.Random, tree, odd: Callable[[random.Random], object]):
    """Return JSON with one place lost, doubled, swapped, nested or replaced by something odd."""
    places = list(_places(tree))
    if not places:
        return odd(rng)
    parent, key = rng.choice(places)
    other, name = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        parent[key] = odd(rng)
    elif kind == 2 and not _holds(other[name], parent) and not _holds(parent[key], other):
        parent[key], other[name] = other[name], parent[key]
    elif kind == 3 and isinstance(parent, dict):
        parent[rng.choice(WORDS)] = parent.pop(key)
    elif kind == 4:
        for _ in range(rng.choice((1, 3, 20, 100))):
            parent[key] = rng.choice(([parent[key]], {"a": parent[key]}))
    else:
        parent[key] = odd(rng)
    return tree


def _places(tree):
    """Yield every place in nested dictionaries and lists, as its parent and its key."""
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _holds(tree, part) -> bool:
    return tree is part or any(parent is part for parent, _ in _places(tree))


def odd_value(rng: random.Random) -> object:
    """Return something that JSON can hold and hardly any key expects."""
    return rng.choice(
        (
            None,
            True,
            rng.choice(EDGES),
            -rng.choice(EDGES),
            rng.choice((0.5, -0.0, 1e308, 5e-324, float("inf"), float("nan"))),
            rng.choice(WORDS),
            [],
            {},
            [rng.choice(EDGES) for _ in range(rng.choice((1, 3, 30)))],
            {rng.choice(WORDS): rng.choice(WORDS)},
            "[" * 2000,
        )
    )


def edit_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Change the header of a safetensors file, whose length stays right, or its values."""
    start = 8 + int.from_bytes(content[:8], "little")
    header, values = content[8:start], content[start:]
    kind = rng.randrange(5)
    if kind == 0:
        return content[:start] + flood(rng, values)
    if kind == 1:
        header = mutate_bytes(rng, header)
    elif kind == 2:  # a key twice, which the text can hold and no dictionary
        tree = json.loads(header)
        name = rng.choice(list(tree))
        twin = json.dumps({name: edit_tree(rng, [tree[name]], odd_value)})
        header = header.rstrip()[:-1] + b"," + twin[1:].encode()
    else:
        tree = json.loads(header)
        for _ in range(rng.choice((1, 1, 2))):
            tree = edit_tree(rng, tree, odd_value)
        header = _dump(rng, tree)
    return len(header).to_bytes(8, "little") + header + values


def _dump(rng: random.Random, tree: object) -> bytes:
    """Return the text of a tree, rarely with one number nested far beyond what Python can write."""
    text = json.dumps(tree)
    if rng.random() < 0.05:
        depth = rng.choice((60, 70, 900, 5000))
        text = re.sub(r"\d+", lambda found: "[" * depth + found[0] + "]" * depth, text, count=1)
    return text.encode("ascii")


def edit_json_text(rng: random.Random, text: bytes) -> bytes:
    """Damage a JSON file: its bytes, its tree, or a key given twice."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, text)
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = edit_tree(rng, tree, odd_value)
    return _dump(rng, tree)


#: What may be done to a file, by its suffix.
BY_SUFFIX: dict[str, tuple[Mutate, ...]] = {
    ".pt": (mutate_bytes, edit_zip_record, rearrange_zip, edit_program, edit_program, flood_entry),
    ".npz": (mutate_bytes, edit_zip_record, rearrange_zip, edit_npy_header, flood_entry),
    ".safetensors": (mutate_bytes, edit_safetensors, edit_safetensors),
}


def mutate_file(rng: random.Random, content: bytes, suffix: str, others: Sequence[bytes]) -> bytes:
    """Return a damaged file; the same generator gives the same one."""
    if rng.random() < 0.05:
        return splice(rng, content, rng.choice(others)) or b"\0"
    zipped = content[:2] == b"PK"
    possible = BY_SUFFIX[suffix] if zipped or suffix == ".safetensors" else (mutate_bytes,)
    changed = rng.choice(possible)(rng, content)
    if rng.random() < 0.1:
        changed = mutate_bytes(rng, changed or b"\0")
    return changed or b"\0"


# Dictionaries


def odd_schema_value(rng: random.Random) -> object:
    """Return a value that a key of the schema may hold in a file that somebody else wrote."""
    sizes = [rng.choice((0, 1, 1, 2, 3, 4, 5)) for _ in range(rng.choice((0, 1, 2, 3, 3, 4)))]
    fill = rng.choice((0.0, 1.0, np.nan, np.inf, -np.inf, 1e300, 3e38, -1e-320, 6e4))
    dtype = rng.choice(("f2", "f4", "f8", "i1", "i8", "u8", "?", "c8", "f2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.full(sizes, fill).astype(dtype)
    return rng.choice(
        (array, array, array, odd_value(rng), [odd_value(rng)], [1, [2, 3]], b"bytes", 3 + 4j)
    )


def edit_schema(rng: random.Random, data: dict) -> dict:
    """Return the dictionary with keys swapped, lost, renamed or holding something else."""
    changed = dict(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        key, other = rng.choice(list(changed)), rng.choice(list(changed))
        kind = rng.randrange(4)
        if kind == 0:
            changed[key], changed[other] = changed[other], changed[key]
        elif kind == 1 and len(changed) > 1:
            del changed[key]
        elif kind == 2:
            changed[rng.choice(WORDS)] = changed[key]
        else:
            changed[rng.choice((key, *data))] = odd_schema_value(rng)
    return changed
