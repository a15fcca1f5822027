"""A random generator, which a number names -> files damaged and made up, by format."""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
from random import Random

#: Numbers at which formats and arithmetic change their minds.
EDGES = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1)
EDGES += (2**31, 2**32 - 1, 2**48, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = ("", "layer_index", "block_sizes", "prompt", "full_frame_attention", "num_heads", "F32")
WORDS += ("last_block_frame_attention", "key_frames", "statistic", "logit", "mass", "std", "nan")
WORDS += ("a\x00b", "a\nb", "\x1b[31m", "\u202eabc", "\ud800", "x" * 5000, "1e999", "../../a", "/a")
DTYPES = ("<f2", ">f4", "<f8", "<f16", "<c8", "|b1", "<i8", "|O", "<U1", "|S4", "<M8[s]", "|V4")
DTYPES += ("<f3", "<U0", "|S0", "f" * 3000, "\x1b[31m", [("a\n", "<f4"), ("b", "<f4", (2,))])

#: What a pickle would have Python call: a module, a name in it, and the argument.
ATTACKS = ("os system touch", "posix system touch", "subprocess Popen touch", "os mkdir stray")
ATTACKS += ("builtins eval open('stray','w')", "builtins exec open('stray','w')", "os remove .")
ATTACKS += ("builtins getattr os", "builtins __import__ antigravity", "pathlib Path.touch stray")
ATTACKS += ("torch load stray", "torch.jit load stray", "codecs decode x", "numpy fromfile stray")
CALLS = ("c{}\n{}\n(V{}\ntR", "(i{}\n{}\n", "c{}\n{}\n(V{}\nt\x81", "(c{}\n{}\nV{}\no")
CALLS += ("c{}\n{}\n)R}}(V__setstate__\nV{}\nub", "V{}\nV{}\n\x93V{}\n\x85R")


def mutate_bytes(rng: Random, content: bytes) -> bytes:
    """Flip, set, lose, repeat, overwrite, count up or cut bytes, once or a few times."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(content) + 1)
        span = content[at : at + rng.choice((1, 2, 4, 8, 64, 512))]
        new = (
            bytes(byte ^ 1 << rng.randrange(8) for byte in span[:1]) + span[1:],
            rng.choice((b"\0", b"\x7f", b"\xff", b".", b"(")) + span[1:],
            b"",
            span * 2,
            rng.choice((bytes(len(span)), b"\xff" * len(span), rng.randbytes(len(span)))),
            rng.choice((*EDGES, len(content))).to_bytes(8, "little")[: len(span)],
        )
        rest = content[at + len(span) :] if rng.random() < 0.9 else b""
        content = content[:at] + rng.choice(new) + rest
    return content


def read_zip(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write_zip(rng: Random, entries: list[tuple[str, bytes]]) -> bytes:
    buffer, method = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # of two entries of one name
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def edit_zip_record(rng: Random, content: bytes) -> bytes:
    """Change a number in the directory, in an entry's own header, or in the end of a zip."""
    records = [found.start() for found in re.finditer(b"PK(\1\2|\3\4|\5\6)", content)] or [0]
    at, width = rng.choice(records) + rng.randrange(4, 46, 2), rng.choice((2, 4))
    old = int.from_bytes(content[at : at + width], "little")
    changes = (old + 1, old - 1, old * 2, old ^ (1 << rng.randrange(8 * width)), rng.choice(EDGES))
    new = rng.choice(changes) % 2 ** (8 * width)
    return content[:at] + new.to_bytes(width, "little") + content[at + width :]


def edit_zip(rng: Random, content: bytes) -> bytes:
    """An entry changed, lost, doubled, renamed or emptied in a zip that stays sound."""
    entries = read_zip(content)
    programs = [at for at, entry in enumerate(entries) if entry[0].endswith("data.pkl")]
    at = rng.choice([rng.randrange(len(entries)), *programs])
    (name, body), other = entries[at], rng.choice(entries)
    odd = rng.choice((*WORDS, f"{name}.npy", "\\a", "é")).encode("utf-8", "replace").decode()
    same = [(name, _edit_entry(rng, name, body))]
    lost = [(name, other[1])], [(other[0], body)], [(odd.partition("\0")[0] or "a", body)]
    new = rng.choice((*[same] * 6, [entries[at], other], *lost, [(name, b"")], []))
    return write_zip(rng, [*entries[:at], *new, *entries[at + 1 :]])


def _edit_entry(rng: Random, name: str, body: bytes) -> bytes:
    start = body.find(b"\n") + 1 if body.startswith(b"\x93NUMPY") else 0
    if name.endswith("data.pkl"):
        return edit_pickle(rng, body)
    if start and rng.random() < 0.5:
        return odd_npy(rng, body[start:])
    return rng.choice((mutate_bytes(rng, body), body[:start] + flood(rng, body[start:])))


def odd_npy(rng: Random, values: bytes) -> bytes:
    """Return values behind a header that claims anything of them."""
    sizes = rng.choice((odd_sizes(rng), (2, 4, 4)))
    header = {"descr": rng.choice(DTYPES), "fortran_order": rng.random() < 0.5, "shape": sizes}
    words = ("{", "(" * 200, "-" * 9000 + "1", "[" * 3000, "", "__import__('os')", "1L")
    raw = rng.choice((*[str(header)] * 9, rng.choice(words))).encode() + b"\n"
    version, packed = rng.choice(((1, "<H"), (2, "<I")))
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(packed, len(raw)) + raw + values


def odd_sizes(rng: Random) -> tuple[int, ...]:
    return tuple(rng.choice((*EDGES, -1)) for _ in range(rng.choice((0, 1, 2, 3, 3, 3, 40))))


def flood(rng: Random, body: bytes) -> bytes:
    """Fill raw values with what no measurement gives: NaN of all kinds, infinities, extremes."""
    # Infinities of float16, bfloat16, float32 and float64, a signalling NaN, extremes.
    codes = "ff 00 7f 007c 807f 0000807f 000080ff 0100a07f ffff7f7f 01000000 000000000000f07f"
    pattern = rng.choice([*map(bytes.fromhex, codes.split()), rng.randbytes(4)])
    first, last = sorted(rng.choice((0, len(body), rng.randrange(len(body) + 1))) for _ in "ab")
    first -= first % 8
    return body[:first] + (pattern * len(body))[: last - first] + body[last:]


def split_pickle(program: bytes) -> list[bytes]:
    """Return the operations of a program, each with its argument."""
    starts = [position for _, _, position in pickletools.genops(program)]
    return [program[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def odd_operation(rng: Random) -> bytes:
    """Return any operation of a pickle: a call, one that takes anything, or one of torch's."""
    call = rng.choice(CALLS).format(*rng.choice(ATTACKS).split()).encode("latin1")
    argument = rng.choice((b"", b"\1a", b"\1\0\0\0a", b"a\n", rng.randbytes(4), b"\xff" * 8))
    other = rng.choice(pickletools.opcodes).code.encode("latin1") + argument
    torchs = rng.choice((b"ctorch\nLongStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"))
    return rng.choice((call, call + b"0", other, other, torchs))


def edit_pickle(rng: Random, program: bytes) -> bytes:
    """Operations lost, doubled, replaced and inserted, and their arguments changed."""
    steps = split_pickle(program)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(steps))
        text = rng.choice(WORDS).encode("utf-8", "surrogatepass")
        changed = steps[at][:1] + mutate_bytes(rng, steps[at][1:])
        if steps[at][:1] == b"X":  # text, which has its length before it
            changed = b"X" + struct.pack("<I", len(text)) + text
        new = ([], [rng.choice(steps)], [odd_operation(rng)], [changed], [changed])
        steps[at : at + rng.choice((0, 1, 1))] = rng.choice(new)
    return b"".join(steps)


def edit_tree(rng: Random, tree, odd):
    """Return JSON with a few places lost, copied, renamed, nested or replaced by something odd."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return odd(rng)
        (parent, key), (other, name) = rng.choice(places), rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del parent[key]
        elif kind == 1:
            parent[key] = json.loads(json.dumps(other[name]))
        elif kind == 2 and isinstance(parent, dict):
            parent[rng.choice(WORDS)] = parent.pop(key)
        elif kind == 3:
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


def odd_value(rng: Random) -> object:
    """Return something that JSON can hold and hardly any key expects."""
    number = rng.choice((0.5, -0.0, 1e308, 5e-324, float("inf"), float("nan"), *EDGES))
    several = rng.choice(([], {}, [number] * 3, [number] * 30, {rng.choice(WORDS): "a"}))
    return rng.choice((None, True, number, -number, several, rng.choice(WORDS), "[" * 2000))


def edit_json(rng: Random, text: bytes) -> bytes:
    """Damage JSON: its bytes or its tree, rarely with a number nested far too deep."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, text)
    changed = json.dumps(edit_tree(rng, json.loads(text), odd_value))
    if rng.random() < 0.05:
        depth = rng.choice((60, 70, 900, 5000))
        changed = re.sub(r"(\d+)", "[" * depth + r"\1" + "]" * depth, changed, count=1)
    return changed.encode("ascii")


def edit_safetensors(rng: Random, content: bytes) -> bytes:
    """Change the header of a safetensors file, whose length stays right, or its values."""
    start = 8 + int.from_bytes(content[:8], "little")
    header, values = content[8:start], content[start:]
    edited = edit_json(rng, header)  # or twice, which a text can hold and no dictionary
    header = rng.choice((header, edited, edited, header.rstrip()[:-1] + b"," + edited[1:]))
    return len(header).to_bytes(8, "little") + header + rng.choice((values, flood(rng, values)))


def mutate_file(rng: Random, name: str, sound: dict[str, bytes]) -> bytes:
    """Return one of the sound files damaged; the same generator gives the same one."""
    content, other = sound[name], rng.choice([*sound.values()])
    ways = [mutate_bytes, edit_zip_record, edit_zip, edit_zip, edit_zip]
    if name.endswith(".safetensors"):
        ways = [mutate_bytes, edit_safetensors, edit_safetensors]
    changed = rng.choice(ways)(rng, content)
    if rng.random() < 0.05:  # the start of one file and the end of another
        changed = content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
    return (mutate_bytes(rng, changed) if rng.random() < 0.1 else changed) or b"\0"


def craft_pickle(rng: Random, program: bytes) -> bytes:
    """Return a program of attacks and of any operations, at times in the midst of a sound one."""
    steps = split_pickle(program) if rng.random() < 0.6 else [b"\x80\x02", b"."]
    for _ in range(rng.choice((1, 1, 2, 10, 100))):
        steps.insert(rng.randrange(1, len(steps)), odd_operation(rng))
    return b"".join(steps)


def craft_file(rng: Random, suffix: str, sound: bytes) -> bytes:
    """Return a file of one format that was never sound: hostile programs, claims and sizes."""
    if suffix == ".safetensors":
        kinds = ("F32", "F64", "BF16", "F8_E4M3", "I64", "x")
        tensors = {}
        for name in rng.sample(WORDS, 6):
            place = {"shape": odd_sizes(rng), "data_offsets": sorted(rng.sample(EDGES, 2))}
            tensors[name] = {"dtype": rng.choice(kinds), **place}
        header = json.dumps(tensors).encode()
        length = rng.choice((len(header), len(header), rng.choice(EDGES)))
        return length.to_bytes(8, "little") + header + rng.randbytes(64)
    if suffix == ".pt" and rng.random() < 0.1:
        return craft_pickle(rng, b"\x80\x02.")  # without a zip, as torch wrote it once
    entries = read_zip(sound)
    for at, (name, body) in enumerate(entries):
        if name.endswith("data.pkl"):
            entries[at] = (name, craft_pickle(rng, body))
        elif name.endswith("attention.npy"):
            values = (body[-128:], bytes(10**4), craft_pickle(rng, b"\x80\x02."))
            entries[at] = (name, odd_npy(rng, rng.choice(values)))
    content = write_zip(rng, entries * rng.choice((1, 1, 1, 2, 500)))
    for _ in range(rng.choice((0, 0, 1, 5))):
        content = edit_zip_record(rng, content)
    return content
