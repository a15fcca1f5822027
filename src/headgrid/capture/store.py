"""Files <-> captures, folders -> captures.

Three formats hold the same keys: `.pt` (`torch.save`), `.npz` and `.safetensors`. A `.npy`, and
a `.pt` with a tensor, hold the matrix alone. Reading never runs code from a file, and torch is
imported only to write a `.pt`.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headgrid.capture.files import hash_file, replace_file
from headgrid.capture.folders import CaptureFile, check_suffix, list_captures, name_folder, reading
from headgrid.capture.formats import READERS, SUFFIXES, WRITERS, to_storable
from headgrid.capture.model import Capture
from headgrid.capture.outputs import Layers, read_bare
from headgrid.capture.pt import Word
from headgrid.errors import CaptureError, HeadgridWarning, check_choice, damaged
from headgrid.text import shorten_text

#: Bytes that a file's values may be written out to, all together; how deep they may be; and
#: bits of an integer, as Python prints no more.
_MAX_PLAIN, _MAX_DEPTH, _MAX_BITS = 2**26, 64, 13_000


def load_capture(path: str | os.PathLike[str], *, run: str = "") -> Capture:
    """Read one layer's capture.

    Parameters
    ----------
    path : path
        A `.pt` or `.pth` (a dictionary, written by `torch.save`), `.npz` or
        `.safetensors` file with the keys of the capture schema. Code in the
        file is never run: metadata of any class is read as the name of the class.
        Or a `.npy`, or a `.pt` with a tensor, of [heads, query, key] alone.
    run : str
        Name of the run that the layer belongs to.

    Returns
    -------
    Capture
        With ``full_frame_attention`` [heads, query, key] and
        ``last_block_frame_attention`` [heads, key] as floating numpy arrays. Those
        of a file of 16 MiB and more are views of the file: replace such a file
        whole, never overwrite it in place. Where ``layer_index`` is absent, the
        number comes from the file name (``layer3.pt``).

    Raises
    ------
    CaptureError
        Where the file is missing, unreadable, damaged, or no capture.

    Warns
    -----
    HeadgridWarning
        Where something in the file is odd and was handled, and what an array alone was
        taken for: attention after the softmax where each row sums to 1, else logits.

    Examples
    --------
    >>> import tempfile
    >>> capture = Capture.from_array([[[4.0, 0.0], [3.0, 1.0]]], layer=3, block_sizes=[1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_capture(save_capture(capture, folder + "/layer3.npz"), run="run_000")
    <Capture run_000, layer 3: logit, 1 head, 2 query x 2 key frames, blocks [1, 1]>
    """
    return _load(Path(path), run)


def load_run(folder: str | os.PathLike[str]) -> list[Capture]:
    """Read all layers of a run.

    Parameters
    ----------
    folder : path
        A folder that directly holds captures; its name becomes the name of the run.

    Returns
    -------
    list of Capture
        In natural order of the file names (layer2 before layer10); a notebook shows one card.

    Raises
    ------
    CaptureError
        For the first file that is not usable, and where there is none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for layer in (10, 2):
    ...         capture = Capture.from_array([[[1.0]]], layer=layer)
    ...         _ = save_capture(capture, f"{folder}/layer{layer}.npz")
    ...     [capture.layer_index for capture in load_run(folder)]
    [2, 10]
    """
    run = name_folder(Path(folder))
    loaded = Layers()
    for path in list_captures(Path(folder)):
        # A comprehension would be one more level in the stack up to Python 3.11.
        loaded.append(_load(path, run))
    return loaded


def read_capture(file: CaptureFile) -> tuple[Capture, str]:
    """Read a found file in any thread or process, with what tells its content apart.

    The capture is named by the whole path, as runs hold files of the same names, and no Python
    warning is given: those are a matter of the whole process. The SHA-256 of the file's bytes is
    taken before they are read, so that a file that changes in between does not pass as drawn.
    """
    path = file.path
    try:
        with reading(path, path.name, "file", "a readable file"):
            _check_file(path)
            digest = hash_file(path)
        return _read(path, file.run, str(path)), digest
    except CaptureError as error:
        text = str(error)
        named = text.startswith(f"{path.name}:")
        raise CaptureError(f"{path}{text.removeprefix(path.name)}" if named else text) from None


def _load(path: Path, run: str) -> Capture:
    capture = _read(path, run, path.name)
    for text in capture.warnings:
        warnings.warn(text, HeadgridWarning, stacklevel=3)
    return capture


def _read(path: Path, run: str, source: str) -> Capture:
    with reading(path, path.name, "file", "a readable file"):
        _check_file(path)
        data, odd = read_values(path)
    named = re.search(r"layer[_-]?(\d+)", path.stem, re.IGNORECASE)
    layer = int(named[1]) if named else None
    if isinstance(data, np.ndarray):
        return read_bare(data, source=source, layer=layer, run=run)
    capture = Capture.from_dict(data, source=source, layer=layer, run=run)
    return replace(capture, warnings=(*odd, *capture.warnings)) if odd else capture


def read_values(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the plain values of a file, and sentences about what is odd in them."""
    value, words, _ = _copy_plain(READERS[path.suffix.lower()](path), path.name)
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    sentence = (
        f"{path.name}: objects of {', '.join(words[:5])}{more} are no plain values and "
        "were not made; their place holds that name as text"
    )
    return value, (sentence,) if words else ()


def _copy_plain(value: Any, name: str) -> tuple[Any, list[str], int]:
    """Return a copy with words as text, the words, and the size of it all as counted here.

    Refuse what could not be walked and printed.
    """
    left, words = _MAX_PLAIN, dict[str, None]()

    def copy(item: Any, depth: int) -> Any:
        nonlocal left
        is_container = type(item) in (dict, list, tuple, set, frozenset)
        # A list that holds a list twice, which holds a list twice, ... takes 2**n bytes here.
        left -= 200 if is_container else 16
        left -= len(item) if isinstance(item, (str, bytes)) else 0
        if left < 0 or depth > _MAX_DEPTH:
            found = f"nested more than {_MAX_DEPTH} deep" if left >= 0 else "repeated, or many"
            raise CaptureError(
                f"{name}: values are {found}, expected a dictionary of arrays, text, numbers and "
                "short lists; write the capture anew"
            )
        if isinstance(item, (Word, np.dtype)):
            words[f"numpy dtype {item}" if isinstance(item, np.dtype) else str(item)] = None
            return str(item)
        if type(item) is dict:
            left -= sum(len(key) for key in item if isinstance(key, (str, bytes)))
            return {key: copy(part, depth + 1) for key, part in item.items()}
        if is_container:
            return type(item)([copy(part, depth + 1) for part in item])
        if isinstance(item, int) and item.bit_length() > _MAX_BITS:
            raise damaged(name, f"an integer of {item.bit_length():,} bits", "64 bits")
        if not isinstance(item, (str, bytes, int, float, complex, np.ndarray, type(None))):
            raise damaged(name, "a value without content", "plain values")
        return item

    return copy(value, 0), [*words], _MAX_PLAIN - left


def _check_file(path: Path) -> None:
    """Refuse what is no file, is empty, or has another suffix."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise CaptureError(
            f"{path.name}: is a folder, expected a file ({', '.join(SUFFIXES)}); load_run reads "
            "the captures of a folder"
        )
    if not stat.S_ISREG(status.st_mode):
        raise CaptureError(f"{path.name}: is a device or pipe, expected a regular file")
    check_suffix(path)
    if not status.st_size:
        raise CaptureError(
            f"{path.name}: the file is empty (0 bytes), expected a capture; record it anew"
        )


def save_capture(capture: Capture, path: str | os.PathLike[str]) -> Path:
    """Write one layer's capture.

    Parameters
    ----------
    capture : Capture
        Its arrays [heads, query, key] and [heads, key] keep their dtype.
    path : path
        The suffix says the format: `.pt` and `.pth` (needs torch), `.npz` or
        `.safetensors`. The file appears whole or not at all, and replaces an
        older one.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OptionError
        For another suffix.
    CaptureError
        Where the metadata holds what the format can not; the text names the key.
        Lists, dictionaries with text keys, numbers, text, booleans, None and
        arrays are possible in all three (tuples become lists outside of `.pt`).
    OutputError
        Where the file can not be written.

    Examples
    --------
    >>> import tempfile
    >>> capture = Capture.from_array([[[1.0, 2.0]]], metadata={"seed": 7, "tags": ["a", "b"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_capture(save_capture(capture, folder + "/layer0.npz")).metadata
    {'seed': 7, 'tags': ['a', 'b']}
    """
    target = Path(path)
    suffix = check_choice(f"the suffix of {target.name}", target.suffix.lower(), WRITERS)
    data = to_storable(capture.to_dict(), target.name, suffix)
    _, _, size = _copy_plain(data, target.name)
    try:
        with replace_file(target) as file:
            WRITERS[suffix](data, file)
            if size > 2**16:  # so much may be more than a reader takes
                file.flush()
                READERS[suffix](Path(file.name))
    except (TypeError, ValueError, OverflowError) as error:
        _, _, reason = str(error).rpartition(f"{Path(file.name).name}: ")
        raise CaptureError(
            f"{target.name}: the metadata can not be stored ({shorten_text(reason, 200)}), "
            "expected what can be read back; store it as text, or leave it out with "
            "capture.replace(metadata=...)"
        ) from None
    return target
