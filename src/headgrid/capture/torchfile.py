"""A dictionary <-> a .pt, by torch itself: to write one, and for what only torch can read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from headgrid.capture.calls import ANEW, EXPECTED
from headgrid.capture.schema import as_array
from headgrid.capture.values import MAX_SIZE, check_expansion
from headgrid.errors import CaptureError, OutputError, describe_error


def read_with_torch(path: Path, reason: str) -> Any:
    """Let torch read what only torch can rebuild; it does not run code either."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # noqa: BLE001 - torch raises anything; its text advises to run the code
        raise CaptureError(
            f"{path.name}: {reason}, and torch does not read it as data either; {EXPECTED}; {ANEW}"
        ) from None
    check_expansion(path.name, value, MAX_SIZE)
    return _without_torch(value)


def _without_torch(value: Any) -> Any:
    """Turn tensors into arrays, and dtypes and devices into text, at any depth."""
    if isinstance(value, Mapping):
        return {key: _without_torch(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_without_torch(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if type(value).__module__.partition(".")[0] != "torch":
        return value
    if not hasattr(value, "detach"):
        return str(value)
    try:
        return as_array(value)
    except (TypeError, RuntimeError):  # sparse, quantized: Capture says so if it matters
        return value


def write_pt(data: Mapping[str, Any], file: IO[bytes], name: str) -> None:
    """Write a dictionary as torch does, its arrays as tensors.

    Raises
    ------
    OutputError
        Where that is not possible.
    """
    import torch

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            return torch.from_numpy(native)
        if isinstance(value, (list, tuple)):
            parts = [tensors(part) for part in value]
            return tuple(parts) if isinstance(value, tuple) else parts
        if isinstance(value, dict):
            return {key: tensors(part) for key, part in value.items()}
        return value

    try:
        # An open file, as a name would go into the zip and change its bytes.
        torch.save(tensors(data), file)
    except RuntimeError as error:  # torch's zip writer reports a full disk this way
        raise OutputError(
            f"{name}: can not be written ({describe_error(error)}), expected a folder with room"
        ) from None
