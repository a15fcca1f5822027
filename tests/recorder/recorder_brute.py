"""Attention as the textbook has it, in float64, to compare the recorder with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch


def all_logits(q: torch.Tensor, k: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Every logit (batch, heads, query tokens, key tokens) of grouped queries, float64."""
    group = q.shape[1] // k.shape[1]
    keys = k.double().repeat_interleave(group, dim=1)
    return q.double() @ keys.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)


def mean_by_frame(
    values: torch.Tensor,
    queries: Sequence[tuple[int, int]],
    keys: Sequence[tuple[int, int]],
    visible: torch.Tensor | None = None,
) -> np.ndarray:
    """Mean of (heads, query tokens, key tokens) over the visible token pairs of frame pairs."""
    result = np.full((values.shape[0], len(queries), len(keys)), np.nan)
    if visible is None:
        visible = torch.ones(values.shape[-2:], dtype=torch.bool)
    for i, (q0, q1) in enumerate(queries):
        for j, (k0, k1) in enumerate(keys):
            seen = visible[..., q0:q1, k0:k1].expand(values.shape[0], -1, -1)
            for head in range(values.shape[0]):
                chosen = values[head, q0:q1, k0:k1][seen[head]]
                if chosen.numel():
                    result[head, i, j] = float(chosen.mean())
    return result


def equal_frames(frames: int, tokens: int) -> list[tuple[int, int]]:
    return [(i * tokens, (i + 1) * tokens) for i in range(frames)]


def causal(rows: int, columns: int, shift: int = 0) -> torch.Tensor:
    return torch.arange(columns)[None] <= torch.arange(rows)[:, None] + shift


def largest_difference(found: Any, expected: np.ndarray) -> float:
    """Largest difference; infinite where NaN do not agree."""
    found = np.asarray(found, dtype=np.float64)
    if found.shape != expected.shape or (np.isnan(found) != np.isnan(expected)).any():
        return float("inf")
    return float(np.nanmax(np.abs(found - expected)))


def assert_exact(captures: Any, expected: Iterable[np.ndarray], tolerance: float = 1e-6) -> None:
    """Fail where a capture's matrix is not the expected one, NaN included."""
    for capture, matrix in zip(captures, expected, strict=True):
        assert largest_difference(capture.full_frame_attention, matrix) < tolerance


def spy(module: Any, name: str) -> Any:
    """Return a context that keeps the arguments of every call of ``module.name``."""
    return mock.patch.object(module, name, wraps=getattr(module, name))
