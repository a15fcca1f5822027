"""Files <-> captures, folders -> captures.

Three formats hold the same keys: `.pt` (`torch.save`), `.npz` and
`.safetensors`. Reading never runs code from a file, and torch is imported only
to write a `.pt`.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from dataclasses import replace
from pathlib import Path

from headgrid.capture.files import hash_file, replace_file
from headgrid.capture.folders import CaptureFile, find_captures, list_captures, missing, name_folder
from headgrid.capture.formats import READERS, SUFFIXES, WRITERS, check_suffix, to_storable
from headgrid.capture.model import Capture
from headgrid.errors import CaptureError, HeadgridWarning, check_choice, describe_error

__all__ = [
    "SUFFIXES",
    "CaptureFile",
    "find_captures",
    "load_capture",
    "load_run",
    "read_capture",
    "save_capture",
]


def load_capture(path: str | os.PathLike[str], *, run: str = "") -> Capture:
    """Read one layer's capture.

    Parameters
    ----------
    path : path
        A `.pt` or `.pth` (a dictionary, written by `torch.save`), `.npz` or
        `.safetensors` file with the keys of the capture schema. Code in the
        file is never run: metadata of any class is read as the name of the class.
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
        Where something in the file is odd and was handled.

    Examples
    --------
    >>> import tempfile
    >>> capture = Capture.from_array([[[4.0, 0.0], [3.0, 1.0]]], layer=3, block_sizes=[1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_capture(save_capture(capture, folder + "/layer3.npz"), run="run_000")
    <Capture run_000, layer 3: logit, 1 head, 2 query x 2 key frames, blocks [1, 1]>
    """
    return _load(Path(path), run, stacklevel=3)


def load_run(folder: str | os.PathLike[str]) -> list[Capture]:
    """Read all layers of a run.

    Parameters
    ----------
    folder : path
        A folder that directly holds captures; its name becomes the name of the run.

    Returns
    -------
    list of Capture
        In natural order of the file names (layer2 before layer10).

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
    loaded = []
    for path in list_captures(Path(folder)):
        # A comprehension would be one more level in the stack up to Python 3.11.
        loaded.append(_load(path, run, stacklevel=3))  # noqa: PERF401
    return loaded


def read_capture(file: CaptureFile) -> tuple[Capture, str]:
    """Read a found file in any thread or process, with what tells its content apart.

    Parameters
    ----------
    file : CaptureFile
        From `find_captures`.

    Returns
    -------
    capture : Capture
        As from `load_capture`, named by the whole path, as runs hold files of the
        same names. What is odd in the file is in its ``warnings``, and no Python
        warning is given: those are a matter of the whole process.
    digest : str
        SHA-256 of the file's bytes in hexadecimal. They are hashed before they are
        read, so that a file that changes in between does not pass as drawn.

    Raises
    ------
    CaptureError
        Where the file is missing, unreadable, damaged, or no capture.

    Examples
    --------
    >>> import tempfile
    >>> capture = Capture.from_array([[[1.0]]], layer=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_capture(capture, folder + "/layer3.npz")
    ...     (file,), _ = find_captures(path)
    ...     read, digest = read_capture(file)
    >>> read.layer_index, read.source == str(path), len(digest)
    (3, True, 64)
    """
    path = file.path
    try:
        _check_file(path)
        try:
            digest = hash_file(path)
        except OSError as error:
            raise _unreadable(path, error) from None
        return _read(path, file.run, str(path)), digest
    except CaptureError as error:
        text = str(error)
        named = text.startswith(f"{path.name}:")
        raise CaptureError(f"{path}{text.removeprefix(path.name)}" if named else text) from None


def _load(path: Path, run: str, stacklevel: int) -> Capture:
    capture = _read(path, run, path.name)
    for text in capture.warnings:
        warnings.warn(text, HeadgridWarning, stacklevel=stacklevel)
    return capture


def _read(path: Path, run: str, source: str) -> Capture:
    suffix = _check_file(path)
    try:
        data, odd = READERS[suffix](path)
    except (OSError, MemoryError) as error:
        raise _unreadable(path, error) from None
    named = re.search(r"layer[_-]?(\d+)", path.stem, re.IGNORECASE)
    layer = int(named[1]) if named else None
    capture = Capture.from_dict(data, source=source, layer=layer, run=run)
    return replace(capture, warnings=(*odd, *capture.warnings)) if odd else capture


def _check_file(path: Path) -> str:
    """Return the suffix of a file that can be opened and is not empty."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path, "file") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise CaptureError(
            f"{path.name}: is a folder, expected a file ({', '.join(SUFFIXES)}); load_run reads "
            "the captures of a folder"
        )
    if not stat.S_ISREG(status.st_mode):
        raise CaptureError(f"{path.name}: is a device or pipe, expected a regular file")
    suffix = check_suffix(path)
    if not status.st_size:
        raise CaptureError(
            f"{path.name}: the file is empty (0 bytes), expected a capture; record it anew"
        )
    return suffix


def _unreadable(path: Path, error: BaseException) -> CaptureError:
    return CaptureError(f"{path.name}: {describe_error(error)}, expected a readable file")


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
    suffix = check_choice(f"the suffix of {target.name}", target.suffix.lower(), SUFFIXES)
    data = to_storable(capture.to_dict(), target.name)
    with replace_file(target) as file:
        WRITERS[suffix](data, file, target.name)
    return target
