"""Dtypes and variants of the schema -> whole, sound capture files to start from."""

from __future__ import annotations

import io
import json
from functools import cache
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from headgrid import save_capture
from synthetic import block_capture, waves

FULL, LAST = "full_frame_attention", "last_block_frame_attention"
PROMPT = '一只鹰 </script> & "quoted" \u202e ${x}'
VALUES = waves(2, 4, 4).astype(np.float32)
ROWS, FOUR = VALUES[:, 2:].mean(axis=1), [4, 5, 6, 7]
WHOLE = {"layer_index": 3, FULL: VALUES, LAST: ROWS, "block_sizes": [2, 2], "is_logits": True}
WHOLE |= {"last_block_query_frames": [2, 3], "num_heads": 2, "num_frames": 4, "prompt": PROMPT}
CAUSAL = np.where(np.tri(4, dtype=bool), VALUES, np.nan)
VARIANTS: dict[str, dict] = {
    "whole": WHOLE,
    "full": {"layer_index": 3, FULL: CAUSAL, "num_frame_per_block": 2},
    "rows": {LAST: ROWS, "is_logits": False, "key_frames": [0, 3, 5, 9]},
    "axes": {FULL: abs(VALUES), "statistic": "mass", "query_frames": FOUR, "key_frames": FOUR},
    "short": {FULL: np.where(np.arange(4) < 3, VALUES, 0), "block_sizes": [3], "seed": None},
}


def to_tensors(value, dtype=None):
    """Return the same with torch's tensors in place of numpy's arrays."""
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.to(dtype) if dtype is not None else tensor
    if isinstance(value, dict):
        return {key: to_tensors(part, dtype) for key, part in value.items()}
    return value


def to_pt(data: dict, dtype=None) -> bytes:
    buffer = io.BytesIO()
    torch.save(to_tensors(data, dtype), buffer)
    return buffer.getvalue()


def to_npz(data: dict, *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    given = {str(key): value for key, value in data.items() if value is not None}
    (np.savez_compressed if packed else np.savez)(buffer, **given)
    return buffer.getvalue()


def to_safetensors(data: dict, dtype=torch.float32) -> bytes:
    tensors = {k: to_tensors(v, dtype) for k, v in data.items() if isinstance(v, np.ndarray)}
    texts = {k: v if isinstance(v, str) else json.dumps(v, default=str) for k, v in data.items()}
    return save_tensors(tensors, {k: v for k, v in texts.items() if k not in tensors})


WRITERS = {".pt": to_pt, ".npz": to_npz, ".safetensors": to_safetensors}


@cache
def seeds() -> dict[str, bytes]:
    """Return the files to start from, by their name."""
    found = {f"{n}{s}": write(d) for n, d in VARIANTS.items() for s, write in WRITERS.items()}
    for name in ("float16", "bfloat16", "float64", "float8_e4m3fn"):
        for suffix in (".pt", ".safetensors"):
            found[f"{name}{suffix}"] = WRITERS[suffix](WHOLE, getattr(torch, name))
    buffer = io.BytesIO()
    torch.save(WHOLE, buffer)  # arrays inside the pickle
    found |= {"numpy.pt": buffer.getvalue(), "packed.npz": to_npz(WHOLE, packed=True)}
    found["float16.npz"] = to_npz(WHOLE | {FULL: VALUES.astype(np.float16)})
    own = block_capture(layer=3, prompt=PROMPT, metadata={"seed": [1, 2]})
    with TemporaryDirectory() as folder:
        for suffix in WRITERS:
            found[f"own{suffix}"] = save_capture(own, f"{folder}/own{suffix}").read_bytes()
    return found
