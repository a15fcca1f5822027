"""Dtypes and variants of the schema -> whole, sound capture files to start from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from headgrid import save_capture
from synthetic import block_capture, waves

FULL, LAST = "full_frame_attention", "last_block_frame_attention"
PROMPT = '一只鹰 </script> & "quoted" \u202e ${x}'


def schema_variants() -> dict[str, dict]:
    """Return dictionaries of numpy arrays and plain values, as real files hold them."""
    values = waves(2, 4, 4).astype(np.float32)
    unseen = values.copy()
    unseen[:, :2, 2:] = np.nan
    return {
        "whole": {
            "layer_index": 3,
            FULL: values,
            LAST: values[:, 2:].mean(axis=1),
            "block_sizes": [2, 2],
            "last_block_query_frames": [2, 3],
            "is_logits": True,
            "num_heads": 2,
            "num_frames": 4,
            "prompt": PROMPT,
            "extraction_method": "hooks",
        },
        "full": {"layer_index": 3, FULL: unseen, "num_frame_per_block": 2},
        "rows": {LAST: values[:, 0], "is_logits": False, "key_frames": [0, 3, 5, 9]},
        "axes": {
            FULL: np.abs(values),
            "statistic": "mass",
            "query_frames": [4, 5, 6, 7],
            "key_frames": [4, 5, 6, 7],
            "prompt": ["one", "two"],
        },
        "short": {FULL: np.where(np.arange(4) < 3, values, 0), "block_sizes": [3], "seed": None},
    }


def to_tensors(value, dtype=None):
    """Return the same with torch's tensors in place of numpy's arrays."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.to(dtype) if dtype is not None else tensor
    if isinstance(value, dict):
        return {key: to_tensors(part, dtype) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_tensors(part, dtype) for part in value)
    return value


def to_pt(data, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer, **options)
    return buffer.getvalue()


def to_npz(data: dict, *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    given = {key: value for key, value in data.items() if value is not None}
    (np.savez_compressed if packed else np.savez)(buffer, **given)
    return buffer.getvalue()


def to_safetensors(data: dict, dtype=torch.float32) -> bytes:
    tensors = {k: to_tensors(v, dtype) for k, v in data.items() if isinstance(v, np.ndarray)}
    texts = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in data.items()}
    texts = {k: v for k, v in texts.items() if k not in tensors}
    return save_tensors(tensors, texts)


def seeds(folder: Path) -> dict[str, bytes]:
    """Return the files to start from, by their name; those of headgrid pass by way of a folder."""
    found: dict[str, bytes] = {}
    for name, data in schema_variants().items():
        found[f"{name}.pt"] = to_pt(to_tensors(data))
        found[f"{name}.npz"] = to_npz(data)
        found[f"{name}.safetensors"] = to_safetensors(data)
    whole = schema_variants()["whole"]
    dtypes = ("float16", "bfloat16", "float64", "float8_e4m3fn")
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        found[f"{dtype}.pt"] = to_pt(to_tensors(whole, kind))
        found[f"{dtype}.safetensors"] = to_safetensors(whole, kind)
    found["numpy.pt"] = to_pt(whole)  # arrays inside the pickle
    found["packed.npz"] = to_npz(whole, packed=True)
    half = whole | {key: whole[key].astype(np.float16) for key in (FULL, LAST)}
    found["float16.npz"] = to_npz(half)
    for suffix in (".pt", ".npz", ".safetensors"):
        path = folder / f"own{suffix}"
        save_capture(block_capture(layer=3, prompt=PROMPT, metadata={"seed": [1, 2]}), path)
        found[path.name] = path.read_bytes()
        path.unlink()
    return found
